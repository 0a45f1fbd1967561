//! Carries a panic from the worker it happened in to the caller of the pass.

use super::sync::{AtomicBool, Mutex};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

/// The first panic of one pass.
pub(super) struct FirstPanic {
    happened: AtomicBool,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

impl FirstPanic {
    pub(super) fn new() -> Self {
        Self { happened: AtomicBool::new(false), payload: Mutex::new(None) }
    }

    /// Relaxed: the barrier between phases orders it, and within one it only saves work.
    pub(super) fn happened(&self) -> bool {
        self.happened.load(Relaxed)
    }

    /// Calls `f` unless there was a panic already; keeps its panic. Never unwinds.
    ///
    /// `AssertUnwindSafe`: the panic goes on in the caller, where it crosses whatever `f` borrows.
    pub(super) fn catch(&self, f: impl FnOnce()) {
        if self.happened() {
            return;
        }
        if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
            self.happened.store(true, Relaxed);
            let mut first = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
            match *first {
                None => *first = Some(payload),
                Some(_) => discard(payload),
            }
        }
    }

    /// Lets the panic, if any, go on in this thread, without calling the panic hook again.
    pub(super) fn resume(self) {
        if let Some(payload) = self.payload.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
}

/// Drops a payload whose own drop may panic; then what that panic carries is leaked, for it might, too.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
}
