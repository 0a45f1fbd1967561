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

mod serve;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;

#[cfg(feature = "capi")]
use core::ptr::NonNull;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::forward::{self, Buffers, Pass, PassKind, Refill, Span};
use crate::fp_env::FpEnv;
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::KvCache;
use crate::memory::{Arena, Region, try_filled, try_vec};
use crate::model::Model;
use crate::plan::{MemoryPlan, Plan};
use crate::sampler::{SamplerOptions, SamplerRegions, allows_any};
use crate::session::all_finite;
use crate::session_options::{SessionOptions, check_tokens, kernels_of};
#[cfg(feature = "text")]
use crate::text::{EncodeOptions, Room, Tokenizer};
use crate::threads::{Executor, Threads};

pub use self::serve::{
    Client, Job, Next, Request, Service, generate, generate_text, generate_text_within,
    generate_within, serve,
};

pub use crate::kv_cache::CACHE_BLOCK;
pub use crate::plan::MAX_SEQUENCES;

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
    buffers: Buffers,
    /// The tokens evaluated so far `[sequences, context]`.
    tokens: Region<u32>,
    sampler: SamplerRegions,
    context: usize,
    sequences: Vec<Sequence>,
    /// The pass in preparation.
    spans: Vec<Span>,
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

impl Model {
    /// What a batch of `sequences` sequences with these options will need. `logits` and `draft` are not
    /// used: a batch computes the logits of each sequence's last token, and guesses none.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range.
    pub fn plan_batch(&self, options: &SessionOptions, sequences: usize) -> Result<MemoryPlan> {
        let plan = Plan::of_batch(self, options, sequences, options.threads, &mut |_| ())?;
        Ok(plan.summary(self))
    }

    /// Makes a batch of `sequences` sequences, with its own threads if the options ask for more than one.
    /// `options.context` is that of each sequence; `logits` and `draft` are not used.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range; [`Error::OutOfMemory`]; [`Error::Threads`].
    pub fn batch(&self, options: &SessionOptions, sequences: usize) -> Result<Batch> {
        self.make_batch(options, sequences, Threads::own(options.threads)?)
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
        let mut caches = Vec::new();
        let workers = threads.executor().workers();
        if (1..=MAX_SEQUENCES).contains(&sequences) {
            caches = try_vec(sequences)?;
        }
        let take = &mut |cache| caches.push(cache);
        let plan = Plan::of_batch(self, options, sequences, workers, take)?;
        Ok(Batch {
            model: self.clone(),
            threads,
            kernels: kernels_of(options)?,
            arena: Arena::allocate(&plan.planner)?,
            caches,
            tokens: plan.tokens,
            sampler: plan.sampler,
            context: plan.context,
            sequences: try_filled(Sequence::default(), sequences)?,
            spans: try_vec(plan.buffers.rows())?,
            pass_tokens: try_vec(plan.buffers.rows())?,
            buffers: plan.buffers,
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
        self.buffers.rows()
    }

    /// Brings the batch's memory into RAM and keeps it there as long as the batch lives, so that no call
    /// waits for pages; see [`Model::lock_memory`] for the weights. A cache that is large and was to become
    /// resident only as tokens fill it is resident then.
    ///
    /// # Errors
    /// [`Error::PageLock`] if the system refuses, and the batch can be used as before.
    pub fn lock_memory(&mut self) -> Result<()> {
        self.arena.lock()
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

    /// Bytes of the keys and values of [`CACHE_BLOCK`] positions.
    pub fn block_bytes(&self) -> usize {
        self.caches[0].block(0).map(|range| range.len()).sum()
    }

    /// Copies the keys and values of the [`CACHE_BLOCK`] positions from `start` on, which is a multiple of it, to
    /// `block`, [`block_bytes`](Self::block_bytes) long. They are those of any sequence that begins with the
    /// same tokens: [`append_block`](Self::append_block) puts them there. False if the sequence does not have
    /// all of them: layers with windows forget.
    ///
    /// # Panics
    /// If `start` is no multiple, or `block` has another length.
    pub fn copy_block(&mut self, sequence: usize, start: usize, block: &mut [u8]) -> bool {
        assert_eq!(start % CACHE_BLOCK, 0, "a block begins at a multiple of its length");
        assert_eq!(block.len(), self.block_bytes(), "a block has its length");
        let cache = &self.caches[sequence];
        if start + CACHE_BLOCK > self.sequences[sequence].position || !cache.has_block(start) {
            return false;
        }
        let mut rest = block;
        for range in cache.block(start) {
            let (to, more) = rest.split_at_mut(range.len());
            to.copy_from_slice(self.arena.bytes(range));
            rest = more;
        }
        true
    }

    /// Appends [`CACHE_BLOCK`] tokens whose keys and values [`copy_block`](Self::copy_block) has copied, in a batch
    /// of the same model and cache type, from a sequence that begins with all the same tokens. They are not
    /// evaluated, and there are no logits. Other bytes make wrong results, and nothing worse.
    ///
    /// # Errors
    /// [`Error::ContextFull`]; [`Error::TokenOutOfRange`]; [`Error::FileChanged`].
    ///
    /// # Panics
    /// If the sequence's position is no multiple of [`CACHE_BLOCK`], or tokens or block have another length.
    pub fn append_block(&mut self, sequence: usize, tokens: &[u32], block: &[u8]) -> Result<()> {
        let position = self.sequences[sequence].position;
        assert_eq!(position % CACHE_BLOCK, 0, "a block begins at a multiple of its length");
        assert_eq!(tokens.len(), CACHE_BLOCK, "a block has its length");
        assert_eq!(block.len(), self.block_bytes(), "a block has its length");
        check_tokens(&self.model, tokens, (position, tokens.len(), self.context))?;
        self.model.check_unchanged()?;
        self.fill_windows(sequence)?;
        let mut rest = block;
        for range in self.caches[sequence].block(position) {
            let (from, more) = rest.split_at(range.len());
            self.arena.bytes(range).copy_from_slice(from);
            rest = more;
        }
        let start = sequence * self.context + position;
        let places = start..start + CACHE_BLOCK;
        // SAFETY: `&mut self`: nobody else uses them.
        unsafe { self.arena.write(self.tokens, places) }.copy_from_slice(tokens);
        self.caches[sequence].note_stored(position + CACHE_BLOCK);
        let position = position + CACHE_BLOCK;
        self.sequences[sequence] = Sequence { position, ..Sequence::default() };
        Ok(())
    }

    /// Whether the next tokens of a sequence can be evaluated right away. After a long way back in a model with
    /// windows the evaluation begins with that of all tokens so far.
    fn is_ready(&self, sequence: usize) -> bool {
        self.caches[sequence].holds(self.sequences[sequence].position)
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

    /// Follows a request to stop, if there is one.
    #[cfg(feature = "text")]
    pub(crate) fn take_cancel(&self) -> Result<()> {
        self.cancel.take()
    }

    /// Drops a request to stop: the call that it was meant for has ended.
    #[cfg(feature = "capi")]
    pub(crate) fn clear_cancel(&self) {
        self.cancel.clear();
    }

    /// Room for a text in an empty sequence.
    #[cfg(feature = "text")]
    pub(crate) fn room(&self) -> Room {
        Room::in_context(self.context, self.cancel.clone())
    }

    /// The tokens of a text that is to be put to an empty sequence, as
    /// [`Session::encode`](crate::Session::encode) does.
    ///
    /// # Errors
    /// Those of [`Session::encode`](crate::Session::encode).
    #[cfg(feature = "text")]
    pub fn encode<B: AsRef<[u8]>>(
        &self,
        tokenizer: &Tokenizer<B>,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<u32>> {
        let tokens = tokenizer.encode_in(text, options.at_the_beginning(), &self.room());
        tokens.inspect_err(|error| {
            if matches!(error, Error::Cancelled) {
                self.cancel.clear();
            }
        })
    }

    /// Appends tokens to sequences, each named at most once, in as few passes as the chunk allows.
    /// Afterwards the logits of each one's last token are there, and no other ones.
    ///
    /// # Errors
    /// Those of [`Session::evaluate`](crate::Session::evaluate); [`Error::NoTokens`] if nothing is
    /// named; [`Error::Option`] if a sequence does not exist or is named twice.
    pub fn evaluate(&mut self, appends: &[Append]) -> Result<()> {
        self.evaluate_meanwhile(appends, &mut || ())
    }

    /// As [`evaluate`](Self::evaluate), calling `meanwhile` on this thread once for each pass.
    fn evaluate_meanwhile(
        &mut self,
        appends: &[Append],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        let checked = self.check(appends);
        self.sequences.iter_mut().for_each(|sequence| sequence.named = false);
        checked?;
        let _env = FpEnv::set_default();
        self.sequences.iter_mut().for_each(|sequence| sequence.logits_row = None);
        let filled = appends.iter().try_for_each(|append| self.fill_windows(append.sequence));
        let evaluated = filled.and_then(|()| self.evaluate_all(appends, meanwhile));
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
            if core::mem::replace(&mut named.named, true) {
                return fail(format!("{sequence} is named twice"));
            }
            named.before = named.position;
            check_tokens(&self.model, tokens, (named.position, tokens.len(), self.context))?;
        }
        self.model.check_unchanged()
    }

    /// Evaluates a sequence's tokens so far again if layers with windows no longer have the keys that its
    /// next token sees: those of a position far back, to which the sequence was rewound.
    fn fill_windows(&mut self, sequence: usize) -> Result<()> {
        let position = self.sequences[sequence].position;
        if self.caches[sequence].holds(position) {
            return Ok(());
        }
        let again = Refill {
            model: &self.model,
            kernels: self.kernels,
            arena: &self.arena,
            caches: &mut self.caches,
            buffers: &self.buffers,
            executor: self.threads.executor(),
            cancel: &self.cancel,
            sequence,
            tokens: self.tokens,
            context: self.context,
            chunk: self.buffers.rows(),
        };
        again.run(position)
    }

    /// Fills passes with the tokens, in order.
    fn evaluate_all(&mut self, appends: &[Append], meanwhile: &mut dyn FnMut()) -> Result<()> {
        let mut first_logits = 0;
        self.spans.clear();
        self.pass_tokens.clear();
        for append in appends {
            let mut rest = append.tokens;
            while !rest.is_empty() {
                let room = self.buffers.rows() - self.pass_tokens.len();
                let (now, later) = rest.split_at(rest.len().min(room));
                self.add_span(append.sequence, now, later.is_empty(), first_logits);
                rest = later;
                if self.pass_tokens.len() == self.buffers.rows() {
                    first_logits = self.pass(first_logits, meanwhile)?;
                }
            }
        }
        self.pass(first_logits, meanwhile)?;
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
    fn add_span(&mut self, sequence: usize, tokens: &[u32], is_end: bool, first_logits: usize) {
        let position = self.sequences[sequence].position;
        let (len, logits) = (tokens.len(), usize::from(is_end));
        let span = match self.spans.last() {
            None => Span::first(sequence, position, len, logits),
            Some(last) => last.next(sequence, position, len, logits),
        };
        self.spans.push(span);
        self.pass_tokens.extend_from_slice(tokens);
        let start = sequence * self.context + position;
        // SAFETY: `&mut self`: nobody else uses them.
        unsafe { self.arena.write(self.tokens, start..start + len) }.copy_from_slice(tokens);
        self.sequences[sequence].position += len;
        self.caches[sequence].note_stored(position + len);
        if is_end {
            self.sequences[sequence].logits_row = Some(first_logits + span.logits_end() - 1);
        }
    }

    /// Runs the pass in preparation, whose logits go to the rows from `first_logits` on; returns the
    /// row after them.
    fn pass(&mut self, first_logits: usize, meanwhile: &mut dyn FnMut()) -> Result<usize> {
        let Some(last) = self.spans.last() else { return Ok(first_logits) };
        let next = first_logits + last.logits_end();
        self.run(&self.pass_tokens, &self.spans, first_logits, meanwhile);
        self.spans.clear();
        self.pass_tokens.clear();
        self.cancel.take()?;
        Ok(next)
    }

    fn run(&self, tokens: &[u32], spans: &[Span], logits_row: usize, meanwhile: &mut dyn FnMut()) {
        let pass = Pass {
            model: &self.model,
            kernels: self.kernels,
            arena: &self.arena,
            caches: &self.caches,
            buffers: &self.buffers,
            tokens,
            spans,
            kind: PassKind::Sequences,
            logits_row,
            log_sums: false,
            cancel: &self.cancel,
        };
        forward::run(&pass, self.threads.executor(), meanwhile);
    }

    /// Takes back what `add_span` added.
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
        unsafe { self.arena.read(self.buffers.logits(), row * vocab_size..(row + 1) * vocab_size) }
    }

    /// Chooses a sequence's next token from its last one's logits, as
    /// [`Session::sample`](crate::Session::sample) does; nothing changes.
    ///
    /// # Errors
    /// [`Error::NoLogits`]; [`Error::Option`] if an option is out of range.
    pub fn sample(&mut self, sequence: usize, options: &SamplerOptions) -> Result<u32> {
        self.choose(sequence, options, None)
    }

    /// As [`sample`](Self::sample), of the tokens that are `allowed`, as
    /// [`Session::sample_within`](crate::Session::sample_within) takes them.
    ///
    /// # Errors
    /// Those of `sample`; [`Error::NothingAllowed`] if no bit of the vocabulary is set.
    pub fn sample_within(
        &mut self,
        sequence: usize,
        options: &SamplerOptions,
        allowed: &[u32],
    ) -> Result<u32> {
        if !allows_any(allowed, self.model.config().vocab_size) {
            return Err(Error::NothingAllowed);
        }
        self.choose(sequence, options, Some(allowed))
    }

    fn choose(
        &mut self,
        sequence: usize,
        options: &SamplerOptions,
        allowed: Option<&[u32]>,
    ) -> Result<u32> {
        options.check_for(self.model.config().vocab_size)?;
        let before = (self.tokens(sequence), self.position(sequence));
        let logits = self.logits(sequence)?;
        let how = (options, self.kernels);
        // SAFETY: `&mut self`: nobody else uses the sampler's regions.
        Ok(unsafe { self.sampler.sample(&self.arena, how, logits, before, allowed) })
    }
}
