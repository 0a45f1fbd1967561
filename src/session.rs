//! A session: one sequence of tokens, its cache, and every buffer its evaluation needs.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::forward::{self, Pass, Scratch};
use crate::fp_env::FpEnv;
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::{KvCache, KvType};
use crate::memory::{Arena, HostMemory, Planner, Region};
use crate::model::Model;
use crate::sampler::{SamplerOptions, SamplerRegions};
use crate::threads::{Executor, MAX_WORKERS, Team};

/// For which tokens of an evaluation logits are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogitsFor {
    /// The last one only: what generation needs.
    #[default]
    Last,
    /// Every one: what scoring needs. The logits buffer is `chunk` times larger.
    All,
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Positions of the cache; the model's number of positions by default, which is also the most
    /// unless the model has ALiBi.
    pub context: Option<usize>,
    /// Type of the cached keys and values.
    pub kv: KvType,
    /// Workers that share an evaluation, the caller's thread among them; 1 starts no thread.
    pub threads: usize,
    /// The most tokens that are evaluated at once; longer prompts are cut into such chunks. Affects
    /// speed and memory, never the results.
    pub chunk: usize,
    /// For which tokens logits are computed.
    pub logits: LogitsFor,
    /// Instruction set to use; the best that the processor supports by default.
    pub isa: Option<Isa>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            context: None,
            kv: KvType::F16,
            threads: 1,
            chunk: 64,
            logits: LogitsFor::Last,
            isa: None,
        }
    }
}

/// What a session will need, to the byte, before anything is allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Length of the model file: mapped, shared and evictable unless it is read.
    pub weights_bytes: usize,
    /// The cache.
    pub kv_bytes: usize,
    /// Everything else: activations, logits, each worker's and the sampler's buffers.
    pub scratch_bytes: usize,
    /// What the session allocates: the sum of the two above.
    pub total_private_bytes: usize,
}

impl Model {
    /// What a session with these options will need.
    pub fn plan(&self, options: &SessionOptions) -> Result<MemoryPlan> {
        Ok(Plan::new(self, options, options.threads)?.summary(self))
    }

    /// Makes a session, with its own threads if the options ask for more than one.
    pub fn session(&self, options: &SessionOptions) -> Result<Session> {
        check_range("threads", options.threads, MAX_WORKERS)?;
        let executor = match options.threads {
            1 => Executor::Caller,
            threads => Executor::Team(Team::new(threads)?),
        };
        self.session_in(options, executor, None)
    }

    /// Makes a session on threads that may be shared with other sessions or belong to the host;
    /// `options.threads` is not used.
    pub fn session_on(&self, options: &SessionOptions, executor: Arc<Executor>) -> Result<Session> {
        self.make_session(options, Threads::Shared(executor), None)
    }

    /// Makes a session on threads of its own (`options.threads` is not used) and, if given, in the
    /// host's memory, at least [`MemoryPlan::total_private_bytes`]. Then nothing else is allocated.
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
        let plan = Plan::new(self, options, threads.executor().workers())?;
        let isa = options.isa.unwrap_or_else(Isa::best);
        let kernels = Kernels::new(isa).ok_or_else(|| {
            let names: Vec<_> = Isa::available().map(Isa::name).collect();
            let detail = format!("this processor does not support {isa}; it supports {names:?}");
            Error::Option { name: "isa", detail }
        })?;
        let arena = match memory {
            None => Arena::allocate(&plan.planner)?,
            Some(memory) => Arena::place(&plan.planner, memory)?,
        };
        Ok(Session {
            model: self.clone(),
            threads,
            kernels,
            arena,
            cache: plan.cache,
            scratch: plan.scratch,
            tokens: plan.tokens,
            sampler: plan.sampler,
            context: plan.context,
            position: 0,
            logits_row: None,
            cancel: Cancel::default(),
        })
    }
}

/// Where a session's passes run.
enum Threads {
    Own(Executor),
    Shared(Arc<Executor>),
}

impl Threads {
    fn executor(&self) -> &Executor {
        match self {
            Self::Own(executor) => executor,
            Self::Shared(executor) => executor,
        }
    }
}

/// Where a session looks whether it should stop, phase by phase.
pub(crate) struct Cancel {
    flag: NonNull<AtomicBool>,
    /// Keeps the flag alive unless somebody else does.
    _owner: Option<Arc<AtomicBool>>,
}

// SAFETY: the flag is shared and atomic, and it outlives this (`Session::cancel_by_raw`).
unsafe impl Send for Cancel {}
// SAFETY: as above.
unsafe impl Sync for Cancel {}

impl Default for Cancel {
    fn default() -> Self {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Self { flag: NonNull::from(&NEVER), _owner: None }
    }
}

impl Cancel {
    /// Whether somebody asked to stop. Relaxed: it carries no data, and being late is harmless.
    pub fn is_set(&self) -> bool {
        // SAFETY: the flag outlives `self`: see `Session::cancel_by` and `cancel_by_raw`.
        unsafe { self.flag.as_ref() }.load(Relaxed)
    }

    /// The request was followed: the next call starts without one.
    fn clear(&self) {
        // SAFETY: as in `is_set`.
        unsafe { self.flag.as_ref() }.store(false, Relaxed);
    }
}

/// The places of a session's memory.
struct Plan {
    planner: Planner,
    kv_bytes: usize,
    cache: KvCache,
    scratch: Scratch,
    tokens: Region<u32>,
    sampler: SamplerRegions,
    context: usize,
}

impl Plan {
    fn new(model: &Model, options: &SessionOptions, workers: usize) -> Result<Self> {
        let config = model.config();
        let context = options.context.unwrap_or(config.n_positions.min(config.max_context()));
        check_range("context", context, config.max_context())?;
        check_range("threads", workers, MAX_WORKERS)?;
        check_range("chunk", options.chunk, usize::MAX)?;
        let chunk = options.chunk.min(context);
        let mut planner = Planner::default();
        let cache = KvCache::plan(&mut planner, config, options.kv, context)?;
        let kv_bytes = planner.bytes();
        let all_logits = options.logits == LogitsFor::All;
        let scratch = Scratch::plan(&mut planner, model, chunk, all_logits, workers)?;
        let tokens = planner.reserve(&[context])?;
        let sampler = SamplerRegions::plan(&mut planner, config.vocab_size)?;
        Ok(Self { planner, kv_bytes, cache, scratch, tokens, sampler, context })
    }

    fn summary(&self, model: &Model) -> MemoryPlan {
        MemoryPlan {
            weights_bytes: model.file_bytes(),
            kv_bytes: self.kv_bytes,
            scratch_bytes: self.planner.bytes() - self.kv_bytes,
            total_private_bytes: self.planner.bytes(),
        }
    }
}

fn check_range(name: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let detail = match most {
        usize::MAX => format!("{value} is not at least 1"),
        _ => format!("{value} is not in 1..={most}"),
    };
    Err(Error::Option { name, detail })
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
    scratch: Scratch,
    /// The tokens evaluated so far `[context]`.
    tokens: Region<u32>,
    sampler: SamplerRegions,
    context: usize,
    position: usize,
    /// The row of the last token's logits, while they are there.
    logits_row: Option<usize>,
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

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
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
        self.logits_row = self.logits_row.filter(|_| position == self.position);
        self.position = position;
    }

    /// From now on a call that finds `flag` set clears it and gives up with [`Error::Cancelled`],
    /// within a phase of the forward pass, which is a fraction of a layer.
    pub fn cancel_by(&mut self, flag: Arc<AtomicBool>) {
        self.cancel = Cancel { flag: NonNull::from(&*flag), _owner: Some(flag) };
    }

    /// As [`cancel_by`](Self::cancel_by), for a flag that somebody else keeps.
    ///
    /// # Safety
    /// The flag stays valid until this session is dropped.
    #[cfg(feature = "capi")]
    pub(crate) unsafe fn cancel_by_raw(&mut self, flag: NonNull<AtomicBool>) {
        self.cancel = Cancel { flag, _owner: None };
    }

    /// Appends `tokens` and returns the logits `[vocab_size]` of the last one.
    pub fn evaluate(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.evaluate_each(tokens, |_, _| ())?;
        self.last_logits()
    }

    /// The logits `[vocab_size]` of the last token, as long as it is the last that was evaluated.
    pub fn last_logits(&self) -> Result<&[f32]> {
        let row = self.logits_row.ok_or(Error::NoLogits)?;
        Ok(&self.logits(row + 1)[row * self.model.config().vocab_size..])
    }

    /// Chooses the next token from the last one's logits; the session does not change.
    ///
    /// The repetition penalty looks at the session's tokens, and the position seeds the draw.
    pub fn sample(&mut self, options: &SamplerOptions) -> Result<u32> {
        options.check()?;
        let (logits, history) = (self.last_logits()?, self.tokens());
        // SAFETY: `&mut self`: nobody else uses the sampler's regions.
        Ok(unsafe { self.sampler.sample(&self.arena, options, logits, history, self.position) })
    }

    /// Appends `tokens`, calling `visit` with each position for which the session computes logits
    /// ([`SessionOptions::logits`]) and those logits `[vocab_size]`.
    pub fn evaluate_each(
        &mut self,
        tokens: &[u32],
        mut visit: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.evaluate_chunks(tokens, &mut visit)
    }

    fn evaluate_chunks(
        &mut self,
        tokens: &[u32],
        visit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.check(tokens)?;
        let _env = FpEnv::set_default();
        let before = self.position;
        self.logits_row = None;
        let chunks = tokens.chunks(self.scratch.chunk());
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.enumerate() {
            let wanted = i == last || self.scratch.all_logits();
            let outcome = self.evaluate_chunk(chunk, wanted, visit);
            if outcome.is_err() {
                self.position = before;
                return outcome;
            }
        }
        self.logits_row = Some(self.scratch.logits_rows_of(tokens.len()) - 1);
        Ok(())
    }

    /// Everything that can be wrong with a call is found before any work is done.
    fn check(&self, tokens: &[u32]) -> Result<()> {
        let (position, context) = (self.position, self.context);
        let vocab_size = self.model.config().vocab_size;
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { token, vocab_size });
        }
        if tokens.len() > context - position {
            return Err(Error::ContextFull { position, tokens: tokens.len(), context });
        }
        self.model.check_unchanged()
    }

    fn evaluate_chunk(
        &mut self,
        tokens: &[u32],
        wanted: bool,
        visit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let logits_rows = if wanted { self.scratch.logits_rows_of(tokens.len()) } else { 0 };
        let pass = Pass {
            model: &self.model,
            kernels: self.kernels,
            arena: &self.arena,
            cache: &self.cache,
            scratch: &self.scratch,
            tokens,
            position: self.position,
            logits_rows,
            cancel: &self.cancel,
        };
        forward::run(&pass, self.threads.executor());
        // Asked after the pass: if set meanwhile, some phases may have been left out.
        if self.cancel.is_set() {
            self.cancel.clear();
            return Err(Error::Cancelled);
        }
        self.record(tokens);
        let first = self.position - logits_rows;
        let rows = self.logits(logits_rows).chunks_exact(self.model.config().vocab_size);
        for (position, row) in (first..).zip(rows) {
            if !all_finite(row) {
                return Err(Error::NonFinite { position });
            }
            visit(position, row);
        }
        Ok(())
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
        unsafe { self.arena.write(self.scratch.logits(), 0..vocab_size) }
    }

    /// The first `rows` rows of logits.
    fn logits(&self, rows: usize) -> &[f32] {
        let len = rows * self.model.config().vocab_size;
        // SAFETY: only a pass writes logits, and it needs `&mut self`.
        unsafe { self.arena.read(self.scratch.logits(), 0..len) }
    }
}

/// Whether no value is infinite or NaN, without a branch per value.
fn all_finite(row: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    !row.iter().fold(false, |bad, x| bad | (x.to_bits() & EXPONENT == EXPONENT))
}
