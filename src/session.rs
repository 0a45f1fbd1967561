//! A session: one sequence of tokens, its cache, and every buffer its evaluation needs.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;

#[cfg(feature = "capi")]
use core::ptr::NonNull;

use crate::cancel::Cancel;
use crate::clock::Instant;
use crate::draft::{DraftCounts, Drafter, MAX_DRAFT};
use crate::error::{Error, Result};
use crate::float;
use crate::forward::{self, Buffers, Pass, PassKind, Refill, Span};
use crate::fp_env::FpEnv;
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::KvCache;
use crate::memory::{Arena, HostMemory, Region, try_vec};
use crate::model::Model;
use crate::plan::{MemoryPlan, Plan};
use crate::sampler::{SamplerOptions, SamplerRegions, allows_any};
use crate::session_options::{LogitsFor, SessionOptions, check_tokens, kernels_of};
#[cfg(feature = "text")]
use crate::text::{EncodeOptions, Room, Tokenizer};
use crate::threads::{Executor, Threads};

/// How the hidden states of several tokens become one embedding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The last token's, which has seen all the others.
    Last,
}

impl Model {
    /// What a session with these options will need.
    pub fn plan(&self, options: &SessionOptions) -> Result<MemoryPlan> {
        Ok(Plan::of_session(self, options, options.threads, &mut |_| ())?.summary(self))
    }

    /// Makes a session, with its own threads if the options ask for more than one.
    ///
    /// All of its memory is allocated now, but zeroed memory becomes resident only page by page as
    /// tokens fill it, so that starting takes no time proportional to the context.
    pub fn session(&self, options: &SessionOptions) -> Result<Session> {
        self.make_session(options, Threads::own(options.threads)?, None)
    }

    /// Makes a session on threads that may be shared with other sessions or belong to the host;
    /// `options.threads` is not used.
    pub fn session_on(&self, options: &SessionOptions, executor: Arc<Executor>) -> Result<Session> {
        self.make_session(options, Threads::Shared(executor), None)
    }

    /// Makes a session on threads of its own (`options.threads` is not used) and, if given, in the
    /// host's memory, at least [`MemoryPlan::total_private_bytes`]. Then nothing else is allocated but a
    /// few bytes that note whose memory it is.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range; [`Error::OutOfMemory`], [`Error::ArenaTooSmall`];
    /// [`Error::ArenaInUse`] if any of the memory belongs to a session or a model that is still there.
    pub fn session_in(
        &self,
        options: &SessionOptions,
        executor: Executor,
        memory: Option<HostMemory>,
    ) -> Result<Session> {
        self.make_session(options, Threads::Own(executor), memory)
    }

    fn make_session(
        &self,
        options: &SessionOptions,
        threads: Threads,
        memory: Option<HostMemory>,
    ) -> Result<Session> {
        // How well guesses do is assumed at first, and computed.
        let _env = FpEnv::set_default();
        let mut cache = None;
        let workers = threads.executor().workers();
        let plan = Plan::of_session(self, options, workers, &mut |planned| cache = Some(planned))?;
        let kernels = kernels_of(options)?;
        let arena = match memory {
            None => Arena::allocate(&plan.planner)?,
            Some(memory) => Arena::place(&plan.planner, memory)?,
        };
        Ok(Session {
            model: self.clone(),
            threads,
            kernels,
            arena,
            cache: cache.expect("a session has one cache"),
            buffers: plan.buffers,
            tokens: plan.tokens,
            sampler: plan.sampler,
            context: plan.context,
            chunk: plan.chunk,
            all_logits: options.logits == LogitsFor::All,
            position: 0,
            logits_row: None,
            ahead: 0,
            next_row: 0,
            drafter: Drafter::new(options.draft),
            cancel: Cancel::default(),
        })
    }
}

/// One sequence of tokens.
///
/// Everything it needs is allocated when it is made; evaluating and sampling allocate nothing. An
/// evaluation that fails leaves the session as it was before, but for the logits, which are gone.
pub struct Session {
    model: Model,
    threads: Threads,
    kernels: &'static Kernels,
    pub(crate) arena: Arena,
    pub(crate) cache: KvCache,
    buffers: Buffers,
    /// The tokens evaluated so far `[context]`.
    tokens: Region<u32>,
    sampler: SamplerRegions,
    context: usize,
    chunk: usize,
    all_logits: bool,
    position: usize,
    /// The row of the last token's logits, while they are there.
    logits_row: Option<usize>,
    /// How many tokens after `position` were guessed and evaluated: they lie after the others, their
    /// keys and values are in the cache, and their logits from `next_row` on.
    ahead: usize,
    next_row: usize,
    drafter: Drafter,
    cancel: Cancel,
}

impl Session {
    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Tokens evaluated so far: the position of the next one.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Positions that the cache has.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Brings the session's memory into RAM and keeps it there as long as the session lives, so that no call
    /// waits for pages; see [`Model::lock_memory`] for the weights. A cache that is large and was to become
    /// resident only as tokens fill it is resident then.
    ///
    /// # Errors
    /// [`Error::PageLock`] if the system refuses, and the session can be used as before.
    pub fn lock_memory(&mut self) -> Result<()> {
        self.arena.lock()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// What became of the guesses ([`SessionOptions::draft`]) so far.
    pub fn draft_counts(&self) -> DraftCounts {
        self.drafter.counts()
    }

    /// The tokens evaluated so far, `[position]`.
    pub fn tokens(&self) -> &[u32] {
        // SAFETY: only `record` writes tokens, and it needs `&mut self`.
        unsafe { self.arena.read(self.tokens, 0..self.position) }
    }

    /// Forgets every token.
    pub fn reset(&mut self) {
        self.move_to(0);
    }

    /// Forgets the tokens from `position` on.
    pub fn rewind(&mut self, position: usize) -> Result<()> {
        if position > self.position {
            return Err(Error::Rewind { target: position, position: self.position });
        }
        self.move_to(position);
        Ok(())
    }

    /// The logits belong to the last token: they are gone unless it stays the last.
    fn move_to(&mut self, position: usize) {
        self.forget_guesses();
        self.logits_row = self.logits_row.filter(|_| position == self.position);
        self.position = position;
    }

    /// From now on a call that finds `flag` set clears it and gives up with [`Error::Cancelled`]: within a
    /// phase of the forward pass, which is a fraction of a layer, or within a few kilobytes of a text that
    /// is encoded or cut.
    ///
    /// A flag that is set between two calls stops the next one, and so does one that is set when a call has
    /// found out for the last time: clear it before a call that is not meant.
    pub fn cancel_by(&mut self, flag: Arc<AtomicBool>) {
        self.cancel = Cancel::by(flag);
    }

    /// Fails if there is a request to stop, and uses it up.
    pub(crate) fn take_cancel(&self) -> Result<()> {
        self.cancel.take()
    }

    /// As [`cancel_by`](Self::cancel_by), for a flag that somebody else keeps.
    ///
    /// # Safety
    /// The flag stays valid until this session is dropped.
    #[cfg(feature = "capi")]
    pub(crate) unsafe fn cancel_by_raw(&mut self, flag: NonNull<AtomicBool>) {
        // SAFETY: the caller's contract.
        self.cancel = unsafe { Cancel::by_raw(flag) };
    }

    /// Drops a request to stop: the call that it was meant for has ended.
    #[cfg(any(feature = "capi", feature = "text"))]
    pub(crate) fn clear_cancel(&self) {
        self.cancel.clear();
    }

    /// Room for a text after `position` tokens.
    #[cfg(feature = "text")]
    pub(crate) fn room_after(&self, position: usize) -> Room {
        Room::in_context(self.context, self.cancel.clone()).behind(position)
    }

    /// The tokens of a text that is to come after what the session holds; `tokenizer` is the model's. In an empty
    /// session the text begins with the token that the model wants before every text, if it wants one.
    ///
    /// A text for which there is surely no room is refused without encoding all of it, and takes no memory.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`]; [`Error::TextTooLong`] if the text has more tokens than there are
    /// positions, as far as that is found out early: otherwise the evaluation will say so;
    /// [`Error::Cancelled`].
    #[cfg(feature = "text")]
    pub fn encode<B: AsRef<[u8]>>(
        &self,
        tokenizer: &Tokenizer<B>,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<u32>> {
        self.encode_after(self.position, tokenizer, text, options)
    }

    /// As [`encode`](Self::encode), after `position` tokens.
    #[cfg(feature = "text")]
    pub(crate) fn encode_after<B: AsRef<[u8]>>(
        &self,
        position: usize,
        tokenizer: &Tokenizer<B>,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<u32>> {
        let options = EncodeOptions { begin_of_text: position == 0, ..options };
        let tokens = tokenizer.encode_in(text, options, &self.room_after(position));
        tokens.inspect_err(|error| {
            if matches!(error, Error::Cancelled) {
                self.clear_cancel();
            }
        })
    }

    /// Appends `tokens` and returns the logits `[vocab_size]` of the last one.
    pub fn evaluate(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.evaluate_each(tokens, |_, _| ())?;
        self.last_logits()
    }

    /// The logits `[vocab_size]` of the last token, as long as it is the last that was evaluated.
    pub fn last_logits(&self) -> Result<&[f32]> {
        Ok(self.logits(self.logits_row.ok_or(Error::NoLogits)?))
    }

    /// Chooses the next token from the last one's logits; the session does not change.
    ///
    /// The repetition penalty looks at the session's tokens, and the position seeds the draw.
    pub fn sample(&mut self, options: &SamplerOptions) -> Result<u32> {
        self.choose(options, None)
    }

    /// As [`sample`](Self::sample), of the tokens that are `allowed`: a bit for each, from the lowest of
    /// the first word on; what is past the end is not allowed.
    ///
    /// # Errors
    /// Those of `sample`; [`Error::NothingAllowed`] if no bit of the vocabulary is set.
    pub fn sample_within(&mut self, options: &SamplerOptions, allowed: &[u32]) -> Result<u32> {
        if !allows_any(allowed, self.model.config().vocab_size) {
            return Err(Error::NothingAllowed);
        }
        self.choose(options, Some(allowed))
    }

    fn choose(&mut self, options: &SamplerOptions, allowed: Option<&[u32]>) -> Result<u32> {
        options.check_for(self.model.config().vocab_size)?;
        let (logits, before) = (self.last_logits()?, (self.tokens(), self.position));
        let how = (options, self.kernels);
        // SAFETY: `&mut self`: nobody else uses the sampler's regions.
        Ok(unsafe { self.sampler.sample(&self.arena, how, logits, before, allowed) })
    }

    /// Appends `tokens`, calling `visit` with each position for which the session computes logits
    /// ([`SessionOptions::logits`]) and those logits `[vocab_size]`.
    pub fn evaluate_each(
        &mut self,
        tokens: &[u32],
        mut visit: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.evaluate_chunks(tokens, &mut visit, &mut || ())
    }

    /// Appends `tokens`, and calls `meanwhile` on this thread: once for each pass, which is not
    /// at all if the token was guessed.
    pub(crate) fn evaluate_meanwhile(
        &mut self,
        tokens: &[u32],
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        self.evaluate_chunks(tokens, &mut |_, _| (), meanwhile)
    }

    fn evaluate_chunks(
        &mut self,
        tokens: &[u32],
        visit: &mut dyn FnMut(usize, &[f32]),
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        self.check(tokens)?;
        let _env = FpEnv::set_default();
        self.logits_row = None;
        self.fill_windows()?;
        if let &[token] = tokens {
            return self.evaluate_one(token, visit, meanwhile);
        }
        self.forget_guesses();
        let before = self.position;
        let chunks = tokens.chunks(self.chunk);
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.enumerate() {
            let logits_rows = match self.all_logits {
                true => chunk.len(),
                false => usize::from(i == last),
            };
            let outcome = self.evaluate_chunk(chunk, logits_rows, visit, meanwhile);
            if outcome.is_err() {
                self.position = before;
                return outcome;
            }
            self.logits_row = logits_rows.checked_sub(1);
        }
        Ok(())
    }

    fn evaluate_chunk(
        &mut self,
        tokens: &[u32],
        logits_rows: usize,
        visit: &mut dyn FnMut(usize, &[f32]),
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        let span = Span::first(0, self.position, tokens.len(), logits_rows);
        self.pass(tokens, &[span], PassKind::Sequences, meanwhile)?;
        self.record(tokens);
        let first = self.position - logits_rows;
        for (row, position) in (first..self.position).enumerate() {
            visit(position, self.finite_logits(row, position)?);
        }
        Ok(())
    }

    /// Appends one token: the one that was guessed, or one that is evaluated now and guesses with it.
    fn evaluate_one(
        &mut self,
        token: u32,
        visit: &mut dyn FnMut(usize, &[f32]),
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        if self.guess() == Some(token) {
            self.drafter.accepted();
            self.cancel.take().inspect_err(|_| self.ahead = 0)?;
        } else {
            if self.guess().is_some() {
                self.drafter.rejected();
            }
            self.ahead = 0;
            self.evaluate_and_guess(token, meanwhile)?;
        }
        let (row, position) = (self.next_row, self.position);
        match self.finite_logits(row, position) {
            Ok(logits) => visit(position, logits),
            Err(error) => {
                self.ahead = 0;
                return Err(error);
            }
        }
        (self.ahead, self.next_row) = (self.ahead - 1, row + 1);
        (self.position, self.logits_row) = (position + 1, Some(row));
        Ok(())
    }

    /// The next token, if one was guessed.
    fn guess(&self) -> Option<u32> {
        // SAFETY: only `&mut self` writes tokens.
        let next = || unsafe { self.arena.read(self.tokens, self.position..self.position + 1) }[0];
        (self.ahead > 0).then(next)
    }

    /// What was evaluated ahead is evaluated again if it is chosen.
    pub(crate) fn forget_guesses(&mut self) {
        self.ahead = 0;
    }

    /// Evaluates a token and what may come after it, and puts all of them after the session's tokens.
    fn evaluate_and_guess(&mut self, token: u32, meanwhile: &mut dyn FnMut()) -> Result<()> {
        let position = self.position;
        // SAFETY: `&mut self`: nobody else uses them.
        let tokens = unsafe { self.arena.write(self.tokens, 0..self.context) };
        tokens[position] = token;
        let mut draft = [0; MAX_DRAFT];
        let room = self.context - position - 1;
        let drafted = self.drafter.propose(&tokens[..=position], room, &mut draft);
        let rows = 1 + drafted;
        tokens[position + 1..position + rows].copy_from_slice(&draft[..drafted]);
        // A copy, as the pass borrows the session.
        let mut together = [token; 1 + MAX_DRAFT];
        together[1..rows].copy_from_slice(&draft[..drafted]);
        let start = Instant::now();
        let span = Span::first(0, position, rows, rows);
        self.pass(&together[..rows], &[span], PassKind::Sequences, meanwhile)?;
        self.drafter.took(rows, start.elapsed());
        (self.ahead, self.next_row) = (rows, 0);
        Ok(())
    }

    /// Evaluates the tokens so far again if layers with windows no longer have the keys that the next
    /// token sees: those of a position far back, to which the session was rewound.
    pub(crate) fn fill_windows(&mut self) -> Result<()> {
        if self.cache.holds(self.position) {
            return Ok(());
        }
        self.model.check_unchanged()?;
        let _env = FpEnv::set_default();
        self.forget_guesses();
        let again = Refill {
            model: &self.model,
            kernels: self.kernels,
            arena: &self.arena,
            caches: core::slice::from_mut(&mut self.cache),
            buffers: &self.buffers,
            executor: self.threads.executor(),
            cancel: &self.cancel,
            sequence: 0,
            tokens: self.tokens,
            context: self.context,
            chunk: self.chunk,
        };
        again.run(self.position)
    }

    /// Runs a pass; nothing is recorded.
    fn pass(
        &mut self,
        tokens: &[u32],
        spans: &[Span],
        kind: PassKind,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<()> {
        let end = spans.iter().map(|span| span.position + span.len).max().unwrap_or(0);
        self.cache.note_stored(end);
        self.run(tokens, spans, kind, meanwhile);
        // Asked after the pass: if set meanwhile, some phases may have been left out.
        self.cancel.take()
    }

    fn run(&self, tokens: &[u32], spans: &[Span], kind: PassKind, meanwhile: &mut dyn FnMut()) {
        let pass = Pass {
            model: &self.model,
            kernels: self.kernels,
            arena: &self.arena,
            caches: core::slice::from_ref(&self.cache),
            buffers: &self.buffers,
            tokens,
            spans,
            kind,
            logits_row: 0,
            log_sums: kind == PassKind::Tree,
            cancel: &self.cancel,
        };
        forward::run(&pass, self.threads.executor(), meanwhile);
    }

    /// A row of logits, which belongs to the token at `position`.
    fn finite_logits(&self, row: usize, position: usize) -> Result<&[f32]> {
        let logits = self.logits(row);
        if all_finite(logits) { Ok(logits) } else { Err(Error::NonFinite { position }) }
    }

    /// Evaluates a tree of tokens, in pre-order, each at its position: the session's next one for a
    /// root, its parent's next one for any other. Calls `visit` with the index of each from
    /// `first_wanted` on, with its logits and the logarithm of their softmax denominator.
    ///
    /// Afterwards the session holds what it held before, and no logits. The tokens are in the
    /// vocabulary and the positions in the context.
    pub(crate) fn evaluate_tree(
        &mut self,
        tokens: &[u32],
        positions: &[usize],
        first_wanted: usize,
        visit: &mut dyn FnMut(usize, &[f32], f64),
    ) -> Result<()> {
        debug_assert_eq!(tokens.len(), positions.len());
        self.model.check_unchanged()?;
        self.move_to(self.position);
        self.logits_row = None;
        self.fill_windows()?;
        let mut spans = try_vec(self.buffers.rows())?;
        let mut start = 0;
        while start < tokens.len() {
            let end = tokens.len().min(start + self.buffers.rows());
            let end = end.min(start.max(first_wanted) + self.buffers.logits_rows());
            spans_of(&positions[start..end], first_wanted.saturating_sub(start), &mut spans);
            self.pass(&tokens[start..end], &spans, PassKind::Tree, &mut || ())?;
            let rows = start.max(first_wanted)..end;
            for (row, index) in rows.enumerate() {
                let logits = self.finite_logits(row, positions[index])?;
                // SAFETY: only a pass writes them, and it needs `&mut self`.
                let log_sum = unsafe { self.arena.read(self.buffers.log_sums(), row..row + 1) }[0];
                visit(index, logits, log_sum);
            }
            start = end;
        }
        Ok(())
    }

    /// Appends `tokens` and writes their embedding `[n_embd]` to `embedding`: the hidden state after
    /// the final norm, pooled, and scaled to length 1.
    ///
    /// Afterwards the session has no logits. Allocates nothing. Panics if `embedding` has another
    /// length.
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate).
    pub fn embed(&mut self, tokens: &[u32], pooling: Pooling, embedding: &mut [f32]) -> Result<()> {
        assert_eq!(embedding.len(), self.model.config().n_embd, "an embedding has n_embd values");
        self.check(tokens)?;
        let _env = FpEnv::set_default();
        self.forget_guesses();
        self.logits_row = None;
        self.fill_windows()?;
        let before = self.position;
        embedding.fill(0.0);
        for chunk in tokens.chunks(self.chunk) {
            let span = Span::first(0, self.position, chunk.len(), 0);
            if let Err(error) = self.pass(chunk, &[span], PassKind::HiddenStates, &mut || ()) {
                self.position = before;
                return Err(error);
            }
            self.record(chunk);
            let first = match pooling {
                Pooling::Mean => 0,
                Pooling::Last => chunk.len() - 1,
            };
            for row in first..chunk.len() {
                let (model, arena) = (&self.model, &mut self.arena);
                let hidden = forward::hidden_state(model, self.kernels, arena, &self.buffers, row);
                match pooling {
                    Pooling::Last => embedding.copy_from_slice(hidden),
                    Pooling::Mean => {
                        embedding.iter_mut().zip(hidden).for_each(|(sum, x)| *sum += x);
                    }
                }
            }
        }
        if !all_finite(embedding) {
            let position = self.position - 1;
            self.position = before;
            return Err(Error::NonFinite { position });
        }
        normalize(embedding);
        Ok(())
    }

    /// Everything that can be wrong with a call is found before any work is done.
    fn check(&self, tokens: &[u32]) -> Result<()> {
        self.check_tokens(tokens, tokens.len())
    }

    /// Whether `tokens` can be evaluated, given that they need `positions` positions.
    pub(crate) fn check_tokens(&self, tokens: &[u32], positions: usize) -> Result<()> {
        let (position, context) = (self.position, self.context);
        check_tokens(&self.model, tokens, (position, positions, context))?;
        self.model.check_unchanged()
    }

    /// Appends tokens whose keys and values are, or will be, in the cache.
    pub(crate) fn record(&mut self, tokens: &[u32]) {
        let end = self.position + tokens.len();
        // SAFETY: `&mut self`: nobody else uses them.
        unsafe { self.arena.write(self.tokens, self.position..end) }.copy_from_slice(tokens);
        self.position = end;
    }

    /// Starts over with tokens whose keys and values the caller puts into the cache.
    pub(crate) fn forget_and_record(&mut self, tokens: &[u32]) {
        self.reset();
        self.record(tokens);
    }

    /// The place of the last token's logits, for a caller that fills it.
    pub(crate) fn logits_to_fill(&mut self) -> &mut [f32] {
        self.logits_row = Some(0);
        let vocab_size = self.model.config().vocab_size;
        // SAFETY: `&mut self`: nobody else uses them.
        unsafe { self.arena.write(self.buffers.logits(), 0..vocab_size) }
    }

    /// A row of logits.
    fn logits(&self, row: usize) -> &[f32] {
        let vocab_size = self.model.config().vocab_size;
        // SAFETY: only a pass writes logits, and it needs `&mut self`.
        unsafe { self.arena.read(self.buffers.logits(), row * vocab_size..(row + 1) * vocab_size) }
    }
}

/// The spans of a part of a tree, given its tokens' positions: chains in which each goes on from the one
/// before. Logits are wanted from the token `first_wanted` on.
fn spans_of(positions: &[usize], first_wanted: usize, spans: &mut Vec<Span>) {
    spans.clear();
    let chains = positions.chunk_by(|a, b| a + 1 == *b);
    let mut start = 0;
    for chain in chains {
        let wanted = chain.len().min((start + chain.len()).saturating_sub(first_wanted));
        let span = match spans.last() {
            None => Span::first(0, chain[0], chain.len(), wanted),
            Some(last) => last.next(0, chain[0], chain.len(), wanted),
        };
        spans.push(span);
        start += chain.len();
    }
}

/// Scales a vector to length 1; one of zeros stays.
fn normalize(x: &mut [f32]) {
    let square = x.iter().fold(0.0, |sum, &x| sum + f64::from(x) * f64::from(x));
    if square > 0.0 {
        let length = float::sqrt64(square);
        x.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Whether no value is infinite or NaN, without a branch per value.
pub(crate) fn all_finite(row: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    !row.iter().fold(false, |bad, x| bad | (x.to_bits() & EXPONENT == EXPONENT))
}
