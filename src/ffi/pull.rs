//! Generation on demand
//!
//! The same generation for a loop of your own: the library works only while you ask for the next token.
//! Stop strings, whole characters, constraints and cbl_session_cancel() are as in "Generation".
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
//! A generation is a number, there is nothing to free, and a session has one at a time. It goes on as long
//! as the session stays as it left it. These functions leave it so: cbl_session_tokens(),
//! cbl_session_logits(), cbl_session_sample(), cbl_session_get_stats(), cbl_session_fork() (the fork has no
//! generation), cbl_session_save(), cbl_session_save_file(), cbl_session_lock_memory(), and those that take
//! a `const cbl_session *`.
//! Every other call on the session ends the generation, also a call that fails, CBL_BUSY apart:
//! cbl_generation_next() then returns CBL_NO_GENERATION.

use std::borrow::Cow;
use std::ffi::c_char;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::arguments::{GrowingOut, Out, text};
use super::boundary::Failure;
use super::generate::{cbl_step, log_generation};
use super::options::{self, Options, cbl_options};
use super::session::{self, Inner, cbl_session, cbl_stop_reason, tokens_that_fit};
use super::status::cbl_status::{self, CBL_NO_GENERATION};
use super::text::encode_behind;
use crate::error::{Error, Result};
use crate::generate::{Generation, Progress, TextBuffer, TextStep};
use crate::memory::try_vec;

/// What a session knows of its generation on demand.
pub(super) struct Running {
    number: u64,
    /// With a constraint that is `Send`, as the options give it: a session goes from thread to thread.
    progress: Progress<'static>,
    /// None if the model has no tokenizer.
    text: Option<TextBuffer>,
}

/// What a number says that is no generation's of the handle.
pub(super) const NO_GENERATION: Failure = Failure::Misuse(
    CBL_NO_GENERATION,
    "this generation is none of the handle's, or was ended, by a call that changes what it needs or by a failure; begin another one",
);

/// A number that no generation of this process had before, so that one of another session is found out.
pub(super) fn new_number() -> u64 {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    LAST.fetch_add(1, Relaxed) as u64 + 1
}

impl Running {
    fn begin(inner: &Inner, options: &Options, prompt: Vec<u32>) -> Result<Self> {
        let constraint = options.constraint.constraint(&inner.shared)?.map(|it| it as _);
        let own = options.generate.try_clone()?;
        let text = match inner.shared.tokenizer() {
            Ok(tokenizer) => Some(TextBuffer::new(tokenizer.table(), &own.stop)?),
            Err(Error::NoTokenizer) if own.stop.is_empty() => None,
            Err(error) => return Err(error),
        };
        let (prompt, own) = (Cow::Owned(prompt), Cow::Owned(own));
        let progress = Progress::new(&inner.session, prompt, own, constraint)?;
        Ok(Self { number: new_number(), progress, text })
    }

    /// Whether its end was told and counted.
    fn is_over(&self) -> bool {
        self.progress.stop_reason().is_some()
    }

    /// What it has done so far, unless that was counted already.
    pub fn uncounted(&self) -> Option<Generation> {
        (!self.is_over()).then(|| self.progress.generation())
    }
}

impl Inner {
    fn running(&mut self, generation: u64) -> Result<&mut Running, Failure> {
        self.running.as_mut().filter(|running| running.number == generation).ok_or(NO_GENERATION)
    }

    /// Ends the generation on demand, if there is one.
    pub fn end_running(&mut self) {
        if let Some(generation) = self.running.take().and_then(|running| running.uncounted()) {
            self.end_generation(&generation);
        }
    }

    fn end_generation(&mut self, generation: &Generation) {
        self.counters.generated(generation);
        log_generation(self, generation);
    }

    /// The next step of the generation on demand, which is known to run; `tell` is given it.
    fn next(&mut self, tell: &mut dyn FnMut(cbl_step)) -> Result<(), Failure> {
        let Some(Running { progress, text, .. }) = &mut self.running else {
            return Err(NO_GENERATION);
        };
        let (session, was_over) = (&mut self.session, progress.stop_reason().is_some());
        let next = match text {
            Some(buffer) => self
                .shared
                .tokenizer()
                .and_then(|tokenizer| buffer.next(progress, session, tokenizer.table())),
            None => progress
                .next(session)
                .map(|step| step.map(|step| TextStep { text: "", step: Some(step) })),
        };
        match next {
            Ok(Some(TextStep { text, step })) => tell(cbl_step::new(text, step)),
            Ok(None) => {}
            Err(error) => {
                self.running = None;
                return Err(error.into());
            }
        }
        if let Some(running) = self.running.as_ref().filter(|it| it.is_over() && !was_over) {
            let generation = running.progress.generation();
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
/// As [`session::with`], [`options::with`] and [`Out::new`].
unsafe fn begin(
    session: *mut cbl_session,
    options: *const cbl_options,
    generation: *mut u64,
    prompt: &mut Prompt,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(generation, 0);
        session::with(session, |inner| {
            let out = out?;
            let running = options::with(options, |options| {
                let prompt = prompt(inner, options)?;
                Ok(Running::begin(inner, options, prompt)?)
            })?;
            out.set(running.number);
            inner.running = Some(running);
            Ok(())
        })
    }
}

/// Begins to continue a text, as cbl_generate() does. Nothing is evaluated yet: the first
/// cbl_generation_next() evaluates the prompt. `*generation` is 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER,
/// CBL_BAD_TEXT, CBL_CONTEXT_FULL if the prompt does not fit, CBL_BAD_OPTION, CBL_MODEL_CHANGED,
/// CBL_CANCELLED if a request came before the prompt was tokenized, CBL_NO_MEMORY, CBL_UNSUPPORTED,
/// CBL_BUSY, CBL_PANIC.
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
            encode_behind(session.position(), session, shared, prompt, special)
        })
    }
}

/// As cbl_generation_begin(), from a prompt of `count` token ids; none of them starts a new text. Works in
/// a build that cannot tokenize. If the model file holds no tokenizer, steps have no text, and stop strings
/// are refused with CBL_NO_TOKENIZER.
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

/// Evaluates what is to be evaluated and chooses the next token: `*step` receives it, with the text that
/// has become certain, which is often empty. `size` is `sizeof *step`. What the step points to is valid
/// until the next call on the session.
///
/// When the generation has ended, `*reason` receives why and `*step` is empty: no token, no text; also if
/// called again. Before that `*reason` is CBL_STOP_NONE. A request of cbl_session_cancel() that came since
/// the last call ends the generation at once. Allocates nothing, unless there is a constraint.
///
/// One thread at a time. A failure ends the generation; the session holds what was evaluated before.
/// Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_GENERATION, CBL_BAD_OPTION if a constraint fails,
/// CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_NO_MEMORY, CBL_BUSY, CBL_PANIC.
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
        session::with_running(session, |inner| {
            let (step, reason) = (step?, reason?);
            inner.running(generation)?;
            let mut next = None;
            inner.next(&mut |step| next = Some(step))?;
            match next {
                Some(next) => step.set(&next),
                None => {
                    let why = inner.running(generation)?.progress.stop_reason();
                    reason.set(why.map_or(cbl_stop_reason::CBL_STOP_NONE, Into::into));
                }
            }
            Ok(())
        })
    }
}

/// Ends a generation, whether it has come to its end or not, and takes back a request of
/// cbl_session_cancel(), so that it does not stop the call that follows. `reason` may be NULL, or receives
/// why the generation ended: CBL_STOP_CANCELLED if it had not. If it failed or is none of the session's,
/// nothing is done, and that is no error: CBL_STOP_NONE.
///
/// Not needed if the session is not used any more, or another generation begins on it. The session then
/// holds what "Generation" says of it; cbl_session_stats has the figures.
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
        session::with_running(session, |inner| {
            let reason = reason?;
            let Ok(running) = inner.running(generation) else { return Ok(()) };
            let why = running.progress.generation().stop_reason;
            inner.end_running();
            // A request, if there is one, was for the generation that has ended.
            let _ = inner.session.follow_cancel();
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
