//! A session: one sequence of tokens, its cache, and every buffer its evaluation needs.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::forward::{self, Pass, Scratch};
use crate::fp_env::FpEnv;
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::{KvCache, KvType};
use crate::memory::{Arena, Planner};
use crate::model::Model;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Length of the model file: mapped, shared and evictable unless it is read.
    pub weights_bytes: usize,
    /// The cache.
    pub kv_bytes: usize,
    /// Everything else: activations, logits, each worker's buffers.
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
        self.session_on(options, Arc::new(executor))
    }

    /// Makes a session on threads that may be shared with other sessions or belong to the host;
    /// `options.threads` is not used.
    pub fn session_on(&self, options: &SessionOptions, executor: Arc<Executor>) -> Result<Session> {
        let plan = Plan::new(self, options, executor.workers())?;
        let isa = options.isa.unwrap_or_else(Isa::best);
        let kernels = Kernels::new(isa).ok_or_else(|| {
            let names: Vec<_> = Isa::available().map(Isa::name).collect();
            let detail = format!("this processor does not support {isa}; it supports {names:?}");
            Error::Option { name: "isa", detail }
        })?;
        Ok(Session {
            model: self.clone(),
            executor,
            kernels,
            arena: Arena::allocate(&plan.planner)?,
            cache: plan.cache,
            scratch: plan.scratch,
            context: plan.context,
            position: 0,
        })
    }
}

/// The places of a session's memory.
struct Plan {
    planner: Planner,
    kv_bytes: usize,
    cache: KvCache,
    scratch: Scratch,
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
        Ok(Self { planner, kv_bytes, cache, scratch, context })
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
/// Everything it needs is allocated when it is made; evaluating allocates nothing. An evaluation that
/// fails leaves the session as it was before.
pub struct Session {
    model: Model,
    executor: Arc<Executor>,
    kernels: &'static Kernels,
    arena: Arena,
    cache: KvCache,
    scratch: Scratch,
    context: usize,
    position: usize,
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

    /// Forgets every token.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Forgets the tokens from `position` on.
    pub fn rewind(&mut self, position: usize) -> Result<()> {
        if position > self.position {
            return Err(Error::Rewind { target: position, position: self.position });
        }
        self.position = position;
        Ok(())
    }

    /// Appends `tokens` and returns the logits `[vocab_size]` of the last one.
    pub fn evaluate(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        self.evaluate_each(tokens, |_, _| ())?;
        let vocab_size = self.model.config().vocab_size;
        let last = self.scratch.logits_rows_of(tokens.len());
        Ok(&self.logits(last)[(last - 1) * vocab_size..])
    }

    /// Appends `tokens`, calling `visit` with each position for which the session computes logits
    /// ([`SessionOptions::logits`]) and those logits `[vocab_size]`.
    pub fn evaluate_each(
        &mut self,
        tokens: &[u32],
        mut visit: impl FnMut(usize, &[f32]),
    ) -> Result<()> {
        self.check(tokens)?;
        let _env = FpEnv::set_default();
        let before = self.position;
        let chunks = tokens.chunks(self.scratch.chunk());
        let last = chunks.len() - 1;
        for (i, chunk) in chunks.enumerate() {
            let wanted = i == last || self.scratch.all_logits();
            let outcome = self.evaluate_chunk(chunk, wanted, &mut visit);
            if outcome.is_err() {
                self.position = before;
                return outcome;
            }
        }
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
        visit: &mut impl FnMut(usize, &[f32]),
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
        };
        forward::run(&pass, &self.executor);
        self.position += tokens.len();
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
