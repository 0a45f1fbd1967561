//! Generation
//!
//! A generation evaluates a prompt after the tokens that the session already holds. Then it chooses
//! a token, passes it on and evaluates it, again and again, until there is a reason to stop. For a
//! conversation, generate again on the same session. To start over, call cbl_session_reset() first.
//!
//! Afterwards the session holds the tokens that it held before, the prompt, and the generated tokens
//! without the last one. That token is chosen and passed on, but not evaluated. A stop string that
//! appeared is in the session, although it was not passed on. If the evaluation of the prompt was
//! cancelled, none of the prompt is in the session.
//!
//! The last token is cbl_session_stats.pending_token. If the next prompt is to follow the whole
//! answer, pass this token to cbl_session_evaluate() first. To go on with a text that ended by
//! CBL_STOP_MAX_TOKENS, pass the token alone to cbl_generate_from_tokens(). To forget an exchange,
//! note cbl_session_position() before it, and go back to that position with cbl_session_rewind().

use core::ffi::{c_char, c_void};
use core::ops::ControlFlow;
use core::ptr;

use super::state::{self, Inner, cbl_session};
use crate::error::{Error, Result};
use crate::ffi::arguments::{Growing, Out, required, text, tokens_that_fit};
use crate::ffi::failure::Failure;
use crate::ffi::host::Callback;
use crate::ffi::options::{self, Options, cbl_options};
use crate::ffi::status::cbl_status;
use crate::ffi::stop_reason::cbl_stop_reason;
use crate::ffi::text::encode_after;
use crate::generate::{
    Constraint, Generation, Step, StopReason, generate_steps, generate_text_steps,
};

/// Receives a piece of text: `length` bytes of whole UTF-8 characters, without a zero byte at the
/// end, valid until the callback returns. Return false to stop. The callback runs on the thread
/// that called the library, in that thread's floating-point environment. `user` is the pointer that
/// was given with the callback, and may be NULL.
///
/// During the callback, calls on the session return CBL_BUSY, except for functions that take a
/// `const cbl_session *`, such as cbl_session_cancel() and cbl_session_position(). The callback
/// must not throw or longjmp.
pub type cbl_text_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, length: usize) -> bool>;

/// Receives a token id. Return false to stop. Otherwise as cbl_text_callback.
pub type cbl_token_callback = Option<unsafe extern "C" fn(user: *mut c_void, token: u32) -> bool>;

/// A [`cbl_text_callback`] that is not null.
type TextCallback =
    Callback<unsafe extern "C" fn(user: *mut c_void, text: *const c_char, length: usize) -> bool>;

type Body<'a> = dyn FnMut(&mut Inner, &Options, Option<&mut dyn Constraint>) -> Result<Generation, Failure>
    + 'a;

/// Runs a generation by the caller's options, within their constraint, and counts it.
///
/// # Safety
/// As [`state::with`], [`options::with`] and [`Out::optional`].
unsafe fn generate(
    session: *mut cbl_session,
    options: *const cbl_options,
    reason: *mut cbl_stop_reason,
    body: &mut Body,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::optional(reason, cbl_stop_reason::CBL_STOP_NONE);
        state::work(session, |inner| {
            let out = out?;
            let generation = options::with(options, |options| {
                let mut constraint = inner.shared.constraint(&options.constraint)?;
                let constraint = constraint.as_mut().map(|it| &mut **it as &mut dyn Constraint);
                match body(inner, options, constraint) {
                    // The request came while the prompt was tokenized.
                    Err(Failure::Error(Error::Cancelled)) => Ok(Generation::cancelled()),
                    generation => generation,
                }
            })?;
            inner.end_generation(&generation);
            if let Some(out) = out {
                out.set(generation.stop_reason.into());
            }
            Ok(())
        })
    }
}

/// Continues a text: `length` bytes of UTF-8 at `prompt`, tokenized with the model's tokenizer. An
/// empty prompt stands for the end-of-text token, and so starts a new text. The callback receives
/// the generated text as soon as it is certain: whole characters, and nothing that may be the
/// beginning of a stop string.
///
/// `options` may be NULL: then at most 128 tokens are generated, each the most probable one.
/// `reason` may be NULL; otherwise it receives why the generation ended.
///
/// One thread at a time. On failure the session may hold the prompt and the tokens that were passed
/// on; see cbl_session_position(). Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_INVALID_UTF8;
/// CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if the prompt does not fit; CBL_BAD_OPTION if
/// the form that the text must have is too complex, if no token of the model continues it, or if a
/// bias is for a token that the model does not have; CBL_NO_THREADS if such a form cannot be
/// prepared; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY;
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generate(
    session: *mut cbl_session,
    options: *const cbl_options,
    prompt: *const c_char,
    length: usize,
    callback: cbl_text_callback,
    user: *mut c_void,
    reason: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        generate(session, options, reason, &mut |inner, options, constraint| {
            let callback = required(callback)?;
            let prompt = text(prompt, length)?;
            let (shared, session) = (&inner.shared, &inner.session);
            let special = options.parse_special;
            let prompt = encode_after(session.position(), session, shared, prompt, special)?;
            stream_text(inner, options, constraint, &prompt, &mut |text, _| {
                text.is_empty() || pass_on(callback, user, text)
            })
        })
    }
}

/// Continues a text as cbl_generate() does, from a prompt of `count` token ids. If `count` is 0, a
/// new text starts. Works in a build that cannot tokenize.
///
/// One thread at a time. Errors: those of cbl_generate(), CBL_MODEL_CHANGED among them;
/// CBL_BAD_TOKEN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generate_from_tokens(
    session: *mut cbl_session,
    options: *const cbl_options,
    prompt: *const u32,
    count: usize,
    callback: cbl_text_callback,
    user: *mut c_void,
    reason: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        generate(session, options, reason, &mut |inner, options, constraint| {
            let callback = required(callback)?;
            let prompt = tokens_that_fit(&inner.session, prompt, count)?;
            stream_text(inner, options, constraint, prompt, &mut |text, _| {
                text.is_empty() || pass_on(callback, user, text)
            })
        })
    }
}

/// Continues a prompt of `count` token ids, and passes token ids to the callback. If `count` is 0,
/// a new text starts. The model needs no tokenizer. Stop strings are ignored. The end-of-text token
/// is not passed on.
///
/// One thread at a time. Errors: those of cbl_generate_from_tokens() that concern no text,
/// CBL_MODEL_CHANGED among them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generate_tokens(
    session: *mut cbl_session,
    options: *const cbl_options,
    prompt: *const u32,
    count: usize,
    callback: cbl_token_callback,
    user: *mut c_void,
    reason: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        generate(session, options, reason, &mut |inner, options, constraint| {
            let callback = required(callback)?;
            let prompt = tokens_that_fit(&inner.session, prompt, count)?;
            let on_step = |step: Step| match callback.call(|on_token| on_token(user, step.token)) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(StopReason::Cancelled),
            };
            let how = &options.generate;
            Ok(generate_steps(&mut inner.session, prompt, how, constraint, on_step)?)
        })
    }
}

/// A token of a generation, and the text that has become certain with it. Later versions may add
/// fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_step {
    /// The token, or -1 if the step has none: it is text that was held back, after the last token.
    pub token: i64,
    /// Whole characters, without a zero byte at the end. Often empty.
    pub text: *const c_char,
    /// Length of the text in bytes.
    pub length: usize,
    /// The logits that the token was chosen from, one for each token of the vocabulary, before bias
    /// and penalty. cbl_top_tokens() and cbl_log_probabilities() turn them into probabilities. NULL
    /// if the step has no token, or if a constraint left no choice.
    pub logits: *const f32,
    /// Number of logits.
    pub logits_count: usize,
}

// SAFETY: `repr(C)`, and zeros are null pointers and numbers.
unsafe impl Growing for cbl_step {
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl cbl_step {
    pub(super) fn new(text: &str, step: Option<Step>) -> Self {
        let logits = step.and_then(|step| step.logits);
        Self {
            token: step.map_or(-1, |step| i64::from(step.token)),
            text: text.as_ptr().cast(),
            length: text.len(),
            logits: logits.map_or(ptr::null(), <[f32]>::as_ptr),
            logits_count: logits.map_or(0, <[f32]>::len),
        }
    }
}

/// Receives a step of a generation. The pointers in it are valid until the callback returns. Return
/// false to stop. Otherwise as cbl_text_callback.
pub type cbl_step_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, step: *const cbl_step) -> bool>;

/// Continues a text as cbl_generate_from_tokens() does. The callback receives every token, the text
/// that has become certain with it, and the logits that it was chosen from.
///
/// One thread at a time. Errors: those of cbl_generate_from_tokens(), CBL_MODEL_CHANGED among them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generate_steps(
    session: *mut cbl_session,
    options: *const cbl_options,
    prompt: *const u32,
    count: usize,
    callback: cbl_step_callback,
    user: *mut c_void,
    reason: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        generate(session, options, reason, &mut |inner, options, constraint| {
            let callback = required(callback)?;
            let prompt = tokens_that_fit(&inner.session, prompt, count)?;
            stream_text(inner, options, constraint, prompt, &mut |text, step| {
                let step = cbl_step::new(text, step);
                callback.call(|on_step| on_step(user, &raw const step))
            })
        })
    }
}

/// Passes a piece of text to the callback. Returns whether the callback wants more.
///
/// # Safety
/// The contract of [`cbl_text_callback`].
pub unsafe fn pass_on(callback: TextCallback, user: *mut c_void, text: &str) -> bool {
    let (start, length) = (text.as_ptr().cast(), text.len());
    // SAFETY: the caller's contract.
    callback.call(|on_text| unsafe { on_text(user, start, length) })
}

fn stream_text(
    inner: &mut Inner,
    options: &Options,
    constraint: Option<&mut dyn Constraint>,
    prompt: &[u32],
    wants_more: &mut dyn FnMut(&str, Option<Step>) -> bool,
) -> Result<Generation, Failure> {
    let table = inner.shared.tokenizer()?.table();
    let on_text = |text: &str, step: Option<Step>| match wants_more(text, step) {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    let how = &options.generate;
    Ok(generate_text_steps(&mut inner.session, table, prompt, how, constraint, on_text)?)
}
