//! `config.json`, the typed and checked description of the model.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::{Error, Result};

/// `model_type` values accepted.
const MODEL_TYPES: &[(&str, Architecture)] = &[("gpt2", Architecture::Gpt2)];

/// `activation_function` values accepted. Three of Hugging Face's names are the same tanh form,
/// written differently.
const ACTIVATIONS: &[(&str, Activation)] = &[
    ("gelu", Activation::GeluErf),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
];

// Generous next to any real model, and small enough that no product of two of them overflows.
const MAX_VOCAB: usize = 1 << 24;
const MAX_POSITIONS: usize = 1 << 24;
const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 1 << 12;

/// The family of a model, from `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// GPT-2 and Cerebras-GPT: learned positions, layer norm before each half of a block.
    Gpt2,
}

/// The function between the two matrices of a block's MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// Exact GELU, `x · Φ(x)`, with Φ by erf (Cerebras-GPT).
    GeluErf,
    /// GELU by its tanh approximation (OpenAI's GPT-2). Hendrycks and Gimpel, arXiv 1606.08415.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
}

/// What `config.json` says about a model of the GPT-2 family.
///
/// Every count is positive and bounded, and `n_embd` is a multiple of `n_head`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Rows of the position table: the longest context.
    pub n_positions: usize,
    /// The width of the residual stream.
    pub n_embd: usize,
    /// Attention heads in each layer.
    pub n_head: usize,
    /// Layers.
    pub n_layer: usize,
    /// The inner width of the MLP; four times `n_embd` when the file does not say.
    pub n_inner: usize,
    /// The MLP's function; the tanh GELU when the file does not say, as in transformers.
    pub activation: Activation,
    /// Added to the variance inside the square root of every layer norm.
    pub layer_norm_epsilon: f32,
    /// Whether attention scores are divided by the square root of the head size.
    pub scale_attn_weights: bool,
    /// Whether layer `i`'s attention scores are also divided by `i + 1`.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether embedding and head are one matrix; `None` when the file does not say.
    /// [`Checkpoint::is_tied`](super::Checkpoint::is_tied) gives the answer either way.
    pub tie_word_embeddings: Option<bool>,
    /// The token that begins a text.
    pub bos_token_id: Option<u32>,
    /// The token that ends a text.
    pub eos_token_id: Option<u32>,
}

impl Config {
    /// Parses and checks the content of a `config.json`. `path` serves the error messages only.
    ///
    /// # Errors
    /// [`Error::Json`] for anything but a JSON object; [`Error::UnsupportedModelType`],
    /// [`Error::UnsupportedActivation`] or [`Error::ConfigField`], naming the field, for its
    /// content.
    pub fn parse(json: &[u8], path: &Path) -> Result<Self> {
        let map = serde_json::from_slice(json)
            .map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let fields = Fields { path, map };
        let architecture = fields.architecture()?;
        fields.reject_cross_attention()?;

        let n_embd = fields.count("n_embd", 1..=MAX_WIDTH)?;
        let vocab_size = fields.count("vocab_size", 1..=MAX_VOCAB)?;
        Ok(Self {
            architecture,
            vocab_size,
            n_positions: fields.positions()?,
            n_embd,
            n_head: fields.heads(n_embd)?,
            n_layer: fields.count("n_layer", 1..=MAX_LAYERS)?,
            n_inner: fields.optional_count("n_inner", 1..=4 * MAX_WIDTH)?.unwrap_or(4 * n_embd),
            activation: fields.activation()?,
            layer_norm_epsilon: fields.epsilon()?,
            scale_attn_weights: fields.flag("scale_attn_weights")?.unwrap_or(true),
            scale_attn_by_inverse_layer_idx: fields
                .flag("scale_attn_by_inverse_layer_idx")?
                .unwrap_or(false),
            tie_word_embeddings: fields.flag("tie_word_embeddings")?,
            bos_token_id: fields.token("bos_token_id", vocab_size)?,
            eos_token_id: fields.token("eos_token_id", vocab_size)?,
        })
    }

    /// The size of one attention head, `n_embd / n_head`.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// What layer `layer`'s attention scores are multiplied by, before the softmax.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= (self.head_dim() as f64).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f64;
        }
        scale as f32
    }
}

/// The file's fields, with errors that say which one is wrong. `null` counts as missing.
struct Fields<'a> {
    path: &'a Path,
    map: Map<String, Value>,
}

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn error(&self, field: &'static str, problem: impl Into<String>) -> Error {
        Error::ConfigField { path: self.path.to_owned(), field, problem: problem.into() }
    }

    fn optional_count(
        &self,
        field: &'static str,
        allowed: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| allowed.contains(count)) {
            Some(count) => Ok(Some(count)),
            None => {
                let (low, high) = (allowed.start(), allowed.end());
                let problem = format!("is {value}, but must be a whole number in {low}..={high}");
                Err(self.error(field, problem))
            }
        }
    }

    fn count(&self, field: &'static str, allowed: RangeInclusive<usize>) -> Result<usize> {
        self.optional_count(field, allowed)?.ok_or_else(|| {
            self.error(field, "is missing: take config.json from the original model")
        })
    }

    fn flag(&self, field: &'static str) -> Result<Option<bool>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let problem = || self.error(field, format!("is {value}, but must be true or false"));
        value.as_bool().map(Some).ok_or_else(problem)
    }

    fn text(&self, field: &'static str) -> Result<Option<&str>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let problem = || self.error(field, format!("is {value}, but must be a string"));
        value.as_str().map(Some).ok_or_else(problem)
    }

    fn token(&self, field: &'static str, vocab_size: usize) -> Result<Option<u32>> {
        Ok(self.optional_count(field, 0..=vocab_size - 1)?.map(|id| id as u32))
    }

    fn architecture(&self) -> Result<Architecture> {
        let found = self.text("model_type")?.ok_or_else(|| {
            self.error("model_type", format!("is missing: add one of {}", names(MODEL_TYPES)))
        })?;
        lookup(MODEL_TYPES, found).ok_or_else(|| Error::UnsupportedModelType {
            path: self.path.to_owned(),
            found: found.to_owned(),
            supported: names(MODEL_TYPES),
        })
    }

    fn activation(&self) -> Result<Activation> {
        let Some(found) = self.text("activation_function")? else {
            return Ok(Activation::GeluTanh);
        };
        lookup(ACTIVATIONS, found).ok_or_else(|| Error::UnsupportedActivation {
            path: self.path.to_owned(),
            found: found.to_owned(),
            supported: names(ACTIVATIONS),
        })
    }

    /// `n_positions`, or the older `n_ctx` where only that is given.
    fn positions(&self) -> Result<usize> {
        let n_ctx = self.optional_count("n_ctx", 1..=MAX_POSITIONS)?;
        match (self.optional_count("n_positions", 1..=MAX_POSITIONS)?, n_ctx) {
            (Some(positions), _) | (None, Some(positions)) => Ok(positions),
            (None, None) => self.count("n_positions", 1..=MAX_POSITIONS),
        }
    }

    fn heads(&self, n_embd: usize) -> Result<usize> {
        let n_head = self.count("n_head", 1..=MAX_WIDTH)?;
        if n_embd.is_multiple_of(n_head) {
            return Ok(n_head);
        }
        Err(self.error("n_head", format!("is {n_head}, but must divide `n_embd` = {n_embd}")))
    }

    fn epsilon(&self) -> Result<f32> {
        let Some(value) = self.get("layer_norm_epsilon") else { return Ok(1e-5) };
        let epsilon = value.as_f64().map(|epsilon| epsilon as f32);
        epsilon.filter(|epsilon| (f32::MIN_POSITIVE..1.0).contains(epsilon)).ok_or_else(|| {
            let problem = format!("is {value}, but must be a number above 0 and below 1");
            self.error("layer_norm_epsilon", problem)
        })
    }

    /// A decoder that attends to an encoder's output is another model.
    fn reject_cross_attention(&self) -> Result<()> {
        match self.flag("add_cross_attention")? {
            Some(true) => Err(self.error("add_cross_attention", "is true, which is not supported")),
            _ => Ok(()),
        }
    }
}

fn lookup<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn names<T>(table: &[(&str, T)]) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Config> {
        Config::parse(json.as_bytes(), Path::new("config.json"))
    }

    /// A minimal configuration with `more` fields (which may override, JSON's last one counting).
    fn with(more: &str) -> String {
        format!(
            r#"{{"model_type":"gpt2","vocab_size":7,"n_positions":5,"n_embd":12,"n_head":3,"n_layer":2{more}}}"#
        )
    }

    #[test]
    fn missing_fields_take_the_defaults_of_transformers() {
        let config = parse(&with("")).unwrap();
        assert_eq!(config.n_inner, 48);
        assert_eq!(config.activation, Activation::GeluTanh);
        assert_eq!(config.layer_norm_epsilon, 1e-5);
        assert!(config.scale_attn_weights && !config.scale_attn_by_inverse_layer_idx);
        assert_eq!((config.tie_word_embeddings, config.eos_token_id), (None, None));
    }

    #[test]
    fn null_counts_as_missing() {
        let nulls = r#","n_inner":null,"activation_function":null,"eos_token_id":null"#;
        assert_eq!(parse(&with(nulls)).unwrap(), parse(&with("")).unwrap());
    }

    #[test]
    fn every_activation_name_maps_to_its_form() {
        for (name, activation) in ACTIVATIONS {
            let config = parse(&with(&format!(r#","activation_function":"{name}""#))).unwrap();
            assert_eq!(config.activation, *activation, "{name}");
        }
    }

    #[test]
    fn n_ctx_stands_in_for_n_positions_and_yields_to_it() {
        assert_eq!(parse(&with(r#","n_ctx":9"#)).unwrap().n_positions, 5);
        let only = with(r#","n_ctx":9"#).replace(r#""n_positions":5,"#, "");
        assert_eq!(parse(&only).unwrap().n_positions, 9);
    }

    #[test]
    fn attention_scale_follows_both_flags() {
        let flags = |scaled, inverse| {
            let more = format!(
                r#","scale_attn_weights":{scaled},"scale_attn_by_inverse_layer_idx":{inverse}"#
            );
            parse(&with(&more)).unwrap().attention_scale(2)
        };
        assert_eq!(flags(true, false), 0.5);
        assert_eq!(flags(false, true), 1.0 / 3.0);
        assert_eq!(flags(true, true), 1.0 / 6.0);
        assert_eq!(flags(false, false), 1.0);
    }

    #[test]
    fn each_bad_field_is_named() {
        let cases = [
            ("n_embd", "0"),
            ("n_embd", "-12"),
            ("n_embd", "12.5"),
            ("n_embd", "\"12\""),
            ("n_embd", "1e30"),
            ("vocab_size", "0"),
            ("vocab_size", "18446744073709551615"),
            ("n_positions", "0"),
            ("n_ctx", "-1"),
            ("n_head", "0"),
            ("n_head", "5"),
            ("n_layer", "0"),
            ("n_layer", "1000000"),
            ("n_inner", "0"),
            ("layer_norm_epsilon", "0"),
            ("layer_norm_epsilon", "1e-60"),
            ("layer_norm_epsilon", "\"small\""),
            ("scale_attn_weights", "1"),
            ("tie_word_embeddings", "\"yes\""),
            ("eos_token_id", "7"),
            ("bos_token_id", "[0]"),
            ("add_cross_attention", "true"),
            ("activation_function", "3"),
        ];
        for (field, value) in cases {
            let error = parse(&with(&format!(r#","{field}":{value}"#))).unwrap_err().to_string();
            let named = error.starts_with("config.json") && error.contains(&format!("`{field}`"));
            assert!(named, "{field} = {value}: {error}");
        }
    }

    #[test]
    fn each_missing_field_is_named() {
        let whole: Map<String, Value> = serde_json::from_str(&with("")).unwrap();
        for field in whole.keys() {
            let mut map = whole.clone();
            map.remove(field);
            let error = parse(&serde_json::to_string(&map).unwrap()).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}` is missing")), "{field}: {error}");
        }
    }
}
