//! The tokens of a session: evaluated, chosen, forgotten.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering::Relaxed;

use super::state::{Inner, cbl_session, with, with_running, work};
use crate::error::Error;
use crate::ffi::arguments::{Out, required, tokens_that_fit};
use crate::ffi::boundary;
use crate::ffi::failure::Failure;
use crate::ffi::handle;
use crate::ffi::options::{self, Options, cbl_options};
use crate::ffi::status::cbl_status;
use crate::session_options::LogitsFor;

/// Forgets every token. Costs nothing.
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

/// Forgets the tokens from `position` on, which is at most cbl_session_position(). Costs nothing.
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

/// The number of tokens in the session: the position of the next one. During a call, as it was before.
/// 0 for a bad handle.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_position(session: *const cbl_session) -> usize {
    boundary::value(0, || {
        // SAFETY: the caller's contract.
        Ok(unsafe { handle::get(session) }?.position.load(Relaxed))
    })
}

/// The tokens in the session: `*tokens` points to `*count` ids, valid until the next call on it. NULL
/// and 0 on failure.
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

/// Appends `count` tokens. Afterwards the last one's logits can be read or sampled.
///
/// One thread at a time. On failure the session is as before, but for the logits. Errors:
/// CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if `count` is 0, CBL_BAD_TOKEN, CBL_CONTEXT_FULL,
/// CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_evaluate(
    session: *mut cbl_session,
    tokens: *const u32,
    count: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { work(session, |inner| evaluate(inner, tokens, count, &mut |_, _| ())) }
}

/// Receives the logits of the token at `position`: `count` floats, gone when the callback returns. Return
/// false to receive no more; the evaluation goes on. Must not throw or longjmp. Called on the thread that
/// called the library, in its floating-point environment.
pub type cbl_logits_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        position: usize,
        logits: *const f32,
        count: usize,
    ) -> bool,
>;

/// As cbl_session_evaluate(), and calls `callback` with the logits of every token, in order: what it
/// takes to score a text. The session must be made with CBL_OPTION_ALL_LOGITS.
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

/// The last token's logits: `*logits` points to `*count` floats, one for each token of the vocabulary,
/// valid until the next call that evaluates, generates, resets, rewinds, restores or frees. NULL and 0
/// on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY, CBL_PANIC.
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

/// Chooses the next token from the last one's logits by the options for generation. The session does not
/// change: evaluate the token to go on. `options` may be NULL.
///
/// The choice depends on the logits, the options, the session's tokens (for the repetition penalty) and
/// the position (which, with the seed, makes the random number), and on nothing else. `*token` is 0 on
/// failure.
///
/// A single choice cannot follow CBL_OPTION_CHOICES, CBL_OPTION_REGEX or CBL_OPTION_JSON_SCHEMA, which
/// concern a text from its beginning: with one of them set it fails with CBL_BAD_OPTION.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_LOGITS, CBL_BUSY,
/// CBL_PANIC.
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
