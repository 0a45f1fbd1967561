//! `config.json`, the typed and checked description of the model: the part that all families share.
//!
//! Each family has a file, or a function in [`llama`] if it differs little from Llama. What a file of the
//! other families holds is either understood, or known to change no logit (`known.rs`), or an error:
//! a field passed over would be a model that computes something else.

mod fields;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod known;
mod llama;
mod parsed;
mod rope;
mod table;

use std::path::Path;

use cerebellum::format::{Architecture, FormatError};

use super::error::{Error, Result};
use crate::json;
use fields::Fields;
pub use parsed::{Derived, Parsed};
pub(super) use rope::check as check_frequencies;
pub use rope::{Base, Scaling};
pub use table::activation_name;
use table::{lookup, names};

/// `model_type` values accepted. JAIS models are built by the same code as BTLM.
pub(super) const MODEL_TYPES: &[(&str, Architecture)] = &[
    ("gpt2", Architecture::Gpt2),
    ("btlm", Architecture::Btlm),
    ("jais", Architecture::Btlm),
    ("llama", Architecture::Llama),
    ("mistral", Architecture::Mistral),
    ("qwen2", Architecture::Qwen2),
    ("qwen3", Architecture::Qwen3),
    ("gemma3_text", Architecture::Gemma3),
    (gemma3::MULTIMODAL, Architecture::Gemma3),
    ("smollm3", Architecture::SmolLm3),
    ("granite", Architecture::Granite),
    ("olmo2", Architecture::Olmo2),
    ("phi3", Architecture::Phi3),
    ("gpt_neox", Architecture::GptNeox),
];

impl Parsed {
    /// Parses and checks the content of a `config.json`. `path` serves the error messages only.
    ///
    /// # Errors
    /// [`Error::Json`] for anything but a JSON object; [`Error::UnsupportedModelType`],
    /// [`Error::UnsupportedActivation`] or [`Error::ConfigField`], naming the field, for its
    /// content.
    pub fn parse(json: &[u8], path: &Path) -> Result<Self> {
        let object =
            json::parse(json).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let fields = Fields::new(path, object);
        let architecture = architecture(&fields)?;
        match architecture {
            Architecture::Gpt2 | Architecture::Btlm => return gpt2::parse(&fields, architecture),
            Architecture::Gemma3 => gemma3::parse(&fields),
            Architecture::GptNeox => gpt_neox::parse(&fields),
            _ => llama::parse(&fields, architecture),
        }
        .and_then(|parsed| match parsed.config.validate() {
            Ok(()) => Ok(parsed),
            Err(FormatError::Config { field, detail }) => Err(fields.error(field, detail)),
            Err(other) => Err(fields.error("config.json", other.to_string())),
        })
    }
}

fn architecture(fields: &Fields) -> Result<Architecture> {
    let found = fields.text("model_type")?.ok_or_else(|| {
        fields.error("model_type", format!("is missing: add one of {}", names(MODEL_TYPES)))
    })?;
    lookup(MODEL_TYPES, &found).ok_or_else(|| Error::UnsupportedModelType {
        path: fields.path().to_owned(),
        field: "model_type",
        found,
        supported: names(MODEL_TYPES),
    })
}
