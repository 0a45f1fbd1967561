//! Log, progress, memory and threads of the host
//!
//! A program can give the library a log, a callback for progress, memory and a thread pool. All are
//! options, and none is needed.

use core::ffi::c_void;
use core::ptr::NonNull;

use super::handle::{cbl_options, change};
use crate::ffi::failure::Failure;
use crate::ffi::host::{
    Arena, Log, OnProgress, Pool, cbl_log_callback, cbl_parallel_callback, cbl_progress_callback,
};
use crate::ffi::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use crate::memory::HostMemory;
use crate::threads::MAX_WORKERS;

/// Sets the callback that receives the log messages of models and sessions made with these options.
/// NULL, the default, for none. The library never writes to standard output or standard error.
///
/// `user` is passed to the callback. Both must stay valid as long as any model or session made with
/// these options. The callback may run on several threads at once if the host calls the library on
/// several threads.
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
            options.log = Log::new(callback, user);
            Ok(())
        })
    }
}

/// Sets the callback that receives the progress of opening models with these options, and may give
/// up. NULL, the default, for none. A file that is only mapped reports no progress, because that
/// takes no time.
///
/// `user` is passed to the callback. Both must stay valid as long as any call that opens a model
/// with these options is running.
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
            options.progress = OnProgress::new(callback, user);
            Ok(())
        })
    }
}

/// Sets the memory for the session that is made with these options, in place of the heap: `bytes`
/// bytes at `memory`, which begins on a 64-byte boundary. NULL, the default, for none.
///
/// The arena must hold at least the total bytes of cbl_model_plan(). The session uses that number
/// of bytes, and nobody else may use them until the session is freed. For another session, set
/// another arena: if some of its bytes belong to another session, cbl_session_new() and
/// cbl_session_fork() return CBL_BAD_ARGUMENT. Making the session writes zeros to all bytes that it
/// uses.
///
/// With an arena, the library takes from the heap only the session's handle (under 2 KiB) and a
/// note that the memory is in use. With more than one thread, the system also takes what it needs
/// for threads. Batches do not use an arena.
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
            options.arena = NonNull::new(memory.cast()).map(|start| Arena::new(start, bytes));
            Ok(())
        })
    }
}

/// Sets the host's thread pool, on which sessions made with these options run, in place of threads
/// of their own. `workers`, 1 to 64, is the number of tasks that can run at the same time;
/// CBL_OPTION_THREADS is then not used. NULL, the default, for none.
///
/// A forward pass calls the callback about ten times per layer, so the pool should start tasks
/// within microseconds. `user` is passed to the callback. Both must stay valid as long as any
/// session made with these options. Results are the same bits whatever the pool does.
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
            options.pool = Pool::new(callback, user, workers);
            Ok(())
        })
    }
}
