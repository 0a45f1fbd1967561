//! What can go wrong, and what to do about it.

use alloc::string::String;

#[cfg(feature = "std")]
use std::path::PathBuf;

pub use crate::format::FormatError;
use crate::io;
#[cfg(feature = "std")]
use crate::output::OutputError;

/// Any failure of the runtime.
///
/// A failed call leaves the model and the session usable: nothing is half done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, map or read a file.
    #[cfg(feature = "std")]
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "open", "map", "read".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The path names a directory, a pipe or a device.
    #[cfg(feature = "std")]
    #[error("{} is not a regular file; give the path of a file", path.display())]
    NotAFile {
        /// The path as given.
        path: PathBuf,
    },
    /// The bytes are not a model file this version can run.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A tensor's bytes are not those that were written.
    #[error("tensor {} is damaged; copy or quantize the file again", crate::terminal::name(tensor))]
    Damaged {
        /// The tensor.
        tensor: String,
    },
    /// A mapped file changed after it was opened.
    #[cfg(feature = "std")]
    #[error("{} changed while it was mapped; open it again, or open it with reading instead of mapping", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
    /// A part of a file that is not there, or cannot be mapped.
    #[cfg(feature = "std")]
    #[error("{}, {length} bytes from {offset} on: {detail}", path.display())]
    FileRange {
        /// The file.
        path: PathBuf,
        /// Where the part begins.
        offset: u64,
        /// How long it is.
        length: u64,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// Whoever is told of the progress gave up.
    #[error("opening the model was cancelled by the receiver of its progress")]
    OpenCancelled,
    /// The system refused to keep pages in memory.
    #[error(
        "cannot keep {bytes} bytes in memory: {source}{}; go on without, or let the process lock more",
        limit_of_locks(.limit)
    )]
    PageLock {
        /// How many bytes were to be kept.
        bytes: usize,
        /// How many bytes the process may lock, if not any number.
        limit: Option<u64>,
        /// The system's answer.
        source: io::Error,
    },
    /// Bytes to borrow do not begin on the boundary that the kernels need.
    #[error(
        "model bytes must begin on a {required}-byte boundary, these are {offset} bytes past one; align the buffer or the flash section"
    )]
    Misaligned {
        /// The boundary.
        required: usize,
        /// How far past it the bytes begin.
        offset: usize,
    },
    /// An option is out of range or contradicts the model.
    #[error("option {name}: {detail}")]
    Option {
        /// The option's name.
        name: &'static str,
        /// What is wrong and what is allowed.
        detail: String,
    },
    /// A token id is not in the vocabulary.
    #[error("token id {token} is not below the vocabulary size {vocab_size}")]
    TokenOutOfRange {
        /// The offending id.
        token: u32,
        /// Number of tokens the model knows.
        vocab_size: usize,
    },
    /// An evaluation without tokens.
    #[error("no tokens to evaluate; an empty text starts from the end-of-text token")]
    NoTokens,
    /// The tokens do not fit after those already evaluated.
    #[error(
        "context full: {tokens} more tokens after {position} exceed {context} positions; rewind or reset the session, or make one with a larger context"
    )]
    ContextFull {
        /// Tokens in the session so far.
        position: usize,
        /// Tokens that were to be added.
        tokens: usize,
        /// Positions that the session has.
        context: usize,
    },
    /// A text has more tokens than there are positions. Found without encoding all of it.
    #[error(
        "context full: the text of {bytes} bytes has at least {tokens} tokens, and {} of {context} positions are free; shorten it, or make a session with a larger context",
        context.saturating_sub(*position)
    )]
    TextTooLong {
        /// Length of the text.
        bytes: usize,
        /// No text of this length, or with this beginning, has fewer tokens.
        tokens: usize,
        /// Tokens before it.
        position: usize,
        /// Positions that there are.
        context: usize,
    },
    /// A rewind to a position that was not reached yet.
    #[error("cannot rewind to position {target}: the session is at {position}")]
    Rewind {
        /// The position asked for.
        target: usize,
        /// Where the session stands.
        position: usize,
    },
    /// A logit is NaN or infinite: the model file's weights are damaged or overflow.
    #[error(
        "non-finite logits at position {position}: the weights are damaged or overflow; check the file with `cerebellum verify`"
    )]
    NonFinite {
        /// Position of the token whose logits they are.
        position: usize,
    },
    /// The memory plan could not be allocated.
    #[error("cannot allocate {bytes} bytes; choose a smaller context or chunk, or an int8 cache")]
    OutOfMemory {
        /// Size of the allocation.
        bytes: usize,
    },
    /// The memory that the host gave does not hold the memory plan.
    #[error(
        "the arena has {given} bytes, the memory plan needs {required}; give as many or choose a smaller context or chunk"
    )]
    ArenaTooSmall {
        /// Bytes of the plan.
        required: usize,
        /// Bytes of the arena.
        given: usize,
    },
    /// The memory that the host gave belongs to a session or a model, in part at least.
    #[error(
        "the memory belongs to another session or a model; drop or free that one first, or give other memory"
    )]
    ArenaInUse,
    /// Somebody asked the evaluation to stop.
    #[error("cancelled; the session is as it was before the call")]
    Cancelled,
    /// There are no logits to sample from or to read.
    #[error("no logits here; evaluate at least one token after a reset or a rewind")]
    NoLogits,
    /// No token may be chosen.
    #[error("no token is allowed here; the set of allowed tokens is empty")]
    NothingAllowed,
    /// What a text was to be constrained to makes no sense, or the text broke it.
    #[error("constraint: {0}")]
    Constraint(String),
    /// A text cannot be put to the model by its template.
    #[error("{0}")]
    Task(String),
    /// The model's chat template cannot be used, or refuses the messages.
    #[error("chat template: {0}")]
    Chat(String),
    /// A saved session is damaged, or does not fit this session.
    #[error("saved session: {0}")]
    SavedSession(&'static str),
    /// A saved session could not be written or read.
    #[error("cannot {action} the saved session: {source}")]
    SavedSessionIo {
        /// What was tried: "write", "read".
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A saved session could not be restored from a file.
    #[cfg(feature = "std")]
    #[error("cannot restore {}: {source}", path.display())]
    Restore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, or why it does not fit this session.
        source: Box<Error>,
    },
    /// A file could not be written.
    #[cfg(feature = "std")]
    #[error(transparent)]
    Output(OutputError),
    /// A thread could not be started.
    #[error(transparent)]
    Threads(#[from] crate::threads::TeamError),
    /// The file holds no tokenizer, and text was asked for.
    #[error(
        "the model file holds no tokenizer; quantize it from a checkpoint that has one, or use token ids"
    )]
    NoTokenizer,
    /// The tokenizer's tables are damaged, a text cannot be encoded, or a stop string is empty.
    #[error(transparent)]
    Text(#[from] crate::text::TextError),
}

fn limit_of_locks(limit: &Option<u64>) -> String {
    limit.map_or_else(String::new, |limit| {
        format!("; the limit is {limit} bytes (RLIMIT_MEMLOCK, ulimit -l, LimitMEMLOCK=)")
    })
}

#[cfg(feature = "std")]
impl From<OutputError> for Error {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::OutOfMemory { bytes } => Self::OutOfMemory { bytes },
            error => Self::Output(error),
        }
    }
}

/// The runtime's result.
pub type Result<T, E = Error> = core::result::Result<T, E>;
