//! Why the last call on a handle failed.

use core::cell::Cell;
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::failure::Failure;
use super::host::{Log, cbl_log_level, log};
use super::message::Message;
use crate::sync::{Mutex, MutexGuard, PoisonError};

thread_local! {
    /// The number of the last handle that was in use when this thread called on it, and the message of
    /// that call. It is kept per thread, because another thread may be reading the handle's own
    /// message.
    static BUSY: Cell<Option<(u64, &'static CStr)>> = const { Cell::new(None) };
}

/// The message of a handle's last failure.
pub(super) struct LastFailure {
    /// Unique among all handles, freed ones included.
    number: u64,
    message: Mutex<Message>,
    /// Receives messages about bugs.
    log: Option<Log>,
}

impl LastFailure {
    pub fn none(log: Option<Log>) -> Self {
        static HANDLES: AtomicU64 = AtomicU64::new(0);
        let number = HANDLES.fetch_add(1, Relaxed);
        Self { number, message: Mutex::new(Message::empty()), log }
    }

    pub fn set(&self, failure: &Failure) {
        if let &Failure::Busy(detail) = failure {
            BUSY.set(Some((self.number, detail)));
            return;
        }
        BUSY.set(BUSY.get().filter(|&(number, _)| number != self.number));
        *self.message() = Message::new(failure);
        if let Failure::Panic(_) = failure {
            // The lock is free again, so the callback may ask for the message.
            log(self.log, cbl_log_level::CBL_LOG_ERROR, format_args!("{failure}"));
        }
    }

    /// The message, ended by a zero byte. A thread whose last failure was that the handle is in use
    /// gets that message. Other threads get the message of the last other failure.
    pub fn text(&self) -> *const c_char {
        match BUSY.get() {
            Some((number, detail)) if number == self.number => detail.as_ptr(),
            _ => self.message().as_ptr(),
        }
    }

    fn message(&self) -> MutexGuard<'_, Message> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
