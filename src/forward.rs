//! The forward pass (`docs/numbers.md` section 9): workers go through a [`Program`](crate::program::Program).
//!
//! A pass evaluates a chunk of tokens, which are the rows of every buffer: the embedding, then the
//! operations of each layer, at last the final norm and the head for the rows whose logits are wanted. The
//! **last layer** stores the keys and values of all rows, but goes on with the wanted ones alone, as the
//! first rows, since nobody reads the others any more.
//!
//! The workers meet after every phase, of which [`Schedules`](crate::program::Schedules) has the lists.
//! **The contract of a phase**, on which every access to the arena here rests: a worker writes only its own
//! share of what the phase writes, or what it claimed (both are disjoint), and no worker reads in a phase
//! what another may write in it. In a pass over **one row** every worker quantizes the row for itself, into
//! the quantized row with the worker's index.
//!
//! The rows come in [`Span`]s: consecutive tokens of one sequence. Only the embedding, the cache and
//! attention know of them. A prompt or a token is one span; a batch has a span for each sequence, each with
//! a cache of its own. In a **tree** of continuations all spans share one cache: a span continues an
//! earlier one's tokens, in the place of what other branches left there. There a worker takes a head
//! through the spans in order, storing and attending in turn: what a span's queries see is then exactly
//! the branch that leads to them, since pre-order visits no other before.

mod buffers;
mod heads;
mod products;
mod refill;
mod rows;
mod span;

use core::ops::Range;

pub(crate) use self::buffers::Buffers;
pub(crate) use self::refill::Refill;
pub(crate) use self::span::Span;

use crate::cancel::Cancel;
use crate::kernels::{Kernels, SEGMENT};
use crate::kv_cache::KvCache;
use crate::memory::Arena;
use crate::model::Model;
use crate::program::{Operation, Phases};
use crate::threads::{Executor, Worker};

/// One chunk of tokens to evaluate.
pub(crate) struct Pass<'a> {
    pub model: &'a Model,
    pub kernels: &'static Kernels,
    pub arena: &'a Arena,
    /// One for each sequence.
    pub caches: &'a [KvCache],
    pub buffers: &'a Buffers,
    /// At most [`Buffers::rows`], each in the vocabulary.
    pub tokens: &'a [u32],
    /// What they are; their rows follow one another, their positions lie within their caches.
    pub spans: &'a [Span],
    pub kind: PassKind,
    /// Row of the logits buffer that takes the first logits.
    pub logits_row: usize,
    /// Whether the logits' softmax denominators are computed, too.
    pub log_sums: bool,
    /// Once set, the rest is left out and what was computed is worth nothing.
    pub cancel: &'a Cancel,
}

/// What the spans of a pass are, and what is kept of it besides logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassKind {
    /// Each span has a cache of its own.
    Sequences,
    /// The same, and [`hidden_state`] has every row afterwards.
    HiddenStates,
    /// The spans are a tree in pre-order on one cache.
    Tree,
}

/// The most rows of which heads are stored and attended to in one phase.
const FEW_ROWS: usize = 16;

/// How many segments a worker has at least where attention goes by them: fewer do not make up for the two
/// meetings that they take.
const DEEP: usize = 2;

/// Runs the pass: afterwards the caches hold the tokens' keys and values (of a tree, those of the last
/// branch), and the rows of the logits from `logits_row` on are those of the tokens that want them.
///
/// `meanwhile` is called once on this thread, if possible while others begin with the pass.
pub(crate) fn run(pass: &Pass, executor: &Executor, meanwhile: &mut dyn FnMut()) {
    debug_assert_eq!(pass.spans.last().map(Span::end), Some(pass.tokens.len()));
    debug_assert!(pass.tokens.len() <= pass.buffers.rows);
    let program = pass.model.program();
    let layer = pass.phases();
    let (last, of_last) = match (pass.narrows(), pass.logits_rows()) {
        (false, _) => (layer, layer.len()),
        // Of the last layer only the keys and values are wanted.
        (true, 0) => (&program.schedules.narrow, program.schedules.until_stored),
        (true, _) => (&program.schedules.narrow, program.schedules.narrow.len()),
    };
    let before_last = 1 + (program.layers.len() - 1) * layer.len();
    let of_layers = before_last + of_last;
    let norm_f = usize::from(!pass.is_one_row());
    let of_logits = match pass.logits_rows() {
        0 => 0,
        _ => norm_f + 1 + usize::from(pass.log_sums),
    };
    let phase = |phase: usize, worker: &Worker| match phase {
        _ if pass.cancel.is_set() => {}
        0 => pass.embed(worker),
        phase if phase < before_last => {
            let (n, phase) = ((phase - 1) / layer.len(), (phase - 1) % layer.len());
            pass.phase(n, &layer[phase], worker);
        }
        phase if phase < of_layers => {
            pass.phase(program.layers.len() - 1, &last[phase - before_last], worker);
        }
        phase if phase < of_layers + norm_f => pass.norm_f(worker),
        phase if phase == of_layers + norm_f => pass.head(worker),
        _ => pass.sum_logits(worker),
    };
    executor.run_phases_meanwhile(of_layers + of_logits, &phase, meanwhile);
}

impl Pass<'_> {
    /// The phases of all layers but a narrow last one.
    fn phases(&self) -> &Phases {
        let schedules = &self.model.program().schedules;
        match () {
            () if self.is_deep() => &schedules.one_deep_row,
            () if self.is_one_row() => &schedules.one_row,
            () if self.stores_heads() => &schedules.few_rows,
            () => &schedules.rows,
        }
    }

    /// A worker's part of some operations of a layer.
    fn phase(&self, layer: usize, phase: &Range<usize>, worker: &Worker) {
        let operations = &self.model.program().layers[layer].operations;
        let last = &operations[phase.end - 1];
        if phase.len() > 1 && matches!(last, Operation::Store | Operation::Attend { .. }) {
            return self.head_by_head(layer, &operations[phase.clone()], worker);
        }
        let narrowed = self.is_narrow(layer)
            && operations[..phase.start].iter().any(|op| matches!(op, Operation::Narrow));
        let rows = if narrowed { self.logits_rows() } else { self.tokens.len() };
        for operation in &operations[phase.clone()] {
            self.operation(layer, operation, rows, worker);
        }
    }

    /// A worker's part of an operation over the first `rows` rows.
    fn operation(&self, layer: usize, operation: &Operation, rows: usize, worker: &Worker) {
        match operation {
            Operation::Quantize { from, norm, tiles } => {
                self.quantize(*from, norm.as_ref(), tiles, rows, worker);
            }
            Operation::Multiply { linear, epilogue, to } => {
                self.matmul(linear, *epilogue, *to, self.is_narrow(layer), rows, worker);
            }
            Operation::NormQueriesAndKeys { query, key } => {
                self.norm_queries_and_keys(query, key, worker);
            }
            Operation::RotateHeads { norms, base } => {
                self.rotate_rows(norms.as_ref(), *base, worker);
            }
            Operation::Store => self.store(layer, worker),
            Operation::Attend { scale, window } if self.is_deep() => {
                self.attend_segments(layer, (*scale, *window), worker);
            }
            Operation::Merge { window } => self.merge(*window, worker),
            Operation::Attend { scale, window } => {
                self.attend(layer, (*scale, *window), self.is_narrow(layer), worker);
            }
            Operation::Narrow => self.narrow(worker),
            Operation::AddNormed { norm, scale } => self.add_normed(norm, *scale, rows, worker),
        }
    }

    /// Whether every worker quantizes the row for itself.
    fn is_one_row(&self) -> bool {
        self.tokens.len() == 1
    }

    /// Whether attention of one row goes by segments: there are several for each worker, and heads would leave
    /// workers without work.
    fn is_deep(&self) -> bool {
        let workers = self.buffers.workers;
        self.is_one_row()
            && !self.model.config().attention.kv_heads.is_multiple_of(workers)
            && self.spans[0].position >= DEEP * workers * SEGMENT
    }

    fn is_tree(&self) -> bool {
        self.kind == PassKind::Tree
    }

    /// Whether a worker takes a head through storing and attending.
    fn stores_heads(&self) -> bool {
        let few = self.tokens.len() <= FEW_ROWS && !self.narrows();
        self.is_one_row() || self.is_tree() || few
    }

    /// Whether the last layer goes on with fewer rows.
    fn narrows(&self) -> bool {
        let sequences = self.kind == PassKind::Sequences;
        sequences && !self.is_one_row() && self.logits_rows() < self.tokens.len()
    }

    /// Whether this layer does.
    fn is_narrow(&self, layer: usize) -> bool {
        layer + 1 == self.model.program().layers.len() && self.narrows()
    }

    /// How many rows of logits the pass computes.
    fn logits_rows(&self) -> usize {
        self.spans.last().map_or(0, Span::logits_end)
    }

    /// The rows whose logits are wanted, those with logits rows in `to`: each with its logits row.
    fn wanted_rows(&self, to: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        self.spans.iter().flat_map(move |span| {
            let to = overlap(&to, &(span.logits_row..span.logits_end()));
            to.map(|to| (span.end() - (span.logits_end() - to), to))
        })
    }
}

/// Row `row` of the last pass after the final norm `[n_embd]`: the model's hidden state of that token.
pub(crate) fn hidden_state<'a>(
    model: &Model,
    kernels: &Kernels,
    arena: &'a mut Arena,
    buffers: &Buffers,
    row: usize,
) -> &'a [f32] {
    let e = model.config().n_embd;
    // SAFETY: the arena is borrowed exclusively, and the two regions are apart.
    let (x, normed) = unsafe {
        (arena.read(buffers.residual, row_range(row, e)), arena.write(buffers.normed, 0..e))
    };
    model.norm(&model.program().ln_f).apply(kernels, x, normed);
    normed
}

/// What two ranges have in common.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

/// The values of row `row` in rows of `width`.
fn row_range(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}
