//! Stopping what a batch does.

use core::sync::atomic::Ordering::Relaxed;

use super::state::cbl_batch;
use crate::ffi::boundary;
use crate::ffi::handle;
use crate::ffi::status::cbl_status;

/// Stops the call that evaluates or generates on the batch, or if none is running, the next one.
/// The call returns CBL_CANCELLED, also if it generates. Otherwise as cbl_session_cancel().
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_cancel(batch: *const cbl_batch) -> cbl_status {
    set_cancel(batch, true)
}

/// Takes back a request of cbl_batch_cancel() that no call has used up yet.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_clear_cancel(batch: *const cbl_batch) -> cbl_status {
    set_cancel(batch, false)
}

/// Stores to an atomic and takes no lock, so it is safe in a signal handler.
fn set_cancel(batch: *const cbl_batch, wanted: bool) -> cbl_status {
    boundary::status_in_signal(|| {
        // SAFETY: the caller's contract.
        unsafe { handle::get(batch) }?.cancel.store(wanted, Relaxed);
        Ok(())
    })
}
