//! The buffers of a pass.

use crate::error::Result;
use crate::kernels::{MOST_QUERIES, QUERY_BLOCK, SEGMENT, padded_head_size};
use crate::memory::{Planner, Region};
use crate::model::{MatrixAt, Model};
use crate::quant::TileLayout;

/// Buffers of a pass over at most `rows` tokens.
pub(crate) struct Scratch {
    pub(super) rows: usize,
    pub(super) logits_rows: usize,
    pub(super) head_size: usize,
    /// Residual stream `[rows, n_embd]`.
    pub(super) x: Region<f32>,
    /// A layer norm's output, a row per worker `[workers, n_embd]`.
    pub(super) normed: Region<f32>,
    /// Query, key, value `[rows, 3 n_embd]`.
    pub(super) qkv: Region<f32>,
    /// Heads side by side `[rows, n_embd]`.
    pub(super) attended: Region<f32>,
    /// Inside the MLP `[rows, n_inner]`.
    pub(super) inner: Region<f32>,
    /// What enters the next matrix `[rows or workers, padded inputs]`, whichever are more.
    pub(super) values: Region<i8>,
    /// Its scales `[rows or workers, groups]`.
    pub(super) scales: Region<f32>,
    /// Where its int4 products start `[rows or workers, blocks]`.
    pub(super) starts: Region<[i16; 2]>,
    /// `[logits rows, vocab_size]`.
    pub(super) logits: Region<f32>,
    /// The logarithm of each row's softmax denominator `[logits rows]`.
    pub(super) log_sums: Region<f64>,
    /// Per worker `[workers, MOST_QUERIES, padded head size]`, as the two others of this shape.
    pub(super) queries: Region<f32>,
    pub(super) queries_i8: Region<i8>,
    pub(super) sums: Region<f32>,
    /// Per worker `[workers, QUERY_BLOCK, SEGMENT]`.
    pub(super) scores: Region<f32>,
    /// Per worker `[workers, QUERY_BLOCK, padded head size]`.
    pub(super) part: Region<f32>,
}

impl Scratch {
    /// Plans the buffers for passes of at most `rows` tokens, `logits_rows` of them with logits.
    pub fn plan(
        planner: &mut Planner,
        model: &Model,
        rows: usize,
        logits_rows: usize,
        workers: usize,
    ) -> Result<Self> {
        let config = model.config();
        let (e, head_size) = (config.n_embd, config.head_size());
        let most = |f: fn(&TileLayout) -> usize| matrices(model).map(|m| f(&m.tiles)).max();
        let groups = most(TileLayout::groups).unwrap_or(0);
        let blocks = most(TileLayout::blocks).unwrap_or(0);
        let padded_cols = most(TileLayout::padded_cols).unwrap_or(0);
        let queries = [workers, MOST_QUERIES, padded_head_size(head_size)];
        let quantized = rows.max(workers);
        Ok(Self {
            rows,
            logits_rows,
            head_size,
            x: planner.reserve(&[rows, e])?,
            normed: planner.reserve(&[workers, e])?,
            qkv: planner.reserve(&[rows, 3 * e])?,
            attended: planner.reserve(&[rows, e])?,
            inner: planner.reserve(&[rows, config.n_inner])?,
            values: planner.reserve(&[quantized, padded_cols])?,
            scales: planner.reserve(&[quantized, groups])?,
            starts: planner.reserve(&[quantized, blocks])?,
            logits: planner.reserve(&[logits_rows, config.vocab_size])?,
            log_sums: planner.reserve(&[logits_rows])?,
            queries: planner.reserve(&queries)?,
            queries_i8: planner.reserve(&queries)?,
            sums: planner.reserve(&queries)?,
            scores: planner.reserve(&[workers, QUERY_BLOCK, SEGMENT])?,
            part: planner.reserve(&[workers, QUERY_BLOCK, padded_head_size(head_size)])?,
        })
    }

    /// The most tokens of a pass.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The most tokens of a pass whose logits are kept.
    pub fn logits_rows(&self) -> usize {
        self.logits_rows
    }

    /// Where the logits lie.
    pub fn logits(&self) -> Region<f32> {
        self.logits
    }

    /// Where the logarithms of the softmax denominators lie.
    pub fn log_sums(&self) -> Region<f64> {
        self.log_sums
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
