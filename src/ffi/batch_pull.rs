//! Batches on demand
//!
//! cbl_batch_generate() for a loop of your own, as "Generation on demand" is cbl_generate(): the library
//! works only while you ask for the next step of whichever text has one.
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
//! A batch has one generation at a time. cbl_batch_tokens(), cbl_batch_logits(), cbl_batch_sample() and
//! cbl_batch_lock_memory() leave it alone, and so do those that take a `const cbl_batch *`. Every other call
//! on the batch ends it, also a call that fails, CBL_BUSY apart.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ffi::c_char;
use std::ops::{ControlFlow, Range};

use super::arguments::{Growing, GrowingOut, Out, list_lengths, slice, texts};
use super::batch::{self, Inner, Prompts, cbl_batch};
use super::boundary::Failure;
use super::options::{self, Options, cbl_options};
use super::pull::{NO_GENERATION, new_number};
use super::session::cbl_stop_reason;
use super::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use crate::batch::{Client, Job, Next, Request, Service};
use crate::error::{Error, Result};
use crate::generate::{Constraint, GenerateOptions, Generation, Step, StopReason, TextBuffer};
use crate::memory::try_vec;
use crate::model::TokenizerBytes;
use crate::text::TokenTable;

/// What a batch knows of its generation on demand.
pub(super) struct Running {
    number: u64,
    service: Service<'static>,
    client: Queue,
    /// Whether all prompts are done, but for what waits to be told.
    is_over: bool,
}

/// Prompts that wait to be taken up, and steps that wait to be told: those of one pass.
struct Queue {
    prompts: std::vec::IntoIter<Waiting>,
    /// Of each job, in the order in which they were taken up.
    jobs: Vec<Text>,
    told: VecDeque<Told>,
    /// The texts of what is told, one after another.
    pieces: String,
    /// By prompt.
    stopped: Vec<bool>,
    /// Whether there was no memory to tell of something.
    lacks_memory: bool,
}

struct Waiting {
    index: usize,
    request: Request,
    constraint: Option<Box<dyn Constraint>>,
}

struct Text {
    index: usize,
    /// None if the model has no tokenizer, and when it is done.
    buffer: Option<TextBuffer>,
}

/// A step that waits to be told.
struct Told {
    index: usize,
    token: Option<u32>,
    piece: Range<usize>,
    outcome: Option<Result<StopReason, cbl_status>>,
}

impl Queue {
    fn tell(&mut self, told: Told) {
        match self.told.try_reserve(1) {
            Ok(()) => self.told.push_back(told),
            Err(_) => self.lacks_memory = true,
        }
    }

    fn tell_end(&mut self, index: usize, outcome: Result<StopReason, cbl_status>) {
        let piece = self.pieces.len()..self.pieces.len();
        self.tell(Told { index, token: None, piece, outcome: Some(outcome) });
    }

    /// Keeps what has become certain of a job's text.
    fn keep_text(&mut self, job: usize) -> Range<usize> {
        let start = self.pieces.len();
        let text = self.jobs[job].buffer.as_ref().map_or("", TextBuffer::text);
        match self.pieces.try_reserve(text.len()) {
            Ok(()) => self.pieces.push_str(text),
            Err(_) => self.lacks_memory = true,
        }
        start..self.pieces.len()
    }
}

/// A queue with what tokens stand for, if the model has a tokenizer.
struct Receiver<'q> {
    queue: &'q mut Queue,
    table: Option<&'q TokenTable<TokenizerBytes>>,
}

impl Client<'static> for Receiver<'_> {
    fn next(&mut self, _: bool) -> Next<Job<'static>> {
        loop {
            let Some(waiting) = self.queue.prompts.next() else { return Next::End };
            let Waiting { index, request, constraint } = waiting;
            if self.queue.stopped[index] {
                self.queue.tell_end(index, Ok(StopReason::Cancelled));
                continue;
            }
            // There is room for all prompts.
            self.queue.jobs.push(Text { index, buffer: None });
            return Next::Job(Job { request: Cow::Owned(request), constraint });
        }
    }

    fn begin(&mut self, job: usize, options: &GenerateOptions) -> Result<()> {
        let buffer = self.table.map(|table| TextBuffer::new(table, &options.stop)).transpose()?;
        self.queue.jobs[job].buffer = buffer;
        Ok(())
    }

    fn step(&mut self, job: usize, step: Step) -> ControlFlow<StopReason> {
        let Self { queue, table } = self;
        let text = &mut queue.jobs[job];
        let index = text.index;
        if queue.lacks_memory || queue.stopped[index] {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        let is_stopped = match (&mut text.buffer, table) {
            (Some(buffer), Some(table)) => buffer.push(table, step.token),
            _ => false,
        };
        let piece = queue.keep_text(job);
        queue.tell(Told { index, token: Some(step.token), piece, outcome: None });
        match is_stopped {
            true => ControlFlow::Break(StopReason::StopString),
            false => ControlFlow::Continue(()),
        }
    }

    fn end(&mut self, job: usize, outcome: Result<Generation>) {
        let queue = &mut *self.queue;
        let Text { index, buffer } = &mut queue.jobs[job];
        let index = *index;
        let outcome = outcome.map(|generation| generation.stop_reason);
        if let (Some(buffer), Ok(reason)) = (buffer, &outcome) {
            buffer.finish(*reason);
            let piece = queue.keep_text(job);
            if !piece.is_empty() {
                queue.tell(Told { index, token: None, piece, outcome: None });
            }
        }
        queue.jobs[job].buffer = None;
        queue.tell_end(index, outcome.map_err(|error| cbl_status::of(&error)));
    }
}

impl Running {
    fn begin(inner: &Inner, options: &Options, prompts: Prompts) -> Result<Self> {
        match inner.shared.tokenizer() {
            Err(Error::NoTokenizer) if options.generate.stop.is_empty() => {}
            other => drop(other?),
        }
        let Prompts { requests, numbers, outcomes } = prompts;
        let mut stopped = try_vec(outcomes.len())?;
        stopped.resize(outcomes.len(), false);
        let mut constraints =
            options.constraint.constraints(&inner.shared, requests.len())?.into_iter();
        let mut waiting = try_vec(requests.len())?;
        let mut client = Queue {
            prompts: Vec::new().into_iter(),
            jobs: try_vec(requests.len())?,
            told: VecDeque::new(),
            pieces: String::new(),
            stopped,
            lacks_memory: false,
        };
        for (index, request) in numbers.into_iter().zip(requests) {
            let constraint = constraints.next().flatten();
            waiting.push(Waiting { index, request, constraint });
        }
        client.prompts = waiting.into_iter();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            if let Err(error) = outcome {
                client.tell_end(index, Err(cbl_status::of(&error)));
            }
        }
        let service = Service::new(&inner.batch)?;
        let running = Self { number: new_number(), service, client, is_over: false };
        running.check_memory()?;
        Ok(running)
    }

    fn check_memory(&self) -> Result<()> {
        match self.client.lacks_memory {
            true => Err(Error::OutOfMemory { bytes: size_of::<Told>() }),
            false => Ok(()),
        }
    }
}

impl Inner {
    fn running(&mut self, generation: u64) -> Result<&mut Running, Failure> {
        self.running.as_mut().filter(|it| it.number == generation).ok_or(NO_GENERATION)
    }

    /// The next step that is to be told, after a pass if none waits.
    fn next(&mut self, generation: u64) -> Result<Option<cbl_batch_step>, Failure> {
        self.running(generation)?;
        let Self { batch, shared, running } = self;
        let Some(Running { service, client, is_over, .. }) = running else { return Ok(None) };
        loop {
            if let Some(told) = client.told.pop_front() {
                return Ok(Some(cbl_batch_step::new(&told, &client.pieces)));
            }
            if *is_over {
                return Ok(None);
            }
            client.pieces.clear();
            let tokenizer = match shared.tokenizer() {
                Ok(tokenizer) => Some(tokenizer),
                Err(Error::NoTokenizer) => None,
                Err(error) => return Err(error.into()),
            };
            let table = tokenizer.map(|tokenizer| tokenizer.table());
            *is_over = !service.round(batch, &mut Receiver { queue: client, table })?;
            if client.lacks_memory {
                return Err(Error::OutOfMemory { bytes: size_of::<Told>() }.into());
            }
        }
    }
}

/// A step of a batch's generation. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_batch_step {
    /// Which prompt it is of.
    pub index: usize,
    /// The token, or -1 if there is none: text that was held back follows the last one, or the text has
    /// ended.
    pub token: i64,
    /// Whole characters, not ended by a zero byte; often none.
    pub text: *const c_char,
    /// Bytes of the text.
    pub length: usize,
    /// Why the text has ended: a cbl_stop_reason. CBL_STOP_NONE before that, and if the prompt could not
    /// be continued.
    pub reason: i32,
    /// CBL_OK, or why the prompt could not be continued: a cbl_status.
    pub status: i32,
}

// SAFETY: `repr(C)`, and zeros are null pointers and numbers.
unsafe impl Growing for cbl_batch_step {
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl cbl_batch_step {
    fn new(told: &Told, pieces: &str) -> Self {
        let text = &pieces[told.piece.clone()];
        let reason = |reason: StopReason| cbl_stop_reason::from(reason) as i32;
        let (reason, status) = match &told.outcome {
            None => (0, cbl_status::CBL_OK),
            Some(Ok(ended)) => (reason(*ended), cbl_status::CBL_OK),
            Some(Err(status)) => (0, *status),
        };
        Self {
            index: told.index,
            token: told.token.map_or(-1, i64::from),
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
/// As [`batch::with`], [`options::with`] and [`Out::new`].
unsafe fn begin(
    batch: *mut cbl_batch,
    options: *const cbl_options,
    generation: *mut u64,
    prompts: &mut dyn FnMut(&Inner, &Options) -> Result<Prompts, Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut out = Some(Out::new(generation, 0));
        batch::with(batch, &mut |inner| {
            let out = super::boundary::once(&mut out)?;
            let running = options::with(options, |options| {
                let prompts = prompts(inner, options)?;
                Ok(Running::begin(inner, options, prompts)?)
            })?;
            out.set(running.number);
            inner.running = Some(running);
            Ok(())
        })
    }
}

/// Begins to continue `count` prompts, as cbl_batch_generate() does. Nothing is evaluated yet.
/// `*generation` is 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER,
/// CBL_BAD_TEXT, CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_CANCELLED, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY,
/// CBL_PANIC.
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
            Prompts::of_texts(inner, &texts(prompts, count)?, options)
        })
    }
}

/// As cbl_batch_begin(), in token ids, as cbl_batch_generate_tokens() takes them. Works in a build that
/// cannot tokenize. If the model file holds no tokenizer, steps have no text, and stop strings are refused
/// with CBL_NO_TOKENIZER.
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

/// The next step of any of the texts, after a pass over the weights if none waits: `*step` receives it.
/// `size` is `sizeof *step`. Its text is valid until the next call on the batch. The last step of each prompt
/// has no token and no text, but says in `reason` or `status` what came of it.
///
/// When all prompts are done, `*more` is false and `*step` is empty, also if called again. Takes some memory
/// from the heap for each pass.
///
/// One thread at a time. A failure ends the generation. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT,
/// CBL_NO_GENERATION, CBL_BAD_OPTION, CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_NO_MEMORY,
/// CBL_BUSY, CBL_PANIC.
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
        batch::with_running(batch, &mut |inner| {
            let (step, more) = super::boundary::once(&mut outs);
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

/// Ends the text of prompt number `index`, as returning false from the callback of cbl_batch_generate()
/// does; the others go on. Steps of it that wait to be told still come, then its end with
/// CBL_STOP_CANCELLED, if it has no end yet.
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
        batch::with_running(batch, &mut |inner| {
            let stopped = inner.running(generation)?.client.stopped.get_mut(index);
            let missing = "the generation has no prompt of that number";
            *stopped.ok_or(Failure::Misuse(CBL_BAD_ARGUMENT, missing))? = true;
            Ok(())
        })
    }
}

/// Ends a generation, whether all prompts are done or not, and takes back a request of cbl_batch_cancel(), so
/// that it does not stop the call that follows. If the generation is none of the batch's, nothing is done, and
/// that is no error.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_end(batch: *mut cbl_batch, generation: u64) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        batch::with_running(batch, &mut |inner| {
            if inner.running(generation).is_ok() {
                inner.running = None;
                inner.batch.clear_cancel();
            }
            Ok(())
        })
    }
}
