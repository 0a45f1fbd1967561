//! Batches
//!
//! Several sequences at once: a pass over the weights evaluates tokens of all of them, so eight together
//! take little longer than one alone. Results are the same bits as of each in a session of its own.
//!
//! For many prompts, make a batch of as many sequences as memory allows (cbl_model_plan_batch()), and
//! give them all to cbl_batch_generate(): one that is done makes room for the next.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::arguments::{GrowingOut, Out, list_lengths, slice, slice_mut, texts};
use super::batch_pull::Running;
use super::boundary::{self, Failure, Report};
use super::handle::{self, Handle, Place};
use super::locked::Locked;
use super::model::{self, Shared, cbl_memory_plan, cbl_model};
use super::options::{self, Options, cbl_options};
use super::session::{Made, cbl_stop_reason, required};
use super::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use super::text::encode_for_batch;
use crate::batch::{Append, Batch, Request, generate_text_within, generate_within};
use crate::error::{Error, Result};
use crate::generate::{Generation, Step, StopReason};
use crate::memory::try_vec;

/// Several sequences of tokens that are evaluated together, numbered from 0.
pub struct cbl_batch {
    /// Set by `cbl_batch_cancel`; the batch inside looks at it.
    cancel: AtomicBool,
    locked: Locked<Inner>,
}

impl Handle for cbl_batch {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-btch");
}

/// What is behind the lock.
pub(super) struct Inner {
    pub batch: Batch,
    pub shared: Arc<Shared>,
    pub running: Option<Running>,
}

impl Inner {
    fn check(&self, sequence: usize) -> Result<(), Failure> {
        if sequence < self.batch.sequences() {
            return Ok(());
        }
        Err(Failure::Misuse(CBL_BAD_ARGUMENT, "there is no sequence of that number in the batch"))
    }
}

/// Runs a function on a batch that nobody else is using. It may change the batch, so it ends a generation
/// on demand.
///
/// # Safety
/// As [`handle::get`].
pub(super) unsafe fn with(
    batch: *mut cbl_batch,
    body: &mut dyn FnMut(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with_running(batch, &mut |inner| {
            inner.running = None;
            body(inner)
        })
    }
}

/// As [`with`], for a function that leaves the sequences as they are: a generation on demand goes on.
///
/// # Safety
/// As [`handle::get`].
pub(super) unsafe fn with_running(
    batch: *mut cbl_batch,
    body: &mut dyn FnMut(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    match unsafe { handle::get(batch) } {
        Ok(handle) => handle.locked.run(body),
        Err(failure) => failure.status(),
    }
}

/// As [`with`], for a call that cbl_batch_cancel() stops: a request that came while it ran is not there any
/// more when it returns.
///
/// # Safety
/// As [`handle::get`].
unsafe fn work(
    batch: *mut cbl_batch,
    body: &mut dyn FnMut(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(batch, &mut |inner| {
            let result = body(inner);
            inner.batch.clear_cancel();
            result
        })
    }
}

/// As cbl_model_plan(), for a batch of so many sequences, each with the context that the options say.
///
/// Thread-safe. Errors: those of cbl_model_plan(); CBL_BAD_OPTION also if `sequences` is not in 1 to 1024.
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
                let (session, workers) = (&options.session, Made::with(options).workers());
                let session =
                    crate::session_options::SessionOptions { threads: workers, ..session.clone() };
                Ok(shared.model.plan_batch(&session, sequences)?)
            })?;
            out.set(&cbl_memory_plan::from(needed));
            Ok(())
        })
    }
}

/// Makes a batch of so many sequences, 1 to 1024, each with the context that the options say; they count
/// as for cbl_session_new(), but for CBL_OPTION_ALL_LOGITS, CBL_OPTION_DRAFT and an arena, which are not
/// used. `options` may be NULL. `*batch` is NULL if that fails.
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
            let made = options::with(options, |options| Ok(Made::with(options)))?;
            let batch = shared.model.batch_with(&made.options, sequences, made.executor()?)?;
            let inner = Inner { batch, shared: Arc::clone(shared), running: None };
            let mut handle = Place::new(cbl_batch {
                cancel: AtomicBool::new(false),
                locked: Locked::new(inner, made.log),
            })?;
            let flag = NonNull::from(&handle.cancel);
            // The flag lies beside the batch in the same box, and is dropped with it.
            handle.locked.get_mut().batch.cancel_by_raw(flag);
            out.set(handle.give());
            Ok(())
        })
    }
}

/// As cbl_session_lock_memory().
///
/// One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_lock_memory(batch: *mut cbl_batch) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with_running(batch, &mut |inner| Ok(inner.batch.lock_memory()?)) }
}

/// Frees a batch. NULL is fine.
///
/// No other call may be using the handle, but that is checked: CBL_BUSY frees nothing. Errors:
/// CBL_BAD_HANDLE, CBL_BUSY.
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

/// As cbl_session_error().
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_error(batch: *mut cbl_batch) -> *const c_char {
    boundary::value(handle::NONE.as_ptr(), || {
        // SAFETY: the caller's contract.
        Ok(unsafe { handle::get(batch) }?.locked.failure())
    })
}

/// Forgets the tokens of a sequence from `position` on; all of them with 0. Costs nothing.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if there is no such sequence,
/// CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_rewind(
    batch: *mut cbl_batch,
    sequence: usize,
    position: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(batch, &mut |inner| {
            inner.check(sequence)?;
            Ok(inner.batch.rewind(sequence, position)?)
        })
    }
}

/// The tokens in a sequence: `*tokens` points to `*count` ids, valid until the next call on the batch.
/// NULL and 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_tokens(
    batch: *mut cbl_batch,
    sequence: usize,
    tokens: *mut *const u32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut outs = Some((Out::new(tokens, ptr::null()), Out::new(count, 0)));
        with_running(batch, &mut |inner| {
            let (tokens, count) = boundary::once(&mut outs);
            let (tokens, count) = (tokens?, count?);
            inner.check(sequence)?;
            let held = inner.batch.tokens(sequence);
            tokens.set(held.as_ptr());
            count.set(held.len());
            Ok(())
        })
    }
}

/// Appends tokens to `count` sequences, `sequences[i]` of which gets `lengths[i]` tokens, at least one;
/// all of them lie one after another at `tokens`. No sequence is named twice. Afterwards the logits of the
/// last token of each of these can be read or sampled, and of no other.
///
/// One thread at a time. On failure all sequences are as before, but for the logits. Errors:
/// CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_BAD_OPTION if a sequence does not exist or is named twice;
/// CBL_BAD_TOKEN; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED; CBL_NO_MEMORY;
/// CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_evaluate(
    batch: *mut cbl_batch,
    sequences: *const usize,
    lengths: *const usize,
    count: usize,
    tokens: *const u32,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        work(batch, &mut |inner| {
            let sequences = slice(sequences, count)?;
            let (lengths, total) = list_lengths(lengths, count)?;
            let mut rest = slice(tokens, total)?;
            let mut appends = try_vec(count)?;
            for (&sequence, &length) in sequences.iter().zip(lengths) {
                let (tokens, others) = rest.split_at(length);
                appends.push(Append { sequence, tokens });
                rest = others;
            }
            Ok(inner.batch.evaluate(&appends)?)
        })
    }
}

/// The logits of a sequence's last token, if the last cbl_batch_evaluate() named it: `*logits` points to
/// `*count` floats, one for each token of the vocabulary, valid until the next call that evaluates,
/// generates, rewinds or frees. NULL and 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_logits(
    batch: *mut cbl_batch,
    sequence: usize,
    logits: *mut *const f32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut outs = Some((Out::new(logits, ptr::null()), Out::new(count, 0)));
        with_running(batch, &mut |inner| {
            let (logits, count) = boundary::once(&mut outs);
            let (logits, count) = (logits?, count?);
            inner.check(sequence)?;
            let row = inner.batch.logits(sequence)?;
            logits.set(row.as_ptr());
            count.set(row.len());
            Ok(())
        })
    }
}

/// As cbl_session_sample(), for a sequence. The token is not appended.
///
/// One thread at a time. Errors: those of cbl_session_sample().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_sample(
    batch: *mut cbl_batch,
    sequence: usize,
    options: *const cbl_options,
    token: *mut u32,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut out = Some(Out::new(token, 0));
        with_running(batch, &mut |inner| {
            let out = boundary::once(&mut out)?;
            inner.check(sequence)?;
            out.set(options::with(options, |options| {
                Ok(inner.batch.sample(sequence, options.choice()?)?)
            })?);
            Ok(())
        })
    }
}

/// Stops the evaluation or generation that is running on the batch, or else the next one, as
/// cbl_session_cancel() does on a session: it returns CBL_CANCELLED.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_cancel(batch: *const cbl_batch) -> cbl_status {
    set_cancel(batch, true)
}

/// Takes back a request of cbl_batch_cancel() that no call has followed yet.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_clear_cancel(batch: *const cbl_batch) -> cbl_status {
    set_cancel(batch, false)
}

/// An atomic store, no lock: safe in a signal handler.
fn set_cancel(batch: *const cbl_batch, wanted: bool) -> cbl_status {
    boundary::status_in_signal(|| {
        // SAFETY: the caller's contract.
        unsafe { handle::get(batch) }?.cancel.store(wanted, Relaxed);
        Ok(())
    })
}

/// Receives a piece of the text that continues prompt number `index`. Return false to end that text; the
/// others go on. Otherwise as cbl_text_callback.
pub type cbl_batch_text_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        index: usize,
        text: *const c_char,
        length: usize,
    ) -> bool,
>;

/// Receives a token that continues prompt number `index`. Return false to end that text; the others go
/// on. Otherwise as cbl_text_callback.
pub type cbl_batch_token_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, index: usize, token: u32) -> bool>;

/// What came of each prompt.
type Outcomes = Vec<Result<Generation>>;

/// Runs a generation by the caller's options and writes what came of each prompt to the caller's places:
/// statuses, reasons, and how many there is room for.
///
/// # Safety
/// As [`with`], [`options::with`] and [`Results::new`].
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

/// Prompts as requests, all with the same options.
pub(super) struct Prompts {
    pub requests: Vec<Request>,
    /// Which prompt each request is.
    pub numbers: Vec<usize>,
    /// Of each prompt; a failure if it is no request.
    pub outcomes: Outcomes,
}

impl Prompts {
    fn with_room(count: usize) -> Result<Self> {
        Ok(Self { requests: try_vec(count)?, numbers: try_vec(count)?, outcomes: try_vec(count)? })
    }

    fn add(&mut self, prompt: Vec<u32>, options: &Options) -> Result<()> {
        self.requests.push(Request { prompt, options: options.generate.try_clone()? });
        self.numbers.push(self.outcomes.len());
        self.outcomes.push(Ok(Generation::cancelled()));
        Ok(())
    }

    pub fn of_texts(inner: &Inner, texts: &[&str], options: &Options) -> Result<Self, Failure> {
        let mut prompts = Self::with_room(texts.len())?;
        for text in texts {
            match encode_for_batch(&inner.batch, &inner.shared, text, options.parse_special) {
                Ok(prompt) => prompts.add(prompt, options)?,
                // Fails by itself, and does not disturb the others.
                Err(Failure::Error(error @ Error::TextTooLong { .. })) => {
                    prompts.outcomes.push(Err(error));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(prompts)
    }

    /// `tokens` are those of all prompts, one after another.
    pub fn of_tokens(
        tokens: &[u32],
        lengths: &[usize],
        options: &Options,
    ) -> Result<Self, Failure> {
        let (mut prompts, mut rest) = (Self::with_room(lengths.len())?, tokens);
        for &length in lengths {
            let (tokens, others) = rest.split_at(length);
            rest = others;
            let mut prompt = try_vec(length)?;
            prompt.extend_from_slice(tokens);
            prompts.add(prompt, options)?;
        }
        Ok(prompts)
    }
}

/// Continues `count` prompts, any number: `prompts` points to so many texts of UTF-8, each ended by a
/// zero byte. Each is continued as cbl_generate() does in a session that is reset, as many at a time as
/// the batch has sequences; what they held is forgotten. The callback receives pieces of all of them as
/// they come. `options` may be NULL.
///
/// `statuses` and `reasons` may be NULL, or have room for `count` results and receive what came of each
/// prompt: a prompt that cannot be continued, such as one that is too long, does not disturb the others.
/// If the options ask for texts of a given form, every text is given that form.
///
/// One thread at a time. Takes some memory from the heap for each prompt and each pass. Returns the
/// status of the first prompt that failed, if none of what concerns all of them ended the call:
/// CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER, CBL_BAD_TEXT, CBL_BAD_OPTION,
/// CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY, CBL_PANIC;
/// results are not written then.
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
                Prompts::of_texts(inner, &texts(prompts, count)?, options)?;
            let table = inner.shared.tokenizer()?.table();
            let on_text = |request: usize, text: &str| {
                let (start, length) = (text.as_ptr().cast(), text.len());
                let index = numbers[request];
                let wants_more = callback.call(|on_text| on_text(user, index, start, length));
                if wants_more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            let within = options.constraint.constraints(&inner.shared, requests.len())?;
            let made = generate_text_within(&mut inner.batch, table, &requests, within, on_text)?;
            for (&number, outcome) in numbers.iter().zip(made) {
                outcomes[number] = outcome;
            }
            Ok(outcomes)
        })
    }
}

/// As cbl_batch_generate(), in token ids: prompt `i` has `lengths[i]` tokens, none of which starts a new
/// text; all of them lie one after another at `tokens`. Works in a build that cannot tokenize. Stop
/// strings are not looked for. The token that ends a text is not passed on.
///
/// One thread at a time. Errors: those of cbl_batch_generate() that concern no text, CBL_MODEL_CHANGED
/// among them; CBL_BAD_TOKEN and CBL_CONTEXT_FULL for single prompts.
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
            let within = options.constraint.constraints(&inner.shared, count)?;
            let wants_more = |index, token| callback.call(|on_token| on_token(user, index, token));
            let on_step = |index, step: Step| match wants_more(index, step.token) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(StopReason::Cancelled),
            };
            Ok(generate_within(&mut inner.batch, &requests, within, on_step)?)
        })
    }
}

/// Places for what came of each prompt.
struct Results<'a> {
    statuses: &'a mut [i32],
    reasons: &'a mut [i32],
}

impl Results<'_> {
    /// # Safety
    /// As [`slice_mut`], but for null.
    unsafe fn new(
        statuses: *mut cbl_status,
        reasons: *mut cbl_stop_reason,
        count: usize,
    ) -> Result<Self, Failure> {
        let place = |start: *mut i32| match start.is_null() {
            true => Ok(&mut [][..]),
            // SAFETY: the caller's contract. As numbers, because nothing is known of what is there.
            false => unsafe { slice_mut(start, count) },
        };
        Ok(Self { statuses: place(statuses.cast())?, reasons: place(reasons.cast())? })
    }

    /// Writes them; the first failure is the call's.
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
