//! Batches
//!
//! A batch is several sequences. One pass over the weights evaluates tokens of all of them, so eight
//! sequences take little longer than one. Each sequence gives the same bits as in a session of its
//! own.
//!
//! For many prompts, make a batch of as many sequences as memory allows (cbl_model_plan_batch()),
//! and pass all prompts to cbl_batch_generate(). When a text ends, the next prompt takes its
//! sequence.

use alloc::sync::Arc;
use core::ffi::c_char;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicBool;

use super::state::{Inner, cbl_batch, with_running};
use crate::ffi::arguments::{GrowingOut, Out};
use crate::ffi::boundary::{self, Report};
use crate::ffi::handle::{self, Place};
use crate::ffi::locked::Locked;
use crate::ffi::model::{self, cbl_memory_plan, cbl_model};
use crate::ffi::options::{self, Setup, cbl_options};
use crate::ffi::status::cbl_status;
use crate::session_options::SessionOptions;

/// Writes to `*plan` what memory a batch of `sequences` sequences takes, as cbl_model_plan() does
/// for a session. Each sequence has the context that the options say.
///
/// Thread-safe. Errors: those of cbl_model_plan(); CBL_BAD_OPTION also if `sequences` is not in 1
/// to 1024.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_plan_batch(
    model: *const cbl_model,
    options: *const cbl_options,
    sequences: usize,
    plan: *mut cbl_memory_plan,
    size: usize,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = GrowingOut::new(plan, size);
        model::with(model, Report::Buffer(message, message_size), |shared| {
            let out = out?;
            let needed = options::with(options, |options| {
                let (session, workers) = (&options.session, Setup::of(options).workers());
                let session = SessionOptions { threads: workers, ..session.clone() };
                Ok(shared.model.plan_batch(&session, sequences)?)
            })?;
            out.set(&cbl_memory_plan::from(needed));
            Ok(())
        })
    }
}

/// Makes a batch of `sequences` sequences, 1 to 1024. Each has the context that the options say.
/// `options` may be NULL. The options count as for cbl_session_new(), but CBL_OPTION_ALL_LOGITS,
/// CBL_OPTION_DRAFT and an arena are not used. `*batch` is NULL if that fails.
///
/// Thread-safe. Errors: those of cbl_session_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_new(
    model: *const cbl_model,
    options: *const cbl_options,
    sequences: usize,
    batch: *mut *mut cbl_batch,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(batch, ptr::null_mut());
        model::with_shared(model, Report::Buffer(message, message_size), |shared| {
            let out = out?;
            let setup = options::with(options, |options| Ok(Setup::of(options)))?;
            let batch = shared.model.batch_with(&setup.options, sequences, setup.executor()?)?;
            let inner = Inner { batch, shared: Arc::clone(shared), running: None };
            let mut handle = Place::new(cbl_batch {
                cancel: AtomicBool::new(false),
                locked: Locked::new(inner, setup.log),
            })?;
            let flag = NonNull::from(&handle.cancel);
            // The flag lies in the same box as the batch, and is dropped with it.
            handle.locked.get_mut().batch.cancel_by_raw(flag);
            out.set(handle.give());
            Ok(())
        })
    }
}

/// Keeps a batch's memory in RAM, as cbl_session_lock_memory() does for a session.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY;
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_lock_memory(batch: *mut cbl_batch) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with_running(batch, &mut |inner| Ok(inner.batch.lock_memory()?)) }
}

/// Frees a batch; NULL is allowed.
///
/// No other call may be using the handle. This is checked: during a call, the function returns
/// CBL_BUSY and frees nothing. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_free(batch: *mut cbl_batch) -> cbl_status {
    if batch.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract, and no call is using it.
        unsafe {
            handle::get(batch)?.locked.check_unused()?;
            handle::free(batch);
        }
        Ok(())
    })
}

/// Returns why the last failed call on this batch failed, as cbl_session_error() does for a
/// session.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_error(batch: *mut cbl_batch) -> *const c_char {
    boundary::value(handle::NONE.as_ptr(), || {
        // SAFETY: the caller's contract.
        Ok(unsafe { handle::get(batch) }?.locked.failure())
    })
}
