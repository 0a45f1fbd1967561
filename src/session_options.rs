//! What a session is made with, and what it will need: options, their checks, and the memory plan.

use std::sync::Arc;

use crate::draft::MAX_DRAFT;
use crate::error::{Error, Result};
use crate::forward::Scratch;
use crate::kernels::{Isa, Kernels};
use crate::kv_cache::{KvCache, KvType};
use crate::memory::{Planner, Region};
use crate::model::Model;
use crate::sampler::SamplerRegions;
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

/// The instruction set that the environment variable `CEREBELLUM_ISA` names, if it is set and not empty.
/// For programs; the library itself never reads the environment.
pub fn isa_from_environment() -> Result<Option<Isa>> {
    let name = std::env::var_os("CEREBELLUM_ISA").filter(|name| !name.is_empty());
    let Some(name) = name else { return Ok(None) };
    let isa = name.to_str().and_then(Isa::from_name);
    let isa = isa.ok_or_else(|| {
        let names: Vec<_> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        let detail = format!("{name:?} is not one of {}", names.join(", "));
        Error::Option { name: "CEREBELLUM_ISA", detail }
    })?;
    Ok(Some(isa))
}

/// What a session is made with.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Positions of the cache; the model's number of positions by default, which is also the most
    /// unless the model has ALiBi. The default is less if the cache would pass
    /// [`Model::memory_budget`].
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
    /// The most tokens, up to 15, that are guessed and evaluated along with a single token, from what
    /// followed when the session's last tokens occurred before; 0 guesses none. A right guess saves a
    /// pass. Guesses are made where they have proved to save time; they never affect results. Takes
    /// memory for so many more rows of logits.
    pub draft: usize,
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
            draft: 4,
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

impl MemoryPlan {
    /// Given the bytes of the cache, and of all together.
    pub(crate) fn of(model: &Model, kv_bytes: usize, total_private_bytes: usize) -> Self {
        Self {
            weights_bytes: model.file_bytes(),
            kv_bytes,
            scratch_bytes: total_private_bytes - kv_bytes,
            total_private_bytes,
        }
    }
}

/// The places of a session's memory.
pub(crate) struct Plan {
    pub planner: Planner,
    pub kv_bytes: usize,
    pub cache: KvCache,
    pub scratch: Scratch,
    pub tokens: Region<u32>,
    pub sampler: SamplerRegions,
    pub context: usize,
    pub chunk: usize,
}

impl Plan {
    pub fn new(model: &Model, options: &SessionOptions, workers: usize) -> Result<Self> {
        let config = model.config();
        let (context, chunk) = context_and_chunk(model, options, workers)?;
        if options.draft > MAX_DRAFT {
            let detail = format!("{} is not in 0..={MAX_DRAFT}", options.draft);
            return Err(Error::Option { name: "draft", detail });
        }
        let mut planner = Planner::default();
        let cache = KvCache::plan(&mut planner, config, options.kv, context)?;
        let kv_bytes = planner.bytes();
        let drafted = (1 + options.draft).min(context);
        let logits_rows = match options.logits {
            LogitsFor::Last => drafted,
            LogitsFor::All => chunk.max(drafted),
        };
        let rows = chunk.max(drafted);
        let scratch = Scratch::plan(&mut planner, model, rows, logits_rows, workers)?;
        let tokens = planner.reserve(&[context])?;
        let sampler = SamplerRegions::plan(&mut planner, config.vocab_size)?;
        Ok(Self { planner, kv_bytes, cache, scratch, tokens, sampler, context, chunk })
    }

    pub fn summary(&self, model: &Model) -> MemoryPlan {
        MemoryPlan::of(model, self.kv_bytes, self.planner.bytes())
    }
}

/// Threads of its own for what is made with these options.
pub(crate) fn executor_of(options: &SessionOptions) -> Result<Executor> {
    check_range("threads", options.threads, MAX_WORKERS)?;
    Ok(match options.threads {
        1 => Executor::Caller,
        threads => Executor::Team(Team::new(threads)?),
    })
}

/// Where a session's passes run.
pub(crate) enum Threads {
    Own(Executor),
    Shared(Arc<Executor>),
}

impl Threads {
    pub fn executor(&self) -> &Executor {
        match self {
            Self::Own(executor) => executor,
            Self::Shared(executor) => executor,
        }
    }
}

/// The kernels that the options ask for.
pub(crate) fn kernels_of(options: &SessionOptions) -> Result<&'static Kernels> {
    let isa = options.isa.unwrap_or_else(Isa::best);
    Kernels::new(isa).ok_or_else(|| {
        let names: Vec<_> = Isa::available().map(Isa::name).collect();
        let detail = format!("this processor does not support {isa}; it supports {names:?}");
        Error::Option { name: "isa", detail }
    })
}

/// The model's positions, as far as their keys and values stay within [`Model::memory_budget`]: a file of a few
/// kilobytes may claim millions of positions.
fn default_context(model: &Model, kv: KvType) -> Result<usize> {
    let config = model.config();
    let within_budget = model.memory_budget() / KvCache::position_bytes(config, kv)?;
    Ok(config.n_positions.min(config.max_context()).min(within_budget.max(1)))
}

/// Positions and the most tokens of a pass, checked.
pub(crate) fn context_and_chunk(
    model: &Model,
    options: &SessionOptions,
    workers: usize,
) -> Result<(usize, usize)> {
    let config = model.config();
    let context = match options.context {
        Some(context) => context,
        None => default_context(model, options.kv)?,
    };
    check_range("context", context, config.max_context())?;
    check_range("threads", workers, MAX_WORKERS)?;
    check_range("chunk", options.chunk, usize::MAX)?;
    Ok((context, options.chunk.min(context)))
}

pub(crate) fn check_range(name: &'static str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let detail = match most {
        usize::MAX => format!("{value} is not at least 1"),
        _ => format!("{value} is not in 1..={most}"),
    };
    Err(Error::Option { name, detail })
}

/// Whether there are tokens, all of them in the vocabulary, and `positions` more positions in the
/// context.
pub(crate) fn check_tokens(
    model: &Model,
    tokens: &[u32],
    (position, positions, context): (usize, usize, usize),
) -> Result<()> {
    let vocab_size = model.config().vocab_size;
    if tokens.is_empty() {
        return Err(Error::NoTokens);
    }
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
        return Err(Error::TokenOutOfRange { token, vocab_size });
    }
    if positions > context - position {
        return Err(Error::ContextFull { position, tokens: positions, context });
    }
    Ok(())
}
