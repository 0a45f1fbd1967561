//! The reasons why generations end.

use core::ffi::{CStr, c_char};

use super::boundary;
use crate::generate::StopReason;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_stop_reason {
    /// It has not ended, it has failed, or there was none.
    CBL_STOP_NONE = 0,
    /// The model chose the end-of-text token.
    CBL_STOP_END_OF_TEXT = 1,
    /// The text has as many tokens as CBL_OPTION_MAX_TOKENS allows.
    CBL_STOP_MAX_TOKENS = 2,
    /// A stop string appeared.
    CBL_STOP_STRING = 3,
    /// The session has no position left.
    CBL_STOP_CONTEXT_FULL = 4,
    /// The callback returned false, or a call such as cbl_session_cancel() or cbl_generation_end()
    /// ended the generation.
    CBL_STOP_CANCELLED = 5,
    /// The text has the form that CBL_OPTION_CHOICES, CBL_OPTION_REGEX or CBL_OPTION_JSON_SCHEMA
    /// asks for.
    CBL_STOP_COMPLETE = 6,
    /// CBL_OPTION_MAX_TOKENS or the session's positions ran out before the text had that form.
    CBL_STOP_INCOMPLETE = 7,
}

impl From<StopReason> for cbl_stop_reason {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::EndOfText => Self::CBL_STOP_END_OF_TEXT,
            StopReason::MaxTokens => Self::CBL_STOP_MAX_TOKENS,
            StopReason::StopString => Self::CBL_STOP_STRING,
            StopReason::ContextFull => Self::CBL_STOP_CONTEXT_FULL,
            StopReason::Cancelled => Self::CBL_STOP_CANCELLED,
            StopReason::Complete => Self::CBL_STOP_COMPLETE,
            StopReason::Incomplete => Self::CBL_STOP_INCOMPLETE,
        }
    }
}

/// Returns a word for a cbl_stop_reason, such as "max_tokens", for logs. Any number may be passed.
/// The text is static.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_stop_reason_name(reason: i32) -> *const c_char {
    const NAMES: [&CStr; 8] = [
        c"none",
        c"end_of_text",
        c"max_tokens",
        c"stop_string",
        c"context_full",
        c"cancelled",
        c"complete",
        c"incomplete",
    ];
    let name = || usize::try_from(reason).ok().and_then(|at| NAMES.get(at).copied());
    boundary::value(c"unknown".as_ptr(), || Ok(name().unwrap_or(c"unknown").as_ptr()))
}
