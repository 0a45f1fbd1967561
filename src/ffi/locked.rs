//! State for one call at a time: who comes second is told so and does not wait.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::boundary::{self, Failure, POISONED, Report, panic_if_armed};
use super::host::{Log, cbl_log_level, log};
use super::message::Message;
use super::status::cbl_status::{self, CBL_BUSY};

/// What a handle guards, with the message of the last failure.
pub(super) struct Locked<T> {
    message: Mutex<Message>,
    log: Option<Log>,
    inner: Mutex<T>,
}

impl<T> Locked<T> {
    pub fn new(inner: T, log: Option<Log>) -> Self {
        Self { message: Mutex::new(Message::empty()), log, inner: Mutex::new(inner) }
    }

    /// Runs a call; a panic poisons the state.
    pub fn run(&self, body: &mut dyn FnMut(&mut T) -> Result<(), Failure>) -> cbl_status {
        let was_poisoned = self.inner.is_poisoned();
        let status = boundary::status_of_locked(Report::Handle(&self.message), || {
            let mut inner = self.lock()?;
            panic_if_armed();
            body(&mut inner)
        });
        if status == cbl_status::CBL_PANIC && !was_poisoned {
            // Copied, because the callback may ask for the message.
            let message = self.message().clone();
            log(self.log, cbl_log_level::CBL_LOG_ERROR, format_args!("{message}"));
        }
        status
    }

    fn lock(&self) -> Result<MutexGuard<'_, T>, Failure> {
        self.inner.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Failure::Misuse(CBL_BUSY, "the handle is in use"),
            TryLockError::Poisoned(_) => POISONED,
        })
    }

    /// Whether it may be freed now, poisoned or not.
    pub fn check_unused(&self) -> Result<(), Failure> {
        match self.inner.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Failure::Misuse(CBL_BUSY, "the handle is in use")),
            _ => Ok(()),
        }
    }

    /// Why the last failed call failed.
    pub fn message(&self) -> MutexGuard<'_, Message> {
        self.message.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, of a handle that is still being made.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
