//! Stopping what a session does.

use core::sync::atomic::Ordering::Relaxed;

use super::state::cbl_session;
use crate::ffi::boundary;
use crate::ffi::handle;
use crate::ffi::status::cbl_status;

/// Stops the call that evaluates or generates on the session. The call stops within a fraction of a
/// layer's time; while it tokenizes or cuts a text, within a few kilobytes of it. An evaluation
/// then returns CBL_CANCELLED. A generation returns CBL_OK and CBL_STOP_CANCELLED. Only the
/// preparation of a constraint is finished first, which takes a second for 100 000 choices.
///
/// The call that is running uses up the request, even if the request comes too late to stop it. If
/// no call is running, the request stops the next one that evaluates, generates, scores,
/// classifies, embeds or applies a template. cbl_session_clear_cancel() takes the request back.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_cancel(session: *const cbl_session) -> cbl_status {
    set_cancel(session, true)
}

/// Takes back a request of cbl_session_cancel() that no call has used up yet.
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
