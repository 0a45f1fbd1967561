//! Keys of metadata entries.

/// Where tensors begin: at multiples of this many bytes.
pub const ALIGNMENT: &str = "general.alignment";
/// The family of models.
pub const ARCHITECTURE: &str = "general.architecture";
/// What most of the weights are stored as, by llama.cpp's number (`llama_ftype`).
pub const FILE_TYPE: &str = "general.file_type";
/// The model's name, to be shown.
pub const NAME: &str = "general.name";
/// Of how many files the model consists.
pub const SPLIT_COUNT: &str = "split.count";
/// The kind of tokenizer; GPT-2's is `gpt2`.
pub const TOKENIZER: &str = "tokenizer.ggml.model";
/// How text is split before merging; GPT-2's way is `gpt-2`.
pub const PRE_TOKENIZER: &str = "tokenizer.ggml.pre";
/// Tokens by id.
pub const TOKENS: &str = "tokenizer.ggml.tokens";
/// Their types, by llama.cpp's numbers (`llama_token_type`).
pub const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
/// Merges, `left right`, in the order they apply.
pub const MERGES: &str = "tokenizer.ggml.merges";
/// Whether text is encoded as if it began with a space.
pub const ADD_PREFIX_SPACE: &str = "tokenizer.ggml.add_space_prefix";
/// Whether llama.cpp puts a beginning-of-text token before every text.
pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
/// Their scores, of a tokenizer that has these instead of merges: the highest merges first.
pub const SCORES: &str = "tokenizer.ggml.scores";
/// The chat template, in Jinja.
pub const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// Ids of the tokens that end a text, a turn and a message.
pub const END_TOKENS: [&str; 3] =
    ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
/// The number of token ids, where there is no tokenizer to count them; it follows the architecture's name and a
/// dot.
pub const VOCAB_SIZE: &str = "vocab_size";

/// Token ids by their fields in `config.json`.
pub const TOKEN_FIELDS: [(&str, &str); 2] = [
    ("bos_token_id", "tokenizer.ggml.bos_token_id"),
    ("eos_token_id", "tokenizer.ggml.eos_token_id"),
];

/// Fields of `config.json` and the keys of their values, which follow the architecture's name and a dot.
pub const FIELDS: [(&str, &str); 13] = [
    ("max_position_embeddings", "context_length"),
    ("hidden_size", "embedding_length"),
    ("intermediate_size", "feed_forward_length"),
    ("num_hidden_layers", "block_count"),
    ("num_attention_heads", "attention.head_count"),
    ("num_key_value_heads", "attention.head_count_kv"),
    ("head_dim", "attention.key_length"),
    ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    ("layer_norm_eps", "attention.layer_norm_epsilon"),
    ("rope_theta", "rope.freq_base"),
    ("rope_local_base_freq", "rope.freq_base_swa"),
    ("rotary_dim", "rope.dimension_count"),
    ("use_parallel_residual", "use_parallel_residual"),
];

/// Granite's multipliers, likewise.
pub const MULTIPLIERS: [(&str, &str); 4] = [
    ("attention_multiplier", "attention.scale"),
    ("embedding_multiplier", "embedding_scale"),
    ("residual_multiplier", "residual_scale"),
    ("logits_scaling", "logit_scale"),
];

/// The window of attention, likewise; which layers have it depends on the architecture.
pub const WINDOW: (&str, &str) = ("sliding_window", "attention.sliding_window");

/// Of so many layers the last has no window, likewise.
pub const WINDOW_PATTERN: (&str, &str) =
    ("sliding_window_pattern", "attention.sliding_window_pattern");

/// The scaling of rotated positions: names in `config.json`'s `rope_scaling`, and keys likewise.
pub const ROPE_SCALING: [(&str, &str); 6] = [
    ("rope_type", "rope.scaling.type"),
    ("factor", "rope.scaling.factor"),
    ("original_max_position_embeddings", "rope.scaling.original_context_length"),
    ("finetuned", "rope.scaling.finetuned"),
    ("beta_fast", "rope.scaling.yarn_beta_fast"),
    ("beta_slow", "rope.scaling.yarn_beta_slow"),
];

/// Keys that follow the architecture's name and say nothing that the tensors do not.
pub const HARMLESS: [&str; 3] = [VOCAB_SIZE, "tensor_data_layout", "rope.scaling.finetuned"];

/// The size of a head of values, likewise: that of keys in every model that is read.
pub const VALUE_LENGTH: &str = "attention.value_length";

/// The tensor by which Llama 3.1's inverse frequencies are divided.
pub const ROPE_DIVISORS: &str = "rope_freqs.weight";

/// The inverse frequencies of rotated positions in binary64, base after base: an entry of this project's own,
/// which llama.cpp ignores. Its own entries hold 24 bits.
pub const FREQUENCIES: &str = "cerebellum.rope.inverse_frequencies";
