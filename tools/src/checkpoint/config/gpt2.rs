//! GPT-2, and BTLM and JAIS, which are GPT-2 with ALiBi, a gated MLP and multipliers.
//!
//! Fields that are not known are passed over, as they always were for this family.

use cerebellum::format::{Activation, Architecture, Config, Mlp, MlpKind, Positions};
use serde_json::Value;

use super::fields::{Fields, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH, SCALES};
use super::parsed::{Derived, Parsed};
use super::table::{ACTIVATIONS, lookup, names};
use crate::checkpoint::error::{Error, Result};

/// `position_embedding_type` values accepted.
const POSITIONS: &[(&str, bool)] = &[("learned", false), ("absolute", false), ("alibi", true)];

/// The `activation_function` of a gated MLP: its gate's function is SiLU.
const SWIGLU: &str = "swiglu";

/// Reads the configuration of a GPT-2 or BTLM.
pub(super) fn parse(fields: &Fields, architecture: Architecture) -> Result<Parsed> {
    fields.reject_cross_attention()?;

    let n_embd = fields.count("n_embd", 1..=MAX_WIDTH)?;
    let vocab_size = fields.count("vocab_size", 1..=MAX_VOCAB)?;
    let (positions, n_head) = (fields.positions()?, fields.heads(n_embd)?);
    let n_layer = fields.count("n_layer", 1..=MAX_LAYERS)?;
    let mut config = Config::gpt2(vocab_size, positions, n_embd, n_head, n_layer);
    config.architecture = architecture;
    config.mlp = Mlp {
        kind: fields.mlp_kind()?,
        inner: fields.optional_count("n_inner", 1..=4 * MAX_WIDTH)?.unwrap_or(4 * n_embd),
        activation: fields.activation()?,
        biases: true,
    };
    let (positions, slopes) = fields.alibi(n_head)?;
    config.positions = positions;
    config.embeddings_scale = fields.scale(["mup_embeddings_scale", "embeddings_scale"])? as f32;
    config.logits_scale = (fields.scale(["mup_output_alpha", "output_alpha"])?
        * fields.scale(["mup_width_scale", "width_scale"])?) as f32;
    config.norm.epsilon = fields.epsilon("layer_norm_epsilon")?.unwrap_or(1e-5);
    config.attention.scale = fields.attention_scale(config.attention.head_size)?;
    config.attention.scale_by_layer =
        fields.flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false);
    config.eos_token_id = fields.token("eos_token_id", vocab_size)?;
    Ok(Parsed {
        config,
        tied: fields.flag("tie_word_embeddings")?,
        bos_token_id: fields.token("bos_token_id", vocab_size)?,
        derived: Derived { slopes, frequencies: Vec::new() },
        bases: Vec::new(),
    })
}

/// ALiBi's slopes (Press et al., arXiv 2108.12409), over `divisor`: what each head's distances are multiplied
/// by, negative.
///
/// Slopes fall geometrically from head to head; a number of heads that is no power of two takes
/// those of the power below, then every other one of the power above.
fn alibi_slopes(heads: usize, divisor: f64) -> Vec<f32> {
    let below = 1 << heads.ilog2();
    // 2^(-8/n), 2^(-16/n), ...
    let geometric = |n: usize| (1..=n).map(move |i| (-8.0 * i as f64 / n as f64).exp2());
    let slopes = geometric(below).chain(geometric(2 * below).step_by(2)).take(heads);
    slopes.map(|slope| (slope / -divisor) as f32).collect()
}

impl Fields<'_> {
    fn activation(&self) -> Result<Activation> {
        let Some(found) = self.text("activation_function")? else {
            return Ok(Activation::GeluTanh);
        };
        if found == SWIGLU {
            return Ok(Activation::Silu);
        }
        lookup(ACTIVATIONS, &found).ok_or_else(|| Error::UnsupportedActivation {
            path: self.path().to_owned(),
            found,
            field: "activation_function",
            supported: format!("{}, {SWIGLU}", names(ACTIVATIONS)),
        })
    }

    fn mlp_kind(&self) -> Result<MlpKind> {
        let is_gated = self.text("activation_function")?.as_deref() == Some(SWIGLU);
        Ok(if is_gated { MlpKind::Gated } else { MlpKind::Plain })
    }

    /// A multiplier of muP, under the name BTLM or JAIS gives it; 1 when the file does not say.
    fn scale(&self, aliases: [&'static str; 2]) -> Result<f64> {
        let found = aliases.into_iter().find_map(|field| Some((field, self.get(field)?)));
        let Some((field, value)) = found else { return Ok(1.0) };
        self.in_range(field, &value, SCALES)
    }

    /// What scores are multiplied by: one over the square root of the head size, or as muP has it over the
    /// head size itself, or nothing.
    fn attention_scale(&self, head_size: usize) -> Result<f32> {
        let flag = self.flag("mup_scale_qk_dot_by_d")?;
        let by_size = flag.or(self.flag("scale_qk_dot_by_d")?).unwrap_or(false);
        let size = head_size as f32;
        Ok(match self.flag("scale_attn_weights")?.unwrap_or(true) {
            false => 1.0,
            true => 1.0 / if by_size { size } else { size.sqrt() },
        })
    }

    /// The position embedding, with the scaling that extends its reach: of ALiBi, slopes that are divided by
    /// `factor`, or by `length / train_seq_len` where a query and the keys before it are `length` tokens
    /// (Al-Khateeb et al., arXiv 2310.13017).
    ///
    /// The published model divides by the length of what it is given in one call, so that its logits
    /// for a long prompt depend on how that is cut up. Here each query has the length that it has when
    /// tokens come one at a time.
    fn alibi(&self, heads: usize) -> Result<(Positions, Vec<f32>)> {
        const FIELD: &str = "alibi_scaling";
        let kind = self.text("position_embedding_type")?.unwrap_or("learned".to_owned());
        let supported = || format!("is {kind:?}, but must be one of {}", names(POSITIONS));
        match lookup(POSITIONS, &kind) {
            Some(true) => {}
            Some(false) => return Ok((Positions::Learned, Vec::new())),
            None => return Err(self.error("position_embedding_type", supported())),
        }
        let alibi = |factor, train_len| {
            (Positions::Alibi { train_len }, alibi_slopes(heads, f64::from(factor)))
        };
        let Some(scaling) = self.get(FIELD) else { return Ok(alibi(1.0, None)) };
        let part = |key| scaling.get(key).filter(|value| !value.is_null());
        if part("type").is_some_and(|kind| kind != "linear") {
            return Err(self.error(FIELD, format!("is {scaling}, but only \"linear\" is known")));
        }
        match (part("factor"), part("train_seq_len").map(Value::as_u64)) {
            (Some(factor), _) => {
                let factor = self.in_range(FIELD, factor, SCALES)?;
                Ok(alibi(factor as f32, None))
            }
            (None, Some(Some(length))) if (1..=MAX_POSITIONS as u64).contains(&length) => {
                Ok(alibi(1.0, Some(length as usize)))
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

    /// A decoder that attends to an encoder's output is another model.
    fn reject_cross_attention(&self) -> Result<()> {
        match self.flag("add_cross_attention")? {
            Some(true) => Err(self.error("add_cross_attention", "is true, which is not supported")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(json: &str) -> Result<Parsed> {
        Parsed::parse(json.as_bytes(), Path::new("config.json"))
    }

    /// A minimal configuration with `more` fields (which may override, JSON's last one counting).
    fn with(more: &str) -> String {
        format!(
            r#"{{"model_type":"gpt2","vocab_size":7,"n_positions":5,"n_embd":12,"n_head":3,"n_layer":2{more}}}"#
        )
    }

    #[test]
    fn missing_fields_take_the_defaults_of_transformers() {
        let Parsed { config, tied, .. } = parse(&with("")).unwrap();
        assert_eq!(config.mlp.inner, 48);
        assert_eq!(config.mlp.activation, Activation::GeluTanh);
        assert_eq!(config.norm.epsilon, 1e-5);
        assert!(config.attention.scale == 0.5 && !config.attention.scale_by_layer);
        assert_eq!((tied, config.eos_token_id), (None, None));
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
            assert_eq!(config.config.mlp.activation, *activation, "{name}");
        }
    }

    #[test]
    fn n_ctx_stands_in_for_n_positions_and_yields_to_it() {
        assert_eq!(parse(&with(r#","n_ctx":9"#)).unwrap().config.n_positions, 5);
        let only = with(r#","n_ctx":9"#).replace(r#""n_positions":5,"#, "");
        assert_eq!(parse(&only).unwrap().config.n_positions, 9);
    }

    #[test]
    fn attention_scale_follows_both_flags() {
        let flags = |scaled, inverse| {
            let more = format!(
                r#","scale_attn_weights":{scaled},"scale_attn_by_inverse_layer_idx":{inverse}"#
            );
            let attention = parse(&with(&more)).unwrap().config.attention;
            (attention.scale, attention.scale_by_layer)
        };
        assert_eq!(flags(true, false), (0.5, false));
        assert_eq!(flags(false, true), (1.0, true));
    }

    #[test]
    fn mup_keys_have_two_spellings_and_default_to_nothing() {
        let plain = parse(&with("")).unwrap().config;
        assert_eq!((plain.embeddings_scale, plain.logits_scale), (1.0, 1.0));

        let btlm = r#","mup_embeddings_scale":14.6,"mup_output_alpha":2.22,"mup_width_scale":0.1,
            "mup_scale_qk_dot_by_d":true"#;
        let jais = r#","embeddings_scale":14.6,"output_alpha":2.22,"width_scale":0.1,
            "scale_qk_dot_by_d":true"#;
        for keys in [btlm, jais] {
            let config = parse(&with(keys)).unwrap().config;
            assert_eq!((config.embeddings_scale, config.logits_scale), (14.6, 0.222));
            assert_eq!(config.attention.scale, 0.25); // a head of 4
        }
    }

    #[test]
    fn alibi_takes_its_scaling_from_the_file() {
        let alibi = |more: &str| {
            let more = format!(r#","position_embedding_type":"alibi"{more}"#);
            let parsed = parse(&with(&more)).unwrap();
            (parsed.config.positions, parsed.derived.slopes)
        };
        let slopes = alibi_slopes(3, 1.0);
        let none = Positions::Alibi { train_len: None };
        assert_eq!(alibi(""), (none.clone(), slopes.clone()));
        let fixed = r#","alibi_scaling":{"type":"linear","factor":4.0}"#;
        assert_eq!(alibi(fixed), (none, alibi_slopes(3, 4.0)));
        let dynamic = r#","alibi_scaling":{"type":"linear","train_seq_len":8192}"#;
        assert_eq!(alibi(dynamic), (Positions::Alibi { train_len: Some(8192) }, slopes));
        let learned = parse(&with(r#","position_embedding_type":"learned""#)).unwrap();
        assert_eq!(
            (learned.config.positions, learned.derived),
            (Positions::Learned, Derived::default())
        );
    }

    /// Values of `get_slopes` in the paper's repository, ofirpress/attention_with_linear_biases.
    #[test]
    fn slopes_are_the_papers() {
        let eight: Vec<f32> = (1..=8).map(|i| -0.5f32.powi(i)).collect();
        assert_eq!(alibi_slopes(8, 1.0), eight);
        let six = [-0.25, -0.0625, -0.015625, -0.00390625, -0.5, -0.125];
        assert_eq!(alibi_slopes(6, 1.0), six);
        assert_eq!(alibi_slopes(1, 1.0), [-0.00390625]);
        assert_eq!(alibi_slopes(1, 4.0), [-0.0009765625]);
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
