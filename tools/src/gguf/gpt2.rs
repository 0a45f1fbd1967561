//! What llama.cpp calls the parts of a GPT-2 model.
//!
//! Linear layers are `[out, in]` (and listed the other way round, as all shapes are). llama.cpp
//! knows no other MLP function in a GPT-2 than the tanh GELU, so there is no key for it. Files
//! written here say under [`ACTIVATION`] which function the model was trained with, by its name in
//! `config.json`; without that entry it is `gelu_new`, the tanh GELU.

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

/// Canonical names outside of layers, without `.weight` and `.bias`.
const OUTSIDE: [(&str, &str); 4] = [
    ("wte", "token_embd"),
    ("wpe", "position_embd"),
    ("ln_f", "output_norm"),
    ("lm_head", "output"),
];

/// Canonical names in a layer `h.N`, which is `blk.N` here.
const IN_LAYER: [(&str, &str); 6] = [
    ("ln_1", "attn_norm"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("ln_2", "ffn_norm"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];

/// The canonical name of a tensor of the file. One that no GPT-2 model has keeps its own.
pub fn canonical(stored: &str) -> String {
    let translated = || {
        let (name, part) = stored.rsplit_once('.')?;
        if let Some(rest) = name.strip_prefix("blk.") {
            let (layer, name) = rest.split_once('.')?;
            let known = IN_LAYER.iter().find(|(_, gguf)| *gguf == name);
            // Unknown ones of a layer stay in that layer.
            let name = known.map_or(name, |(canonical, _)| canonical);
            return Some(format!("h.{layer}.{name}.{part}"));
        }
        let (canonical, _) = OUTSIDE.iter().find(|(_, gguf)| *gguf == name)?;
        Some(format!("{canonical}.{part}"))
    };
    translated().unwrap_or_else(|| stored.to_owned())
}

/// The file's name for a canonical name; `None` if llama.cpp's GPT-2 has no such tensor.
pub fn stored(canonical: &str) -> Option<String> {
    let (name, part) = canonical.rsplit_once('.')?;
    if let Some(rest) = name.strip_prefix("h.") {
        let (layer, name) = rest.split_once('.')?;
        let (_, gguf) = IN_LAYER.iter().find(|(canonical, _)| *canonical == name)?;
        return Some(format!("blk.{layer}.{gguf}.{part}"));
    }
    let (_, gguf) = OUTSIDE.iter().find(|(canonical, _)| *canonical == name)?;
    Some(format!("{gguf}.{part}"))
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
