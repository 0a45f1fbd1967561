//! What the reference refuses.

use thiserror::Error;

use crate::checkpoint;

/// Why the reference could not be loaded or evaluated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// There is nothing to evaluate.
    #[error("no tokens to evaluate: give at least one (the end-of-text token starts a new text)")]
    NoTokens,
    /// The model has no learned position for some of the tokens.
    #[error(
        "{tokens} tokens are more than the model's {n_positions} positions: cut them into windows"
    )]
    TooManyTokens {
        /// Tokens given.
        tokens: usize,
        /// The longest sequence the model takes.
        n_positions: usize,
    },
    /// A token id is not in the vocabulary.
    #[error(
        "token {token} at position {position} is not below the vocabulary size {vocab_size}: it \
         comes from another model's tokenizer"
    )]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// Where it stands, from 0.
        position: usize,
        /// The number of ids.
        vocab_size: usize,
    },
}

/// A result of the reference.
pub type Result<T> = std::result::Result<T, Error>;
