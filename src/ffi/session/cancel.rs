//! Stopping what a session does.

use std::sync::atomic::Ordering::Relaxed;

use super::state::cbl_session;
use crate::ffi::boundary;
use crate::ffi::handle;
use crate::ffi::status::cbl_status;

/// Stops the call that evaluates or generates on the session: within a fraction of a layer's time, or within
/// a few kilobytes of a text that is tokenized or cut. An evaluation then returns CBL_CANCELLED; a generation
/// returns CBL_OK and CBL_STOP_CANCELLED. Only what prepares a constraint is finished first, a second for
/// 100 000 choices.
///
/// The request is used up by the call that is running, even if it comes too late to stop it. If none is
/// running, it stops the next call that evaluates, generates, scores, classifies, embeds or applies a template;
/// cbl_session_clear_cancel() takes it back.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_cancel(session: *const cbl_session) -> cbl_status {
    set_cancel(session, true)
}

/// Takes back a request of cbl_session_cancel() that no call has followed yet.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_clear_cancel(session: *const cbl_session) -> cbl_status {
    set_cancel(session, false)
}

/// Stores to an atomic and takes no lock, so it is safe in a signal handler. The boundary's one-time
/// preparations are done, because a call has made the session.
fn set_cancel(session: *const cbl_session, wanted: bool) -> cbl_status {
    boundary::status_in_signal(|| {
        // SAFETY: the caller's contract.
        unsafe { handle::get(session) }?.cancel.store(wanted, Relaxed);
        Ok(())
    })
}
