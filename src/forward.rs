//! The forward pass (`docs/numbers.md` section 9), phase by phase.
//!
//! A pass evaluates a chunk of tokens: embedding, then per layer
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
//! and at last `ln_f` and the head for the tokens whose logits are wanted. The workers meet after
//! every phase. **The contract of a phase**, on which every access to the arena here rests: a worker
//! writes only its own share of what the phase writes (shares are disjoint), and no worker reads in a
//! phase what another may write in it.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use crate::error::Result;
use crate::kernels::{
    Attention, AttentionScratch, CellWriter, EmbeddingRow, Epilogue, Kernels, LayerNorm, Matmul,
    QUERY_BLOCK, QuantizedRowMut, QuantizedRows, SEGMENT, padded_head_size,
};
use crate::kv_cache::KvCache;
use crate::memory::{Arena, Planner, Region};
use crate::model::{LinearAt, MatrixAt, Model};
use crate::quant::TileLayout;
use crate::session::Cancel;
use crate::threads::{Executor, Worker};

/// Buffers of a pass over at most `chunk` tokens.
pub(crate) struct Scratch {
    chunk: usize,
    all_logits: bool,
    head_size: usize,
    /// Residual stream `[chunk, n_embd]`.
    x: Region<f32>,
    /// A layer norm's output, a row per worker `[workers, n_embd]`.
    normed: Region<f32>,
    /// Query, key, value `[chunk, 3 n_embd]`.
    qkv: Region<f32>,
    /// Heads side by side `[chunk, n_embd]`.
    attended: Region<f32>,
    /// Inside the MLP `[chunk, n_inner]`.
    inner: Region<f32>,
    /// What enters the next matrix `[chunk, padded inputs]`.
    values: Region<i8>,
    /// Its scales `[chunk, groups]`.
    scales: Region<f32>,
    /// Where its int4 products start `[chunk, blocks]`.
    starts: Region<[i16; 2]>,
    /// `[logits rows, vocab_size]`.
    logits: Region<f32>,
    /// Per worker `[workers, QUERY_BLOCK, padded head size]`, as the three others of this shape.
    queries: Region<f32>,
    queries_i8: Region<i8>,
    /// Per worker `[workers, QUERY_BLOCK, SEGMENT]`.
    scores: Region<f32>,
    sums: Region<f32>,
    part: Region<f32>,
}

impl Scratch {
    /// Plans the buffers.
    pub fn plan(
        planner: &mut Planner,
        model: &Model,
        chunk: usize,
        all_logits: bool,
        workers: usize,
    ) -> Result<Self> {
        let logits_rows = if all_logits { chunk } else { 1 };
        let config = model.config();
        let (e, head_size) = (config.n_embd, config.head_size());
        let most = |f: fn(&TileLayout) -> usize| matrices(model).map(|m| f(&m.tiles)).max();
        let groups = most(TileLayout::groups).unwrap_or(0);
        let blocks = most(TileLayout::blocks).unwrap_or(0);
        let padded_cols = most(TileLayout::padded_cols).unwrap_or(0);
        let block = [workers, QUERY_BLOCK, padded_head_size(head_size)];
        Ok(Self {
            chunk,
            all_logits,
            head_size,
            x: planner.reserve(&[chunk, e])?,
            normed: planner.reserve(&[workers, e])?,
            qkv: planner.reserve(&[chunk, 3 * e])?,
            attended: planner.reserve(&[chunk, e])?,
            inner: planner.reserve(&[chunk, config.n_inner])?,
            values: planner.reserve(&[chunk, padded_cols])?,
            scales: planner.reserve(&[chunk, groups])?,
            starts: planner.reserve(&[chunk, blocks])?,
            logits: planner.reserve(&[logits_rows, config.vocab_size])?,
            queries: planner.reserve(&block)?,
            queries_i8: planner.reserve(&block)?,
            scores: planner.reserve(&[workers, QUERY_BLOCK, SEGMENT])?,
            sums: planner.reserve(&block)?,
            part: planner.reserve(&block)?,
        })
    }

    /// The most tokens of a pass.
    pub fn chunk(&self) -> usize {
        self.chunk
    }

    /// Whether logits of every token are kept.
    pub fn all_logits(&self) -> bool {
        self.all_logits
    }

    /// How many rows of logits an evaluation's last pass gives, if the evaluation has `tokens`.
    pub fn logits_rows_of(&self, tokens: usize) -> usize {
        if self.all_logits { (tokens - 1) % self.chunk + 1 } else { 1 }
    }

    /// Where the logits lie.
    pub fn logits(&self) -> Region<f32> {
        self.logits
    }
}

/// Every matrix that a quantized row enters.
fn matrices(model: &Model) -> impl Iterator<Item = &MatrixAt> {
    let network = model.network();
    let of_layers = network.layers.iter().flat_map(|layer| {
        [&layer.c_attn, &layer.attn_proj, &layer.c_fc, &layer.mlp_proj].map(|linear| &linear.matrix)
    });
    of_layers.chain([&network.head])
}

/// One chunk of tokens to evaluate.
pub(crate) struct Pass<'a> {
    pub model: &'a Model,
    pub kernels: &'static Kernels,
    pub arena: &'a Arena,
    pub cache: &'a KvCache,
    pub scratch: &'a Scratch,
    /// At most [`Scratch::chunk`], each in the vocabulary.
    pub tokens: &'a [u32],
    /// Position of the first token; all of them lie within the cache.
    pub position: usize,
    /// For how many of the last tokens logits are computed.
    pub logits_rows: usize,
    /// Once set, the rest is left out and what was computed is worth nothing.
    pub cancel: &'a Cancel,
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

/// A layer's phases up to the activation, and those after the gate, which not every MLP has.
const TO_ACTIVATION: [Phase; 8] = [
    Phase::Norm1,
    Phase::Attn,
    Phase::Store,
    Phase::Attend,
    Phase::QuantizeAttended,
    Phase::AttnProj,
    Phase::Norm2,
    Phase::Activate,
];
const AFTER_GATE: [Phase; 2] = [Phase::QuantizeInner, Phase::MlpProj];

/// How many phases a layer has.
fn phases_per_layer(gated: bool) -> usize {
    TO_ACTIVATION.len() + usize::from(gated) + AFTER_GATE.len()
}

/// The phase of that number in a layer.
fn phase_of_layer(number: usize, gated: bool) -> Phase {
    match number.checked_sub(TO_ACTIVATION.len()) {
        None => TO_ACTIVATION[number],
        Some(0) if gated => Phase::Gate,
        Some(rest) => AFTER_GATE[rest - usize::from(gated)],
    }
}

/// Runs the pass: afterwards the cache holds the tokens' keys and values, and the first
/// `logits_rows` rows of the logits are those of the last tokens.
pub(crate) fn run(pass: &Pass, executor: &Executor) {
    let gated = pass.model.config().gated_mlp;
    let per_layer = phases_per_layer(gated);
    let of_layers = 1 + per_layer * pass.model.network().layers.len();
    let of_logits = if pass.logits_rows > 0 { 2 } else { 0 };
    executor.run_phases(of_layers + of_logits, &|phase, worker| match phase {
        _ if pass.cancel.is_set() => {}
        0 => pass.embed(worker),
        phase if phase < of_layers => {
            let (layer, number) = ((phase - 1) / per_layer, (phase - 1) % per_layer);
            pass.layer(layer, phase_of_layer(number, gated), worker);
        }
        phase if phase == of_layers => pass.norm_f(worker),
        _ => pass.head(worker),
    });
}

impl Pass<'_> {
    fn layer(&self, index: usize, phase: Phase, worker: &Worker) {
        let layer = &self.model.network().layers[index];
        let s = self.scratch;
        match phase {
            Phase::Norm1 => self.norm(&self.model.norm(&layer.ln_1), &layer.c_attn, worker),
            Phase::Attn => self.matmul(&layer.c_attn, Epilogue::Store, s.qkv, worker),
            Phase::Store => self.store(index, worker),
            Phase::Attend => self.attend(index, worker),
            Phase::QuantizeAttended => self.quantize(s.attended, &layer.attn_proj, worker),
            Phase::AttnProj => self.matmul(&layer.attn_proj, Epilogue::AddTo, s.x, worker),
            Phase::Norm2 => self.norm(&self.model.norm(&layer.ln_2), &layer.c_fc, worker),
            Phase::Activate => {
                let activation = Epilogue::Activate(self.model.config().activation);
                let activated = layer.gate.as_ref().unwrap_or(&layer.c_fc);
                self.matmul(activated, activation, s.inner, worker);
            }
            Phase::Gate => self.matmul(&layer.c_fc, Epilogue::MultiplyTo, s.inner, worker),
            Phase::QuantizeInner => self.quantize(s.inner, &layer.mlp_proj, worker),
            Phase::MlpProj => self.matmul(&layer.mlp_proj, Epilogue::AddTo, s.x, worker),
        }
    }

    /// Token and position embeddings -> x.
    fn embed(&self, worker: &Worker) {
        let e = self.model.config().n_embd;
        let wte = self.model.weights(&self.model.network().wte);
        let scale = self.model.config().embeddings_scale;
        for t in worker.share(self.tokens.len()) {
            let position = self.model.position(self.position + t);
            let row = EmbeddingRow::new(wte, self.tokens[t] as usize, position, scale);
            // SAFETY: the contract of a phase: row t of x is this worker's.
            let x = unsafe { self.arena.write(self.scratch.x, row_range(t, e)) };
            self.kernels.embed(&row, x);
        }
    }

    /// x -> layer norm -> quantized for `next`.
    fn norm(&self, norm: &LayerNorm, next: &LinearAt, worker: &Worker) {
        for t in worker.share(self.tokens.len()) {
            self.norm_row(norm, t, &next.matrix.tiles, t, worker);
        }
    }

    /// The last rows of x -> ln_f -> quantized for the head, as the first rows.
    fn norm_f(&self, worker: &Worker) {
        let network = self.model.network();
        let norm = self.model.norm(&network.ln_f);
        let first = self.tokens.len() - self.logits_rows;
        for row in worker.share(self.logits_rows) {
            self.norm_row(&norm, first + row, &network.head.tiles, row, worker);
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

    /// A buffer's rows -> quantized for `next`.
    fn quantize(&self, from: Region<f32>, next: &LinearAt, worker: &Worker) {
        let tiles = &next.matrix.tiles;
        for t in worker.share(self.tokens.len()) {
            // SAFETY: the contract of a phase: nobody writes this buffer in it.
            let row = unsafe { self.arena.read(from, row_range(t, tiles.cols())) };
            self.quantize_row(row, tiles, t);
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

    /// Quantized rows times a matrix, into a buffer as wide as the matrix has rows.
    fn matmul(&self, linear: &LinearAt, epilogue: Epilogue, to: Region<f32>, worker: &Worker) {
        let bias = Some(self.model.vector(&linear.bias));
        self.product(&linear.matrix, bias, epilogue, self.tokens.len(), to, worker);
    }

    /// Quantized rows times the head -> logits.
    fn head(&self, worker: &Worker) {
        let head = &self.model.network().head;
        let logits = self.scratch.logits;
        let epilogue = match self.model.config().logits_scale {
            1.0 => Epilogue::Store,
            scale => Epilogue::Scale(scale),
        };
        self.product(head, None, epilogue, self.logits_rows, logits, worker);
    }

    fn product(
        &self,
        matrix: &MatrixAt,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        rows: usize,
        to: Region<f32>,
        worker: &Worker,
    ) {
        let tiles = &matrix.tiles;
        let s = self.scratch;
        // SAFETY: the contract of a phase: nobody writes quantized rows in it.
        let input = unsafe {
            QuantizedRows {
                values: self.arena.read(s.values, 0..rows * tiles.padded_cols()),
                scales: self.arena.read(s.scales, 0..rows * tiles.groups()),
                starts: self.arena.read(s.starts, 0..rows * tiles.blocks()),
                padded_cols: tiles.padded_cols(),
                groups: tiles.groups(),
                blocks: tiles.blocks(),
            }
        };
        let job = Matmul { weights: self.model.weights(matrix), input, bias, epilogue };
        let (cells, len) = self.arena.pointer(to);
        // SAFETY: the arena outlives the call, and in this phase the buffer is used through such
        // writers only, each worker naming the rows of its own share of panels.
        unsafe {
            let out = CellWriter::from_raw(cells, len, tiles.rows());
            self.kernels.matmul(&job, worker.share(tiles.panels()), &out);
        }
    }

    /// Keys and values of the chunk -> cache.
    fn store(&self, layer: usize, worker: &Worker) {
        let (e, d) = (self.model.config().n_embd, self.scratch.head_size);
        for head in worker.share(self.model.config().n_head) {
            // SAFETY: the contract of a phase: this head's cache is this worker's, and nobody writes
            // qkv in it.
            let (mut cache, qkv) = unsafe {
                let cache = self.cache.head_mut(self.arena, layer, head);
                (cache, self.arena.read(self.scratch.qkv, 0..self.tokens.len() * 3 * e))
            };
            for (t, row) in qkv.chunks_exact(3 * e).enumerate() {
                let (key, value) =
                    (&row[e..2 * e][row_range(head, d)], &row[2 * e..][row_range(head, d)]);
                self.kernels.store(&mut cache, self.position + t, key, value);
            }
        }
    }

    /// Queries and cache -> heads side by side.
    fn attend(&self, layer: usize, worker: &Worker) {
        let config = self.model.config();
        let (e, d, tokens) = (config.n_embd, self.scratch.head_size, self.tokens.len());
        let (cells, len) = self.arena.pointer(self.scratch.attended);
        // SAFETY: the contract of a phase: nobody writes qkv in it; the arena outlives the call, and
        // `attended` is used through such writers only, each worker naming its own items' cells.
        let (queries, out) = unsafe {
            let queries = self.arena.read(self.scratch.qkv, 0..tokens * 3 * e);
            (queries, CellWriter::from_raw(cells, len, e))
        };
        let mut buffers = self.attention_buffers(worker);
        let blocks = tokens.div_ceil(QUERY_BLOCK);
        // Head by head, so that a worker's queries share one head's cache.
        for item in worker.share(config.n_head * blocks) {
            let (head, first) = (item / blocks, item % blocks * QUERY_BLOCK);
            let job = Attention {
                // SAFETY: the contract of a phase: nobody writes the cache in it.
                cache: unsafe { self.cache.head(self.arena, layer, head) },
                queries,
                stride: 3 * e,
                columns: row_range(head, d),
                tokens: first..tokens.min(first + QUERY_BLOCK),
                position: self.position,
                scale: attention_scale(self.model, layer),
                slope: self.model.slope(head).map(|slope| slope * LOG2_E),
            };
            // SAFETY: the cells are this worker's, since an item is one worker's.
            unsafe { self.kernels.attend(&job, &mut buffers, &out) };
        }
    }

    fn attention_buffers(&self, worker: &Worker) -> AttentionScratch<'_> {
        let (s, index) = (self.scratch, worker.index());
        let block = row_range(index, QUERY_BLOCK * padded_head_size(s.head_size));
        // SAFETY: the contract of a phase: the rows with the worker's index are its own.
        unsafe {
            AttentionScratch {
                queries: self.arena.write(s.queries, block.clone()),
                queries_i8: self.arena.write(s.queries_i8, block.clone()),
                scores: self.arena.write(s.scores, row_range(index, QUERY_BLOCK * SEGMENT)),
                sums: self.arena.write(s.sums, block.clone()),
                part: self.arena.write(s.part, block),
            }
        }
    }
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

/// The values of row `row` in rows of `width`.
fn row_range(row: usize, width: usize) -> Range<usize> {
    row * width..(row + 1) * width
}
