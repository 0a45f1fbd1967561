//! The forward pass (`docs/numbers.md` section 9), phase by phase.
//!
//! A pass evaluates a chunk of tokens, which are the rows of every buffer: embedding, then per layer
//!
//! ```text
//! norm_1     x -> ln_1 -> quantized                       by tokens
//! c_attn     quantized -> query | key | value             by panels of outputs
//! store      key, value -> cache                          by heads
//! attend     query, cache -> heads side by side           by heads and tokens
//! quantize   heads -> quantized                           by tokens
//! attn_proj  quantized -> added to x                      by panels
//! norm_2     x -> ln_2 -> quantized                       by tokens
//! c_fc       quantized -> activation -> inner             by panels
//!            (with a gate: c_fc2 here, then c_fc times inner in a phase of its own)
//! quantize   inner -> quantized                           by tokens
//! mlp_proj   quantized -> added to x                      by panels
//! ```
//!
//! and at last `ln_f` and the head for the tokens whose logits are wanted. The **last layer** stores the
//! keys and values of all tokens, but goes on with the wanted ones alone: their queries, attention and
//! MLP, as the first rows of x, since nobody reads the others any more.
//!
//! The workers meet after every phase. A pass over **few rows** has a phase less a layer: a worker stores
//! the keys and values of a head and run before it attends to them, which are in its caches then. One over
//! **one row** has fewer still, since to meet takes about as long as to quantize a row: every worker norms
//! and quantizes it for itself, into the quantized row with its own index. **The contract of a
//! phase**, on which every access to the arena here rests: a worker writes only its own share of what the
//! phase writes, or what it claimed (both are disjoint), and no worker reads in a phase what another may
//! write in it.
//!
//! The rows come in [`Run`]s: consecutive tokens of one sequence. Only the embedding, the cache and
//! attention know of them. A prompt or a token is one run; a batch has a run per sequence, each with a
//! cache of its own. In a **tree** of continuations all runs share one cache: a run goes on behind an
//! earlier one's tokens, in the place of what other branches left there. There, too, `store` and `attend`
//! are one phase, in which a worker takes its heads through the runs in order: what a run's queries see is
//! then exactly the branch that leads to them, since pre-order visits no other before.

mod run;
mod scratch;

use std::f32::consts::LOG2_E;
use std::ops::Range;

pub(crate) use self::run::Run;
pub(crate) use self::scratch::Scratch;

use crate::cancel::Cancel;
use crate::kernels::{
    Alibi, Attention, AttentionScratch, CellWriter, EmbeddingRow, Epilogue, Kernels, LayerNorm,
    MOST_QUERIES, Matmul, QUERY_BLOCK, QuantizedRowMut, QuantizedRows, SEGMENT, padded_head_size,
};
use crate::kv_cache::KvCache;
use crate::log_softmax::log_sum_exp_by;
use crate::memory::{Arena, Region};
use crate::model::{LinearAt, MatrixAt, Model};
use crate::quant::{PANEL_ROWS, TileLayout};
use crate::threads::{Executor, Worker};

/// A matrix product of a phase: what is multiplied with the quantized rows, and where it goes.
struct Product<'a> {
    matrix: &'a MatrixAt,
    bias: Option<&'a [f32]>,
    epilogue: Epilogue,
    /// Rows as wide as the matrix has rows.
    to: Region<f32>,
    /// The row that takes the first quantized row's.
    to_row: usize,
}

/// One chunk of tokens to evaluate.
pub(crate) struct Pass<'a> {
    pub model: &'a Model,
    pub kernels: &'static Kernels,
    pub arena: &'a Arena,
    /// One per sequence.
    pub caches: &'a [KvCache],
    pub scratch: &'a Scratch,
    /// At most [`Scratch::rows`], each in the vocabulary.
    pub tokens: &'a [u32],
    /// What they are; their rows follow one another, their positions lie within their caches.
    pub runs: &'a [Run],
    pub kind: PassKind,
    /// Row of the logits buffer that takes the first logits.
    pub logits_row: usize,
    /// Whether the logits' softmax denominators are computed, too.
    pub log_sums: bool,
    /// Once set, the rest is left out and what was computed is worth nothing.
    pub cancel: &'a Cancel,
}

/// What the runs of a pass are, and what is kept of it besides logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassKind {
    /// Each run has a cache of its own.
    Sequences,
    /// The same, and [`hidden_state`] has every row afterwards.
    HiddenStates,
    /// The runs are a tree in pre-order on one cache.
    Tree,
}

/// A step of a layer, as listed at the top.
#[derive(Clone, Copy)]
enum Phase {
    Norm1,
    Attn,
    Store,
    Attend,
    QuantizeAttended,
    AttnProj,
    Norm2,
    Activate,
    Gate,
    QuantizeInner,
    MlpProj,
}

/// A layer's phases.
const OF_ROWS: [Phase; 11] = [
    Phase::Norm1,
    Phase::Attn,
    Phase::Store,
    Phase::Attend,
    Phase::QuantizeAttended,
    Phase::AttnProj,
    Phase::Norm2,
    Phase::Activate,
    Phase::Gate,
    Phase::QuantizeInner,
    Phase::MlpProj,
];
/// Those of a pass that stores a head's keys and values where it attends to them.
const OF_STORED_ROWS: [Phase; 10] = [
    Phase::Norm1,
    Phase::Attn,
    Phase::Attend,
    Phase::QuantizeAttended,
    Phase::AttnProj,
    Phase::Norm2,
    Phase::Activate,
    Phase::Gate,
    Phase::QuantizeInner,
    Phase::MlpProj,
];
/// Those of a pass over one row, where the others are part of these.
const OF_ONE_ROW: [Phase; 6] =
    [Phase::Attn, Phase::Attend, Phase::AttnProj, Phase::Activate, Phase::Gate, Phase::MlpProj];

/// The most rows of which heads are stored and attended to in one phase.
const FEW_ROWS: usize = 16;

/// How many phases a layer has, and the phase of a number in it.
fn phases(list: &'static [Phase], gated: bool) -> (usize, impl Fn(usize) -> Phase) {
    let gate = list.iter().position(|phase| matches!(phase, Phase::Gate)).unwrap_or(list.len());
    let skipped = usize::from(!gated);
    (list.len() - skipped, move |number| list[number + if number < gate { 0 } else { skipped }])
}

/// Runs the pass: afterwards the caches hold the tokens' keys and values (of a tree, those of the last
/// branch), and the rows of the logits from `logits_row` on are those of the tokens that want them.
///
/// `beside` is called once on this thread, if possible while others begin with the pass.
pub(crate) fn run(pass: &Pass, executor: &Executor, beside: &mut dyn FnMut()) {
    debug_assert_eq!(pass.runs.last().map(Run::end), Some(pass.tokens.len()));
    debug_assert!(pass.tokens.len() <= pass.scratch.rows);
    let gated = pass.model.config().gated_mlp;
    let list: &[Phase] = match () {
        () if pass.is_one_row() => &OF_ONE_ROW,
        () if pass.stores_heads() => &OF_STORED_ROWS,
        () => &OF_ROWS,
    };
    let (per_layer, phase_of_layer) = phases(list, gated);
    let mut of_layers = 1 + per_layer * pass.model.network().layers.len();
    if pass.narrows() && pass.logits_rows() == 0 {
        // Of the last layer only the keys and values are wanted.
        let is_store = |&number: &usize| matches!(phase_of_layer(number), Phase::Store);
        of_layers -= per_layer - 1 - (0..per_layer).find(is_store).unwrap_or(per_layer - 1);
    }
    let of_logits = match pass.logits_rows() {
        0 => 0,
        _ => 2 - usize::from(pass.is_one_row()) + usize::from(pass.log_sums),
    };
    let head = of_layers + 1 - usize::from(pass.is_one_row());
    let phase = |phase: usize, worker: &Worker| match phase {
        _ if pass.cancel.is_set() => {}
        0 => pass.embed(worker),
        phase if phase < of_layers => {
            let (layer, number) = ((phase - 1) / per_layer, (phase - 1) % per_layer);
            pass.layer(layer, phase_of_layer(number), worker);
        }
        phase if phase < head => pass.norm_f(worker),
        phase if phase == head => pass.head(worker),
        _ => pass.sum_logits(worker),
    };
    executor.run_phases_beside(of_layers + of_logits, &phase, beside);
}

impl Pass<'_> {
    fn layer(&self, index: usize, phase: Phase, worker: &Worker) {
        let layer = &self.model.network().layers[index];
        let s = self.scratch;
        let one_row = self.is_one_row();
        let narrow = self.is_narrow(index);
        let rows = if narrow { self.logits_rows() } else { self.tokens.len() };
        match phase {
            Phase::Norm1 => {
                self.norm(&self.model.norm(&layer.ln_1), &layer.c_attn, self.tokens.len(), worker);
            }
            Phase::Attn => {
                if one_row {
                    self.layer(index, Phase::Norm1, worker);
                }
                self.attn(&layer.c_attn, narrow, worker);
            }
            Phase::Store => self.store(index, worker),
            Phase::Attend if self.stores_heads() => self.store_and_attend(index, worker),
            Phase::Attend => self.attend(index, narrow, worker),
            Phase::QuantizeAttended if narrow => self.narrow(&layer.attn_proj, worker),
            Phase::QuantizeAttended => self.quantize(s.attended, &layer.attn_proj, rows, worker),
            Phase::AttnProj => {
                if one_row {
                    self.layer(index, Phase::QuantizeAttended, worker);
                }
                self.matmul(&layer.attn_proj, Epilogue::AddTo, s.x, rows, worker);
            }
            Phase::Norm2 => self.norm(&self.model.norm(&layer.ln_2), &layer.c_fc, rows, worker),
            Phase::Activate => {
                if one_row {
                    self.layer(index, Phase::Norm2, worker);
                }
                let activation = Epilogue::Activate(self.model.config().activation);
                let activated = layer.gate.as_ref().unwrap_or(&layer.c_fc);
                self.matmul(activated, activation, s.inner, rows, worker);
            }
            Phase::Gate => self.matmul(&layer.c_fc, Epilogue::MultiplyTo, s.inner, rows, worker),
            Phase::QuantizeInner => self.quantize(s.inner, &layer.mlp_proj, rows, worker),
            Phase::MlpProj => {
                if one_row {
                    self.layer(index, Phase::QuantizeInner, worker);
                }
                self.matmul(&layer.mlp_proj, Epilogue::AddTo, s.x, rows, worker);
            }
        }
    }

    /// Whether every worker quantizes the row for itself.
    fn is_one_row(&self) -> bool {
        self.tokens.len() == 1
    }

    fn is_tree(&self) -> bool {
        self.kind == PassKind::Tree
    }

    /// Whether `store` is part of `attend`.
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
        layer + 1 == self.model.network().layers.len() && self.narrows()
    }

    /// The rows whose logits are wanted, those with logits rows in `to`: each with its logits row.
    fn wanted_rows(&self, to: Range<usize>) -> impl Iterator<Item = (usize, usize)> {
        self.runs.iter().flat_map(move |run| {
            let to = overlap(&to, &(run.logits_row..run.logits_end()));
            to.map(|to| (run.end() - (run.logits_end() - to), to))
        })
    }

    /// Rows that the worker quantizes, and how far behind them their quantized rows lie.
    fn rows_to_quantize(&self, rows: usize, worker: &Worker) -> (Range<usize>, usize) {
        if self.is_one_row() { (0..rows, worker.index()) } else { (worker.share(rows), 0) }
    }

    /// Token and position embeddings -> x.
    fn embed(&self, worker: &Worker) {
        let e = self.model.config().n_embd;
        let wte = self.model.weights(&self.model.network().wte);
        let scale = self.model.config().embeddings_scale;
        let share = worker.share(self.tokens.len());
        for run in self.runs {
            for t in overlap(&share, &run.rows()) {
                let position = self.model.position(run.position + t - run.row);
                let row = EmbeddingRow::new(wte, self.tokens[t] as usize, position, scale);
                // SAFETY: the contract of a phase: row t of x is this worker's.
                let x = unsafe { self.arena.write(self.scratch.x, row_range(t, e)) };
                self.kernels.embed(&row, x);
            }
        }
    }

    /// How many rows of logits the pass computes.
    fn logits_rows(&self) -> usize {
        self.runs.last().map_or(0, Run::logits_end)
    }

    /// The first `rows` rows of x -> layer norm -> quantized for `next`.
    fn norm(&self, norm: &LayerNorm, next: &LinearAt, rows: usize, worker: &Worker) {
        let (rows, offset) = self.rows_to_quantize(rows, worker);
        for t in rows {
            self.norm_row(norm, t, &next.matrix.tiles, t + offset, worker);
        }
    }

    /// The rows of x whose logits are wanted -> ln_f -> quantized for the head, as the first rows.
    fn norm_f(&self, worker: &Worker) {
        let network = self.model.network();
        let norm = self.model.norm(&network.ln_f);
        let (rows, offset) = self.rows_to_quantize(self.logits_rows(), worker);
        for (from, to) in self.wanted_rows(rows) {
            let from = if self.narrows() { to } else { from };
            self.norm_row(&norm, from, &network.head.tiles, to + offset, worker);
        }
    }

    /// Row `from` of x -> layer norm -> quantized row `to`.
    fn norm_row(
        &self,
        norm: &LayerNorm,
        from: usize,
        next: &TileLayout,
        to: usize,
        worker: &Worker,
    ) {
        let e = self.model.config().n_embd;
        // SAFETY: the contract of a phase: nobody writes x in it, and the row of `normed` with the
        // worker's index is its own.
        let (x, normed) = unsafe {
            let normed = self.arena.write(self.scratch.normed, row_range(worker.index(), e));
            (self.arena.read(self.scratch.x, row_range(from, e)), normed)
        };
        self.kernels.layer_norm(x, norm, normed);
        self.quantize_row(normed, next, to);
    }

    /// The wanted rows of x -> its first rows; those of the heads -> quantized for `next`, as the first
    /// rows.
    fn narrow(&self, next: &LinearAt, worker: &Worker) {
        let (e, s) = (self.model.config().n_embd, self.scratch);
        let tiles = &next.matrix.tiles;
        for (from, to) in self.wanted_rows(worker.share(self.logits_rows())) {
            // SAFETY: the contract of a phase: nobody writes this buffer in it.
            self.quantize_row(
                unsafe { self.arena.read(s.attended, row_range(from, e)) },
                tiles,
                to,
            );
        }
        if worker.index() == 0 {
            // SAFETY: the contract of a phase: x is used by this worker only.
            let x = unsafe { self.arena.write(s.x, 0..self.tokens.len() * e) };
            // No row goes to where a later one still is.
            for (from, to) in self.wanted_rows(0..self.logits_rows()) {
                x.copy_within(row_range(from, e), to * e);
            }
        }
    }

    /// A buffer's first `rows` rows -> quantized for `next`.
    fn quantize(&self, from: Region<f32>, next: &LinearAt, rows: usize, worker: &Worker) {
        let tiles = &next.matrix.tiles;
        let (rows, offset) = self.rows_to_quantize(rows, worker);
        for t in rows {
            // SAFETY: the contract of a phase: nobody writes this buffer in it.
            let row = unsafe { self.arena.read(from, row_range(t, tiles.cols())) };
            self.quantize_row(row, tiles, t + offset);
        }
    }

    /// Quantizes a row into quantized row `to`, which the calling worker must own in this phase.
    fn quantize_row(&self, row: &[f32], tiles: &TileLayout, to: usize) {
        let s = self.scratch;
        // SAFETY: the contract of a phase: the quantized row `to` is this worker's.
        let out = unsafe {
            QuantizedRowMut {
                values: self.arena.write(s.values, row_range(to, tiles.padded_cols())),
                scales: self.arena.write(s.scales, row_range(to, tiles.groups())),
                starts: self.arena.write(s.starts, row_range(to, tiles.blocks())),
            }
        };
        self.kernels.quantize(row, tiles.group_size(), out);
    }

    /// The first `rows` quantized rows times a matrix, into a buffer as wide as the matrix has rows.
    fn matmul(
        &self,
        linear: &LinearAt,
        epilogue: Epilogue,
        to: Region<f32>,
        rows: usize,
        worker: &Worker,
    ) {
        let product = Product { to, to_row: 0, epilogue, ..self.of_linear(linear) };
        self.product(&product, rows, worker);
    }

    /// Quantized rows -> query | key | value; if `narrow`, without queries that nobody wants.
    fn attn(&self, c_attn: &LinearAt, narrow: bool, worker: &Worker) {
        let product = self.of_linear(c_attn);
        let rows = self.tokens.len();
        if !narrow {
            return self.product(&product, rows, worker);
        }
        // Panels of queries only, and the first row whose query is wanted. Those of other runs after
        // it are computed, too, but a prompt is one run.
        let queries = self.model.config().n_embd / PANEL_ROWS;
        let first = self.wanted_rows(0..self.logits_rows()).next().map_or(rows, |(from, _)| from);
        for panels in claim_panels(c_attn.matrix.tiles.panels(), worker) {
            let middle = queries.clamp(panels.start, panels.end);
            self.multiply(&product, first..rows, panels.start..middle, worker);
            self.multiply(&product, 0..rows, middle..panels.end, worker);
        }
    }

    /// A product with a matrix and its bias, into qkv.
    fn of_linear<'m>(&'m self, linear: &'m LinearAt) -> Product<'m> {
        Product {
            matrix: &linear.matrix,
            bias: Some(self.model.vector(&linear.bias)),
            epilogue: Epilogue::Store,
            to: self.scratch.qkv,
            to_row: 0,
        }
    }

    /// Quantized rows times the head -> logits.
    fn head(&self, worker: &Worker) {
        if self.is_one_row() {
            self.norm_f(worker);
        }
        let head = &self.model.network().head;
        let epilogue = match self.model.config().logits_scale {
            1.0 => Epilogue::Store,
            scale => Epilogue::Scale(scale),
        };
        let (to, to_row) = (self.scratch.logits, self.logits_row);
        let product = Product { matrix: head, bias: None, epilogue, to, to_row };
        self.product(&product, self.logits_rows(), worker);
    }

    /// Logits -> logarithms of their softmax denominators.
    fn sum_logits(&self, worker: &Worker) {
        let vocab_size = self.model.config().vocab_size;
        for row in worker.share(self.logits_rows()) {
            let row = self.logits_row + row;
            // SAFETY: the contract of a phase: nobody writes logits in it, and this row's sum is this
            // worker's.
            let (logits, sum) = unsafe {
                let logits = self.arena.read(self.scratch.logits, row_range(row, vocab_size));
                (logits, self.arena.write(self.scratch.log_sums, row_range(row, 1)))
            };
            sum[0] = log_sum_exp_by(self.kernels, logits);
        }
    }

    /// The first `rows` quantized rows times a matrix.
    fn product(&self, product: &Product, rows: usize, worker: &Worker) {
        for panels in claim_panels(product.matrix.tiles.panels(), worker) {
            self.multiply(product, 0..rows, panels, worker);
        }
    }

    /// Some quantized rows times panels that this worker claimed.
    fn multiply(
        &self,
        product: &Product,
        rows: Range<usize>,
        panels: Range<usize>,
        worker: &Worker,
    ) {
        if rows.is_empty() || panels.is_empty() {
            return;
        }
        let tiles = &product.matrix.tiles;
        let s = self.scratch;
        let first = rows.start + if self.is_one_row() { worker.index() } else { 0 };
        let of_rows = |width: usize| first * width..(first + rows.len()) * width;
        // SAFETY: the contract of a phase: nobody writes these quantized rows in it, or this worker
        // alone, which has done so.
        let input = unsafe {
            QuantizedRows {
                values: self.arena.read(s.values, of_rows(tiles.padded_cols())),
                scales: self.arena.read(s.scales, of_rows(tiles.groups())),
                starts: self.arena.read(s.starts, of_rows(tiles.blocks())),
                padded_cols: tiles.padded_cols(),
                groups: tiles.groups(),
                blocks: tiles.blocks(),
            }
        };
        let (bias, epilogue) = (product.bias, product.epilogue);
        let job = Matmul { weights: self.model.weights(product.matrix), input, bias, epilogue };
        // SAFETY: in this phase the buffer is used through such writers only, each worker naming the
        // rows of the panels that it claimed.
        unsafe {
            let out = self.cells_from(product.to, product.to_row + rows.start, tiles.rows());
            self.kernels.matmul(&job, panels, &out);
        }
    }

    /// The cells of a buffer with rows of `width`, from row `first` on.
    ///
    /// # Safety
    /// In this phase the buffer is used through such writers only, and no cell by two workers.
    unsafe fn cells_from(&self, buffer: Region<f32>, first: usize, width: usize) -> CellWriter<'_> {
        let (cells, len) = self.arena.pointer(buffer);
        assert!(first * width <= len, "outside the buffer");
        // SAFETY: the assertion keeps the rest inside the buffer, and the arena outlives the writer;
        // the caller promises the rest.
        unsafe { CellWriter::from_raw(cells.add(first * width), len - first * width, width) }
    }

    /// Keys and values of the chunk -> caches.
    fn store(&self, layer: usize, worker: &Worker) {
        for head in worker.share(self.model.config().n_head) {
            for run in self.runs {
                // SAFETY: the contract of a phase: this head's caches are this worker's.
                unsafe { self.store_run(run, layer, head) };
            }
        }
    }

    /// Queries and caches -> heads side by side.
    ///
    /// If `narrow`, those of the wanted rows.
    fn attend(&self, layer: usize, narrow: bool, worker: &Worker) {
        let mut buffers = self.attention_buffers(worker);
        let blocks = self.runs.last().map_or(0, |run| run.block + run.blocks());
        // Head by head, so that most of a worker's queries share one head's cache.
        for mut items in worker.claims(self.model.config().n_head * blocks) {
            while let Some(item) = items.next() {
                let (head, block) = (item / blocks, item % blocks);
                let run = &self.runs[self.runs.partition_point(|run| run.block <= block) - 1];
                // As many blocks of this head and run as there are.
                let first = block - run.block;
                let count =
                    (run.blocks() - first).min(1 + items.len()).min(MOST_QUERIES / QUERY_BLOCK);
                items.start += count - 1;
                let unwanted = if narrow { run.len - run.logits } else { 0 };
                let tokens = run.block_rows(first..first + count);
                let tokens = tokens.start.max(unwanted)..tokens.end;
                if !tokens.is_empty() {
                    // SAFETY: the contract of a phase: nobody writes a cache in it, and an item is one
                    // worker's.
                    unsafe { self.attend_rows(run, tokens, layer, head, &mut buffers) };
                }
            }
        }
    }

    /// The same, of all rows, with `store` before it: a head of a run at a time. Of a tree, each head
    /// goes through the runs in order.
    fn store_and_attend(&self, layer: usize, worker: &Worker) {
        let mut buffers = self.attention_buffers(worker);
        let at_once = if self.is_tree() { self.runs.len() } else { 1 };
        let parts = self.runs.len() / at_once;
        let items = self.model.config().n_head * parts;
        let of_item = |item| (item / parts, &self.runs[item % parts * at_once..][..at_once]);
        for item in worker.claims(items).flatten() {
            // One row's heads are one stream.
            if item + 1 < items && !self.is_one_row() {
                let (head, runs) = of_item(item + 1);
                let positions = runs[0].position + runs[0].len;
                self.caches[runs[0].cache].fetch(self.arena, layer, head, positions);
            }
            let (head, runs) = of_item(item);
            for run in runs {
                // SAFETY: the contract of a phase: this head's cache and its cells are this worker's.
                unsafe {
                    self.store_run(run, layer, head);
                    for first in (0..run.len).step_by(MOST_QUERIES) {
                        let tokens = first..run.len.min(first + MOST_QUERIES);
                        self.attend_rows(run, tokens, layer, head, &mut buffers);
                    }
                }
            }
        }
    }

    /// Keys and values of a run -> one head of its cache.
    ///
    /// # Safety
    /// Nobody else uses that head's cache, and nobody writes qkv, during the call.
    unsafe fn store_run(&self, run: &Run, layer: usize, head: usize) {
        let (e, d) = (self.model.config().n_embd, self.scratch.head_size);
        let rows = run.row * 3 * e..run.end() * 3 * e;
        // SAFETY: the caller's promise.
        let (mut cache, qkv) = unsafe {
            let cache = self.caches[run.cache].head_mut(self.arena, layer, head);
            (cache, self.arena.read(self.scratch.qkv, rows))
        };
        for (position, row) in (run.position..).zip(qkv.chunks_exact(3 * e)) {
            let (key, value) =
                (&row[e..2 * e][row_range(head, d)], &row[2 * e..][row_range(head, d)]);
            self.kernels.store(&mut cache, position, key, value);
        }
    }

    /// Attention of one head over at most [`MOST_QUERIES`] of a run's queries, those of its rows `tokens`.
    ///
    /// # Safety
    /// During the call nobody writes qkv or that head's cache, and nobody else uses the head's cells
    /// of these rows.
    unsafe fn attend_rows(
        &self,
        run: &Run,
        tokens: Range<usize>,
        layer: usize,
        head: usize,
        buffers: &mut AttentionScratch,
    ) {
        let (e, d) = (self.model.config().n_embd, self.scratch.head_size);
        let slope = self.model.slope(head).map(|slope| slope * LOG2_E);
        // SAFETY: the caller's promise.
        unsafe {
            let job = Attention {
                cache: self.caches[run.cache].head(self.arena, layer, head),
                queries: self.arena.read(self.scratch.qkv, run.row * 3 * e..run.end() * 3 * e),
                stride: 3 * e,
                columns: row_range(head, d),
                group: 1,
                tokens,
                position: run.position,
                window: None,
                scale: attention_scale(self.model, layer),
                bias: slope.as_ref().map(|slope| Alibi {
                    slopes: std::slice::from_ref(slope),
                    train_len: self.model.config().alibi_train_len,
                }),
            };
            let out = self.cells_from(self.scratch.attended, run.row, e);
            self.kernels.attend(&job, buffers, &out);
        }
    }

    fn attention_buffers(&self, worker: &Worker) -> AttentionScratch<'_> {
        let (s, index) = (self.scratch, worker.index());
        let padded = padded_head_size(s.head_size);
        let rows = row_range(index, MOST_QUERIES * padded);
        // SAFETY: the contract of a phase: the rows with the worker's index are its own.
        unsafe {
            AttentionScratch {
                queries: self.arena.write(s.queries, rows.clone()),
                queries_i8: self.arena.write(s.queries_i8, rows.clone()),
                scores: self.arena.write(s.scores, row_range(index, QUERY_BLOCK * SEGMENT)),
                sums: self.arena.write(s.sums, rows),
                part: self.arena.write(s.part, row_range(index, QUERY_BLOCK * padded)),
            }
        }
    }
}

/// Row `row` of the last pass after `ln_f` `[n_embd]`: the model's hidden state of that token.
pub(crate) fn hidden_state<'a>(
    model: &Model,
    kernels: &Kernels,
    arena: &'a mut Arena,
    scratch: &Scratch,
    row: usize,
) -> &'a [f32] {
    let e = model.config().n_embd;
    // SAFETY: the arena is borrowed exclusively, and the two regions are apart.
    let (x, normed) = unsafe {
        (arena.read(scratch.x, row_range(row, e)), arena.write(scratch.normed, row_range(0, e)))
    };
    kernels.layer_norm(x, &model.norm(&model.network().ln_f), normed);
    normed
}

/// What queries of a layer are multiplied by: the attention scale, in base 2.
fn attention_scale(model: &Model, layer: usize) -> f32 {
    let config = model.config();
    let mut scale = 1.0;
    if config.scale_attn_weights {
        let size = config.head_size() as f32;
        scale = 1.0 / if config.scale_qk_dot_by_d { size } else { size.sqrt() };
    }
    if config.scale_attn_by_inverse_layer_idx {
        scale /= (layer + 1) as f32;
    }
    scale * LOG2_E
}

/// Panels of a matrix, as the worker claims them: kernels take them two by two, or more at once.
fn claim_panels(panels: usize, worker: &Worker) -> impl Iterator<Item = Range<usize>> {
    let pairs = worker.claims(panels.div_ceil(2));
    pairs.map(move |pairs| 2 * pairs.start..panels.min(2 * pairs.end))
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
