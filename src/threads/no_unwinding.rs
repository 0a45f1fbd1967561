//! Where a panic ends everything, so that none is carried from a worker to its caller.

/// There is none.
pub(super) struct FirstPanic(());

impl FirstPanic {
    pub(super) fn new() -> Self {
        Self(())
    }

    #[allow(clippy::unused_self, reason = "as where panics unwind")]
    pub(super) fn happened(&self) -> bool {
        false
    }

    #[allow(clippy::unused_self, reason = "as above")]
    pub(super) fn catch(&self, f: impl FnOnce()) {
        f();
    }

    #[allow(clippy::unused_self, reason = "as above")]
    pub(super) fn resume(self) {}
}
