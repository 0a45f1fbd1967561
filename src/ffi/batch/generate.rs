//! Generation for many prompts.

use core::ffi::{c_char, c_void};
use core::ops::ControlFlow;

use super::prompts::{Outcomes, Prompts};
use super::state::{Inner, cbl_batch, work};
use crate::batch::{generate_text_within, generate_within};
use crate::error::Result;
use crate::ffi::arguments::{list_lengths, required, slice, slice_mut, texts};
use crate::ffi::failure::Failure;
use crate::ffi::options::{self, Options, cbl_options};
use crate::ffi::status::cbl_status;
use crate::ffi::stop_reason::cbl_stop_reason;
use crate::generate::{Generation, Step, StopReason};

/// Receives a piece of the text that continues prompt number `index`. Return false to end that
/// text; the other texts go on. Otherwise as cbl_text_callback.
pub type cbl_batch_text_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        index: usize,
        text: *const c_char,
        length: usize,
    ) -> bool,
>;

/// Receives a token that continues prompt number `index`. Return false to end that text; the other
/// texts go on. Otherwise as cbl_text_callback.
pub type cbl_batch_token_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, index: usize, token: u32) -> bool>;

/// Runs a generation by the caller's options. Writes the outcome of each prompt to the caller's arrays
/// `statuses` and `reasons`, which have room for `count`.
///
/// # Safety
/// As [`work`], [`options::with`] and [`Results::new`].
unsafe fn generate(
    batch: *mut cbl_batch,
    options: *const cbl_options,
    (statuses, reasons, count): (*mut cbl_status, *mut cbl_stop_reason, usize),
    body: &mut dyn FnMut(&mut Inner, &Options) -> Result<Outcomes, Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        work(batch, &mut |inner| {
            let results = Results::new(statuses, reasons, count)?;
            results.set(options::with(options, |options| body(inner, options))?)
        })
    }
}

/// Continues `count` prompts; there may be any number. `prompts` points to `count` texts of UTF-8,
/// each ended by a zero byte. Each prompt is continued as cbl_generate() does in a session that is
/// reset. At any time, as many texts are generated as the batch has sequences. The tokens that the
/// sequences held before are forgotten. The callback receives pieces of all texts as they come.
/// `options` may be NULL.
///
/// `statuses` and `reasons` may be NULL, or have room for `count` results each: the status of each
/// prompt, and why its text ended. A prompt that cannot be continued, such as one that is too long,
/// does not disturb the others. If the options ask for texts of a given form, every text gets that
/// form.
///
/// One thread at a time. Takes some memory from the heap for each prompt and each pass. If a
/// failure concerns all prompts, the call ends with its status, and `statuses` and `reasons` are
/// not written. Otherwise the call returns the status of the first prompt that failed. Errors:
/// CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER, CBL_BAD_TEXT,
/// CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_NO_MEMORY,
/// CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC; for single prompts, CBL_CONTEXT_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_generate(
    batch: *mut cbl_batch,
    options: *const cbl_options,
    prompts: *const *const c_char,
    count: usize,
    callback: cbl_batch_text_callback,
    user: *mut c_void,
    statuses: *mut cbl_status,
    reasons: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        generate(batch, options, (statuses, reasons, count), &mut |inner, options| {
            let callback = required(callback)?;
            let Prompts { requests, numbers, mut outcomes } =
                Prompts::of_texts(&inner.batch, &inner.shared, &texts(prompts, count)?, options)?;
            let table = inner.shared.tokenizer()?.table();
            let on_text = |request: usize, text: &str| {
                let (start, length) = (text.as_ptr().cast(), text.len());
                let index = numbers[request];
                let wants_more = callback.call(|on_text| on_text(user, index, start, length));
                if wants_more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let within = inner.shared.constraints(&options.constraint, requests.len())?;
            let made = generate_text_within(&mut inner.batch, table, &requests, within, on_text)?;
            for (&number, outcome) in numbers.iter().zip(made) {
                outcomes[number] = outcome;
            }
            Ok(outcomes)
        })
    }
}

/// Continues prompts as cbl_batch_generate() does, in token ids. Prompt `i` has `lengths[i]`
/// tokens; with 0, a new text starts. The tokens of all prompts lie one after another at `tokens`.
/// Works in a build that cannot tokenize. Stop strings are ignored. The end-of-text token is not
/// passed on.
///
/// One thread at a time. Errors: those of cbl_batch_generate() that concern no text,
/// CBL_MODEL_CHANGED among them; for single prompts, CBL_BAD_TOKEN and CBL_CONTEXT_FULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_generate_tokens(
    batch: *mut cbl_batch,
    options: *const cbl_options,
    tokens: *const u32,
    lengths: *const usize,
    count: usize,
    callback: cbl_batch_token_callback,
    user: *mut c_void,
    statuses: *mut cbl_status,
    reasons: *mut cbl_stop_reason,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        generate(batch, options, (statuses, reasons, count), &mut |inner, options| {
            let callback = required(callback)?;
            let (lengths, total) = list_lengths(lengths, count)?;
            let Prompts { requests, .. } =
                Prompts::of_tokens(slice(tokens, total)?, lengths, options)?;
            let within = inner.shared.constraints(&options.constraint, count)?;
            let wants_more = |index, token| callback.call(|on_token| on_token(user, index, token));
            let on_step = |index, step: Step| match wants_more(index, step.token) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(StopReason::Cancelled),
            };
            Ok(generate_within(&mut inner.batch, &requests, within, on_step)?)
        })
    }
}

/// The caller's arrays for the outcome of each prompt.
struct Results<'a> {
    statuses: &'a mut [i32],
    reasons: &'a mut [i32],
}

impl Results<'_> {
    /// # Safety
    /// As [`slice_mut`], but the arrays may be null.
    unsafe fn new(
        statuses: *mut cbl_status,
        reasons: *mut cbl_stop_reason,
        count: usize,
    ) -> Result<Self, Failure> {
        let place = |start: *mut i32| match start.is_null() {
            true => Ok(&mut [][..]),
            // SAFETY: the caller's contract. They are read as numbers, because they may hold any bits
            // yet.
            false => unsafe { slice_mut(start, count) },
        };
        Ok(Self { statuses: place(statuses.cast())?, reasons: place(reasons.cast())? })
    }

    /// Writes the outcomes. The first failure becomes that of the call.
    fn set(self, outcomes: Outcomes) -> Result<(), Failure> {
        let of = |outcome: &Result<Generation>| match outcome {
            Ok(generation) => (cbl_status::CBL_OK, generation.stop_reason.into()),
            Err(error) => (cbl_status::of(error), cbl_stop_reason::CBL_STOP_NONE),
        };
        self.statuses.iter_mut().zip(&outcomes).for_each(|(to, it)| *to = of(it).0 as i32);
        self.reasons.iter_mut().zip(&outcomes).for_each(|(to, it)| *to = of(it).1 as i32);
        Ok(outcomes.into_iter().try_for_each(|outcome| outcome.map(drop))?)
    }
}
