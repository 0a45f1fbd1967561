//! Why a tokenizer is refused.

use std::path::{Path, PathBuf};

use cerebellum::terminal::quoted;
use cerebellum::text::TextError;

/// Why a tokenizer could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large to be a tokenizer, or no regular file.
    #[error("{} is no regular file of at most {limit} bytes; replace it by the model's tokenizer", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// Largest size accepted.
        limit: u64,
    },
    /// A file is not the JSON expected.
    #[error("cannot parse {}: {source}; download it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// One of two files that belong together is missing.
    #[error("{} is missing; it belongs to {}", path.display(), companion.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
        /// The file that needs it.
        companion: PathBuf,
    },
    /// The tokenizer is of a kind that the runtime does not know.
    #[error("{}: unsupported tokenizer: {what}; byte-level BPE that splits as GPT-2, SmolLM, Llama 3, Qwen 2, GPT-NeoX or OLMo do, and SentencePiece BPE with byte fallback (Llama 2, TinyLlama, Phi-3, Gemma) can be converted. Convert without a tokenizer and work on token ids, or give another directory with --tokenizer", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature that is not supported.
        what: String,
    },
    /// The tokenizer contradicts itself.
    #[error("{}: {what}; download the tokenizer again or repair the file", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The tokenizer has tokens that the model does not have.
    #[error("{}: token {token} has id {id}, but the model's vocab_size is {vocab_size}: this is another model's tokenizer. Give the right directory with --tokenizer", path.display(), token = quoted(token))]
    BeyondModel {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Number of token ids of the model.
        vocab_size: u32,
    },
    /// The runtime would not accept the tokenizer.
    #[error("{}: {source}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What the runtime says.
        source: TextError,
    },
}

pub(super) fn unsupported(path: &Path, what: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { path: path.into(), what: what.into() }
}

pub(super) fn invalid(path: &Path, what: String) -> TokenizerError {
    TokenizerError::Invalid { path: path.into(), what }
}
