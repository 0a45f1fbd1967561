//! Status codes
//!
//! Every function that can fail returns one. A failed call changes nothing unless its comment says
//! otherwise, and leaves every handle usable, except after CBL_PANIC.

use std::io::ErrorKind;

use crate::error::Error;
use crate::text::TextError;
use crate::threads::TeamError;

/// What came of a call. Numbers are never changed or reused; later versions may add some, so treat an
/// unknown one as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_status {
    /// Done.
    CBL_OK = 0,
    /// A handle is NULL, of another kind, or (if you are lucky) already freed.
    CBL_BAD_HANDLE = 1,
    /// A pointer is NULL or misaligned, a size cannot be, there are no tokens.
    CBL_BAD_ARGUMENT = 2,
    /// An option is unknown, out of its range, or does not fit the model or the processor.
    CBL_BAD_OPTION = 3,
    /// A text is not valid UTF-8.
    CBL_INVALID_UTF8 = 4,
    /// The buffer does not hold the result; the size needed was returned.
    CBL_BUFFER_TOO_SMALL = 5,
    /// Memory is not to be had or may not be locked, or the arena is smaller than the memory plan. Try a
    /// smaller context or chunk, or an int8 cache.
    CBL_NO_MEMORY = 6,
    /// The operating system refused to open, map, read or write a file.
    CBL_IO = 7,
    /// The bytes are not a model file, are damaged, or are of another version.
    CBL_BAD_MODEL = 8,
    /// The mapped file was changed after it was opened. Open it again.
    CBL_MODEL_CHANGED = 9,
    /// A token id is not below the size of the vocabulary.
    CBL_BAD_TOKEN = 10,
    /// The tokens do not fit behind those already evaluated.
    CBL_CONTEXT_FULL = 11,
    /// A rewind to a position that was not reached yet.
    CBL_BAD_POSITION = 12,
    /// The last token's logits are not there: nothing was evaluated since the session was made, reset
    /// or rewound, or the last evaluation failed.
    CBL_NO_LOGITS = 13,
    /// A logit is not a finite number: the model's weights are damaged or overflow.
    CBL_NON_FINITE = 14,
    /// The model file holds no tokenizer.
    CBL_NO_TOKENIZER = 15,
    /// The text cannot be tokenized, the tokenizer in the file is damaged, or a stop string is empty.
    CBL_BAD_TEXT = 16,
    /// The handle is in use, by another thread or by the call whose callback this is.
    CBL_BUSY = 17,
    /// cbl_session_cancel() stopped the call, or a cbl_progress_callback did.
    CBL_CANCELLED = 18,
    /// The system refused to start a thread.
    CBL_NO_THREADS = 19,
    /// A saved session is damaged, or belongs to another model, cache type or version.
    CBL_BAD_SAVED = 20,
    /// This build or platform has no such function; see cbl_has_text().
    CBL_UNSUPPORTED = 21,
    /// A bug in the library, or a thread pool of the host's that breaks its contract. The handle of
    /// the call is good for nothing any more but for being freed; all others are fine.
    CBL_PANIC = 22,
    /// The generation on demand is none of the session's, or was ended: by a call that changes the
    /// session, or by a failure.
    CBL_NO_GENERATION = 23,
}

use cbl_status::{
    CBL_BAD_ARGUMENT, CBL_BAD_MODEL, CBL_BAD_OPTION, CBL_BAD_POSITION, CBL_BAD_SAVED, CBL_BAD_TEXT,
    CBL_BAD_TOKEN, CBL_CANCELLED, CBL_CONTEXT_FULL, CBL_IO, CBL_MODEL_CHANGED, CBL_NO_LOGITS,
    CBL_NO_MEMORY, CBL_NO_THREADS, CBL_NO_TOKENIZER, CBL_NON_FINITE,
};

impl cbl_status {
    /// The code of an error.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::Io { .. } | Error::NotAFile { .. } => CBL_IO,
            Error::SavedSessionIo { .. } | Error::Output(_) => CBL_IO,
            Error::Format(_) | Error::Damaged { .. } => CBL_BAD_MODEL,
            Error::FileChanged { .. } => CBL_MODEL_CHANGED,
            Error::Misaligned { .. }
            | Error::FileRange { .. }
            | Error::NoTokens
            | Error::NothingAllowed
            | Error::ArenaInUse => CBL_BAD_ARGUMENT,
            Error::Option { .. } | Error::Constraint(_) => CBL_BAD_OPTION,
            Error::TokenOutOfRange { .. } => CBL_BAD_TOKEN,
            Error::ContextFull { .. } | Error::TextTooLong { .. } | Error::Task(_) => {
                CBL_CONTEXT_FULL
            }
            Error::Rewind { .. } => CBL_BAD_POSITION,
            Error::NonFinite { .. } => CBL_NON_FINITE,
            Error::OutOfMemory { .. }
            | Error::ArenaTooSmall { .. }
            | Error::PageLock { .. }
            | Error::Text(TextError::OutOfMemory { .. }) => CBL_NO_MEMORY,
            Error::Cancelled | Error::OpenCancelled => CBL_CANCELLED,
            Error::NoLogits => CBL_NO_LOGITS,
            Error::SavedSession(_) => CBL_BAD_SAVED,
            Error::Restore { source, .. } => Self::of(source),
            Error::Threads(TeamError::Spawn { source, .. } | TeamError::DeepStack { source })
                if source.kind() == ErrorKind::OutOfMemory =>
            {
                CBL_NO_MEMORY
            }
            Error::Threads(_) => CBL_NO_THREADS,
            Error::NoTokenizer => CBL_NO_TOKENIZER,
            Error::Text(_) => CBL_BAD_TEXT,
        }
    }
}
