//! The host's log.

use core::ffi::{c_char, c_void};
use core::fmt;

use super::callback::Callback;
use crate::ffi::message::Message;

/// How much a log message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_log_level {
    /// A call failed because of a bug.
    CBL_LOG_ERROR = 1,
    /// Something may need attention.
    CBL_LOG_WARNING = 2,
    /// A model was opened, a session was made, a text was generated.
    CBL_LOG_INFO = 3,
}

/// Receives a log message: a cbl_log_level, and English text that ends with a zero byte and is
/// valid until the callback returns. The callback runs on the thread whose call the message is
/// about. It must not throw or longjmp.
pub type cbl_log_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// A log callback and its user data.
#[derive(Clone, Copy)]
pub struct Log {
    callback: Callback<unsafe extern "C" fn(*mut c_void, i32, *const c_char)>,
    user: *mut c_void,
}

// SAFETY: the library only passes the pointer to the host, whose contract allows calls on any thread.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

impl Log {
    /// None without a callback.
    pub fn new(callback: cbl_log_callback, user: *mut c_void) -> Option<Self> {
        callback.map(|function| Self { callback: Callback::new(function), user })
    }
}

/// Writes a message to a log, if there is one.
pub fn log(log: Option<Log>, level: cbl_log_level, text: fmt::Arguments<'_>) {
    if let Some(Log { callback, user }) = log {
        let message = Message::new(text);
        // SAFETY: the contract of `cbl_options_set_log`.
        callback.call(|log| unsafe { log(user, level as i32, message.as_ptr()) });
    }
}
