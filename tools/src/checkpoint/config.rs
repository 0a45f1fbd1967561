//! `config.json`, the typed and checked description of the model.

use std::ops::RangeInclusive;
use std::path::Path;

use cerebellum::format;
use serde_json::Value;

use super::error::{Error, Result};
use crate::json::{self, Object};

/// `model_type` values accepted. JAIS models are built by the same code as BTLM.
const MODEL_TYPES: &[(&str, Architecture)] =
    &[("gpt2", Architecture::Gpt2), ("btlm", Architecture::Btlm), ("jais", Architecture::Btlm)];

/// `position_embedding_type` values accepted.
const POSITIONS: &[(&str, bool)] = &[("learned", false), ("absolute", false), ("alibi", true)];

/// The `activation_function` of a gated MLP: its gate's function is SiLU.
const SWIGLU: &str = "swiglu";

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
/// Limit of a multiplier, to either side of 1.
const MAX_SCALE: f64 = 1e6;

/// The family of a model, from `model_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Architecture {
    /// GPT-2 and Cerebras-GPT: learned positions, layer norm before each half of a block.
    Gpt2,
    /// BTLM and JAIS: GPT-2 with ALiBi, SwiGLU and the multipliers of muP, each of which the
    /// configuration may also leave out. Dey et al., arXiv 2309.11568.
    Btlm,
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

impl Activation {
    /// The name in `config.json`, of several the one most used.
    pub fn name(self) -> &'static str {
        match self {
            Self::GeluErf => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }
}

/// How attention scores depend on the distance between query and key, where no position table is
/// added to the embedding: ALiBi, Press et al., arXiv 2108.12409.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Alibi {
    /// The slopes of the paper, divided by this (1 unless `alibi_scaling` has a `factor`).
    Fixed(f32),
    /// The slopes of the paper, divided by `length / tokens` where a query and the keys before it are
    /// `length` tokens, more than this many. Al-Khateeb et al., arXiv 2310.13017.
    Dynamic(usize),
}

impl Alibi {
    /// What each head's distances are multiplied by, negative, in texts of the length trained on.
    ///
    /// Slopes fall geometrically from head to head; a number of heads that is no power of two takes
    /// those of the power below, then every other one of the power above.
    pub fn slopes(self, n_head: usize) -> Vec<f32> {
        let divisor = match self {
            Self::Fixed(factor) => f64::from(factor),
            Self::Dynamic(_) => 1.0,
        };
        let below = 1 << n_head.ilog2();
        // 2^(-8/n), 2^(-16/n), ...
        let geometric = |n: usize| (1..=n).map(move |i| (-8.0 * i as f64 / n as f64).exp2());
        let slopes = geometric(below).chain(geometric(2 * below).step_by(2)).take(n_head);
        slopes.map(|slope| (slope / -divisor) as f32).collect()
    }

    /// The length beyond which slopes shrink.
    pub fn train_len(self) -> Option<usize> {
        match self {
            Self::Fixed(_) => None,
            Self::Dynamic(length) => Some(length),
        }
    }

    /// What the slopes are multiplied by for a query that sees `keys` keys, its own among them.
    ///
    /// The published model divides by the length of what it is given in one call, so that its logits
    /// for a long prompt depend on how that is cut up. Here each query has the length that it has when
    /// tokens come one at a time.
    pub fn shrink(self, keys: usize) -> f32 {
        match self {
            Self::Dynamic(length) if keys > length => length as f32 / keys as f32,
            _ => 1.0,
        }
    }
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
    /// The longest context; with learned positions, the rows of their table.
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
    /// Whether the MLP is gated: `c_proj(c_fc(x) · activation(c_fc2(x)))` instead of
    /// `c_proj(activation(c_fc(x)))`. Shazeer, arXiv 2002.05202.
    pub gated_mlp: bool,
    /// ALiBi, instead of a table of learned positions.
    pub alibi: Option<Alibi>,
    /// What the embedding, with its learned position if there is one, is multiplied by: 1 but in
    /// models trained with muP. Yang et al., arXiv 2203.03466.
    pub embeddings_scale: f32,
    /// What logits are multiplied by (muP's output multiplier and its width multiplier).
    pub logits_scale: f32,
    /// Added to the variance inside the square root of every layer norm.
    pub layer_norm_epsilon: f32,
    /// Whether attention scores are divided by the square root of the head size,
    pub scale_attn_weights: bool,
    /// or rather by the head size itself, as muP has it.
    pub scale_qk_dot_by_d: bool,
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
    /// The same in the terms of a model file, in which embedding and head are one matrix or not.
    pub fn for_file(&self, tied: bool) -> format::Config {
        format::Config {
            architecture: match self.architecture {
                Architecture::Gpt2 => format::Architecture::Gpt2,
                Architecture::Btlm => format::Architecture::Btlm,
            },
            vocab_size: self.vocab_size,
            n_positions: self.n_positions,
            n_embd: self.n_embd,
            n_head: self.n_head,
            n_layer: self.n_layer,
            n_inner: self.n_inner,
            activation: match self.activation {
                Activation::GeluErf => format::Activation::Gelu,
                Activation::GeluTanh => format::Activation::GeluTanh,
                Activation::Relu => format::Activation::Relu,
                Activation::Silu => format::Activation::Silu,
            },
            layer_norm_epsilon: self.layer_norm_epsilon,
            scale_attn_weights: self.scale_attn_weights,
            scale_attn_by_inverse_layer_idx: self.scale_attn_by_inverse_layer_idx,
            tie_word_embeddings: tied,
            eos_token_id: self.eos_token_id,
            alibi: self.alibi.is_some(),
            alibi_train_len: self.alibi.and_then(Alibi::train_len),
            gated_mlp: self.gated_mlp,
            embeddings_scale: self.embeddings_scale,
            logits_scale: self.logits_scale,
            scale_qk_dot_by_d: self.scale_qk_dot_by_d,
        }
    }

    /// Parses and checks the content of a `config.json`. `path` serves the error messages only.
    ///
    /// # Errors
    /// [`Error::Json`] for anything but a JSON object; [`Error::UnsupportedModelType`],
    /// [`Error::UnsupportedActivation`] or [`Error::ConfigField`], naming the field, for its
    /// content.
    pub fn parse(json: &[u8], path: &Path) -> Result<Self> {
        let object =
            json::parse(json).map_err(|source| Error::Json { path: path.to_owned(), source })?;
        let fields = Fields { path, object };
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
            gated_mlp: fields.is_gated()?,
            alibi: fields.alibi()?,
            embeddings_scale: fields.scale(["mup_embeddings_scale", "embeddings_scale"])? as f32,
            logits_scale: (fields.scale(["mup_output_alpha", "output_alpha"])?
                * fields.scale(["mup_width_scale", "width_scale"])?)
                as f32,
            scale_qk_dot_by_d: fields.scale_qk_dot_by_d()?,
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

    /// What the model needs beyond GPT-2, by the fields of `config.json` that say so.
    pub fn beyond_gpt2(&self) -> Vec<&'static str> {
        let needs = [
            ("position_embedding_type", self.alibi.is_some()),
            ("activation_function", self.gated_mlp),
            ("mup_embeddings_scale", self.embeddings_scale != 1.0),
            ("mup_output_alpha · mup_width_scale", self.logits_scale != 1.0),
            ("mup_scale_qk_dot_by_d", self.scale_qk_dot_by_d),
        ];
        needs.into_iter().filter(|(_, needed)| *needed).map(|(field, _)| field).collect()
    }

    /// What layer `layer`'s attention scores are multiplied by, before the softmax.
    pub fn attention_scale(&self, layer: usize) -> f32 {
        let mut scale = 1.0;
        if self.scale_attn_weights {
            let power = if self.scale_qk_dot_by_d { 1.0 } else { 0.5 };
            scale /= (self.head_dim() as f64).powf(power);
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
    object: Object<'a>,
}

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<Value> {
        self.object.value(field)
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

    fn text(&self, field: &'static str) -> Result<Option<String>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.error(field, format!("is {value}, but must be a string"))),
        }
    }

    fn token(&self, field: &'static str, vocab_size: usize) -> Result<Option<u32>> {
        Ok(self.optional_count(field, 0..=vocab_size - 1)?.map(|id| id as u32))
    }

    fn architecture(&self) -> Result<Architecture> {
        let found = self.text("model_type")?.ok_or_else(|| {
            self.error("model_type", format!("is missing: add one of {}", names(MODEL_TYPES)))
        })?;
        lookup(MODEL_TYPES, &found).ok_or_else(|| Error::UnsupportedModelType {
            path: self.path.to_owned(),
            field: "model_type",
            found,
            supported: names(MODEL_TYPES),
        })
    }

    fn activation(&self) -> Result<Activation> {
        let Some(found) = self.text("activation_function")? else {
            return Ok(Activation::GeluTanh);
        };
        if found == SWIGLU {
            return Ok(Activation::Silu);
        }
        lookup(ACTIVATIONS, &found).ok_or_else(|| Error::UnsupportedActivation {
            path: self.path.to_owned(),
            found,
            supported: format!("{}, {SWIGLU}", names(ACTIVATIONS)),
        })
    }

    fn is_gated(&self) -> Result<bool> {
        Ok(self.text("activation_function")?.as_deref() == Some(SWIGLU))
    }

    /// A multiplier of muP, under the name BTLM or JAIS gives it; 1 when the file does not say.
    fn scale(&self, aliases: [&'static str; 2]) -> Result<f64> {
        let found = aliases.into_iter().find_map(|field| Some((field, self.get(field)?)));
        let Some((field, value)) = found else { return Ok(1.0) };
        self.positive(field, &value, 1.0 / MAX_SCALE..=MAX_SCALE)
    }

    fn positive(
        &self,
        field: &'static str,
        value: &Value,
        allowed: RangeInclusive<f64>,
    ) -> Result<f64> {
        value.as_f64().filter(|number| allowed.contains(number)).ok_or_else(|| {
            let (low, high) = (allowed.start(), allowed.end());
            self.error(field, format!("is {value}, but must be a number in {low}..={high}"))
        })
    }

    fn scale_qk_dot_by_d(&self) -> Result<bool> {
        let flag = self.flag("mup_scale_qk_dot_by_d")?;
        Ok(flag.or(self.flag("scale_qk_dot_by_d")?).unwrap_or(false))
    }

    /// The position embedding, with the scaling that extends its reach.
    fn alibi(&self) -> Result<Option<Alibi>> {
        const FIELD: &str = "alibi_scaling";
        let kind = self.text("position_embedding_type")?.unwrap_or("learned".to_owned());
        let supported = || format!("is {kind:?}, but must be one of {}", names(POSITIONS));
        match lookup(POSITIONS, &kind) {
            Some(true) => {}
            Some(false) => return Ok(None),
            None => return Err(self.error("position_embedding_type", supported())),
        }
        let Some(scaling) = self.get(FIELD) else { return Ok(Some(Alibi::Fixed(1.0))) };
        let part = |key| scaling.get(key).filter(|value| !value.is_null());
        if part("type").is_some_and(|kind| kind != "linear") {
            return Err(self.error(FIELD, format!("is {scaling}, but only \"linear\" is known")));
        }
        match (part("factor"), part("train_seq_len").map(Value::as_u64)) {
            (Some(factor), _) => {
                let factor = self.positive(FIELD, factor, 1.0 / MAX_SCALE..=MAX_SCALE)?;
                Ok(Some(Alibi::Fixed(factor as f32)))
            }
            (None, Some(Some(length))) if (1..=MAX_POSITIONS as u64).contains(&length) => {
                Ok(Some(Alibi::Dynamic(length as usize)))
            }
            _ => {
                let problem = format!("is {scaling}, but needs a `factor` or a `train_seq_len`");
                Err(self.error(FIELD, problem))
            }
        }
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
    fn mup_keys_have_two_spellings_and_default_to_nothing() {
        let plain = parse(&with("")).unwrap();
        assert_eq!((plain.embeddings_scale, plain.logits_scale), (1.0, 1.0));
        assert!(!plain.scale_qk_dot_by_d);

        let btlm = r#","mup_embeddings_scale":14.6,"mup_output_alpha":2.22,"mup_width_scale":0.1,
            "mup_scale_qk_dot_by_d":true"#;
        let jais = r#","embeddings_scale":14.6,"output_alpha":2.22,"width_scale":0.1,
            "scale_qk_dot_by_d":true"#;
        for keys in [btlm, jais] {
            let config = parse(&with(keys)).unwrap();
            assert_eq!((config.embeddings_scale, config.logits_scale), (14.6, 0.222));
            assert_eq!(config.attention_scale(0), 0.25); // a head of 4
        }
    }

    #[test]
    fn alibi_takes_its_scaling_from_the_file() {
        let alibi = |more: &str| {
            let more = format!(r#","position_embedding_type":"alibi"{more}"#);
            parse(&with(&more)).unwrap().alibi
        };
        assert_eq!(alibi(""), Some(Alibi::Fixed(1.0)));
        let fixed = r#","alibi_scaling":{"type":"linear","factor":4.0}"#;
        assert_eq!(alibi(fixed), Some(Alibi::Fixed(4.0)));
        let dynamic = r#","alibi_scaling":{"type":"linear","train_seq_len":8192}"#;
        assert_eq!(alibi(dynamic), Some(Alibi::Dynamic(8192)));
        assert_eq!(parse(&with(r#","position_embedding_type":"learned""#)).unwrap().alibi, None);
    }

    /// Values of `get_slopes` in the paper's repository, ofirpress/attention_with_linear_biases.
    #[test]
    fn slopes_are_the_papers() {
        let eight: Vec<f32> = (1..=8).map(|i| -0.5f32.powi(i)).collect();
        assert_eq!(Alibi::Fixed(1.0).slopes(8), eight);
        let six = [-0.25, -0.0625, -0.015625, -0.00390625, -0.5, -0.125];
        assert_eq!(Alibi::Fixed(1.0).slopes(6), six);
        assert_eq!(Alibi::Fixed(1.0).slopes(1), [-0.00390625]);
        assert_eq!(Alibi::Fixed(4.0).slopes(1), [-0.0009765625]);
        assert_eq!(Alibi::Dynamic(50).slopes(1), [-0.00390625]);
        assert_eq!(
            [50, 51, 100].map(|keys| Alibi::Dynamic(50).shrink(keys)),
            [1.0, 50.0 / 51.0, 0.5]
        );
        assert_eq!(Alibi::Fixed(4.0).shrink(100), 1.0);
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
            ("mup_embeddings_scale", "0"),
            ("embeddings_scale", "-1"),
            ("mup_output_alpha", "\"1\""),
            ("width_scale", "1e300"),
            ("mup_scale_qk_dot_by_d", "1"),
            ("position_embedding_type", "\"rotary\""),
        ];
        let alibi = r#"0,"position_embedding_type":"alibi""#;
        let scalings =
            ["3", "{}", r#"{"factor":0}"#, r#"{"train_seq_len":0}"#, r#"{"type":"ntk"}"#];
        for scaling in scalings {
            let error = parse(&with(&format!(r#","pad":{alibi},"alibi_scaling":{scaling}"#)));
            assert!(error.unwrap_err().to_string().contains("`alibi_scaling` is"), "{scaling}");
        }
        for (field, value) in cases {
            let error = parse(&with(&format!(r#","{field}":{value}"#))).unwrap_err().to_string();
            let named = error.starts_with("config.json") && error.contains(&format!("`{field}`"));
            assert!(named, "{field} = {value}: {error}");
        }
    }

    #[test]
    fn each_missing_field_is_named() {
        let whole: serde_json::Map<String, Value> = serde_json::from_str(&with("")).unwrap();
        for field in whole.keys() {
            let mut map = whole.clone();
            map.remove(field);
            let error = parse(&serde_json::to_string(&map).unwrap()).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}` is missing")), "{field}: {error}");
        }
    }
}
