//! Keys of metadata entries that do not depend on the architecture.

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
/// Their types ([`TokenType`](crate::tokenizer::TokenType)).
pub const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
/// Merges, `left right`, in the order they apply.
pub const MERGES: &str = "tokenizer.ggml.merges";
/// Whether text is encoded as if it began with a space.
pub const ADD_PREFIX_SPACE: &str = "tokenizer.ggml.add_space_prefix";
/// Whether llama.cpp puts a beginning-of-text token before every text.
pub const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
/// The number of token ids, where there is no tokenizer to count them.
pub const VOCAB_SIZE: &str = "gpt2.vocab_size";
