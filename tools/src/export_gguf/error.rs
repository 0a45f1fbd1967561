//! Why an export fails.

use std::io;
use std::path::PathBuf;

use crate::checkpoint::{self, Checkpoint};
use crate::output;

/// Why a checkpoint could not be exported. No file is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// llama.cpp would compute something else.
    #[error(
        "{}: llama.cpp's {architecture} does not know what {field} in config.json asks for, and would \
         compute something else: the model cannot be exported to GGUF",
        checkpoint.display()
    )]
    BeyondLlama {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// llama.cpp's name of the family.
        architecture: &'static str,
        /// The field.
        field: String,
    },
    /// The tokenizer has an option that GGUF has no entry for.
    #[error("the tokenizer {0}, which GGUF cannot say: export without a tokenizer")]
    Tokenizer(&'static str),
    /// A weight is too large for float16.
    #[error(
        "tensor {tensor} holds {value}, more than float16's largest value 65504: export with \
         --type f32"
    )]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
    },
}

/// The error about a field of the configuration.
pub fn beyond(checkpoint: &Checkpoint, architecture: &'static str, field: String) -> WriteError {
    WriteError::BeyondLlama { checkpoint: checkpoint.path().to_owned(), architecture, field }
}

/// What keeps tensors from being written.
pub enum Failure {
    /// Writing the file.
    Io(io::Error),
    /// What is to be written.
    Other(WriteError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
