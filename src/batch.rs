//! Several sequences at once: a pass evaluates tokens of all of them, and so reads the weights once
//! for all.
//!
//! ```no_run
//! use cerebellum::batch::{Batch, Request, generate};
//! use cerebellum::{Access, Model, SessionOptions};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> cerebellum::Result<()> {
//! let model = Model::open("111m.cbl", Access::Map)?;
//! let mut batch = model.batch(&SessionOptions::default(), 8)?;
//! // Any number of prompts: one that is done makes room for the next.
//! let requests: Vec<Request> = (0..100).map(|i| Request::new(vec![464, i])).collect();
//! generate(&mut batch, &requests, |request, token| {
//!     println!("{request}: {token}");
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! Results are bit for bit those of evaluating and generating each sequence alone in a session.

use std::ops::ControlFlow;
#[cfg(feature = "capi")]
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::forward::{self, Pass, PassKind, Run, Scratch};
use crate::fp_env::FpEnv;
use crate::generate::{GenerateOptions, Generation, StopReason, TextStream};
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::KvCache;
use crate::memory::{Arena, Planner, Region, try_filled, try_vec};
use crate::model::Model;
use crate::sampler::{SamplerOptions, SamplerRegions};
use crate::session::all_finite;
use crate::session_options::{
    MemoryPlan, SessionOptions, Threads, check_range, check_tokens, context_and_chunk, executor_of,
    kernels_of,
};
use crate::text::TokenTable;
use crate::threads::Executor;

/// The most sequences of a batch.
pub const MAX_SEQUENCES: usize = 1024;

/// A number of sequences, each with its tokens and cache, that are evaluated together.
///
/// Everything is allocated when it is made, for all sequences at their full context; evaluating and
/// sampling allocate nothing. An evaluation that fails leaves every sequence as it was before, but for
/// the logits, which are gone.
pub struct Batch {
    model: Model,
    threads: Threads,
    kernels: &'static Kernels,
    arena: Arena,
    /// One per sequence.
    caches: Vec<KvCache>,
    scratch: Scratch,
    /// The tokens evaluated so far `[sequences, context]`.
    tokens: Region<u32>,
    sampler: SamplerRegions,
    context: usize,
    sequences: Vec<Sequence>,
    /// The pass in preparation.
    runs: Vec<Run>,
    pass_tokens: Vec<u32>,
    cancel: Cancel,
}

#[derive(Clone, Copy, Default)]
struct Sequence {
    position: usize,
    /// The row of the last token's logits, while they are there.
    logits_row: Option<usize>,
    /// Whether the call in progress names it, and the position before that call.
    named: bool,
    before: usize,
}

/// Tokens to append to a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Append<'a> {
    /// The sequence, below [`Batch::sequences`].
    pub sequence: usize,
    /// At least one.
    pub tokens: &'a [u32],
}

/// The places of a batch's memory.
struct Plan {
    planner: Planner,
    kv_bytes: usize,
    caches: Vec<KvCache>,
    scratch: Scratch,
    tokens: Region<u32>,
    sampler: SamplerRegions,
    context: usize,
}

impl Plan {
    fn new(
        model: &Model,
        options: &SessionOptions,
        sequences: usize,
        workers: usize,
    ) -> Result<Self> {
        let config = model.config();
        let (context, chunk) = context_and_chunk(model, options, workers)?;
        check_range("batch", sequences, MAX_SEQUENCES)?;
        let mut planner = Planner::default();
        let mut caches = try_vec(sequences)?;
        for _ in 0..sequences {
            caches.push(KvCache::plan(&mut planner, config, options.kv, context)?);
        }
        let kv_bytes = planner.bytes();
        let rows = chunk.max(sequences);
        let scratch = Scratch::plan(&mut planner, model, rows, sequences, workers)?;
        let tokens = planner.reserve(&[sequences, context])?;
        let sampler = SamplerRegions::plan(&mut planner, config.vocab_size)?;
        Ok(Self { planner, kv_bytes, caches, scratch, tokens, sampler, context })
    }
}

impl Model {
    /// What a batch of so many sequences with these options will need. `logits` and `draft` are not
    /// used: a batch computes the logits of each sequence's last token, and guesses none.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range.
    pub fn plan_batch(&self, options: &SessionOptions, sequences: usize) -> Result<MemoryPlan> {
        let plan = Plan::new(self, options, sequences, options.threads)?;
        Ok(MemoryPlan::of(self, plan.kv_bytes, plan.planner.bytes()))
    }

    /// Makes a batch of so many sequences, with its own threads if the options ask for more than one.
    /// `options.context` is that of each sequence; `logits` and `draft` are not used.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range; [`Error::OutOfMemory`]; [`Error::Threads`].
    pub fn batch(&self, options: &SessionOptions, sequences: usize) -> Result<Batch> {
        self.make_batch(options, sequences, Threads::Own(executor_of(options)?))
    }

    /// As [`batch`](Self::batch), on threads that may be shared with sessions or belong to the host;
    /// `options.threads` is not used.
    ///
    /// # Errors
    /// Those of [`batch`](Self::batch).
    pub fn batch_on(
        &self,
        options: &SessionOptions,
        sequences: usize,
        executor: Arc<Executor>,
    ) -> Result<Batch> {
        self.make_batch(options, sequences, Threads::Shared(executor))
    }

    /// As [`batch`](Self::batch), on threads of its own; `options.threads` is not used.
    #[cfg(feature = "capi")]
    pub(crate) fn batch_with(
        &self,
        options: &SessionOptions,
        sequences: usize,
        executor: Executor,
    ) -> Result<Batch> {
        self.make_batch(options, sequences, Threads::Own(executor))
    }

    fn make_batch(
        &self,
        options: &SessionOptions,
        sequences: usize,
        threads: Threads,
    ) -> Result<Batch> {
        let plan = Plan::new(self, options, sequences, threads.executor().workers())?;
        Ok(Batch {
            model: self.clone(),
            threads,
            kernels: kernels_of(options)?,
            arena: Arena::allocate(&plan.planner)?,
            caches: plan.caches,
            tokens: plan.tokens,
            sampler: plan.sampler,
            context: plan.context,
            sequences: try_filled(Sequence::default(), sequences)?,
            runs: try_vec(plan.scratch.rows())?,
            pass_tokens: try_vec(plan.scratch.rows())?,
            scratch: plan.scratch,
            cancel: Cancel::default(),
        })
    }
}

impl Batch {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.sequences.len()
    }

    /// Positions that each sequence's cache has.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The most tokens of a pass, those of all sequences together.
    pub fn chunk(&self) -> usize {
        self.scratch.rows()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// Tokens of a sequence so far: the position of its next one. Panics if there is no such sequence,
    /// as the other methods do that name one.
    pub fn position(&self, sequence: usize) -> usize {
        self.sequences[sequence].position
    }

    /// The tokens of a sequence so far, `[position]`.
    pub fn tokens(&self, sequence: usize) -> &[u32] {
        let start = sequence * self.context;
        // SAFETY: only `record` writes tokens, and it needs `&mut self`.
        unsafe { self.arena.read(self.tokens, start..start + self.sequences[sequence].position) }
    }

    /// Forgets every token of a sequence.
    pub fn reset(&mut self, sequence: usize) {
        self.sequences[sequence] = Sequence::default();
    }

    /// Forgets the tokens of a sequence from `position` on.
    ///
    /// # Errors
    /// [`Error::Rewind`] if it has fewer.
    pub fn rewind(&mut self, sequence: usize, position: usize) -> Result<()> {
        let current = &mut self.sequences[sequence];
        if position > current.position {
            return Err(Error::Rewind { target: position, position: current.position });
        }
        if position < current.position {
            *current = Sequence { position, ..Sequence::default() };
        }
        Ok(())
    }

    /// As [`Session::cancel_by`](crate::Session::cancel_by).
    pub fn cancel_by(&mut self, flag: Arc<AtomicBool>) {
        self.cancel = Cancel::by(flag);
    }

    /// As [`cancel_by`](Self::cancel_by), for a flag that somebody else keeps.
    ///
    /// # Safety
    /// The flag stays valid until this batch is dropped.
    #[cfg(feature = "capi")]
    pub(crate) unsafe fn cancel_by_raw(&mut self, flag: NonNull<AtomicBool>) {
        // SAFETY: the caller's contract.
        self.cancel = unsafe { Cancel::by_raw(flag) };
    }

    /// Appends tokens to sequences, each named at most once, in as few passes as the chunk allows.
    /// Afterwards the logits of each one's last token are there, and no other ones.
    ///
    /// # Errors
    /// Those of [`Session::evaluate`](crate::Session::evaluate); [`Error::NoTokens`] if nothing is
    /// named; [`Error::Option`] if a sequence does not exist or is named twice.
    pub fn evaluate(&mut self, appends: &[Append]) -> Result<()> {
        let checked = self.check(appends);
        self.sequences.iter_mut().for_each(|sequence| sequence.named = false);
        checked?;
        let _env = FpEnv::set_default();
        self.sequences.iter_mut().for_each(|sequence| sequence.logits_row = None);
        let evaluated = self.evaluate_all(appends);
        if evaluated.is_err() {
            self.undo(appends);
        }
        evaluated
    }

    fn check(&mut self, appends: &[Append]) -> Result<()> {
        let fail = |detail| Err(Error::Option { name: "sequence", detail });
        if appends.is_empty() {
            return Err(Error::NoTokens);
        }
        let count = self.sequences.len();
        for &Append { sequence, tokens } in appends {
            let Some(named) = self.sequences.get_mut(sequence) else {
                return fail(format!("{sequence} is not below {count}"));
            };
            if std::mem::replace(&mut named.named, true) {
                return fail(format!("{sequence} is named twice"));
            }
            named.before = named.position;
            check_tokens(&self.model, tokens, (named.position, tokens.len(), self.context))?;
        }
        self.model.check_unchanged()
    }

    /// Fills passes with the tokens, in order.
    fn evaluate_all(&mut self, appends: &[Append]) -> Result<()> {
        let mut first_logits = 0;
        self.runs.clear();
        self.pass_tokens.clear();
        for append in appends {
            let mut rest = append.tokens;
            while !rest.is_empty() {
                let room = self.scratch.rows() - self.pass_tokens.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                self.add_run(append.sequence, now, later.is_empty(), first_logits);
                rest = later;
                if self.pass_tokens.len() == self.scratch.rows() {
                    first_logits = self.pass(first_logits)?;
                }
            }
        }
        self.pass(first_logits)?;
        for append in appends {
            let sequence = &self.sequences[append.sequence];
            let row = sequence.logits_row.expect("every sequence's last token has logits");
            if !all_finite(self.row(row)) {
                return Err(Error::NonFinite { position: sequence.position - 1 });
            }
        }
        Ok(())
    }

    /// Adds tokens to the pass in preparation, and to their sequence.
    fn add_run(&mut self, sequence: usize, tokens: &[u32], is_end: bool, first_logits: usize) {
        let position = self.sequences[sequence].position;
        let (len, logits) = (tokens.len(), usize::from(is_end));
        let run = match self.runs.last() {
            None => Run::first(sequence, position, len, logits),
            Some(last) => last.next(sequence, position, len, logits),
        };
        self.runs.push(run);
        self.pass_tokens.extend_from_slice(tokens);
        let start = sequence * self.context + position;
        // SAFETY: `&mut self`: nobody else uses them.
        unsafe { self.arena.write(self.tokens, start..start + len) }.copy_from_slice(tokens);
        self.sequences[sequence].position += len;
        if is_end {
            self.sequences[sequence].logits_row = Some(first_logits + run.logits_end() - 1);
        }
    }

    /// Runs the pass in preparation, whose logits go to the rows from `first_logits` on; returns the
    /// row after them.
    fn pass(&mut self, first_logits: usize) -> Result<usize> {
        let Some(last) = self.runs.last() else { return Ok(first_logits) };
        let next = first_logits + last.logits_end();
        let pass = Pass {
            model: &self.model,
            kernels: self.kernels,
            arena: &self.arena,
            caches: &self.caches,
            scratch: &self.scratch,
            tokens: &self.pass_tokens,
            runs: &self.runs,
            kind: PassKind::Sequences,
            logits_row: first_logits,
            log_sums: false,
            cancel: &self.cancel,
        };
        forward::run(&pass, self.threads.executor());
        self.runs.clear();
        self.pass_tokens.clear();
        self.cancel.follow()?;
        Ok(next)
    }

    /// Takes back what `add_run` added.
    fn undo(&mut self, appends: &[Append]) {
        for append in appends {
            let sequence = &mut self.sequences[append.sequence];
            sequence.logits_row = None;
            sequence.position = sequence.before;
        }
    }

    /// The logits `[vocab_size]` of a sequence's last token, if the last evaluation named it.
    ///
    /// # Errors
    /// [`Error::NoLogits`].
    pub fn logits(&self, sequence: usize) -> Result<&[f32]> {
        Ok(self.row(self.sequences[sequence].logits_row.ok_or(Error::NoLogits)?))
    }

    fn row(&self, row: usize) -> &[f32] {
        let vocab_size = self.model.config().vocab_size;
        // SAFETY: only a pass writes logits, and it needs `&mut self`.
        unsafe { self.arena.read(self.scratch.logits(), row * vocab_size..(row + 1) * vocab_size) }
    }

    /// Chooses a sequence's next token from its last one's logits, as
    /// [`Session::sample`](crate::Session::sample) does; nothing changes.
    ///
    /// # Errors
    /// [`Error::NoLogits`]; [`Error::Option`] if an option is out of range.
    pub fn sample(&mut self, sequence: usize, options: &SamplerOptions) -> Result<u32> {
        options.check()?;
        let before = (self.tokens(sequence), self.position(sequence));
        let logits = self.logits(sequence)?;
        // SAFETY: `&mut self`: nobody else uses the sampler's regions.
        Ok(unsafe { self.sampler.sample(&self.arena, options, logits, before, None) })
    }
}

/// A prompt to continue.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its token ids; none stand for the end-of-text token, after which a new text begins.
    pub prompt: Vec<u32>,
    /// How. Stop strings are for [`generate_text`] and have no effect on [`generate`].
    pub options: GenerateOptions,
}

impl Request {
    /// A prompt, continued by the default options.
    pub fn new(prompt: Vec<u32>) -> Self {
        Self { prompt, options: GenerateOptions::default() }
    }
}

/// A request on its way.
struct Active<'a> {
    request: usize,
    options: &'a GenerateOptions,
    prompt: Prompt<'a>,
    /// How many tokens of the prompt were evaluated.
    evaluated: usize,
    /// The last token chosen.
    token: [u32; 1],
    generation: Generation,
    start: Instant,
}

/// A prompt's tokens.
enum Prompt<'a> {
    Given(&'a [u32]),
    EndOfText([u32; 1]),
}

impl Prompt<'_> {
    fn tokens(&self) -> &[u32] {
        match self {
            Self::Given(tokens) => tokens,
            Self::EndOfText(token) => token,
        }
    }
}

impl Active<'_> {
    /// What is to be evaluated next, at most `room` tokens of a prompt.
    fn next_tokens(&self, room: usize) -> &[u32] {
        match &self.prompt.tokens()[self.evaluated..] {
            [] => &self.token,
            rest => &rest[..rest.len().min(room)],
        }
    }

    fn is_in_prompt(&self) -> bool {
        self.evaluated < self.generation.prompt_tokens
    }
}

/// Continues every prompt, as many at a time as the batch has sequences, handing each token to
/// `on_token` with the index of its request as it is chosen; breaking ends that request.
///
/// Each step is one pass: a token of every text that is being continued, and of new prompts as much as
/// the chunk has room for. So a long prompt delays the others by no more than a chunk. What the sequences
/// held before is forgotten.
///
/// Returns for each request what [`generate_tokens`](crate::generate::generate_tokens) would have
/// returned: one that cannot be continued is an error and does not disturb the others. A request's times
/// include what the others took meanwhile.
///
/// # Errors
/// What concerns all of them: [`Error::FileChanged`], [`Error::NonFinite`], [`Error::Cancelled`],
/// [`Error::OutOfMemory`].
pub fn generate(
    batch: &mut Batch,
    requests: &[Request],
    on_token: impl FnMut(usize, u32) -> ControlFlow<StopReason>,
) -> Result<Vec<Result<Generation>>> {
    run(batch, requests, &mut Tokens(on_token))
}

/// As [`generate`], handing on text as [`generate_text`](crate::generate::generate_text) does. With the
/// options' stop strings.
///
/// # Errors
/// Those of [`generate`].
pub fn generate_text<B: AsRef<[u8]>>(
    batch: &mut Batch,
    table: &TokenTable<B>,
    requests: &[Request],
    on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
) -> Result<Vec<Result<Generation>>> {
    let mut streams = try_vec(requests.len())?;
    streams.resize_with(requests.len(), || None);
    run(batch, requests, &mut Texts { table, streams, on_text })
}

/// Who is told of what becomes of the requests.
trait Receiver {
    /// A request is taken up.
    fn begin(&mut self, index: usize, options: &GenerateOptions) -> Result<()>;
    /// A token was chosen; a break ends the request.
    fn token(&mut self, index: usize, token: u32) -> ControlFlow<StopReason>;
    /// A request has ended.
    fn end(&mut self, index: usize, reason: StopReason);
}

struct Tokens<F>(F);

impl<F: FnMut(usize, u32) -> ControlFlow<StopReason>> Receiver for Tokens<F> {
    fn begin(&mut self, _: usize, _: &GenerateOptions) -> Result<()> {
        Ok(())
    }

    fn token(&mut self, index: usize, token: u32) -> ControlFlow<StopReason> {
        (self.0)(index, token)
    }

    fn end(&mut self, _: usize, _: StopReason) {}
}

struct Texts<'a, B, F> {
    table: &'a TokenTable<B>,
    /// Of the requests on their way.
    streams: Vec<Option<TextStream<'a, B>>>,
    on_text: F,
}

impl<B: AsRef<[u8]>, F: FnMut(usize, &str) -> ControlFlow<()>> Receiver for Texts<'_, B, F> {
    fn begin(&mut self, index: usize, options: &GenerateOptions) -> Result<()> {
        self.streams[index] = Some(TextStream::new(self.table, &options.stop)?);
        Ok(())
    }

    fn token(&mut self, index: usize, token: u32) -> ControlFlow<StopReason> {
        let stream = self.streams[index].as_mut().expect("the request was taken up");
        stream.push(token, &mut |text: &str| (self.on_text)(index, text))
    }

    fn end(&mut self, index: usize, reason: StopReason) {
        if let Some(mut stream) = self.streams[index].take() {
            stream.finish(reason, &mut |text: &str| (self.on_text)(index, text));
        }
    }
}

fn run(
    batch: &mut Batch,
    requests: &[Request],
    receiver: &mut impl Receiver,
) -> Result<Vec<Result<Generation>>> {
    let mut results = try_vec(requests.len())?;
    results.resize_with(requests.len(), || None);
    let mut done = try_vec(requests.len())?;
    let mut waiting = requests.iter().enumerate();
    let mut slots: Vec<Option<Active>> = try_vec(batch.sequences())?;
    slots.resize_with(batch.sequences(), || None);
    loop {
        for (sequence, slot) in slots.iter_mut().enumerate() {
            while slot.is_none()
                && let Some((index, request)) = waiting.next()
            {
                batch.reset(sequence);
                let active = begin(batch, index, request);
                let options = &request.options;
                match active.and_then(|it| receiver.begin(index, options).map(|()| it)) {
                    Ok(active) if request.options.max_tokens == 0 => {
                        results[index] = Some(Ok(active.generation));
                    }
                    Ok(active) => *slot = Some(active),
                    Err(error) => results[index] = Some(Err(error)),
                }
            }
        }
        if slots.iter().all(Option::is_none) {
            break;
        }
        step(batch, &mut slots)?;
        for (sequence, slot) in slots.iter_mut().enumerate() {
            let Some(active) = slot.as_mut().filter(|active| !active.is_in_prompt()) else {
                continue;
            };
            if let Some(reason) = choose(batch, sequence, active, receiver)? {
                receiver.end(active.request, reason);
                let generation = &mut active.generation;
                generation.stop_reason = reason;
                generation.decode_time = active.start.elapsed() - generation.prompt_time;
                results[active.request] = Some(Ok(*generation));
                *slot = None;
            }
        }
    }
    done.extend(results.into_iter().map(|result| result.expect("every request was taken up")));
    Ok(done)
}

/// Checks a request as [`Generator::new`](crate::generate::Generator::new) and its first evaluation do.
fn begin<'a>(batch: &Batch, index: usize, request: &'a Request) -> Result<Active<'a>> {
    request.options.sampler.check()?;
    let prompt = match (&request.prompt[..], batch.model().config().eos_token_id) {
        ([], Some(end_of_text)) => Prompt::EndOfText([end_of_text]),
        (tokens, _) => Prompt::Given(tokens),
    };
    let prompt_tokens = prompt.tokens().len();
    check_tokens(batch.model(), prompt.tokens(), (0, prompt_tokens, batch.context()))?;
    Ok(Active {
        request: index,
        options: &request.options,
        prompt,
        evaluated: 0,
        token: [0],
        generation: Generation {
            prompt_tokens,
            tokens: 0,
            stop_reason: StopReason::MaxTokens,
            pending: None,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        },
        start: Instant::now(),
    })
}

/// One pass: a token of each text, then prompts as far as there is room.
fn step(batch: &mut Batch, slots: &mut [Option<Active>]) -> Result<()> {
    let texts = slots.iter().flatten().filter(|active| !active.is_in_prompt()).count();
    let mut room = batch.chunk() - texts;
    let mut appends = try_vec(slots.len())?;
    let mut evaluated = try_vec(slots.len())?;
    for (sequence, slot) in slots.iter().enumerate() {
        let Some(active) = slot else { continue };
        let tokens = active.next_tokens(room);
        if active.is_in_prompt() {
            room -= tokens.len();
        }
        if !tokens.is_empty() {
            appends.push(Append { sequence, tokens });
        }
    }
    batch.evaluate(&appends)?;
    evaluated.extend(appends.iter().map(|append| (append.sequence, append.tokens.len())));
    for (sequence, tokens) in evaluated {
        let active = slots[sequence].as_mut().expect("it was evaluated");
        if active.is_in_prompt() {
            active.evaluated += tokens;
            if !active.is_in_prompt() {
                active.generation.prompt_time = active.start.elapsed();
            }
        }
    }
    Ok(())
}

/// Chooses a text's next token; returns why the text ends, if it does.
fn choose(
    batch: &mut Batch,
    sequence: usize,
    active: &mut Active,
    receiver: &mut impl Receiver,
) -> Result<Option<StopReason>> {
    let options = active.options;
    let token = batch.sample(sequence, &options.sampler)?;
    let end_of_text = batch.model().config().eos_token_id;
    if Some(token) == end_of_text && !options.ignore_end_of_text {
        active.generation.pending = None;
        return Ok(Some(StopReason::EndOfText));
    }
    active.token = [token];
    active.generation.pending = Some(token);
    active.generation.tokens += 1;
    if let ControlFlow::Break(reason) = receiver.token(active.request, token) {
        return Ok(Some(reason));
    }
    Ok(match () {
        () if active.generation.tokens == options.max_tokens => Some(StopReason::MaxTokens),
        () if batch.position(sequence) == batch.context() => Some(StopReason::ContextFull),
        () => None,
    })
}
