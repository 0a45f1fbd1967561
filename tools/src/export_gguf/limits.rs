//! What llama.cpp does not compute: an error where it would compute something else, a warning where it
//! computes nearly the same.

use cerebellum::format::{Activation, Biases, Config, MlpKind, Positions};

use super::error::{WriteError, beyond};
use crate::checkpoint::gguf::{Family, LARGEST_GEMMA3};
use crate::checkpoint::{Checkpoint, Scaling};
use crate::gguf::gpt2;

/// Of so many layers, llama.cpp's SmolLM3 does not rotate the last.
const SMOLLM3_STEP: usize = 4;

/// Families whose heads are together as wide as the residual stream.
const WIDE_HEADS: [&str; 4] = ["qwen2", "olmo2", "phi3", "gptneox"];
/// Families whose attention may have a bias at its output, and whose MLP may have biases.
const BIASED: [&str; 3] = ["llama", "granite", "gptneox"];

/// Refuses what llama.cpp cannot compute, and returns warnings.
pub fn check(checkpoint: &Checkpoint, family: &Family) -> Result<Vec<String>, WriteError> {
    let config = checkpoint.config();
    let fields = match family.architecture {
        gpt2::ARCHITECTURE => gpt2_fields(config).to_vec(),
        _ => fields(config, checkpoint, family.architecture).to_vec(),
    };
    if let Some((field, _)) = fields.into_iter().find(|(_, is_beyond)| *is_beyond) {
        return Err(beyond(checkpoint, family.architecture, field.to_owned()));
    }
    let mut warnings = Vec::new();
    if config.mlp.activation == Activation::Gelu {
        warnings.push(
            "the model was trained with the exact GELU, but llama.cpp computes its tanh \
             approximation: its logits will differ slightly"
                .to_owned(),
        );
    }
    let window = config.attention.kinds.iter().find_map(|kind| kind.window);
    if let (Some(window), "llama" | "phi3") = (window, family.architecture) {
        warnings.push(format!(
            "each token of this model sees {window} tokens, but llama.cpp lets it see all: in longer \
             texts its logits will differ"
        ));
    }
    Ok(warnings)
}

/// Fields of a `config.json`, and whether llama.cpp's GPT-2 does not know what they ask for.
fn gpt2_fields(config: &Config) -> [(&'static str, bool); 6] {
    let other_activation =
        !matches!(config.mlp.activation, Activation::Gelu | Activation::GeluTanh);
    let attention = &config.attention;
    let usual_scale = 1.0 / (attention.head_size as f32).sqrt();
    [
        ("position_embedding_type", config.positions != Positions::Learned),
        ("activation_function", config.mlp.kind == MlpKind::Gated || other_activation),
        ("mup_embeddings_scale", config.embeddings_scale != 1.0),
        ("mup_output_alpha or mup_width_scale", config.logits_scale != 1.0),
        ("mup_scale_qk_dot_by_d or scale_attn_weights", attention.scale != usual_scale),
        ("scale_attn_by_inverse_layer_idx", attention.scale_by_layer),
    ]
}

/// The same of another family.
fn fields(
    config: &Config,
    checkpoint: &Checkpoint,
    architecture: &str,
) -> [(&'static str, bool); 9] {
    let attention = &config.attention;
    let kinds = || (0..config.n_layer).map(|layer| config.layer_kind(layer));
    let has_window = kinds().any(|kind| kind.window.is_some());
    let is_everywhere = kinds().all(|kind| kind == config.layer_kind(0));
    let has_odd_windows = match architecture {
        "gemma3" => gemma3_pattern(config).is_none(),
        "llama" | "phi3" => has_window && !is_everywhere,
        _ => has_window,
    };
    let is_rotated =
        |layer: usize| architecture != "smollm3" || !(layer + 1).is_multiple_of(SMOLLM3_STEP);
    let has_odd_rotation =
        kinds().enumerate().any(|(layer, kind)| kind.base.is_some() != is_rotated(layer));
    let usual = match architecture {
        "gemma3" if config.n_layer == LARGEST_GEMMA3 => {
            config.n_embd as f32 / attention.heads as f32
        }
        _ => attention.head_size as f32,
    };
    let relative_scale = attention.scale * usual.sqrt();
    let is_usual = (relative_scale - 1.0).abs() < 1e-6 || architecture == "granite";
    let activation_is_known = match architecture {
        "gemma3" => config.mlp.activation == Activation::GeluTanh,
        "gptneox" => matches!(config.mlp.activation, Activation::Gelu | Activation::GeluTanh),
        _ => config.mlp.activation == Activation::Silu,
    };
    let (scaling, factor) = unknown_rotation(config, checkpoint, architecture);
    let is_biased = BIASED.contains(&architecture);
    [
        (
            "head_dim",
            attention.query_width() != config.n_embd && WIDE_HEADS.contains(&architecture),
        ),
        ("hidden_act", !activation_is_known),
        ("query_pre_attn_scalar", !is_usual),
        ("sliding_window or layer_types", has_odd_windows),
        ("no_rope_layers", has_odd_rotation),
        ("rope_scaling", scaling),
        ("rope_scaling.attention_factor", factor),
        ("attention_bias", attention.biases == Biases::Both && !is_biased),
        ("mlp_bias", config.mlp.biases && !is_biased),
    ]
}

/// Whether llama.cpp does not know how frequencies are scaled, or by what cosine and sine are multiplied.
fn unknown_rotation(config: &Config, checkpoint: &Checkpoint, architecture: &str) -> (bool, bool) {
    let Positions::Rope { factors, .. } = &config.positions else { return (true, true) };
    let (mut is_unknown, mut has_factor) = (false, false);
    for (place, (base, found)) in checkpoint.bases().iter().zip(factors).enumerate() {
        let is_known = match (architecture, base.scaling) {
            (_, Scaling::Default) => true,
            // The base of layers with windows is scaled by nothing.
            ("gemma3", Scaling::Linear { .. }) => place == 1,
            ("gemma3", _) => false,
            (_, Scaling::Linear { .. } | Scaling::Yarn { .. }) => true,
            (_, Scaling::Divided) => architecture == "llama",
        };
        is_unknown |= !is_known;
        let usual = match base.scaling {
            Scaling::Yarn { factor, .. } if factor > 1.0 => 0.1 * libm::log(factor) + 1.0,
            _ => 1.0,
        };
        has_factor |= (found - usual).abs() > 1e-6;
    }
    (is_unknown, has_factor)
}

/// Of how many layers of a Gemma 3 the last has no window; `None` if the layers follow no such rule. Whether
/// a layer has one its base tells: a window as long as the context is none.
pub fn gemma3_pattern(config: &Config) -> Option<usize> {
    let is_full = |layer: usize| config.layer_kind(layer).base == Some(1);
    let fits = |every: &usize| {
        (0..config.n_layer).all(|layer| is_full(layer) == (layer + 1).is_multiple_of(*every))
    };
    std::iter::once(6).chain(1..=config.n_layer + 1).find(fits)
}
