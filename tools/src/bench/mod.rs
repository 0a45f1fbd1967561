//! Speed of a model file on this machine, beside what the machine can do at most.

mod limits;
mod peaks;
mod reads;
mod timing;

use std::ops::RangeInclusive;
use std::time::Duration;

use cerebellum::batch::{Append, Batch};
use cerebellum::format::network::{self, Role};
use cerebellum::format::{Config, TensorKind};
use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use cerebellum::{KvType, Model, Session, SessionOptions};
use serde::Serialize;

use crate::threads;

pub use limits::{Amount, Limits};
pub use peaks::{Peak, read, read_ahead};
pub use reads::Reads;
use timing::{median, repeat};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Evaluating a prompt at once.
    Prompt {
        /// Its tokens.
        tokens: usize,
    },
    /// Evaluating tokens one by one.
    Decode {
        /// How many.
        tokens: usize,
        /// Tokens in the cache before the first of them.
        depth: usize,
    },
    /// Evaluating a token of each of several sequences at a time.
    Batch {
        /// How many sequences.
        sequences: usize,
        /// How many tokens of each.
        tokens: usize,
    },
}

impl Work {
    /// How often the weights are read.
    fn passes(self, chunk: usize) -> usize {
        match self {
            Self::Prompt { tokens } => tokens.div_ceil(chunk),
            Self::Decode { tokens, .. } | Self::Batch { tokens, .. } => tokens,
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    /// `prompt`, `decode` or `batch`.
    pub kind: &'static str,
    /// Tokens that were timed, those of all sequences together.
    pub tokens: usize,
    /// Sequences that were evaluated together.
    pub sequences: usize,
    /// Tokens in the cache before them.
    pub depth: usize,
    /// Workers, as many as were to be had.
    pub threads: usize,
    /// Median over the repetitions.
    pub tokens_per_second: f64,
    /// Bytes of weights and cache that one token reads; a prompt reads the weights once per chunk.
    pub bytes_per_token: f64,
    /// Bytes read per second.
    pub gb_per_second: f64,
    /// Multiply-accumulates of integers per second.
    pub gmac_per_second: f64,
    /// The least time that reading the bytes, or multiplying integers and floats, would take at the
    /// limits' rates ([`Limits::least_seconds`]), over the time taken.
    pub fraction_of_limit: Option<f64>,
    /// What the machine can do at most, measured right before and after.
    pub limits: Limits,
}

/// Sizes of a model that its speed depends on.
struct Sizes {
    /// Bytes of the matrices that every token goes through, the head not.
    layers_bytes: f64,
    head_bytes: f64,
    /// Weights of the same.
    layers_weights: f64,
    head_weights: f64,
    /// Bytes and weights of the last layer that only tokens with logits go through: all but those of
    /// keys and values.
    last_bytes: f64,
    last_weights: f64,
    /// The positions that each layer's queries see, if not all.
    windows: Vec<Option<usize>>,
    /// Bytes of a layer's keys and values of one position.
    position_bytes: f64,
    /// Multiply-accumulates of a layer's attention for each position that a token sees.
    position_int8_macs: f64,
    position_float_macs: f64,
}

impl Sizes {
    fn of(model: &Model, kv: KvType) -> Self {
        let config = model.config();
        let head = network::head(config);
        let width = config.attention.query_width() as f64;
        // Scores, then weighted values; an int8 cache's scores are integers.
        let (int8, float) = if kv == KvType::Int8 { (width, width) } else { (0.0, 2.0 * width) };
        let reads = Reads::of(model, kv, 0);
        let mut sizes = Self {
            layers_bytes: (reads.attention_bytes + reads.mlp_bytes) as f64,
            head_bytes: reads.head_bytes as f64,
            layers_weights: 0.0,
            head_weights: 0.0,
            last_bytes: 0.0,
            last_weights: 0.0,
            windows: (0..config.n_layer).map(|layer| config.layer_kind(layer).window).collect(),
            position_bytes: position_bytes(config, kv),
            position_int8_macs: int8,
            position_float_macs: float,
        };
        for tensor in model.layout().tensors() {
            let (TensorKind::Matrix(matrix), Some(id)) = (&tensor.kind, tensor.id) else {
                continue;
            };
            let weights = (matrix.tiles.rows() * matrix.tiles.cols()) as f64;
            if id == head {
                sizes.head_weights = weights;
            } else if id.role != Role::Embedding {
                sizes.layers_weights += weights;
                if id.layer == Some(config.n_layer - 1) {
                    // Of query | key | value, the query.
                    let attention = &config.attention;
                    let query = attention.query_width() as f64 / attention.qkv_width() as f64;
                    let part = if id.role == Role::AttentionIn { query } else { 1.0 };
                    sizes.last_bytes += tensor.range.len() as f64 * part;
                    sizes.last_weights += weights * part;
                }
            }
        }
        sizes
    }

    /// What all of the work's tokens together take.
    fn totals(&self, work: Work, chunk: usize) -> Amount {
        // Passes through the layers and through the head; tokens through both.
        let layers = work.passes(chunk);
        let (heads, tokens, head_tokens) = match work {
            Work::Prompt { tokens } => (1, tokens, 1),
            Work::Batch { sequences, tokens } => (tokens, sequences * tokens, sequences * tokens),
            Work::Decode { tokens, .. } => (tokens, tokens, tokens),
        };
        let (mut seen, mut read) = (0, 0);
        for (layer, &window) in self.windows.iter().enumerate() {
            let is_last = layer + 1 == self.windows.len();
            let of_layer = positions(work, chunk, window.unwrap_or(usize::MAX), is_last);
            (seen, read) = (seen + of_layer.0, read + of_layer.1);
        }
        let weights = self.layers_weights * tokens as f64 + self.head_weights * head_tokens as f64;
        let mut amount = Amount {
            bytes: self.layers_bytes * layers as f64
                + self.head_bytes * heads as f64
                + self.position_bytes * read as f64,
            int8_macs: weights + self.position_int8_macs * seen as f64,
            float_macs: self.position_float_macs * seen as f64,
        };
        if let Work::Prompt { tokens } = work {
            // Only the last token goes through all of the last layer.
            amount.bytes -= self.last_bytes * (layers - 1) as f64;
            amount.int8_macs -= self.last_weights * (tokens - 1) as f64;
        }
        amount
    }

    /// How most of the weights are stored.
    fn scheme(model: &Model) -> Scheme {
        let mut weights = Scheme::ALL.map(|scheme| (scheme, 0));
        for tensor in model.layout().tensors() {
            let TensorKind::Matrix(matrix) = &tensor.kind else { continue };
            let of = weights.iter_mut().find(|(scheme, _)| *scheme == matrix.tiles.scheme());
            of.expect("one of all").1 += matrix.tiles.rows() * matrix.tiles.cols();
        }
        weights.into_iter().max_by_key(|(_, count)| *count).expect("a scheme").0
    }
}

/// How many positions the work's tokens see in a layer, and how many its passes read.
fn positions(work: Work, chunk: usize, window: usize, is_last: bool) -> (usize, usize) {
    let sum = |positions: RangeInclusive<usize>| -> usize {
        positions.map(|position| position.min(window)).sum()
    };
    match work {
        // Only the last token has a query there.
        Work::Prompt { tokens } if is_last => (tokens.min(window), tokens.min(window)),
        Work::Prompt { tokens } => {
            // A chunk reads the cache from its first token's window up to its end.
            let ends = (1..=tokens.div_ceil(chunk)).map(|i| (i * chunk).min(tokens));
            let longest = window.saturating_add(chunk - 1);
            (sum(1..=tokens), ends.map(|end| end.min(longest)).sum())
        }
        Work::Batch { sequences, tokens } => {
            let seen = sequences * sum(1..=tokens);
            (seen, seen)
        }
        Work::Decode { tokens, depth } => {
            let seen = sum(depth + 1..=depth + tokens);
            (seen, seen)
        }
    }
}

fn position_bytes(config: &Config, kv: KvType) -> f64 {
    let of_head = match kv {
        KvType::F16 => 2 * config.attention.head_size,
        KvType::Int8 => config.attention.head_size + size_of::<f32>(),
        other => unreachable!("a cache of type {} has no count of bytes here", other.name()),
    };
    (2 * config.attention.kv_heads * of_head) as f64
}

/// Measures `work` with a session of these options, as the median of `repetitions`, and what the machine can do
/// at most.
///
/// # Errors
/// If the session cannot be made, or the work does not fit its context.
pub fn measure(
    model: &Model,
    options: &SessionOptions,
    work: Work,
    repetitions: usize,
) -> cerebellum::Result<Measurement> {
    let (kind, tokens, depth, sequences) = match work {
        Work::Prompt { tokens } => ("prompt", tokens, 0, 1),
        Work::Decode { tokens, depth } => ("decode", tokens, depth, 1),
        Work::Batch { sequences, tokens } => ("batch", sequences * tokens, 0, sequences),
    };
    let mut options = options.clone();
    let chunk = options.chunk.min(tokens);
    let amount = Sizes::of(model, options.kv).totals(work, chunk);
    let isa = options.isa.unwrap_or_else(Isa::best);
    let limits_of = |threads: usize| {
        let bytes = amount.bytes / work.passes(chunk) as f64;
        Limits::measure(threads, isa, Sizes::scheme(model), bytes as usize)
    };
    let before = limits_of(options.threads);
    let mut times = threads::with_fewer(&mut options, |options| match work {
        Work::Batch { .. } => time_batch(model, options, sequences, tokens, repetitions),
        _ => time_session(model, options, work, repetitions),
    })?;
    let seconds = median(&mut times).as_secs_f64();
    let limits = before.highest(limits_of(options.threads));
    Ok(Measurement {
        kind,
        tokens,
        sequences,
        depth,
        threads: options.threads,
        tokens_per_second: tokens as f64 / seconds,
        bytes_per_token: amount.bytes / tokens as f64,
        gb_per_second: amount.bytes / seconds / 1e9,
        gmac_per_second: amount.int8_macs / seconds / 1e9,
        fraction_of_limit: limits.least_seconds(amount).map(|least| least / seconds),
        limits,
    })
}

/// Times of a prompt, or of tokens one by one.
fn time_session(
    model: &Model,
    options: &SessionOptions,
    work: Work,
    repetitions: usize,
) -> cerebellum::Result<Vec<Duration>> {
    let mut session = model.session(options)?;
    let (Work::Prompt { tokens } | Work::Decode { tokens, .. } | Work::Batch { tokens, .. }) = work;
    let depth = if let Work::Decode { depth, .. } = work { depth } else { 0 };
    let ids = token_ids(model.config().vocab_size, depth + tokens);
    if depth > 0 {
        session.evaluate(&ids[..depth])?;
    }
    let go_back = |session: &mut Session| {
        let Some(last) = depth.checked_sub(1) else { return session.rewind(0) };
        // A layer with a window computes here, and not in the time measured, what it has lost.
        session.rewind(last)?;
        session.evaluate(&ids[last..depth]).map(drop)
    };
    repeat(repetitions, &mut session, go_back, |session| {
        if let Work::Prompt { .. } = work {
            return session.evaluate(&ids).map(drop);
        }
        ids[depth..].chunks(1).try_for_each(|id| session.evaluate(id).map(drop))
    })
}

/// Times of as many tokens in several sequences, each one's own.
fn time_batch(
    model: &Model,
    options: &SessionOptions,
    sequences: usize,
    tokens: usize,
    repetitions: usize,
) -> cerebellum::Result<Vec<Duration>> {
    let context = Some(tokens / sequences);
    let mut batch = model.batch(&SessionOptions { context, ..options.clone() }, sequences)?;
    let ids = token_ids(model.config().vocab_size, tokens);
    let reset = |batch: &mut Batch| {
        (0..sequences).for_each(|sequence| batch.reset(sequence));
        Ok(())
    };
    repeat(repetitions, &mut batch, reset, |batch| {
        ids.chunks(sequences).try_for_each(|ids| {
            let appends = ids.chunks(1).enumerate();
            let appends: Vec<_> =
                appends.map(|(sequence, tokens)| Append { sequence, tokens }).collect();
            batch.evaluate(&appends)
        })
    })
}

/// Token ids that look random and are always the same.
fn token_ids(vocab_size: usize, n: usize) -> Vec<u32> {
    let multiplied = (1..=n as u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33);
    multiplied.map(|x| (x % vocab_size as u64) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_with_windows_see_and_read_no_more() {
        const ALL: usize = usize::MAX;
        let prompt = Work::Prompt { tokens: 5 };
        assert_eq!(positions(prompt, 2, ALL, false), (15, 2 + 4 + 5));
        assert_eq!(positions(prompt, 2, ALL, true), (5, 5));
        assert_eq!(positions(prompt, 2, 3, false), (1 + 2 + 3 + 3 + 3, 2 + 4 + 4));
        assert_eq!(positions(prompt, 2, 3, true), (3, 3));
        let decode = Work::Decode { tokens: 2, depth: 7 };
        assert_eq!(positions(decode, 1, ALL, false), (17, 17));
        assert_eq!(positions(decode, 1, 3, true), (6, 6));
        let batch = Work::Batch { sequences: 2, tokens: 3 };
        assert_eq!(positions(batch, 1, ALL, false), (12, 12));
    }
}
