//! What llama.cpp calls the parts of a GPT-2 model.
//!
//! Linear layers are `[out, in]` (and listed the other way round, as all shapes are). llama.cpp
//! knows no other MLP function in a GPT-2 than the tanh GELU, so there is no key for it. Files
//! written here say under [`ACTIVATION`] which function the model was trained with, by its name in
//! `config.json`; without that entry it is `gelu_new`, the tanh GELU.

use cerebellum::format::network::{Part, Role, TensorId};

/// The value of `general.architecture`.
pub const ARCHITECTURE: &str = "gpt2";
/// The MLP's function: an entry of this project's own, which llama.cpp ignores.
pub const ACTIVATION: &str = "cerebellum.activation_function";

/// Fields of `config.json` and the keys of their values.
pub const KEYS: [(&str, &str); 9] = [
    ("n_positions", "gpt2.context_length"),
    ("n_embd", "gpt2.embedding_length"),
    ("n_inner", "gpt2.feed_forward_length"),
    ("n_layer", "gpt2.block_count"),
    ("n_head", "gpt2.attention.head_count"),
    ("layer_norm_epsilon", "gpt2.attention.layer_norm_epsilon"),
    ("activation_function", ACTIVATION),
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
];

/// What roles outside of layers are called here, without `.weight` and `.bias`.
const OUTSIDE: [(Role, &str); 4] = [
    (Role::Embedding, "token_embd"),
    (Role::Positions, "position_embd"),
    (Role::FinalNorm, "output_norm"),
    (Role::Head, "output"),
];

/// What roles of a layer are called, in the layer `blk.N`.
const IN_LAYER: [(Role, &str); 6] = [
    (Role::AttentionNorm, "attn_norm"),
    (Role::AttentionIn, "attn_qkv"),
    (Role::AttentionOut, "attn_output"),
    (Role::MlpNorm, "ffn_norm"),
    (Role::MlpUp, "ffn_up"),
    (Role::MlpDown, "ffn_down"),
];

/// The canonical name of a tensor of the file. One that no GPT-2 model has keeps its own.
pub fn canonical(stored: &str) -> String {
    let translated = || {
        let (name, part) = stored.rsplit_once('.')?;
        let weight = match name.strip_prefix("blk.") {
            Some(rest) => {
                let (layer, name) = rest.split_once('.')?;
                let Some((role, _)) = IN_LAYER.iter().find(|(_, gguf)| *gguf == name) else {
                    // Unknown ones of a layer stay in that layer.
                    return Some(format!("h.{layer}.{name}.{part}"));
                };
                TensorId::in_layer(layer.parse().ok()?, *role)
            }
            None => TensorId::outside(OUTSIDE.iter().find(|(_, gguf)| *gguf == name)?.0),
        };
        match part {
            "weight" => Some(weight.name()),
            "bias" => Some(weight.bias().name()),
            _ => None,
        }
    };
    translated().unwrap_or_else(|| stored.to_owned())
}

/// The file's name for a canonical name; `None` if llama.cpp's GPT-2 has no such tensor.
pub fn stored(canonical: &str) -> Option<String> {
    let TensorId { layer, role, part } = TensorId::parse(canonical)?;
    let roles = if layer.is_some() { &IN_LAYER[..] } else { &OUTSIDE[..] };
    let (_, gguf) = roles.iter().find(|(known, _)| *known == role)?;
    let part = if part == Part::Weight { "weight" } else { "bias" };
    Some(match layer {
        Some(layer) => format!("blk.{layer}.{gguf}.{part}"),
        None => format!("{gguf}.{part}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_translate_both_ways() {
        for (canonical_name, gguf) in [
            ("wte.weight", "token_embd.weight"),
            ("wpe.weight", "position_embd.weight"),
            ("h.0.ln_1.bias", "blk.0.attn_norm.bias"),
            ("h.11.attn.c_attn.weight", "blk.11.attn_qkv.weight"),
            ("h.1.attn.c_proj.weight", "blk.1.attn_output.weight"),
            ("h.1.ln_2.weight", "blk.1.ffn_norm.weight"),
            ("h.1.mlp.c_fc.bias", "blk.1.ffn_up.bias"),
            ("h.1.mlp.c_proj.weight", "blk.1.ffn_down.weight"),
            ("ln_f.weight", "output_norm.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(canonical(gguf), canonical_name);
            assert_eq!(stored(canonical_name).as_deref(), Some(gguf));
        }
        assert_eq!(canonical("blk.7.ffn_gate.weight"), "h.7.ffn_gate.weight");
        assert_eq!(canonical("rope_freqs.weight"), "rope_freqs.weight");
        assert_eq!(canonical("nodot"), "nodot");
        assert_eq!(stored("h.0.mlp.c_fc2.weight"), None);
    }
}
