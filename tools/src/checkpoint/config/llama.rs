//! Llama, and the families that differ little from it: RMS norms, rotated positions, grouped heads, a gated MLP.

use std::ops::RangeInclusive;

use cerebellum::format::{
    Activation, Architecture, Biases, Config, LayerKind, MlpKind, Norm, NormKind, NormPlace,
    Positions, QueryKeyNorm,
};

use super::fields::{Fields, MAX_LAYERS, MAX_POSITIONS, MAX_VOCAB, MAX_WIDTH, SCALES};
use super::parsed::{Derived, Parsed};
use super::rope::{self, Rope, Usual};
use super::table::{ACTIVATIONS, lookup, names};
use crate::checkpoint::error::{Error, Result};

/// The most heads, and the largest.
const MAX_HEADS: usize = 1 << 12;
/// The most positions that are rotated.
const MAX_ROTATED: usize = 1 << 20;

/// What transformers' class takes where the file does not say.
pub struct Defaults {
    pub vocab_size: Option<usize>,
    pub heads: Option<usize>,
    pub head_size: Option<usize>,
    pub kv_heads: Option<usize>,
    pub positions: usize,
    pub epsilon: f32,
    pub theta: f64,
    pub activation: Activation,
}

pub(super) const LLAMA: Defaults = Defaults {
    vocab_size: None,
    heads: None,
    head_size: None,
    kv_heads: None,
    positions: 2048,
    epsilon: 1e-6,
    theta: 1e4,
    activation: Activation::Silu,
};

fn defaults(architecture: Architecture) -> Defaults {
    match architecture {
        Architecture::Mistral => Defaults { positions: 131_072, ..LLAMA },
        Architecture::Qwen2 => Defaults { positions: 32_768, ..LLAMA },
        Architecture::Qwen3 => Defaults { positions: 32_768, head_size: Some(128), ..LLAMA },
        Architecture::SmolLm3 => {
            Defaults { positions: 32_768, theta: 2e6, kv_heads: Some(4), ..LLAMA }
        }
        Architecture::Olmo2 => Defaults { epsilon: 1e-5, ..LLAMA },
        Architecture::Phi3 => Defaults { epsilon: 1e-5, positions: 4096, ..LLAMA },
        _ => LLAMA,
    }
}

/// Reads the configuration of Llama or a family like it.
pub(super) fn parse(fields: &Fields, architecture: Architecture) -> Result<Parsed> {
    let defaults = defaults(architecture);
    let mut config = base(fields, architecture, &defaults)?;
    let part = (architecture == Architecture::Phi3).then_some(("partial_rotary_factor", 1.0));
    let usual = Usual {
        theta: defaults.theta,
        older_theta: "rope_theta",
        positions: config.n_positions,
        head_size: config.attention.head_size,
        part,
    };
    let rope = rope::read(fields, &usual)?;
    let layers = config.n_layer;
    let attention = &mut config.attention;
    let mut kinds = vec![LayerKind { window: None, base: Some(0) }; layers];
    match architecture {
        Architecture::Mistral => {
            // The class has a window where the file does not even say that there is none.
            let default = (!fields.has("sliding_window")).then_some(4096);
            let window = window(fields)?.or(default);
            let types = layer_types(fields, layers)?.unwrap_or(vec![true; layers]);
            set_windows(&mut kinds, &types, window);
        }
        Architecture::Phi3 => set_windows(&mut kinds, &vec![true; layers], window(fields)?),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let window = used_window(fields)?;
            let first = fields.optional_count("max_window_layers", 0..=MAX_LAYERS)?.unwrap_or(28);
            let types = layer_types(fields, layers)?;
            let types = types.unwrap_or_else(|| (0..layers).map(|i| i >= first).collect());
            set_windows(&mut kinds, &types, window);
        }
        Architecture::SmolLm3 => {
            let rotated = rotated_layers(fields, layers)?;
            let window = used_window(fields)?;
            // Unused where there are no windows, though files have it.
            fields.get("max_window_layers");
            let types = layer_types(fields, layers)?;
            let types = types.unwrap_or_else(|| rotated.iter().map(|rotated| !rotated).collect());
            set_windows(&mut kinds, &types, window);
            for (kind, rotated) in kinds.iter_mut().zip(rotated) {
                kind.base = rotated.then_some(0);
            }
        }
        Architecture::Granite => {
            let multiplier = |field| Ok(fields.number(field, SCALES)?.unwrap_or(1.0) as f32);
            attention.scale = multiplier("attention_multiplier")?;
            config.embeddings_scale = multiplier("embedding_multiplier")?;
            config.residual.scale = multiplier("residual_multiplier")?;
            config.logits_scale = 1.0 / multiplier("logits_scaling")?;
        }
        Architecture::Olmo2 => {
            config.norm.place = NormPlace::After;
            attention.query_key_norm = QueryKeyNorm::Width;
        }
        _ => {}
    }
    if architecture == Architecture::Qwen3 {
        config.attention.query_key_norm = QueryKeyNorm::Head;
    }
    // Of families without a choice, a file that asks for biases is refused for what it is not known to say.
    config.attention.biases = match architecture {
        Architecture::Mistral | Architecture::Phi3 => Biases::None,
        Architecture::Qwen2 => Biases::Input,
        _ if fields.flag("attention_bias")?.unwrap_or(false) => Biases::Both,
        _ => Biases::None,
    };
    if matches!(architecture, Architecture::Llama | Architecture::Granite | Architecture::SmolLm3) {
        config.mlp.biases = fields.flag("mlp_bias")?.unwrap_or(false);
    }
    if architecture == Architecture::Phi3 {
        // It matters to `longrope` only.
        fields.get("original_max_position_embeddings");
    }
    set_kinds(&mut config, &kinds);
    finish(fields, config, vec![rope])
}

/// What all families have, as Llama without biases has it.
pub(super) fn base(
    fields: &Fields,
    architecture: Architecture,
    defaults: &Defaults,
) -> Result<Config> {
    // The bounds of the model file, so that an error names the field of this one.
    let width = fields.count("hidden_size", 1..=MAX_WIDTH)?;
    let count = |field, default: Option<usize>, most| match default {
        Some(default) => Ok(fields.optional_count(field, 1..=most)?.unwrap_or(default)),
        None => fields.count(field, 1..=most),
    };
    let vocab_size = count("vocab_size", defaults.vocab_size, MAX_VOCAB)?;
    let heads = count("num_attention_heads", defaults.heads, MAX_HEADS)?;
    let layers = fields.count("num_hidden_layers", 1..=MAX_LAYERS)?;
    let positions = fields.optional_count("max_position_embeddings", 1..=MAX_ROTATED)?;
    let positions = positions.unwrap_or(defaults.positions);
    let mut config = Config::gpt2(vocab_size, positions, width, heads, layers);
    config.architecture = architecture;
    config.eos_token_id = fields.first_token("eos_token_id", vocab_size)?;

    let epsilon = fields.epsilon("rms_norm_eps")?.unwrap_or(defaults.epsilon);
    config.norm = Norm { kind: NormKind::Rms, place: NormPlace::Before, epsilon };
    let attention = &mut config.attention;
    let size = fields.optional_count("head_dim", 1..=MAX_HEADS)?.or(defaults.head_size);
    attention.head_size = match size {
        Some(size) => size,
        None if width.is_multiple_of(heads) => width / heads,
        None => {
            let problem = format!(
                "is {heads}, but must divide `hidden_size` = {width}, or `head_dim` be given"
            );
            return Err(fields.error("num_attention_heads", problem));
        }
    };
    attention.scale = 1.0 / (attention.head_size as f32).sqrt();
    let kv_heads = fields.optional_count("num_key_value_heads", 1..=MAX_HEADS)?;
    attention.kv_heads = kv_heads.or(defaults.kv_heads).unwrap_or(heads);
    if !heads.is_multiple_of(attention.kv_heads) {
        let problem = format!(
            "is {}, but must divide `num_attention_heads` = {heads}: take config.json from the \
             original model",
            attention.kv_heads
        );
        return Err(fields.error("num_key_value_heads", problem));
    }
    attention.biases = Biases::None;

    config.mlp.kind = MlpKind::Gated;
    config.mlp.inner = fields.count("intermediate_size", 1..=MAX_WIDTH)?;
    config.mlp.activation = activation(fields, defaults.activation)?;
    config.mlp.biases = false;
    Ok(config)
}

/// The MLP's function: gemma3 has another field for it than the rest, which some of its files have too.
fn activation(fields: &Fields, default: Activation) -> Result<Activation> {
    let newer = fields.text("hidden_activation")?;
    let field = if newer.is_some() { "hidden_activation" } else { "hidden_act" };
    let found = fields.text("hidden_act")?;
    let Some(found) = newer.or(found) else { return Ok(default) };
    lookup(ACTIVATIONS, &found).ok_or_else(|| Error::UnsupportedActivation {
        path: fields.path().to_owned(),
        field,
        found,
        supported: names(ACTIVATIONS),
    })
}

/// `sliding_window`.
pub(super) fn window(fields: &Fields) -> Result<Option<usize>> {
    fields.optional_count("sliding_window", WINDOWS)
}

pub(super) const WINDOWS: RangeInclusive<usize> = 1..=MAX_POSITIONS;

/// `sliding_window`, of a family that uses it only where `use_sliding_window` says so.
fn used_window(fields: &Fields) -> Result<Option<usize>> {
    if fields.flag("use_sliding_window")?.unwrap_or(false) {
        return window(fields);
    }
    // Whatever it is.
    fields.get("sliding_window");
    Ok(None)
}

/// Which layers have windows, where the file says it of each.
pub(super) fn layer_types(fields: &Fields, layers: usize) -> Result<Option<Vec<bool>>> {
    const FIELD: &str = "layer_types";
    let Some(types) = fields.list::<String>(FIELD, "a list of strings")? else { return Ok(None) };
    if types.len() != layers {
        let problem = format!("lists {} layers, but `num_hidden_layers` is {layers}", types.len());
        return Err(fields.error(FIELD, problem));
    }
    let is_windowed = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(false),
        "sliding_attention" => Ok(true),
        _ => {
            let problem = format!(
                "has {kind:?}, which is not supported; supported: full_attention, \
                 sliding_attention"
            );
            Err(fields.error(FIELD, problem))
        }
    };
    types.iter().map(is_windowed).collect::<Result<_>>().map(Some)
}

pub(super) fn set_windows(kinds: &mut [LayerKind], types: &[bool], window: Option<usize>) {
    for (kind, is_windowed) in kinds.iter_mut().zip(types) {
        kind.window = window.filter(|_| *is_windowed);
    }
}

/// Which layers rotate positions: `no_rope_layers` has 1 for those that do; without it every so-many-th does
/// not.
fn rotated_layers(fields: &Fields, layers: usize) -> Result<Vec<bool>> {
    const FIELD: &str = "no_rope_layers";
    let interval = fields.optional_count("no_rope_layer_interval", 1..=MAX_LAYERS)?.unwrap_or(4);
    let Some(rotated) = fields.list::<u8>(FIELD, "a list of 0 and 1")? else {
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    if rotated.len() != layers || rotated.iter().any(|rotated| *rotated > 1) {
        let problem = format!("must be a list of {layers} numbers, each 0 or 1");
        return Err(fields.error(FIELD, problem));
    }
    Ok(rotated.into_iter().map(|rotated| rotated == 1).collect())
}

/// Puts the kinds of layers in the form of the model file: each once, in the order of their first layers.
pub(super) fn set_kinds(config: &mut Config, layers: &[LayerKind]) {
    let positions = config.n_positions;
    let attention = &mut config.attention;
    attention.kinds.clear();
    attention.layers.clear();
    for kind in layers {
        // A window as long as any text sees all of it.
        let kind = LayerKind { window: kind.window.filter(|window| *window < positions), ..*kind };
        let place = attention.kinds.iter().position(|known| *known == kind).unwrap_or_else(|| {
            attention.kinds.push(kind);
            attention.kinds.len() - 1
        });
        attention.layers.push(place as u8);
    }
    if attention.kinds.len() == 1 {
        attention.layers.clear();
    }
}

/// Adds the rotation, whose bases layers number in the order given, and refuses what nothing has asked for.
pub(super) fn finish(fields: &Fields, mut config: Config, bases: Vec<Rope>) -> Result<Parsed> {
    config.positions = Positions::Rope {
        pairs: bases[0].frequencies.len(),
        factors: bases.iter().map(|rope| rope.factor).collect(),
    };
    let ropes = bases.iter().map(|rope| rope.base).collect();
    let frequencies = bases.into_iter().flat_map(|rope| rope.frequencies).collect();
    let parsed = Parsed {
        tied: fields.flag("tie_word_embeddings")?,
        bos_token_id: fields.first_token("bos_token_id", config.vocab_size)?,
        config,
        derived: Derived { slopes: Vec::new(), frequencies },
        bases: ropes,
    };
    fields.get("model_type");
    fields.refuse_unknown()?;
    Ok(parsed)
}
