//! Status codes
//!
//! Every function that can fail returns a status code. After a failure all handles can still be
//! used, except after CBL_PANIC. A call that fails changes nothing, unless its comment says
//! otherwise.

use crate::error::Error;
use crate::io::ErrorKind;
use crate::text::TextError;
use crate::threads::TeamError;

/// The result of a call. Numbers never change and are never used again. Later versions may add
/// some, so treat an unknown number as a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_status {
    /// Success.
    CBL_OK = 0,
    /// A handle is NULL or of another kind. A handle that was freed gives this status too, but only
    /// if its memory is not used again.
    CBL_BAD_HANDLE = 1,
    /// A pointer is NULL or misaligned, a size is impossible, or there are no tokens.
    CBL_BAD_ARGUMENT = 2,
    /// An option is unknown, is out of its range, or does not fit the model or the processor.
    CBL_BAD_OPTION = 3,
    /// A text is not valid UTF-8.
    CBL_INVALID_UTF8 = 4,
    /// The buffer is too small for the result. The call has returned the size that is needed.
    CBL_BUFFER_TOO_SMALL = 5,
    /// There is too little memory, the system refuses to lock it, or the arena is smaller than the
    /// memory plan. A smaller context, a smaller chunk or an int8 cache needs less.
    CBL_NO_MEMORY = 6,
    /// The operating system refused to open, map, read or write a file.
    CBL_IO = 7,
    /// The bytes are not a model file, are damaged, or have another version of the format.
    CBL_BAD_MODEL = 8,
    /// The mapped file was changed after it was opened. Open the model again.
    CBL_MODEL_CHANGED = 9,
    /// A token id is not less than the size of the vocabulary.
    CBL_BAD_TOKEN = 10,
    /// There are too few positions left for the tokens.
    CBL_CONTEXT_FULL = 11,
    /// A rewind asks for a position that is not reached yet.
    CBL_BAD_POSITION = 12,
    /// There are no logits of a last token: nothing was evaluated since the session was made, reset
    /// or rewound, or the last evaluation failed.
    CBL_NO_LOGITS = 13,
    /// A logit is not a finite number: the weights of the model are damaged, or the computation
    /// overflows.
    CBL_NON_FINITE = 14,
    /// The model file holds no tokenizer.
    CBL_NO_TOKENIZER = 15,
    /// The text cannot be tokenized, the tokenizer in the model file is damaged, or a stop string
    /// is empty.
    CBL_BAD_TEXT = 16,
    /// The handle is in use: by another thread, or by the call that is running the callback.
    CBL_BUSY = 17,
    /// cbl_session_cancel(), cbl_batch_cancel() or a cbl_progress_callback stopped the call.
    CBL_CANCELLED = 18,
    /// The system refused to start a thread.
    CBL_NO_THREADS = 19,
    /// A saved session is damaged, or belongs to another model, cache type or version.
    CBL_BAD_SAVED = 20,
    /// This build or platform does not have the function; see cbl_has_text().
    CBL_UNSUPPORTED = 21,
    /// There is a bug in the library, or a thread pool of the host breaks its contract. The handle
    /// of the call can only be freed now. All other handles can still be used.
    CBL_PANIC = 22,
    /// The handle has no generation on demand of this number, or a failure or another call on the
    /// handle has ended it.
    CBL_NO_GENERATION = 23,
}

use cbl_status::{
    CBL_BAD_ARGUMENT, CBL_BAD_MODEL, CBL_BAD_OPTION, CBL_BAD_POSITION, CBL_BAD_SAVED, CBL_BAD_TEXT,
    CBL_BAD_TOKEN, CBL_CANCELLED, CBL_CONTEXT_FULL, CBL_IO, CBL_NO_LOGITS, CBL_NO_MEMORY,
    CBL_NO_THREADS, CBL_NO_TOKENIZER, CBL_NON_FINITE,
};

impl cbl_status {
    /// The code of an error.
    pub(super) fn of(error: &Error) -> Self {
        match error {
            #[cfg(feature = "std")]
            Error::Io { .. } | Error::NotAFile { .. } | Error::Output(_) => CBL_IO,
            #[cfg(feature = "std")]
            Error::FileChanged { .. } => Self::CBL_MODEL_CHANGED,
            #[cfg(feature = "std")]
            Error::FileRange { .. } => CBL_BAD_ARGUMENT,
            #[cfg(feature = "std")]
            Error::Restore { source, .. } => Self::of(source),
            Error::SavedSessionIo { .. } => CBL_IO,
            Error::Format(_) | Error::Damaged { .. } => CBL_BAD_MODEL,
            Error::Misaligned { .. }
            | Error::NoTokens
            | Error::NothingAllowed
            | Error::ArenaInUse => CBL_BAD_ARGUMENT,
            Error::Option { .. } | Error::Constraint(_) | Error::Chat(_) => CBL_BAD_OPTION,
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
