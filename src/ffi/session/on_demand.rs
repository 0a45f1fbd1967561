//! Generation on demand
//!
//! The same generation for a loop of your own: the library works only while you ask for the next
//! token. Stop strings, whole characters, constraints and cbl_session_cancel() work as in
//! "Generation".
//!
//!     uint64_t generation;
//!     cbl_stop_reason reason = CBL_STOP_NONE;
//!     cbl_step step;
//!     cbl_status status = cbl_generation_begin(session, options, "Once", 4, &generation);
//!     while (status == CBL_OK) {
//!       status = cbl_generation_next(session, generation, &step, sizeof step, &reason);
//!       if (status != CBL_OK || reason != CBL_STOP_NONE) break;
//!       fwrite(step.text, 1, step.length, stdout);
//!     }
//!     cbl_generation_end(session, generation, NULL);
//!
//! A generation is a number. There is nothing to free, and a session has one generation at a time.
//! These functions do not disturb it: cbl_session_tokens(), cbl_session_logits(),
//! cbl_session_sample(), cbl_session_get_stats(), cbl_session_fork() (the fork has no generation),
//! cbl_session_save(), cbl_session_save_file(), cbl_session_lock_memory(), and all that take a
//! `const cbl_session *`. Every other call on the session ends the generation, also a call that
//! fails, unless it fails with CBL_BUSY. cbl_generation_next() then returns CBL_NO_GENERATION.

use alloc::vec::Vec;
use core::ffi::c_char;
use core::ptr;

use super::generate::cbl_step;
use super::running::Running;
use super::state::{self, Inner, cbl_session};
use crate::ffi::arguments::{GrowingOut, Out, text, tokens_that_fit};
use crate::ffi::failure::Failure;
use crate::ffi::on_demand::NO_GENERATION;
use crate::ffi::options::{self, Options, cbl_options};
use crate::ffi::status::cbl_status;
use crate::ffi::stop_reason::cbl_stop_reason;
use crate::ffi::text::encode_after;
use crate::generate::TextStep;
use crate::memory::try_vec;

impl Inner {
    /// The next step of the generation on demand, which is known to run; `tell` is given it.
    fn next(&mut self, tell: &mut dyn FnMut(cbl_step)) -> Result<(), Failure> {
        let Some(running) = &mut self.running else { return Err(NO_GENERATION) };
        let was_over = running.is_over();
        match running.next(&mut self.session, &self.shared) {
            Ok(Some(TextStep { text, step })) => tell(cbl_step::new(text, step)),
            Ok(None) => {}
            Err(error) => {
                self.running = None;
                return Err(error.into());
            }
        }
        if let Some(running) = self.running.as_ref().filter(|it| it.is_over() && !was_over) {
            let generation = running.generation();
            self.end_generation(&generation);
        }
        Ok(())
    }
}

/// Makes the tokens of a prompt.
type Prompt<'a> = dyn FnMut(&Inner, &Options) -> Result<Vec<u32>, Failure> + 'a;

/// Begins a generation by the caller's options.
///
/// # Safety
/// As [`state::with`], [`options::with`] and [`Out::new`].
unsafe fn begin(
    session: *mut cbl_session,
    options: *const cbl_options,
    generation: *mut u64,
    prompt: &mut Prompt,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(generation, 0);
        state::with(session, |inner| {
            let out = out?;
            let running = options::with(options, |options| {
                let prompt = prompt(inner, options)?;
                Ok(Running::begin(&inner.session, &inner.shared, options, prompt)?)
            })?;
            out.set(running.number());
            inner.running = Some(running);
            Ok(())
        })
    }
}

/// Begins to continue a text, as cbl_generate() does. Nothing is evaluated yet: the first
/// cbl_generation_next() evaluates the prompt. `*generation` is 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8,
/// CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_CONTEXT_FULL if the prompt does not fit, CBL_BAD_OPTION,
/// CBL_MODEL_CHANGED, CBL_CANCELLED if a request came before the prompt was tokenized,
/// CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generation_begin(
    session: *mut cbl_session,
    options: *const cbl_options,
    prompt: *const c_char,
    length: usize,
    generation: *mut u64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        begin(session, options, generation, &mut |inner, options| {
            let (shared, session) = (&inner.shared, &inner.session);
            let (prompt, special) = (text(prompt, length)?, options.parse_special);
            encode_after(session.position(), session, shared, prompt, special)
        })
    }
}

/// Begins a generation as cbl_generation_begin() does, from a prompt of `count` token ids. If
/// `count` is 0, a new text starts. Works in a build that cannot tokenize. If the model file holds
/// no tokenizer, steps have no text, and options with stop strings give CBL_NO_TOKENIZER.
///
/// One thread at a time. Errors: those of cbl_generation_begin(), CBL_MODEL_CHANGED among them;
/// CBL_BAD_TOKEN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generation_begin_from_tokens(
    session: *mut cbl_session,
    options: *const cbl_options,
    prompt: *const u32,
    count: usize,
    generation: *mut u64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        begin(session, options, generation, &mut |inner, _| {
            let tokens = tokens_that_fit(&inner.session, prompt, count)?;
            let mut prompt = try_vec(count)?;
            prompt.extend_from_slice(tokens);
            Ok(prompt)
        })
    }
}

/// Makes the next step of a generation: evaluates the tokens that are not evaluated yet, and
/// chooses the next one. `*step` receives that token, and the text that has become certain with it,
/// which is often empty. `size` is `sizeof *step`. The pointers in the step are valid until the
/// next call on the session.
///
/// While the generation goes on, `*reason` is CBL_STOP_NONE. When it has ended, `*reason` says why,
/// and the step has no token and no text; further calls give the same. If cbl_session_cancel() was
/// called since the last step, the generation ends at once. Allocates nothing, unless there is a
/// constraint.
///
/// One thread at a time. A failure ends the generation, and the session holds the tokens that were
/// evaluated before. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_GENERATION, CBL_BAD_OPTION if
/// a constraint fails, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_NO_MEMORY, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generation_next(
    session: *mut cbl_session,
    generation: u64,
    step: *mut cbl_step,
    size: usize,
    reason: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let step = GrowingOut::new(step, size).inspect(|out| out.set(&cbl_step::NONE));
        let reason = Out::new(reason, cbl_stop_reason::CBL_STOP_NONE);
        state::with_running(session, |inner| {
            let (step, reason) = (step?, reason?);
            inner.running(generation)?;
            let mut next = None;
            inner.next(&mut |step| next = Some(step))?;
            match next {
                Some(next) => step.set(&next),
                None => {
                    let why = inner.running(generation)?.stop_reason();
                    reason.set(why.map_or(cbl_stop_reason::CBL_STOP_NONE, Into::into));
                }
            }
            Ok(())
        })
    }
}

/// Ends a generation, complete or not. Takes back a request of cbl_session_cancel(), so that it
/// does not stop the next call. `reason` may be NULL; otherwise it receives why the generation
/// ended, which is CBL_STOP_CANCELLED if it was not complete. If the generation has failed or is
/// not the session's, the call does nothing, succeeds, and gives CBL_STOP_NONE.
///
/// The call is not needed if the session is not used any more, or if another generation begins on
/// it. For what the session holds afterwards, see "Generation"; for the figures, cbl_session_stats.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_generation_end(
    session: *mut cbl_session,
    generation: u64,
    reason: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let reason = Out::optional(reason, cbl_stop_reason::CBL_STOP_NONE);
        state::with_running(session, |inner| {
            let reason = reason?;
            let Ok(running) = inner.running(generation) else { return Ok(()) };
            let why = running.generation().stop_reason;
            inner.end_running();
            // A request, if there is one, was for the generation that has ended.
            let _ = inner.session.take_cancel();
            if let Some(reason) = reason {
                reason.set(why.into());
            }
            Ok(())
        })
    }
}

impl cbl_step {
    /// No token and no text.
    const NONE: Self =
        Self { token: -1, text: c"".as_ptr(), length: 0, logits: ptr::null(), logits_count: 0 };
}
