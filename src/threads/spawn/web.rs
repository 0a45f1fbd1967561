//! Threads in a browser and in Node: the host has workers that wait, each with an instance of the module of its
//! own over the same memory, and with a stack and thread-local data in it (`bindings/web/src/threads.js`). So a
//! thread is there at once, or not at all: no worker can start while the one that computes does not return.

use super::{Life, io};
use std::ffi::c_void;

#[link(wasm_import_module = "cerebellum")]
unsafe extern "C" {
    /// Lets a worker that waits, with a stack of at least so many bytes, call `start(life)`; which one, or
    /// -1 if there is none.
    fn thread_start(start: extern "C" fn(*const c_void), life: *const c_void, stack: usize) -> i32;
    /// Returns when that worker waits again.
    safe fn thread_join(worker: i32);
    /// Throws if a worker has ended in a trap: what it was to do will never be done.
    safe fn thread_check();
}

/// A running thread.
#[derive(Debug)]
pub(in super::super) struct Thread(i32);

impl Thread {
    /// Waits until the thread has ended.
    pub fn join(self) {
        thread_join(self.0);
    }
}

/// As the POSIX one.
///
/// # Safety
/// `life` stays valid until the thread has ended.
pub(in super::super) unsafe fn spawn<T: Life>(
    _index: usize,
    life: *const T,
    stack: usize,
) -> io::Result<Thread> {
    // SAFETY: `start` gets what it expects, valid as long as it runs.
    match unsafe { thread_start(start::<T>, life.cast(), stack) } {
        -1 => Err(io::ErrorKind::WouldBlock.into()),
        worker => Ok(Thread(worker)),
    }
}

extern "C" fn start<T: Life>(life: *const c_void) {
    // SAFETY: `spawn` passes a T that outlives the thread, and T is Sync.
    unsafe { &*life.cast::<T>() }.live();
}

/// Must be called from time to time by who waits for other threads. Does not return if one has ended in a trap.
pub(in super::super) fn check() {
    thread_check();
}
