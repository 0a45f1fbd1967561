//! Gemma 3's text model: four norms a layer, windows in most layers, a base of rotation for layers with and
//! one for those without. Multimodal checkpoints hold its configuration in `text_config`.

use cerebellum::format::{Activation, Architecture, Biases, LayerKind, NormPlace, QueryKeyNorm};

use super::fields::{Fields, MAX_LAYERS};
use super::llama::{self, Defaults};
use super::parsed::Parsed;
use super::rope::{self, Rope, Usual};
use crate::checkpoint::error::Result;

/// The `model_type` of checkpoints that read images too.
pub(super) const MULTIMODAL: &str = "gemma3";

/// The text model's own.
const TEXT: &str = "gemma3_text";

/// `text_config` of published files has only what differs from these.
const DEFAULTS: Defaults = Defaults {
    vocab_size: Some(262_208),
    heads: Some(8),
    kv_heads: Some(4),
    head_size: Some(256),
    positions: 131_072,
    epsilon: 1e-6,
    theta: 1e6,
    activation: Activation::GeluTanh,
};
const LOCAL_THETA: f64 = 1e4;
const WINDOW: usize = 4096;
const PATTERN: usize = 6;
const QUERY_SCALAR: f64 = 256.0;

/// Reads the configuration.
pub(super) fn parse(fields: &Fields) -> Result<Parsed> {
    if fields.text("model_type")?.as_deref() != Some(MULTIMODAL) {
        return text_model(fields);
    }
    let Some(text) = fields.object("text_config")? else {
        let problem = format!("is missing: a {MULTIMODAL} model's text model is described in it");
        return Err(fields.error("text_config", problem));
    };
    match text.text("model_type")?.as_deref() {
        None | Some(TEXT) => {}
        Some(other) => return Err(text.error("model_type", format!("is {other:?}, not {TEXT}"))),
    }
    // About images.
    for field in ["vision_config", "mm_tokens_per_image"] {
        fields.get(field);
    }
    let mut parsed = text_model(&text)?;
    let vocab_size = parsed.config.vocab_size;
    let eos = fields.first_token("eos_token_id", vocab_size)?;
    parsed.config.eos_token_id = parsed.config.eos_token_id.or(eos);
    parsed.bos_token_id = parsed.bos_token_id.or(fields.first_token("bos_token_id", vocab_size)?);
    if let Some(tied) = fields.flag("tie_word_embeddings")? {
        parsed.tied = Some(tied);
    }
    fields.refuse_unknown()?;
    Ok(parsed)
}

fn text_model(fields: &Fields) -> Result<Parsed> {
    let mut config = llama::base(fields, Architecture::Gemma3, &DEFAULTS)?;
    let layers = config.n_layer;
    config.norm.place = NormPlace::Both;
    config.embeddings_scale = (config.n_embd as f32).sqrt();
    let scalar = fields.number("query_pre_attn_scalar", 1e-3..=1e6)?.unwrap_or(QUERY_SCALAR);
    config.attention.scale = (1.0 / scalar.sqrt()) as f32;
    config.attention.query_key_norm = QueryKeyNorm::Head;
    if fields.flag("attention_bias")?.unwrap_or(false) {
        config.attention.biases = Biases::Both;
    }

    let every = |field| fields.optional_count(field, 1..=MAX_LAYERS);
    // In files of all ages; with `layer_types` it says nothing more.
    let (older, newer) = (every("sliding_window_pattern")?, every("_sliding_window_pattern")?);
    let full = older.or(newer).unwrap_or(PATTERN);
    let types = llama::layer_types(fields, layers)?;
    let types = types.unwrap_or_else(|| (1..=layers).map(|i| !i.is_multiple_of(full)).collect());
    let default = (!fields.has("sliding_window")).then_some(WINDOW);
    let window = llama::window(fields)?.or(default);
    let kind = |is_windowed: &bool| match is_windowed {
        true => LayerKind { window, base: Some(0) },
        false => LayerKind { window: None, base: Some(1) },
    };
    let kinds: Vec<_> = types.iter().map(kind).collect();
    llama::set_kinds(&mut config, &kinds);

    let bases = bases(fields, config.attention.head_size, config.n_positions)?;
    let mut parsed = llama::finish(fields, config, bases)?;
    parsed.tied = parsed.tied.or(Some(true));
    Ok(parsed)
}

/// The rotation of layers with windows, and of those without.
fn bases(fields: &Fields, head_size: usize, positions: usize) -> Result<Vec<Rope>> {
    let local = rope::theta(fields, "rope_local_base_freq")?.unwrap_or(LOCAL_THETA);
    let usual = Usual {
        theta: DEFAULTS.theta,
        older_theta: "rope_theta",
        positions,
        head_size,
        part: None,
    };
    if let Some(parameters) = fields.object("rope_parameters")? {
        let sets = [
            (parameters.object("sliding_attention")?, local),
            (parameters.object("full_attention")?, usual.theta),
        ];
        if let [(Some(windowed), local), (Some(full), global)] = sets {
            parameters.refuse_unknown()?;
            // What older files have, for one base; the sets say it for both.
            fields.get("rope_theta");
            let pairs = rope::pairs(fields, None, &usual)?;
            return Ok(vec![
                rope::set(&windowed, local, pairs, positions)?,
                rope::set(&full, global, pairs, positions)?,
            ]);
        }
    }
    let global = rope::read(fields, &usual)?;
    let local = Rope::unscaled(local, global.frequencies.len());
    Ok(vec![local, global])
}
