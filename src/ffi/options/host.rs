//! What a host may bring along
//!
//! A log, somebody to tell of progress, memory, threads. All are options, and none is needed.

use std::ffi::c_void;
use std::ptr::NonNull;

use super::handle::{cbl_options, change};
use crate::ffi::failure::Failure;
use crate::ffi::host::{
    Arena, Log, OnProgress, Pool, cbl_log_callback, cbl_parallel_callback, cbl_progress_callback,
};
use crate::ffi::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use crate::memory::HostMemory;
use crate::threads::MAX_WORKERS;

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
            options.log = Log::new(callback, user);
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
            options.progress = OnProgress::new(callback, user);
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
            options.arena = NonNull::new(memory.cast()).map(|start| Arena::new(start, bytes));
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
            options.pool = Pool::new(callback, user, workers);
            Ok(())
        })
    }
}
