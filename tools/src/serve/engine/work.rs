//! What the batch is told to do: orders from the queue, and their tokens to whoever waits for them.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use axum::http::StatusCode;
use cerebellum::batch::{Batch, CACHE_BLOCK, Client, Job, Next};
use cerebellum::generate::{GenerateOptions, Generation, Step, StopReason, TextStream};
use cerebellum::kernels::Kernels;
use cerebellum::score::{log_probabilities_by, top_log_probabilities_by};
use cerebellum::{TokenizerBytes, text::Tokenizer};

use super::event::{Chance, End, Event};
use super::order::{Order, Recipient};
use super::prefixes::{BEGINNING, BlockId, Prefixes};
use super::queue::{Closed, Queue};
use crate::receipt::LogitsDigest;
use crate::serve::metrics::Metrics;
use crate::serve::refusal::Refusal;

/// A batch's work, as its client.
pub struct Work<'t> {
    tokenizer: &'t Tokenizer<TokenizerBytes>,
    kernels: &'static Kernels,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    /// Set when no more texts are made.
    abandoned: Arc<AtomicBool>,
    /// Orders before those of the queue.
    first: VecDeque<Order>,
    /// How many jobs the batch was given: the number of the next one.
    given: usize,
    texts: BTreeMap<usize, Text<'t>>,
    prefixes: Prefixes,
}

/// A text on its way.
struct Text<'t> {
    to: Recipient,
    deadline: Instant,
    top: Option<usize>,
    logits: Option<LogitsDigest>,
    followers: Vec<Order>,
    stream: Option<TextStream<'t, TokenizerBytes>>,
    /// Which of its blocks are in the cache of prompts: the last one, and how many. `None` if no more are kept.
    kept: Option<(BlockId, usize)>,
}

impl<'t> Work<'t> {
    /// Work for a batch with these kernels, with a cache of `blocks` blocks.
    pub fn new(
        tokenizer: &'t Tokenizer<TokenizerBytes>,
        kernels: &'static Kernels,
        queue: Arc<Queue>,
        (metrics, abandoned): (Arc<Metrics>, Arc<AtomicBool>),
        blocks: usize,
    ) -> Self {
        Self {
            tokenizer,
            kernels,
            queue,
            metrics,
            abandoned,
            first: VecDeque::new(),
            given: 0,
            texts: BTreeMap::new(),
            prefixes: Prefixes::new(blocks),
        }
    }

    /// Gives up what is on its way, because of a failure that concerns all of it; the batch begins anew.
    pub fn fail(&mut self, error: cerebellum::Error) {
        let refusal = Refusal::internal(error);
        for (_, text) in std::mem::take(&mut self.texts) {
            text.to.tell(Event::End(Err(refusal.clone())));
            for order in text.followers {
                order.refuse(&refusal);
            }
        }
        self.metrics.running.store(0, Relaxed);
        self.given = 0;
    }

    fn text(&mut self, job: usize) -> &mut Text<'t> {
        self.texts.get_mut(&job).expect("a job has its text")
    }

    /// The next order, if there is one now; or, if `may_wait`, as soon as there is one. An error: never again.
    fn next_order(&mut self, may_wait: bool) -> Result<Option<Order>, Closed> {
        if let Some(order) = self.first.pop_front() {
            return Ok(Some(order));
        }
        self.queue.pop(may_wait)
    }

    /// Why a text is not made, or not made any further.
    fn objection(&self, to: &Recipient, deadline: Instant) -> Option<Refusal> {
        if self.abandoned.load(Relaxed) {
            return Some(Refusal::stopping());
        }
        if Instant::now() >= deadline {
            let message = "the time for a request is over; ask for fewer tokens, or try again when the server \
                           has less to do";
            return Some(Refusal::with(StatusCode::GATEWAY_TIMEOUT, "timeout", message));
        }
        let message = "the client went away";
        to.is_gone().then(|| Refusal::with(StatusCode::REQUEST_TIMEOUT, "cancelled", message))
    }

    /// How probable a token was.
    fn chance(&self, step: &Step, count: usize) -> Option<Chance> {
        let logits = step.logits?;
        let log_probability = log_probabilities_by(self.kernels, logits, &[step.token])[0];
        Some(Chance { log_probability, top: top_log_probabilities_by(self.kernels, logits, count) })
    }

    /// The blocks of a prompt that are in the cache, at most all but its last token.
    fn known(&mut self, prompt: &[u32]) -> Vec<BlockId> {
        let mut blocks = Vec::new();
        for tokens in prompt[..prompt.len() - 1].chunks_exact(CACHE_BLOCK) {
            let before = blocks.last().copied().unwrap_or(BEGINNING);
            let Some(block) = self.prefixes.find(before, tokens) else { break };
            blocks.push(block);
        }
        blocks
    }
}

impl<'t> Client<'t> for Work<'t> {
    fn next(&mut self, may_wait: bool) -> Next<Job<'t>> {
        loop {
            let order = match self.next_order(may_wait) {
                Ok(Some(order)) => order,
                Ok(None) => return Next::Later,
                Err(Closed) => return Next::End,
            };
            if let Some(refusal) = self.objection(&order.to, order.deadline) {
                self.metrics.cancelled.fetch_add(1, Relaxed);
                order.refuse(&refusal);
                continue;
            }
            let Order { request, constraint, top, digests, to, deadline, followers, .. } = order;
            let kept = Some((BEGINNING, 0));
            let text = Text {
                to,
                deadline,
                top,
                logits: digests.then(LogitsDigest::default),
                followers,
                stream: None,
                kept,
            };
            self.texts.insert(self.given, text);
            self.given += 1;
            self.metrics.running.fetch_add(1, Relaxed);
            let constraint = constraint.map(|constraint| constraint as _);
            return Next::Job(Job { request: Cow::Owned(request), constraint });
        }
    }

    fn begin(&mut self, job: usize, options: &GenerateOptions) -> cerebellum::Result<()> {
        let stream = TextStream::new(self.tokenizer.table(), &options.stop)?;
        self.text(job).stream = Some(stream);
        Ok(())
    }

    fn prepare(
        &mut self,
        job: usize,
        batch: &mut Batch,
        sequence: usize,
        prompt: &[u32],
    ) -> cerebellum::Result<()> {
        let known = self.known(prompt);
        if known.len() * CACHE_BLOCK > batch.position(sequence) {
            let first = batch.position(sequence) / CACHE_BLOCK;
            batch.rewind(sequence, first * CACHE_BLOCK)?;
            for (n, &block) in known.iter().enumerate().skip(first) {
                let tokens = &prompt[n * CACHE_BLOCK..(n + 1) * CACHE_BLOCK];
                batch.append_block(sequence, tokens, self.prefixes.bytes(block))?;
            }
        }
        let cached_tokens = batch.position(sequence);
        self.metrics.prompt_tokens.fetch_add(prompt.len() as u64, Relaxed);
        self.metrics.cached_tokens.fetch_add(cached_tokens as u64, Relaxed);
        let text = self.text(job);
        text.kept = Some((known.last().copied().unwrap_or(BEGINNING), known.len()));
        text.to.tell(Event::Begun { cached_tokens });
        Ok(())
    }

    fn is_wanted(&mut self, job: usize) -> bool {
        let text = &self.texts[&job];
        self.objection(&text.to, text.deadline).is_none()
    }

    fn evaluated(&mut self, job: usize, batch: &mut Batch, sequence: usize) {
        while let Some((before, count)) = self.text(job).kept {
            let start = count * CACHE_BLOCK;
            if start + CACHE_BLOCK > batch.position(sequence) {
                break;
            }
            let tokens = &batch.tokens(sequence)[start..start + CACHE_BLOCK];
            let block = match self.prefixes.find(before, tokens) {
                Some(block) => Some(block),
                None => self.prefixes.keep(before, (batch, sequence, start)),
            };
            self.text(job).kept = block.map(|block| (block, count + 1));
        }
        self.metrics.cache_bytes.store(self.prefixes.len() * batch.block_bytes(), Relaxed);
    }

    fn step(&mut self, job: usize, step: Step) -> ControlFlow<StopReason> {
        let chance = self.texts[&job].top.and_then(|count| self.chance(&step, count));
        self.metrics.generated_tokens.fetch_add(1, Relaxed);
        let text = self.texts.get_mut(&job).expect("a job has its text");
        if let (Some(digest), Some(logits)) = (&mut text.logits, step.logits) {
            digest.push(logits);
        }
        let mut certain = String::new();
        let stream = text.stream.as_mut().expect("the batch has begun it");
        let flow = stream.push(step.token, &mut |piece: &str| {
            certain.push_str(piece);
            ControlFlow::Continue(())
        });
        let event = Event::Step { token: step.token, text: certain, chance };
        if !text.to.tell(event) {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        // Its prompt is evaluated now.
        let mut followers = std::mem::take(&mut text.followers);
        while let Some(order) = followers.pop() {
            self.first.push_front(order);
        }
        flow
    }

    fn end(&mut self, job: usize, outcome: cerebellum::Result<Generation>) {
        let mut text = self.texts.remove(&job).expect("a job has its text");
        self.metrics.running.fetch_sub(1, Relaxed);
        let mut rest = String::new();
        let end = match outcome {
            Err(error) => Err(Refusal::from(error)),
            Ok(generation) if generation.stop_reason == StopReason::Cancelled => {
                self.metrics.cancelled.fetch_add(1, Relaxed);
                Err(self.objection(&text.to, text.deadline).unwrap_or_else(Refusal::stopping))
            }
            Ok(generation) => {
                if let Some(stream) = &mut text.stream {
                    stream.finish(generation.stop_reason, &mut |piece: &str| {
                        rest.push_str(piece);
                        ControlFlow::Continue(())
                    });
                }
                Ok(End {
                    text: rest,
                    reason: generation.stop_reason,
                    tokens: generation.tokens,
                    logits: text.logits.as_ref().map(LogitsDigest::finish),
                })
            }
        };
        // Of a text that has no token, or failed, its followers have had no sign yet.
        match &end {
            Err(refusal) => text.followers.into_iter().for_each(|order| order.refuse(refusal)),
            Ok(_) => self.first.extend(text.followers),
        }
        text.to.tell(Event::End(end));
    }
}
