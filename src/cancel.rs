//! Stopping an evaluation from outside.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::{Error, Result};

/// Where a session looks whether it should stop: phase by phase of a pass, piece by piece of a text.
#[derive(Clone)]
pub(crate) struct Cancel {
    flag: NonNull<AtomicBool>,
    /// Keeps the flag alive unless somebody else does.
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
    /// By a flag that is shared.
    pub fn by(flag: Arc<AtomicBool>) -> Self {
        Self { flag: NonNull::from(&*flag), _owner: Some(flag) }
    }

    /// By a flag that somebody else keeps.
    ///
    /// # Safety
    /// The flag stays valid as long as this and its clones.
    #[cfg(feature = "capi")]
    pub unsafe fn by_raw(flag: NonNull<AtomicBool>) -> Self {
        Self { flag, _owner: None }
    }

    /// Whether somebody asked to stop. Relaxed: it carries no data, and being late is harmless.
    pub fn is_set(&self) -> bool {
        // SAFETY: the flag outlives `self`: see `Session::cancel_by` and `cancel_by_raw`.
        unsafe { self.flag.as_ref() }.load(Relaxed)
    }

    /// Fails if somebody asked to stop, and leaves the request to the call's end.
    #[cfg(feature = "text")]
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Follows a request, if there is one: the next call starts without it.
    pub fn follow(&self) -> Result<()> {
        if !self.is_set() {
            return Ok(());
        }
        self.clear();
        Err(Error::Cancelled)
    }

    /// Drops a request: the call that it was meant for has ended.
    pub fn clear(&self) {
        // SAFETY: as in `is_set`.
        unsafe { self.flag.as_ref() }.store(false, Relaxed);
    }
}
