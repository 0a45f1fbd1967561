//! Continuous batching: a text that ends makes room for the next, without waiting for the others.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;
use core::time::Duration;

use super::{Append, Batch};
use crate::clock::Instant;
use crate::error::Result;
use crate::generate::{
    Constraint, EndTokens, Flow, GenerateOptions, Generation, Step, StopReason, TextState,
    TextStream,
};
use crate::memory::try_vec;
use crate::session_options::check_tokens;
use crate::text::TokenTable;

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

/// Something to continue, and what the text must be like.
pub struct Job<'a> {
    /// The prompt.
    pub request: Cow<'a, Request>,
    /// What the text must be like, if that matters.
    pub constraint: Option<Box<dyn Constraint + 'a>>,
}

/// Whether there is something to do.
#[derive(Debug)]
pub enum Next<T> {
    /// This.
    Job(T),
    /// Not now: ask again.
    Later,
    /// No more.
    End,
}

/// Who gives a batch its work, and is told what becomes of it. Jobs are numbered from 0 in the order in
/// which they are given.
pub trait Client<'a> {
    /// The next job. Only if `may_wait` is there nothing else to do, so that a wait delays nobody; then
    /// [`Next::Later`] is taken for [`Next::End`].
    fn next(&mut self, may_wait: bool) -> Next<Job<'a>>;

    /// A job is taken up. An error ends it.
    ///
    /// # Errors
    /// Any, which [`end`](Self::end) will be told.
    fn begin(&mut self, job: usize, options: &GenerateOptions) -> Result<()> {
        let _ = (job, options);
        Ok(())
    }

    /// A job's prompt is about to be evaluated in a sequence, which holds its first tokens already, if any. Who
    /// has the keys and values of more of them appends them ([`Batch::append_block`]); the last token is
    /// left to be evaluated.
    ///
    /// # Errors
    /// Any, which [`end`](Self::end) will be told.
    fn prepare(
        &mut self,
        job: usize,
        batch: &mut Batch,
        sequence: usize,
        prompt: &[u32],
    ) -> Result<()> {
        let _ = (job, batch, sequence, prompt);
        Ok(())
    }

    /// Whether anybody still wants a job's text. Asked before each pass; one that is not wanted is cancelled.
    fn is_wanted(&mut self, job: usize) -> bool {
        let _ = job;
        true
    }

    /// A pass has evaluated tokens of a job in its sequence, of its prompt or its text.
    fn evaluated(&mut self, job: usize, batch: &mut Batch, sequence: usize) {
        let _ = (job, batch, sequence);
    }

    /// A token of a job's text; breaking ends the text.
    fn step(&mut self, job: usize, step: Step) -> ControlFlow<StopReason>;

    /// A job has ended.
    fn end(&mut self, job: usize, outcome: Result<Generation>);
}

/// Does all the jobs of a client, as many at a time as the batch has sequences.
///
/// Each step is one pass: a token of every text that is being continued, and of new prompts as much as
/// the chunk has room for. So a long prompt delays the others by no more than a chunk. Of what a
/// sequence held before, the beginning that it has in common with a new prompt is kept.
///
/// What becomes of a job is what [`generate_steps`](crate::generate::generate_steps) would have made of
/// it: one that cannot be done is an error and does not disturb the others. A job's times include what
/// the others took meanwhile.
///
/// # Errors
/// What concerns all of them, and leaves those on their way without an end: that the file changed, logits
/// are not finite, the batch was cancelled, or memory ran out.
pub fn serve<'a>(batch: &mut Batch, client: &mut dyn Client<'a>) -> Result<()> {
    let mut service = Service::new(batch)?;
    while service.round(batch, client)? {}
    Ok(())
}

/// Jobs on their way, between two passes: what [`serve`] does, pass by pass.
pub struct Service<'a> {
    /// One per sequence.
    slots: Vec<Option<Active<'a>>>,
    taken: Taken,
}

impl<'a> Service<'a> {
    /// For a batch that nobody else changes meanwhile.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn new(batch: &Batch) -> Result<Self> {
        let mut slots: Vec<Option<Active>> = try_vec(batch.sequences())?;
        slots.resize_with(batch.sequences(), || None);
        Ok(Self { slots, taken: Taken { jobs: 0, is_all: false } })
    }

    /// Takes up jobs as far as there is room, and one step of all: the client is told of a token of every
    /// text that is being continued, and of those that are forced with it. Whether there may be more.
    ///
    /// # Errors
    /// Those of [`serve`], after which there is nothing more to do.
    pub fn round(&mut self, batch: &mut Batch, client: &mut dyn Client<'a>) -> Result<bool> {
        let Self { slots, taken } = self;
        taken.fill(batch, slots, client);
        for slot in slots.iter_mut() {
            if slot.as_ref().is_some_and(|active| !client.is_wanted(active.job)) {
                settle(slot, Ok(ControlFlow::Break(StopReason::Cancelled)), client);
            }
        }
        if slots.iter().all(Option::is_none) {
            return Ok(!taken.is_all);
        }
        step(batch, slots, client)?;
        for (sequence, slot) in slots.iter_mut().enumerate() {
            let Some(active) = slot.as_mut().filter(|active| active.rest().is_empty()) else {
                continue;
            };
            let flow = active.choose(batch, sequence, client);
            settle(slot, flow, client);
        }
        Ok(true)
    }
}

/// Tells the client what became of a job, if it has ended.
fn settle<'a>(slot: &mut Option<Active<'a>>, flow: Result<Flow>, client: &mut dyn Client<'a>) {
    if let Some(active) = slot
        && let Some(outcome) = active.outcome(flow)
    {
        client.end(active.job, outcome);
        *slot = None;
    }
}

/// Jobs that were taken up.
struct Taken {
    jobs: usize,
    /// Whether there will be no more.
    is_all: bool,
}

impl Taken {
    /// Takes up as many jobs as there is room for.
    fn fill<'a>(
        &mut self,
        batch: &mut Batch,
        slots: &mut [Option<Active<'a>>],
        client: &mut dyn Client<'a>,
    ) {
        while !self.is_all && slots.iter().any(Option::is_none) {
            let may_wait = slots.iter().all(Option::is_none);
            let job = match client.next(may_wait) {
                Next::Job(job) => job,
                Next::Later if !may_wait => return,
                Next::Later | Next::End => {
                    self.is_all = true;
                    return;
                }
            };
            let number = self.jobs;
            self.jobs += 1;
            let sequence = best_place(batch, slots, &job.request.prompt);
            match Active::begin(batch, sequence, number, job, client) {
                Err(error) => client.end(number, Err(error)),
                Ok(active) => {
                    let flow = slots[sequence].insert(active).advance(0, batch.context(), client);
                    settle(&mut slots[sequence], flow, client);
                }
            }
        }
    }
}

/// The free sequence that has most of a prompt's beginning; of equals the one that loses least.
fn best_place(batch: &Batch, slots: &[Option<Active>], prompt: &[u32]) -> usize {
    let free = (0..slots.len()).filter(|&sequence| slots[sequence].is_none());
    let best = free.min_by_key(|&sequence| {
        let tokens = batch.tokens(sequence);
        (prompt.len() - common(prompt, tokens), tokens.len())
    });
    best.expect("there is a free sequence")
}

/// How many tokens two sequences have in common at their beginnings.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A job on its way.
struct Active<'a> {
    job: usize,
    request: Cow<'a, Request>,
    text_state: TextState<'a>,
    /// What is to be evaluated before the next choice, and how much of it was.
    tokens: Vec<u32>,
    evaluated: usize,
    /// How many of the rest the next pass evaluates.
    share: usize,
    prompt_tokens: usize,
    reused_tokens: usize,
    start: Instant,
    prompt_time: Duration,
}

impl<'a> Active<'a> {
    /// Checks a job as [`Generator::new`](crate::generate::Generator::new) and its first evaluation do.
    fn begin(
        batch: &mut Batch,
        sequence: usize,
        number: usize,
        job: Job<'a>,
        client: &mut dyn Client<'a>,
    ) -> Result<Self> {
        let Request { prompt, options } = job.request.as_ref();
        options.sampler.check_for(batch.model().config().vocab_size)?;
        let end_of_text = batch.model().config().eos_token_id;
        let prompt = match (&prompt[..], &end_of_text) {
            ([], Some(end_of_text)) => core::slice::from_ref(end_of_text),
            (tokens, _) => tokens,
        };
        check_tokens(batch.model(), prompt, (0, prompt.len(), batch.context()))?;
        client.begin(number, options)?;
        // The last token's logits are needed, so it is evaluated in any case.
        batch.rewind(sequence, common(prompt, batch.tokens(sequence)).min(prompt.len() - 1))?;
        if !batch.is_ready(sequence) {
            batch.reset(sequence);
        }
        client.prepare(number, batch, sequence, prompt)?;
        let kept = batch.position(sequence);
        debug_assert!(kept < prompt.len() && batch.tokens(sequence) == &prompt[..kept]);
        let mut tokens = try_vec(prompt.len())?;
        tokens.extend_from_slice(prompt);
        Ok(Self {
            job: number,
            text_state: TextState::new(options, EndTokens::of(batch.model()), job.constraint),
            prompt_tokens: prompt.len(),
            share: 0,
            reused_tokens: kept,
            tokens,
            evaluated: kept,
            start: Instant::now(),
            prompt_time: Duration::ZERO,
            request: job.request,
        })
    }

    /// What is still to be evaluated before the next choice.
    fn rest(&self) -> &[u32] {
        &self.tokens[self.evaluated..]
    }

    /// How many of them the next pass leaves out.
    fn missing(&self) -> usize {
        self.rest().len() - self.share
    }

    fn is_in_prompt(&self) -> bool {
        self.prompt_time.is_zero()
    }

    /// Chooses the next token, and what is evaluated with it.
    fn choose<'c>(
        &mut self,
        batch: &mut Batch,
        sequence: usize,
        client: &mut dyn Client<'c>,
    ) -> Result<Flow> {
        if self.is_in_prompt() {
            self.prompt_time = self.start.elapsed();
        }
        let token = match self.text_state.allowed()? {
            None => batch.sample(sequence, &self.request.options.sampler)?,
            Some(allowed) => {
                batch.sample_within(sequence, &self.request.options.sampler, allowed)?
            }
        };
        if let ControlFlow::Break(reason) = self.text_state.accept(token)? {
            return Ok(ControlFlow::Break(reason));
        }
        let logits = Some(batch.logits(sequence)?);
        if let ControlFlow::Break(reason) = client.step(self.job, Step { token, logits }) {
            return Ok(ControlFlow::Break(reason));
        }
        self.evaluated = 0;
        self.tokens.clear();
        self.tokens.push(token);
        self.advance(batch.position(sequence), batch.context(), client)
    }

    /// Adds the tokens that must come next, given how many lie before [`tokens`](Self::tokens).
    fn advance<'c>(
        &mut self,
        before: usize,
        context: usize,
        client: &mut dyn Client<'c>,
    ) -> Result<Flow> {
        let flow = self.text_state.force(&mut |step| client.step(self.job, step))?;
        self.tokens.extend_from_slice(self.text_state.forced());
        Ok(match flow {
            ControlFlow::Continue(()) if before + self.tokens.len() > context => {
                ControlFlow::Break(StopReason::ContextFull)
            }
            flow => flow,
        })
    }

    /// What became of it, if it has ended.
    fn outcome(&mut self, flow: Result<Flow>) -> Option<Result<Generation>> {
        let reason = match flow {
            Ok(ControlFlow::Continue(())) => return None,
            Ok(ControlFlow::Break(reason)) => self.text_state.judge(reason),
            Err(error) => Err(error),
        };
        Some(reason.map(|stop_reason| Generation {
            prompt_tokens: self.prompt_tokens,
            reused_tokens: self.reused_tokens,
            tokens: self.text_state.tokens(),
            stop_reason,
            pending: self.text_state.pending(),
            prompt_time: self.prompt_time,
            decode_time: self.start.elapsed() - self.prompt_time,
        }))
    }
}

/// One pass, or more if many tokens are forced: what each text needs for its next choice, then prompts as
/// far as there is room. Meanwhile constraints find out what may be chosen.
///
/// Of that room the prompt that came first has half, and the others have what is left, the shortest first: a
/// short one does not wait for a long one before it, nor the long one for any number of short ones.
fn step<'a>(
    batch: &mut Batch,
    slots: &mut [Option<Active<'a>>],
    client: &mut dyn Client<'a>,
) -> Result<()> {
    let mut room = batch.chunk();
    for active in slots.iter_mut().flatten() {
        active.share = if active.is_in_prompt() { 0 } else { active.rest().len() };
        room = room.saturating_sub(active.share);
    }
    let mut is_first = true;
    while room > 0
        && let prompts = slots.iter_mut().flatten().filter(|active| active.missing() > 0)
        && let Some(next) =
            prompts.min_by_key(|it| (if is_first { 0 } else { it.missing() }, it.job))
    {
        let more = next.missing().min(if is_first { room.div_ceil(2) } else { room });
        next.share += more;
        room -= more;
        is_first = false;
    }
    let mut appends = try_vec(slots.len())?;
    let mut text_states = try_vec(slots.len())?;
    for (sequence, slot) in slots.iter_mut().enumerate() {
        let Some(active) = slot.as_mut().filter(|active| active.share > 0) else { continue };
        let Active { tokens, evaluated, share, text_state, .. } = active;
        let start = *evaluated;
        *evaluated += *share;
        appends.push(Append { sequence, tokens: &tokens[start..*evaluated] });
        text_states.push(text_state);
    }
    batch.evaluate_meanwhile(&appends, &mut || {
        text_states.iter_mut().for_each(|text_state| text_state.prepare())
    })?;
    for (sequence, slot) in slots.iter().enumerate() {
        if let Some(active) = slot.as_ref().filter(|active| active.share > 0) {
            client.evaluated(active.job, batch, sequence);
        }
    }
    Ok(())
}

/// Continues every prompt, handing each token to `on_token` with the index of its request as it is
/// chosen; breaking ends that request. As [`serve`], for requests that are there already.
///
/// Returns for each request what [`generate_tokens`](crate::generate::generate_tokens) would have
/// returned.
///
/// # Errors
/// Those of [`serve`].
pub fn generate(
    batch: &mut Batch,
    requests: &[Request],
    mut on_token: impl FnMut(usize, u32) -> ControlFlow<StopReason>,
) -> Result<Vec<Result<Generation>>> {
    generate_within(batch, requests, Vec::new(), |request, step| on_token(request, step.token))
}

/// As [`generate`], handing on text as [`generate_text`](crate::generate::generate_text) does. With the
/// options' stop strings.
///
/// # Errors
/// Those of [`serve`].
pub fn generate_text<B: AsRef<[u8]>>(
    batch: &mut Batch,
    table: &TokenTable<B>,
    requests: &[Request],
    on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
) -> Result<Vec<Result<Generation>>> {
    generate_text_within(batch, table, requests, Vec::new(), on_text)
}

/// As [`generate`], each request within its constraint, if it has one: the first constraint is the first
/// request's, and there may be fewer.
///
/// # Errors
/// Those of [`serve`].
pub fn generate_within<'a>(
    batch: &mut Batch,
    requests: &'a [Request],
    constraints: Vec<Option<Box<dyn Constraint + 'a>>>,
    on_step: impl FnMut(usize, Step) -> ControlFlow<StopReason>,
) -> Result<Vec<Result<Generation>>> {
    run(batch, requests, constraints, Tokens(on_step))
}

/// As [`generate_text`], each request within its constraint, as [`generate_within`] takes them.
///
/// # Errors
/// Those of [`serve`].
pub fn generate_text_within<'a, B: AsRef<[u8]>>(
    batch: &mut Batch,
    table: &TokenTable<B>,
    requests: &'a [Request],
    constraints: Vec<Option<Box<dyn Constraint + 'a>>>,
    on_text: impl FnMut(usize, &str) -> ControlFlow<()>,
) -> Result<Vec<Result<Generation>>> {
    let mut streams = try_vec(requests.len())?;
    streams.resize_with(requests.len(), || None);
    run(batch, requests, constraints, Texts { table, streams, on_text })
}

fn run<'a>(
    batch: &mut Batch,
    requests: &'a [Request],
    constraints: Vec<Option<Box<dyn Constraint + 'a>>>,
    receiver: impl Receiver,
) -> Result<Vec<Result<Generation>>> {
    let mut outcomes = try_vec(requests.len())?;
    outcomes.resize_with(requests.len(), || None);
    let mut done = try_vec(requests.len())?;
    let (requests, constraints) = (requests.iter(), constraints.into_iter());
    let mut list = List { requests, constraints, receiver, outcomes };
    serve(batch, &mut list)?;
    done.extend(list.outcomes.into_iter().map(|it| it.expect("every request was taken up")));
    Ok(done)
}

/// A list of requests, as a client.
struct List<'a, R> {
    requests: core::slice::Iter<'a, Request>,
    constraints: alloc::vec::IntoIter<Option<Box<dyn Constraint + 'a>>>,
    receiver: R,
    outcomes: Vec<Option<Result<Generation>>>,
}

impl<'a, R: Receiver> Client<'a> for List<'a, R> {
    fn next(&mut self, _: bool) -> Next<Job<'a>> {
        let Some(request) = self.requests.next() else { return Next::End };
        let constraint = self.constraints.next().flatten();
        Next::Job(Job { request: Cow::Borrowed(request), constraint })
    }

    fn begin(&mut self, job: usize, options: &GenerateOptions) -> Result<()> {
        self.receiver.begin(job, options)
    }

    fn step(&mut self, job: usize, step: Step) -> ControlFlow<StopReason> {
        self.receiver.step(job, step)
    }

    fn end(&mut self, job: usize, outcome: Result<Generation>) {
        if let Ok(generation) = &outcome {
            self.receiver.end(job, generation.stop_reason);
        }
        self.outcomes[job] = Some(outcome);
    }
}

/// Who is told of what becomes of the requests of a list.
trait Receiver {
    /// A request is taken up.
    fn begin(&mut self, index: usize, options: &GenerateOptions) -> Result<()>;
    /// A token of its text; a break ends the request.
    fn step(&mut self, index: usize, step: Step) -> ControlFlow<StopReason>;
    /// A request has ended.
    fn end(&mut self, index: usize, reason: StopReason);
}

struct Tokens<F>(F);

impl<F: FnMut(usize, Step) -> ControlFlow<StopReason>> Receiver for Tokens<F> {
    fn begin(&mut self, _: usize, _: &GenerateOptions) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, index: usize, step: Step) -> ControlFlow<StopReason> {
        (self.0)(index, step)
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

    fn step(&mut self, index: usize, step: Step) -> ControlFlow<StopReason> {
        let stream = self.streams[index].as_mut().expect("the request was taken up");
        stream.push(step.token, &mut |text: &str| (self.on_text)(index, text))
    }

    fn end(&mut self, index: usize, reason: StopReason) {
        if let Some(mut stream) = self.streams[index].take() {
            stream.finish(reason, &mut |text: &str| (self.on_text)(index, text));
        }
    }
}
