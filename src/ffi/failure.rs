//! Why a call failed.

use alloc::boxed::Box;
use alloc::string::String;
use core::any::Any;
use core::ffi::CStr;
use core::fmt;

use super::status::cbl_status;
use crate::error::Error;

/// Why a call failed.
pub(super) enum Failure {
    /// A wrong argument, with its status and its message.
    Misuse(cbl_status, &'static str),
    /// A handle is in use: the one that the call is on, or another argument.
    Busy(&'static CStr),
    Error(Error),
    Panic(Box<dyn Any + Send>),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Failure {
    pub fn status(&self) -> cbl_status {
        match self {
            Self::Misuse(status, _) => *status,
            Self::Busy(_) => cbl_status::CBL_BUSY,
            Self::Error(error) => cbl_status::of(error),
            Self::Panic(_) => cbl_status::CBL_PANIC,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misuse(_, detail) => f.write_str(detail),
            Self::Busy(detail) => f.write_str(detail.to_str().unwrap_or_default()),
            Self::Error(error) => error.fmt(f),
            Self::Panic(payload) => {
                let text = payload.downcast_ref::<&str>().copied();
                let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
                write!(f, "a bug in the library, please report it: {}", text.unwrap_or("panic"))
            }
        }
    }
}

/// The failure of every call on a handle that a panic has poisoned.
pub(super) const POISONED: Failure = Failure::Misuse(
    cbl_status::CBL_PANIC,
    "an earlier call with this handle met a bug in the library; free the handle",
);

/// The failure of a function that tokenizes, in a build without the feature `text`.
#[cfg(not(feature = "text"))]
pub(super) const NO_TOKENIZING: Failure = Failure::Misuse(
    cbl_status::CBL_UNSUPPORTED,
    "this build of the library cannot tokenize text; use token ids",
);
