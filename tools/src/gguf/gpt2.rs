//! What llama.cpp calls the fields of a GPT-2 model's configuration.
//!
//! It knows no other MLP function in a GPT-2 than the tanh GELU, so there is no key for it. Files
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
