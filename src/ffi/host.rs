//! What a host may bring along
//!
//! A log, somebody to tell of progress, memory, threads. All are options, and none is needed.

use std::ffi::{c_char, c_void};
use std::fmt::{self, Debug};
use std::ops::ControlFlow;
use std::ptr::NonNull;

use super::boundary::{Callback, Failure};
use super::message::Message;
use super::options::{cbl_options, change};
use super::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use crate::memory::HostMemory;
use crate::open_options::{OpenProgress, OpenStage};
use crate::threads::{HostPool, MAX_WORKERS};

/// How much a log message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_log_level {
    /// A call failed because of a bug.
    CBL_LOG_ERROR = 1,
    /// Something is worth looking at.
    CBL_LOG_WARNING = 2,
    /// What was opened, made, generated.
    CBL_LOG_INFO = 3,
}

/// Receives a log message: a cbl_log_level and English text that ends with a zero byte and is gone when
/// the callback returns. Called on the thread whose call it is about. Must not throw or longjmp.
pub type cbl_log_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, message: *const c_char)>;

/// What takes time when a model is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_stage {
    /// CBL_ACCESS_READ: the file is read into memory.
    CBL_STAGE_READ = 1,
    /// CBL_OPTION_VERIFY: the checksums are computed.
    CBL_STAGE_VERIFY = 2,
}

/// Is told how far a model is opened: a cbl_stage, and with how many bytes of how many it is done. Called
/// at the beginning of each stage, every few mebibytes and at the end, on the thread that opens. Return
/// false to give up: the call then returns CBL_CANCELLED, and nothing is opened. Must not throw or
/// longjmp.
pub type cbl_progress_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, stage: i32, done: u64, total: u64) -> bool>;

/// One piece of work; see cbl_parallel_callback.
pub type cbl_task = Option<unsafe extern "C" fn(context: *mut c_void, index: usize)>;

/// The host's thread pool: calls `task(context, i)` exactly once for each `i` below `count`, on any
/// threads, at the same time or not, and returns when all these calls have returned.
///
/// Tasks do not wait for each other, so running them one after another is correct too. Must not throw
/// or longjmp. A pool that leaves a task out or runs it twice is found out and gives CBL_PANIC.
pub type cbl_parallel_callback = Option<
    unsafe extern "C" fn(user: *mut c_void, count: usize, task: cbl_task, context: *mut c_void),
>;

/// A log and its user data.
#[derive(Clone, Copy)]
pub(super) struct Log {
    callback: Callback<unsafe extern "C" fn(*mut c_void, i32, *const c_char)>,
    user: *mut c_void,
}

// SAFETY: the pointer only goes back to the host, whose contract allows calls on any thread.
unsafe impl Send for Log {}
// SAFETY: as above.
unsafe impl Sync for Log {}

/// Writes a message to a log, if there is one.
pub(super) fn log(log: Option<Log>, level: cbl_log_level, text: fmt::Arguments<'_>) {
    if let Some(Log { callback, user }) = log {
        let message = Message::new(text);
        // SAFETY: the contract of `cbl_options_set_log`.
        callback.call(|log| unsafe { log(user, level as i32, message.as_ptr()) });
    }
}

/// Who is told of progress.
#[derive(Clone, Copy)]
pub(super) struct OnProgress {
    callback: Callback<unsafe extern "C" fn(*mut c_void, i32, u64, u64) -> bool>,
    user: *mut c_void,
}

// SAFETY: as for `Log`.
unsafe impl Send for OnProgress {}
// SAFETY: as for `Log`.
unsafe impl Sync for OnProgress {}

impl OnProgress {
    pub fn tell(self, progress: OpenProgress) -> ControlFlow<()> {
        let OpenProgress { stage, done, total } = progress;
        let stage = match stage {
            OpenStage::Read => cbl_stage::CBL_STAGE_READ,
            OpenStage::Verify => cbl_stage::CBL_STAGE_VERIFY,
        };
        // SAFETY: the contract of `cbl_options_set_progress`.
        let goes_on =
            self.callback.call(|tell| unsafe { tell(self.user, stage as i32, done, total) });
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

/// The host's memory for a session.
#[derive(Clone, Copy)]
pub(super) struct Arena {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is the session's alone, whichever thread that is on (`cbl_options_set_arena`).
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    pub fn memory(self) -> HostMemory {
        // SAFETY: the contract of `cbl_options_set_arena`.
        unsafe { HostMemory::new(self.start, self.bytes) }
    }
}

/// The host's thread pool.
#[derive(Clone, Copy)]
pub(super) struct Pool {
    callback: Callback<unsafe extern "C" fn(*mut c_void, usize, cbl_task, *mut c_void)>,
    user: *mut c_void,
    pub workers: usize,
}

// SAFETY: as for `Log`.
unsafe impl Send for Pool {}
// SAFETY: as for `Log`.
unsafe impl Sync for Pool {}

impl Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl HostPool for Pool {
    fn workers(&self) -> usize {
        self.workers
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        /// Calls the closure that `context` points to.
        unsafe extern "C" fn run(context: *mut c_void, index: usize) {
            // SAFETY: `context` is the address below, which is valid until `for_each` returns, and
            // the host calls tasks only until then.
            let task = unsafe { &*context.cast::<&(dyn Fn(usize) + Sync)>() };
            task(index);
        }
        let context = (&raw const task).cast_mut().cast();
        // SAFETY: the contract of `cbl_options_set_pool`. A task never unwinds.
        self.callback.call(|pool| unsafe { pool(self.user, tasks, Some(run), context) });
    }
}

/// Sets where log messages of models and sessions made with these options go. NULL, the default, for
/// nowhere. The library never writes to standard output or standard error.
///
/// `user` is passed to the callback. Both stay valid as long as any model or session made with these
/// options. The callback may be called on several threads at once if the host is.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_log(
    options: *mut cbl_options,
    callback: cbl_log_callback,
    user: *mut c_void,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            options.log = callback.map(|function| Log { callback: Callback::new(function), user });
            Ok(())
        })
    }
}

/// Sets who is told of the progress of opening models with these options, and may give up. NULL, the
/// default, for nobody. To map a file takes no time worth telling of.
///
/// `user` is passed to the callback. Both stay valid as long as any call that opens a model with these
/// options.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_progress(
    options: *mut cbl_options,
    callback: cbl_progress_callback,
    user: *mut c_void,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            options.progress =
                callback.map(|function| OnProgress { callback: Callback::new(function), user });
            Ok(())
        })
    }
}

/// Sets memory to use for the session that is made with these options, in place of the heap: `bytes`
/// bytes from `memory`, which begins on a 64-byte boundary. NULL, the default, for none.
///
/// It must hold the total of cbl_model_plan(). So many bytes are the session's alone until that is freed,
/// so set another one before making another session: CBL_BAD_ARGUMENT of cbl_session_new() and
/// cbl_session_fork() says that some of them belong to another session. Making the session writes zeros
/// to all of these bytes. The library takes nothing from the heap then but the session's handle (under
/// 2 KiB), a note of whose memory it is and, with more than one thread, what the system needs for
/// threads. Batches do not use an arena.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_arena(
    options: *mut cbl_options,
    memory: *mut c_void,
    bytes: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            if !memory.cast::<u8>().addr().is_multiple_of(HostMemory::ALIGN) {
                let detail = "the arena does not begin on a 64-byte boundary";
                return Err(Failure::Misuse(CBL_BAD_ARGUMENT, detail));
            }
            options.arena = NonNull::new(memory.cast()).map(|start| Arena { start, bytes });
            Ok(())
        })
    }
}

/// Sets a thread pool of the host's to run sessions on that are made with these options, in place of
/// threads of their own. `workers`, 1 to 64, says how many tasks can run at a time; CBL_OPTION_THREADS
/// is not used then. NULL, the default, for none.
///
/// A forward pass calls the callback about ten times per layer, so the pool should answer in
/// microseconds. `user` is passed to the callback. Both stay valid as long as any session made with
/// these options. Results are the same bits whatever the pool does.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_pool(
    options: *mut cbl_options,
    callback: cbl_parallel_callback,
    workers: usize,
    user: *mut c_void,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            if callback.is_some() && !(1..=MAX_WORKERS).contains(&workers) {
                let detail = "the number of a pool's workers is not in 1..=64";
                return Err(Failure::Misuse(CBL_BAD_ARGUMENT, detail));
            }
            options.pool =
                callback.map(|function| Pool { callback: Callback::new(function), user, workers });
            Ok(())
        })
    }
}
