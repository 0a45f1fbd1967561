//! The host's thread pool.

use core::ffi::c_void;
use core::fmt::{self, Debug};

use super::callback::Callback;
use crate::threads::HostPool;

/// One piece of work; see cbl_parallel_callback.
pub type cbl_task = Option<unsafe extern "C" fn(context: *mut c_void, index: usize)>;

/// Runs tasks on the host's thread pool: calls `task(context, i)` exactly once for each `i` from 0
/// to `count` - 1, and returns when all these calls have returned. The calls may be made on any
/// threads, at the same time or not.
///
/// Tasks do not wait for each other, so it is correct to run them one after another. The callback
/// must not throw or longjmp. If a pool leaves out a task or runs it twice, the library notices,
/// and the call returns CBL_PANIC.
pub type cbl_parallel_callback = Option<
    unsafe extern "C" fn(user: *mut c_void, count: usize, task: cbl_task, context: *mut c_void),
>;

/// The host's thread pool.
#[derive(Clone, Copy)]
pub struct Pool {
    callback: Callback<unsafe extern "C" fn(*mut c_void, usize, cbl_task, *mut c_void)>,
    user: *mut c_void,
    pub workers: usize,
}

// SAFETY: as for `Log`.
unsafe impl Send for Pool {}
// SAFETY: as for `Log`.
unsafe impl Sync for Pool {}

impl Pool {
    /// None without a callback.
    pub fn new(callback: cbl_parallel_callback, user: *mut c_void, workers: usize) -> Option<Self> {
        callback.map(|function| Self { callback: Callback::new(function), user, workers })
    }
}

impl Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool of {} workers", self.workers)
    }
}

impl HostPool for Pool {
    fn workers(&self) -> usize {
        self.workers
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        /// Calls the closure that `context` points to.
        unsafe extern "C" fn run(context: *mut c_void, index: usize) {
            // SAFETY: `context` is the address below, which is valid until `for_each` returns. The host
            // calls tasks only until then.
            let task = unsafe { &*context.cast::<&(dyn Fn(usize) + Sync)>() };
            task(index);
        }
        let context = (&raw const task).cast_mut().cast();
        // SAFETY: the contract of `cbl_options_set_pool`. A task never unwinds.
        self.callback.call(|pool| unsafe { pool(self.user, tasks, Some(run), context) });
    }
}
