//! The tokens of a session: evaluated, chosen, forgotten.

use alloc::borrow::ToOwned;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::Ordering::Relaxed;

use super::state::{Inner, cbl_session, with, with_running, work};
use crate::error::Error;
use crate::ffi::arguments::{Out, required, tokens_that_fit};
use crate::ffi::boundary;
use crate::ffi::failure::Failure;
use crate::ffi::handle;
use crate::ffi::options::{self, Options, cbl_options};
use crate::ffi::status::cbl_status;
use crate::session_options::LogitsFor;

/// Forgets all tokens. Takes no time.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_reset(session: *mut cbl_session) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(session, |inner| {
            inner.session.reset();
            Ok(())
        })
    }
}

/// Forgets the tokens from `position` on. `position` is at most cbl_session_position(). Takes no
/// time. If layers of the model see only a window of the last tokens, the next evaluation may have
/// to evaluate some of the remaining tokens again.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_rewind(
    session: *mut cbl_session,
    position: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with(session, |inner| Ok(inner.session.rewind(position)?)) }
}

/// Returns the number of tokens in the session, which is the position of the next token. During a
/// call the number is the one before that call. 0 for a bad handle.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_position(session: *const cbl_session) -> usize {
    boundary::value(0, || {
        // SAFETY: the caller's contract.
        Ok(unsafe { handle::get(session) }?.position.load(Relaxed))
    })
}

/// Finds the tokens in the session: `*tokens` points to `*count` ids, valid until the next call on
/// the session. NULL and 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_tokens(
    session: *mut cbl_session,
    tokens: *mut *const u32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let outs = (Out::new(tokens, ptr::null()), Out::new(count, 0));
        with_running(session, |inner| {
            let (tokens, count) = (outs.0?, outs.1?);
            tokens.set(inner.session.tokens().as_ptr());
            count.set(inner.session.tokens().len());
            Ok(())
        })
    }
}

/// Appends `count` tokens and evaluates them. Afterwards the last token has logits, which can be
/// read or sampled.
///
/// One thread at a time. On failure the session holds the tokens that it held before, and has no
/// logits. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if `count` is 0, CBL_BAD_TOKEN,
/// CBL_CONTEXT_FULL, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_evaluate(
    session: *mut cbl_session,
    tokens: *const u32,
    count: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { work(session, |inner| evaluate(inner, tokens, count, &mut |_, _| ())) }
}

/// Receives the logits of the token at `position`: `count` floats, valid until the callback
/// returns. Return false to receive no more; the evaluation goes on. The callback runs on the
/// thread that called the library, in that thread's floating-point environment. It must not throw
/// or longjmp.
pub type cbl_logits_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        position: usize,
        logits: *const f32,
        count: usize,
    ) -> bool,
>;

/// Appends and evaluates tokens as cbl_session_evaluate() does, and calls `callback` with the
/// logits of every token, in order. This is what a program needs to score a text. The session must
/// be made with CBL_OPTION_ALL_LOGITS.
///
/// One thread at a time. Errors: those of cbl_session_evaluate(), CBL_MODEL_CHANGED among them;
/// CBL_BAD_OPTION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_evaluate_each(
    session: *mut cbl_session,
    tokens: *const u32,
    count: usize,
    callback: cbl_logits_callback,
    user: *mut c_void,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        work(session, |inner| {
            let callback = required(callback)?;
            if inner.setup.options.logits != LogitsFor::All {
                let detail = "make the session with CBL_OPTION_ALL_LOGITS".to_owned();
                return Err(Error::Option { name: "all logits", detail }.into());
            }
            let mut wanted = true;
            evaluate(inner, tokens, count, &mut |position, logits| {
                let (row, count) = (logits.as_ptr(), logits.len());
                wanted = wanted && callback.call(|visit| visit(user, position, row, count));
            })
        })
    }
}

/// # Safety
/// As [`slice`].
unsafe fn evaluate(
    inner: &mut Inner,
    tokens: *const u32,
    count: usize,
    visit: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let tokens = unsafe { tokens_that_fit(&inner.session, tokens, count) }?;
    inner.counted(count, |session| session.evaluate_each(tokens, visit))
}

/// Finds the logits of the last token: `*logits` points to `*count` floats, one for each token of
/// the vocabulary. They are valid until the next call that evaluates, generates, resets, rewinds,
/// restores or frees. NULL and 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY,
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_logits(
    session: *mut cbl_session,
    logits: *mut *const f32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let outs = (Out::new(logits, ptr::null()), Out::new(count, 0));
        with_running(session, |inner| {
            let (logits, count) = (outs.0?, outs.1?);
            let row = inner.session.last_logits()?;
            logits.set(row.as_ptr());
            count.set(row.len());
            Ok(())
        })
    }
}

/// Chooses the next token from the logits of the last token, by the options for generation. The
/// session does not change; to go on, evaluate the chosen token. `options` may be NULL. `*token` is
/// 0 on failure.
///
/// The choice depends on the logits, the options, the session's tokens (for the repetition penalty)
/// and the position (which makes the random number, together with the seed), and on nothing else.
///
/// CBL_OPTION_CHOICES, CBL_OPTION_REGEX and CBL_OPTION_JSON_SCHEMA concern a whole text. If one of
/// them is set, a single choice fails with CBL_BAD_OPTION.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_LOGITS,
/// CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_sample(
    session: *mut cbl_session,
    options: *const cbl_options,
    token: *mut u32,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(token, 0);
        with_running(session, |inner| {
            let out = out?;
            let sample = |options: &Options| Ok(inner.session.sample(options.choice()?)?);
            out.set(options::with(options, sample)?);
            Ok(())
        })
    }
}
