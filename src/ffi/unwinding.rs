//! Panics that unwind: they end at the boundary, and print nothing.

use alloc::boxed::Box;
use core::any::Any;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Once, OnceLock};

/// `AssertUnwindSafe` is sound because a panic poisons the lock of all state that it may leave half
/// done.
pub(super) fn catch<T>(body: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(body))
}

/// Whether this thread unwinds.
pub(super) fn is_unwinding() -> bool {
    std::thread::panicking()
}

/// Calls of the interface that have not returned yet, on all threads.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A call that has not returned yet.
pub(super) struct Call;

impl Call {
    pub fn begin() -> Self {
        silence_panics();
        CALLS.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Relaxed);
    }
}

/// Keeps panics of calls off standard error, to which the standard library writes every panic.
///
/// In a C program the hook belongs to the library's own copy of the standard library. A Rust program
/// that links this crate keeps its own hook for panics outside of calls.
fn silence_panics() {
    type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;
    static PREVIOUS: OnceLock<Hook> = OnceLock::new();
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let _ = PREVIOUS.set(take_hook());
        // The closure captures nothing, so its box allocates nothing.
        set_hook(Box::new(|info| {
            if CALLS.load(Relaxed) == 0
                && let Some(previous) = PREVIOUS.get()
            {
                previous(info);
            }
        }));
    });
}
