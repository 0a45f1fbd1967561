//! Requests to stop an evaluation.

use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::{Error, Result};

/// The flag by which another thread asks a session to stop. The session reads it at each phase of a
/// pass and at each piece of a text that it tokenizes.
#[derive(Clone)]
pub(crate) struct Cancel {
    flag: NonNull<AtomicBool>,
    /// Keeps the flag alive, unless somebody else does.
    _owner: Option<Arc<AtomicBool>>,
}

// SAFETY: the flag is shared and atomic, and it outlives this (`Session::cancel_by_raw`).
unsafe impl Send for Cancel {}
// SAFETY: as above.
unsafe impl Sync for Cancel {}

impl Default for Cancel {
    fn default() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { flag: NonNull::from(&NEVER), _owner: None }
    }
}

impl Cancel {
    /// With a shared flag.
    pub fn by(flag: Arc<AtomicBool>) -> Self {
        Self { flag: NonNull::from(&*flag), _owner: Some(flag) }
    }

    /// With a flag that somebody else keeps alive.
    ///
    /// # Safety
    /// The flag is valid as long as this value and its clones.
    #[cfg(feature = "capi")]
    pub unsafe fn by_raw(flag: NonNull<AtomicBool>) -> Self {
        Self { flag, _owner: None }
    }

    /// Whether there is a request. The load is relaxed, because the flag guards no data and may be
    /// late.
    pub fn is_set(&self) -> bool {
        // SAFETY: the flag outlives `self`: see `Session::cancel_by` and `cancel_by_raw`.
        unsafe { self.flag.as_ref() }.load(Relaxed)
    }

    /// Fails if there is a request. The request stays until the call ends.
    #[cfg(feature = "text")]
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Takes the request, if there is one, and fails. The next call starts without it.
    pub fn take(&self) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        self.clear();
        Err(Error::Cancelled)
    }

    /// Removes a request. The call that it was meant for has ended.
    pub fn clear(&self) {
        // SAFETY: as in `is_set`.
        unsafe { self.flag.as_ref() }.store(false, Relaxed);
    }
}
