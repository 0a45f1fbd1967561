//! State for one call at a time. A second call fails and does not wait.

use core::ffi::c_char;

use super::boundary::{self, Report, panic_if_armed};
use super::failure::{Failure, POISONED};
use super::host::Log;
use super::last_failure::LastFailure;
use super::status::cbl_status;
use crate::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The state of a handle, and why its last call failed.
pub(super) struct Locked<T> {
    failure: LastFailure,
    inner: Mutex<T>,
}

const IN_USE: Failure = Failure::Busy(
    c"the handle is in use, by another thread or by the call whose callback this is; \
      call again when that has returned",
);

impl<T> Locked<T> {
    pub fn new(inner: T, log: Option<Log>) -> Self {
        Self { failure: LastFailure::none(log), inner: Mutex::new(inner) }
    }

    /// Runs a call; a panic poisons the state.
    pub fn run(&self, body: &mut dyn FnMut(&mut T) -> Result<(), Failure>) -> cbl_status {
        boundary::status_of_locked(Report::Handle(&self.failure), || {
            let mut inner = self.lock()?;
            panic_if_armed();
            body(&mut inner)
        })
    }

    fn lock(&self) -> Result<MutexGuard<'_, T>, Failure> {
        self.inner.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => IN_USE,
            TryLockError::Poisoned(_) => POISONED,
        })
    }

    /// Fails if a call is using the state. A poisoned state may be freed.
    pub fn check_unused(&self) -> Result<(), Failure> {
        match self.inner.try_lock() {
            Err(TryLockError::WouldBlock) => {
                self.failure.set(&IN_USE);
                Err(IN_USE)
            }
            _ => Ok(()),
        }
    }

    /// Why the last failed call failed: see [`LastFailure::text`].
    pub fn failure(&self) -> *const c_char {
        self.failure.text()
    }

    /// The state of a handle that is still being made.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}
