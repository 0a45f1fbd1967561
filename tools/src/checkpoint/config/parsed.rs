//! What every family's configuration is parsed to.

use cerebellum::format::Config;

use super::rope::Base;

/// What a checkpoint's configuration says of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// Shape and choices. Whether embedding and head are one matrix is not settled yet.
    pub config: Config,
    /// Whether embedding and head are one matrix; `None` when the file does not say.
    pub tied: Option<bool>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The tensors that follow from the configuration.
    pub derived: Derived,
    /// What the inverse frequencies follow from, by base.
    pub bases: Vec<Base>,
}

/// Tensors of a model file that no checkpoint has, since they follow from its configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Derived {
    /// ALiBi's slopes `[H]`; empty without ALiBi.
    pub slopes: Vec<f32>,
    /// Inverse frequencies of rotated positions `[bases, pairs]`; empty where none are rotated.
    pub frequencies: Vec<f64>,
}
