//! Batches on demand
//!
//! cbl_batch_generate() for a loop of your own: the library works only while you ask for the next
//! step. The step belongs to any of the texts.
//!
//!     uint64_t generation;
//!     bool more = true;
//!     cbl_batch_step step;
//!     cbl_status status = cbl_batch_begin(batch, options, prompts, count, &generation);
//!     while (status == CBL_OK) {
//!       status = cbl_batch_next(batch, generation, &step, sizeof step, &more);
//!       if (status != CBL_OK || !more) break;
//!       append(step.index, step.text, step.length);
//!     }
//!     cbl_batch_end(batch, generation);
//!
//! A batch has one generation at a time. These functions do not disturb it: cbl_batch_tokens(),
//! cbl_batch_logits(), cbl_batch_sample(), cbl_batch_lock_memory(), and all that take a `const
//! cbl_batch *`. Every other call on the batch ends the generation, also a call that fails, unless
//! it fails with CBL_BUSY.

use core::ffi::c_char;

use super::prompts::Prompts;
use super::running::{ReadyStep, Running};
use super::state::{self, Inner, cbl_batch};
use crate::ffi::arguments::{Growing, GrowingOut, Out, list_lengths, slice, texts};
use crate::ffi::boundary::once;
use crate::ffi::failure::Failure;
use crate::ffi::on_demand::NO_GENERATION;
use crate::ffi::options::{self, Options, cbl_options};
use crate::ffi::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use crate::ffi::stop_reason::cbl_stop_reason;
use crate::generate::StopReason;

impl Inner {
    fn running(&mut self, generation: u64) -> Result<&mut Running, Failure> {
        self.running.as_mut().filter(|it| it.number() == generation).ok_or(NO_GENERATION)
    }

    /// The next step of the generation of this number.
    fn next(&mut self, generation: u64) -> Result<Option<cbl_batch_step>, Failure> {
        self.running(generation)?;
        let Self { batch, shared, running } = self;
        let Some(running) = running else { return Ok(None) };
        let next = running.next(batch, shared)?;
        Ok(next.map(|(step, text)| cbl_batch_step::new(&step, text)))
    }
}

/// A step of a batch's generation. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_batch_step {
    /// Number of the prompt that the step belongs to.
    pub index: usize,
    /// The token, or -1 if the step has none: it is text that was held back, after the last token,
    /// or the end of the text.
    pub token: i64,
    /// Whole characters, without a zero byte at the end. Often empty.
    pub text: *const c_char,
    /// Length of the text in bytes.
    pub length: usize,
    /// Why the text has ended: a cbl_stop_reason. CBL_STOP_NONE before the end, and if the prompt
    /// could not be continued.
    pub reason: i32,
    /// CBL_OK, or why the prompt could not be continued: a cbl_status.
    pub status: i32,
}

// SAFETY: `repr(C)`, and zeros are null pointers and numbers.
unsafe impl Growing for cbl_batch_step {
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl cbl_batch_step {
    fn new(step: &ReadyStep, text: &str) -> Self {
        let reason = |reason: StopReason| cbl_stop_reason::from(reason) as i32;
        let (reason, status) = match &step.outcome {
            None => (0, cbl_status::CBL_OK),
            Some(Ok(ended)) => (reason(*ended), cbl_status::CBL_OK),
            Some(Err(status)) => (0, *status),
        };
        Self {
            index: step.index,
            token: step.token.map_or(-1, i64::from),
            text: text.as_ptr().cast(),
            length: text.len(),
            reason,
            status: status as i32,
        }
    }

    /// No prompt, no token and no text.
    const NONE: Self =
        Self { index: usize::MAX, token: -1, text: c"".as_ptr(), length: 0, reason: 0, status: 0 };
}

/// Begins a generation by the caller's options.
///
/// # Safety
/// As [`state::with`], [`options::with`] and [`Out::new`].
unsafe fn begin(
    batch: *mut cbl_batch,
    options: *const cbl_options,
    generation: *mut u64,
    prompts: &mut dyn FnMut(&Inner, &Options) -> Result<Prompts, Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut out = Some(Out::new(generation, 0));
        state::with(batch, &mut |inner| {
            let out = once(&mut out)?;
            let running = options::with(options, |options| {
                let prompts = prompts(inner, options)?;
                Ok(Running::begin(&inner.batch, &inner.shared, options, prompts)?)
            })?;
            out.set(running.number());
            inner.running = Some(running);
            Ok(())
        })
    }
}

/// Begins to continue `count` prompts, as cbl_batch_generate() does. Nothing is evaluated yet.
/// `*generation` is 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER,
/// CBL_BAD_TEXT, CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_CANCELLED, CBL_NO_MEMORY, CBL_UNSUPPORTED,
/// CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_begin(
    batch: *mut cbl_batch,
    options: *const cbl_options,
    prompts: *const *const c_char,
    count: usize,
    generation: *mut u64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        begin(batch, options, generation, &mut |inner, options| {
            Prompts::of_texts(&inner.batch, &inner.shared, &texts(prompts, count)?, options)
        })
    }
}

/// Begins to continue prompts as cbl_batch_begin() does, in token ids, as
/// cbl_batch_generate_tokens() takes them. Works in a build that cannot tokenize. If the model file
/// holds no tokenizer, steps have no text, and options with stop strings give CBL_NO_TOKENIZER.
///
/// One thread at a time. Errors: those of cbl_batch_begin(), CBL_MODEL_CHANGED among them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_begin_from_tokens(
    batch: *mut cbl_batch,
    options: *const cbl_options,
    tokens: *const u32,
    lengths: *const usize,
    count: usize,
    generation: *mut u64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        begin(batch, options, generation, &mut |_, options| {
            let (lengths, total) = list_lengths(lengths, count)?;
            Prompts::of_tokens(slice(tokens, total)?, lengths, options)
        })
    }
}

/// Makes the next step of any of the texts: `*step` receives it, and `size` is `sizeof *step`. If
/// no step is ready, the call first makes a pass over the weights. The text in the step is valid
/// until the next call on the batch. The last step of each prompt has no token and no text; its
/// `reason` or `status` says how the text ended.
///
/// When all prompts are done, `*more` is false and the step has no prompt, no token and no text;
/// further calls give the same. Takes some memory from the heap for each pass.
///
/// One thread at a time. A failure ends the generation. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT,
/// CBL_NO_GENERATION, CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED,
/// CBL_NO_MEMORY, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_next(
    batch: *mut cbl_batch,
    generation: u64,
    step: *mut cbl_batch_step,
    size: usize,
    more: *mut bool,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let step = GrowingOut::new(step, size).inspect(|out| out.set(&cbl_batch_step::NONE));
        let mut outs = Some((step, Out::new(more, false)));
        state::with_running(batch, &mut |inner| {
            let (step, more) = once(&mut outs);
            let (step, more) = (step?, more?);
            let next = inner.next(generation).inspect_err(|_| {
                if inner.running(generation).is_ok() {
                    inner.running = None;
                }
            })?;
            if let Some(next) = next {
                step.set(&next);
                more.set(true);
            }
            Ok(())
        })
    }
}

/// Ends the text of prompt number `index`, as the callback of cbl_batch_generate() does when it
/// returns false. The other texts go on. Steps of this text that are ready still come, and then its
/// last step, with CBL_STOP_CANCELLED unless the text has ended before.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if there is no such prompt,
/// CBL_NO_GENERATION, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_stop(
    batch: *mut cbl_batch,
    generation: u64,
    index: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        state::with_running(batch, &mut |inner| {
            let missing = "the generation has no prompt of that number";
            let stopped = inner.running(generation)?.stop(index);
            stopped.then_some(()).ok_or(Failure::Misuse(CBL_BAD_ARGUMENT, missing))
        })
    }
}

/// Ends a generation, whether all prompts are done or not. Takes back a request of
/// cbl_batch_cancel(), so that it does not stop the next call. If the generation is not the
/// batch's, the call does nothing and succeeds.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_end(batch: *mut cbl_batch, generation: u64) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        state::with_running(batch, &mut |inner| {
            if inner.running(generation).is_ok() {
                inner.running = None;
                inner.batch.clear_cancel();
            }
            Ok(())
        })
    }
}
