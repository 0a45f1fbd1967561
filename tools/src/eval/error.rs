//! Why an evaluation failed.

use std::path::PathBuf;

use crate::reference;

/// Any failure of an evaluation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A window holds no token to score.
    #[error(
        "a window of {0} tokens scores nothing, since its first token has no prediction; choose at least 2"
    )]
    WindowTooShort(usize),
    /// The text does not fill one window.
    #[error(
        "the text has {tokens} tokens, less than a window of {window}: give a longer text, or a smaller --window"
    )]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
    /// The checkpoint is of another shape than the model file.
    #[error(
        "{} is not the model that the file was made from: {differences}; give the checkpoint it was quantized from", checkpoint.display()
    )]
    OtherModel {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// What differs.
        differences: String,
    },
    /// The reference's logits overflow.
    #[error(
        "the float reference's logits after position {position} of a window are not finite: the checkpoint's training has diverged"
    )]
    NonFinite {
        /// Position in the window.
        position: usize,
    },
    /// A line of a task's table lacks its input or its answer.
    #[error("line {line} of the examples: write an input, a tab and a right answer")]
    Example {
        /// Its number, from 1.
        line: usize,
    },
    /// A task's table is empty.
    #[error("there are no examples: write on each line an input, a tab and a right answer")]
    NoExamples,
    /// A template has not one place for the input.
    #[error("the template has {places} places for the input: write {{text}} in it once")]
    Template {
        /// The places found.
        places: usize,
    },
    /// A prompt cannot be continued.
    #[error("example {example}, whose prompt has {tokens} tokens: {source}")]
    Prompt {
        /// Its number, from 1.
        example: usize,
        /// Tokens of its prompt.
        tokens: usize,
        /// Why.
        source: cerebellum::Error,
    },
    /// The reference failed.
    #[error(transparent)]
    Reference(#[from] reference::Error),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] cerebellum::Error),
}

/// A result of an evaluation.
pub type Result<T, E = Error> = std::result::Result<T, E>;
