//! Sessions
//!
//! A session is one sequence of tokens, with its cache of keys and values and all the buffers that
//! it needs. They are allocated when the session is made. Evaluating, sampling and generating tokens
//! allocate nothing.
//!
//! A session is for one thread at a time. A call on a session that is in use, by another thread or
//! by the call that is running the callback, returns CBL_BUSY and does nothing. Functions that take
//! a `const cbl_session *` may be called at any time from any thread.

use alloc::sync::Arc;
use core::ffi::c_char;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize};

use super::state::{Counters, Inner, cbl_session, with_running};
use crate::error::Result;
use crate::ffi::arguments::Out;
use crate::ffi::boundary::{self, Report};
use crate::ffi::handle::{self, Place};
use crate::ffi::host::{Arena, cbl_log_level, log};
use crate::ffi::locked::Locked;
use crate::ffi::model::{self, Shared, cbl_model};
use crate::ffi::options::{self, Setup, cbl_options};
use crate::ffi::status::cbl_status;
use crate::kernels::Isa;

/// Makes a session and gives it to `out`.
fn make(shared: Arc<Shared>, setup: Setup, arena: Option<Arena>) -> Result<Place<cbl_session>> {
    let executor = setup.executor()?;
    let memory = arena.map(Arena::memory);
    let session = shared.model.session_in(&setup.options, executor, memory)?;
    log(
        setup.log,
        cbl_log_level::CBL_LOG_INFO,
        format_args!(
            "session made: context {}, {}, {} threads",
            session.context(),
            session.isa(),
            setup.workers(),
        ),
    );
    if session.isa() == Isa::Scalar {
        let text = format_args!("no fast kernels for this processor: evaluation will be slow");
        log(setup.log, cbl_log_level::CBL_LOG_WARNING, text);
    }
    let log_to = setup.log;
    let inner = Inner { session, shared, setup, counters: Counters::default(), running: None };
    let mut handle = Place::new(cbl_session {
        cancel: AtomicBool::new(false),
        position: AtomicUsize::new(0),
        locked: Locked::new(inner, log_to),
    })?;
    let flag = NonNull::from(&handle.cancel);
    // SAFETY: the flag lies in the same box as the session, and is dropped with it.
    unsafe { handle.locked.get_mut().session.cancel_by_raw(flag) };
    Ok(handle)
}

/// Makes a session of a model. `options` may be NULL. `*session` is NULL if that fails.
///
/// The call takes all the memory that the session will use, as much as cbl_model_plan() says. It
/// starts threads if the options ask for more than one.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, also if the arena belongs to another
/// session; CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_NO_THREADS, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_new(
    model: *const cbl_model,
    options: *const cbl_options,
    session: *mut *mut cbl_session,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let report = Report::Buffer(message, message_size);
        let out = Out::new(session, ptr::null_mut());
        model::with_shared(model, report, |shared| {
            let out = out?;
            let (setup, arena) =
                options::with(options, |options| Ok((Setup::of(options), options.arena)))?;
            out.set(make(Arc::clone(shared), setup, arena)?.give());
            Ok(())
        })
    }
}

/// Makes another session that holds the same tokens. Afterwards the two sessions are independent.
/// If `options` is NULL, the fork is made with the options of the first session, but not in its
/// arena. Otherwise the options must give the same type of cache, and a context that holds the
/// tokens. `*fork` is NULL if that fails.
///
/// One thread at a time. Errors: those of cbl_session_new(); CBL_BAD_SAVED if the type of the cache
/// differs; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_fork(
    session: *mut cbl_session,
    options: *const cbl_options,
    fork: *mut *mut cbl_session,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(fork, ptr::null_mut());
        with_running(session, |inner| {
            let out = out?;
            let (setup, arena) = if options.is_null() {
                (inner.setup.clone(), None)
            } else {
                options::with(options, |options| Ok((Setup::of(options), options.arena)))?
            };
            let mut copy = make(Arc::clone(&inner.shared), setup, arena)?;
            let copied = &mut copy.locked.get_mut().session;
            copied.copy_from(&mut inner.session)?;
            let position = copied.position();
            *copy.position.get_mut() = position;
            out.set(copy.give());
            Ok(())
        })
    }
}

/// Brings a session's memory into RAM and keeps it there as long as the session lives: all the
/// bytes of cbl_model_plan(), also those of the cache that are not in use yet. For the weights, see
/// cbl_model_lock_memory(). If the system refuses, the session can be used as before.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY;
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_lock_memory(session: *mut cbl_session) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with_running(session, |inner| Ok(inner.session.lock_memory()?)) }
}

/// Frees a session; NULL is allowed.
///
/// No other call may be using the handle. This is checked: while a call on the session runs, on
/// another thread or around this callback, the function returns CBL_BUSY and frees nothing. Errors:
/// CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_free(session: *mut cbl_session) -> cbl_status {
    if session.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { handle::get(session) }?;
        handle.locked.check_unused()?;
        // SAFETY: the caller's contract, and no call is using it.
        unsafe { handle::free(session) };
        Ok(())
    })
}

/// Returns why the last failed call on this session failed. The text is English, never NULL, and
/// valid until the next call on the session. It is for logs and developers; a program should branch
/// on the status. After CBL_BUSY, the thread that got it reads that the session is in use; the
/// message for other threads does not change.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_error(session: *mut cbl_session) -> *const c_char {
    boundary::value(handle::NONE.as_ptr(), || {
        // SAFETY: the caller's contract.
        let session = unsafe { handle::get(session) }?;
        Ok(session.locked.failure())
    })
}
