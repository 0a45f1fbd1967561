//! GPT-NeoX (Pythia): layer norms, a part of each head rotated, attention and MLP side by side.

use cerebellum::format::{
    Activation, Architecture, Biases, LayerKind, MlpKind, NormKind, ResidualOrder,
};

use super::fields::Fields;
use super::llama::{self, Defaults};
use super::parsed::Parsed;
use super::rope::{self, Usual};
use crate::checkpoint::error::Result;

const DEFAULTS: Defaults = Defaults { epsilon: 1e-5, activation: Activation::Gelu, ..llama::LLAMA };

/// Reads the configuration.
pub(super) fn parse(fields: &Fields) -> Result<Parsed> {
    let mut config = llama::base(fields, Architecture::GptNeox, &DEFAULTS)?;
    if config.attention.kv_heads != config.attention.heads {
        let problem = "is not `num_attention_heads`, but this family has a key for each query";
        return Err(fields.error("num_key_value_heads", problem));
    }
    config.norm.kind = NormKind::Layer;
    config.norm.epsilon = fields.epsilon("layer_norm_eps")?.unwrap_or(DEFAULTS.epsilon);
    config.mlp.kind = MlpKind::Plain;
    config.mlp.biases = true;
    let biased = fields.flag("attention_bias")?.unwrap_or(true);
    config.attention.biases = if biased { Biases::Both } else { Biases::None };
    if fields.flag("use_parallel_residual")?.unwrap_or(true) {
        config.residual.order = ResidualOrder::Parallel;
    }
    let usual = Usual {
        theta: DEFAULTS.theta,
        older_theta: "rotary_emb_base",
        positions: config.n_positions,
        head_size: config.attention.head_size,
        part: Some(("rotary_pct", 0.25)),
    };
    let rope = rope::read(fields, &usual)?;
    let kinds = vec![LayerKind { window: None, base: Some(0) }; config.n_layer];
    llama::set_kinds(&mut config, &kinds);
    llama::finish(fields, config, vec![rope])
}
