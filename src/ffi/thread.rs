//! What each thread has for itself.

use core::cell::Cell;
use core::ffi::{CStr, c_char};

use crate::fp_env::Environment;

thread_local! {
    /// The environment that the host had when it made this thread's innermost call.
    static HOST: Cell<Option<Environment>> = const { Cell::new(None) };
    /// The number of the last handle that was in use when this thread called on it, and the message of
    /// that call. It is kept per thread, because another thread may be reading the handle's own
    /// message.
    static BUSY: Cell<Option<(usize, &'static CStr)>> = const { Cell::new(None) };
}

/// The host's floating-point environment, if this thread is in a call.
pub(super) fn host() -> Option<Environment> {
    HOST.get()
}

/// Notes the host's environment, and returns what was noted before.
pub(super) fn replace_host(host: Option<Environment>) -> Option<Environment> {
    HOST.replace(host)
}

/// Notes that the handle of that number was in use, and the message.
pub(super) fn note_busy(number: usize, detail: &'static CStr) {
    BUSY.set(Some((number, detail)));
}

/// Forgets that, if it was noted last.
pub(super) fn forget_busy(number: usize) {
    BUSY.set(BUSY.get().filter(|&(of, _)| of != number));
}

/// The message, if it was noted last for the handle of that number.
pub(super) fn busy(number: usize) -> Option<*const c_char> {
    BUSY.get().filter(|&(of, _)| of == number).map(|(_, detail)| detail.as_ptr())
}
