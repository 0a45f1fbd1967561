//! Generation: continues a prompt with tokens or text, one token at a time.
//!
//! A program asks a [`Generator`] or a [`TextGenerator`] for each token. [`generate_tokens`],
//! [`generate_text`] and similar functions pass each token to a closure.

mod constraint;
mod options;
mod outcome;
mod progress;
mod text;
mod text_state;
mod text_stream;
mod tokens;

pub use constraint::Constraint;
pub use options::GenerateOptions;
pub use outcome::{Generation, Step, StopReason};
pub use text::{TextGenerator, TextStep, generate_text, generate_text_steps};
pub use text_stream::TextStream;
pub use tokens::{Generator, generate_steps, generate_tokens};

#[cfg(feature = "text")]
pub(crate) use options::copies;
#[cfg(feature = "capi")]
pub(crate) use progress::Progress;
pub(crate) use text_state::{EndTokens, Flow, TextState};
#[cfg(feature = "capi")]
pub(crate) use text_stream::TextBuffer;
