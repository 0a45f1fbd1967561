//! What a session or a batch will need: its memory, planned before anything is allocated.

use crate::draft::MAX_DRAFT;
use crate::error::{Error, Result};
use crate::forward::Buffers;
use crate::kv_cache::KvCache;
use crate::memory::{Planner, Region};
use crate::model::Model;
use crate::number::check_range;
use crate::sampler::SamplerRegions;
use crate::session_options::{LogitsFor, SessionOptions};
use crate::threads::MAX_WORKERS;

/// The most sequences of a batch.
pub const MAX_SEQUENCES: usize = 1024;

/// What a session or a batch will need, to the byte, before anything is allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// Positions that each sequence has: those that the options ask for, or the default.
    pub context: usize,
    /// Length of the model file: mapped, shared and evictable unless it is read.
    pub weights_bytes: usize,
    /// The cache. Of a layer whose queries see a window it has the window, not the context.
    pub kv_bytes: usize,
    /// Everything else: activations, logits, each worker's and the sampler's buffers.
    pub scratch_bytes: usize,
    /// What the session allocates: the sum of the two above.
    pub total_private_bytes: usize,
}

/// The places of the memory of a session or a batch.
pub(crate) struct Plan {
    pub planner: Planner,
    pub kv_bytes: usize,
    pub buffers: Buffers,
    /// The tokens of each sequence `[sequences, context]`.
    pub tokens: Region<u32>,
    pub sampler: SamplerRegions,
    pub context: usize,
    pub chunk: usize,
}

impl Plan {
    /// The plan of a session; `take` gets its cache.
    pub fn of_session(
        model: &Model,
        options: &SessionOptions,
        workers: usize,
        take: &mut dyn FnMut(KvCache),
    ) -> Result<Self> {
        if options.draft > MAX_DRAFT {
            let detail = format!("{} is not in 0..={MAX_DRAFT}", options.draft);
            return Err(Error::Option { name: "draft", detail });
        }
        let (context, chunk) = context_and_chunk(model, options, workers)?;
        let drafted = (1 + options.draft).min(context);
        let rows = chunk.max(drafted);
        let logits_rows = match options.logits {
            LogitsFor::Last => drafted,
            LogitsFor::All => rows,
        };
        Self::new(model, options, (context, chunk), (1, rows, logits_rows), workers, take)
    }

    /// The plan of a batch of `sequences` sequences; `take` gets the cache of each, in order.
    pub fn of_batch(
        model: &Model,
        options: &SessionOptions,
        sequences: usize,
        workers: usize,
        take: &mut dyn FnMut(KvCache),
    ) -> Result<Self> {
        check_range("batch", sequences, MAX_SEQUENCES)?;
        let (context, chunk) = context_and_chunk(model, options, workers)?;
        let rows = chunk.max(sequences);
        let shape = (sequences, rows, sequences);
        Self::new(model, options, (context, chunk), shape, workers, take)
    }

    fn new(
        model: &Model,
        options: &SessionOptions,
        (context, chunk): (usize, usize),
        (sequences, rows, logits_rows): (usize, usize, usize),
        workers: usize,
        take: &mut dyn FnMut(KvCache),
    ) -> Result<Self> {
        let config = model.config();
        let mut planner = Planner::default();
        for _ in 0..sequences {
            take(KvCache::plan(&mut planner, config, options.kv, context, rows)?);
        }
        let kv_bytes = planner.bytes();
        let buffers = Buffers::plan(&mut planner, model, context, (rows, logits_rows), workers)?;
        let tokens = planner.reserve(&[sequences, context])?;
        let sampler = SamplerRegions::plan(&mut planner, config.vocab_size)?;
        Ok(Self { planner, kv_bytes, buffers, tokens, sampler, context, chunk })
    }

    /// What is needed, for the host to know.
    pub fn summary(&self, model: &Model) -> MemoryPlan {
        let total_private_bytes = self.planner.bytes();
        MemoryPlan {
            context: self.context,
            weights_bytes: model.file_bytes(),
            kv_bytes: self.kv_bytes,
            scratch_bytes: total_private_bytes - self.kv_bytes,
            total_private_bytes,
        }
    }
}

/// Positions and the most tokens of a pass, checked.
fn context_and_chunk(
    model: &Model,
    options: &SessionOptions,
    workers: usize,
) -> Result<(usize, usize)> {
    check_range("threads", workers, MAX_WORKERS)?;
    check_range("chunk", options.chunk, usize::MAX)?;
    let context = match options.context {
        Some(context) => context,
        None => default_context(model, options)?,
    };
    check_range("context", context, model.config().max_context())?;
    Ok((context, options.chunk.min(context)))
}

/// The model's positions, as far as their keys and values stay within [`Model::memory_budget`]: a file of a few
/// kilobytes may claim millions of positions.
fn default_context(model: &Model, options: &SessionOptions) -> Result<usize> {
    let (config, budget) = (model.config(), model.memory_budget());
    let fits = |context: usize| {
        let rows = options.chunk.min(context);
        KvCache::bytes(config, options.kv, context, rows).is_ok_and(|bytes| bytes <= budget)
    };
    let (mut least, mut most) = (1, config.n_positions.min(config.max_context()));
    while least < most {
        let middle = most - (most - least) / 2;
        if fits(middle) { least = middle } else { most = middle - 1 }
    }
    Ok(least)
}
