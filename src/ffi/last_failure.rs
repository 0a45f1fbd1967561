//! Why the last call on a handle failed.

use core::ffi::c_char;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::failure::Failure;
use super::host::{Log, cbl_log_level, log};
use super::message::Message;
use super::thread;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The message of a handle's last failure.
pub(super) struct LastFailure {
    /// Unique among all handles, freed ones included.
    number: usize,
    message: Mutex<Message>,
    /// Receives messages about bugs.
    log: Option<Log>,
}

impl LastFailure {
    pub fn none(log: Option<Log>) -> Self {
        static HANDLES: AtomicUsize = AtomicUsize::new(0);
        let number = HANDLES.fetch_add(1, Relaxed);
        Self { number, message: Mutex::new(Message::empty()), log }
    }

    pub fn set(&self, failure: &Failure) {
        if let &Failure::Busy(detail) = failure {
            thread::note_busy(self.number, detail);
            return;
        }
        thread::forget_busy(self.number);
        *self.message() = Message::new(failure);
        if let Failure::Panic(_) = failure {
            // The lock is free again, so the callback may ask for the message.
            log(self.log, cbl_log_level::CBL_LOG_ERROR, format_args!("{failure}"));
        }
    }

    /// The message, ended by a zero byte. A thread whose last failure was that the handle is in use
    /// gets that message. Other threads get the message of the last other failure.
    pub fn text(&self) -> *const c_char {
        thread::busy(self.number).unwrap_or_else(|| self.message().as_ptr())
    }

    fn message(&self) -> MutexGuard<'_, Message> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
