//! The buffers of a pass.

use crate::error::Result;
use crate::format::Positions;
use crate::kernels::{MOST_QUERIES, QUERY_BLOCK, SEGMENT, padded_head_size, part_width};
use crate::memory::{Planner, Region};
use crate::model::Model;
use crate::program::Buffer;
use crate::quant::TileLayout;

/// Buffers of a pass over at most `rows` tokens by `workers`.
pub(crate) struct Buffers {
    pub(super) rows: usize,
    pub(super) workers: usize,
    pub(super) logits_rows: usize,
    /// Width of the rows of `normed`.
    pub(super) normed_width: usize,
    /// The residual stream `[rows, E]`.
    pub(super) residual: Region<f32>,
    /// A norm's output, a row for each worker `[workers, E or H D]`, whichever is more.
    pub(super) normed: Region<f32>,
    /// Queries, keys, values `[rows, (H + 2 K) D]`.
    pub(super) qkv: Region<f32>,
    /// Cosines and sines of rotated positions `[rows, bases, 2, pairs]`.
    pub(super) angles: Region<f32>,
    /// What the heads gathered, side by side `[rows, H D]`.
    pub(super) attended: Region<f32>,
    /// Inside the MLP `[rows, F]`.
    pub(super) inner: Region<f32>,
    /// What a norm after attention or the MLP reads `[rows, E]`; empty where there is no such norm.
    pub(super) branch: Region<f32>,
    /// What enters the next matrix `[rows or workers, padded inputs]`, whichever are more.
    pub(super) values: Region<i8>,
    /// Its scales `[rows or workers, groups]`.
    pub(super) scales: Region<f32>,
    /// Their zero-point corrections `[rows or workers, blocks]`.
    pub(super) corrections: Region<[i16; 2]>,
    /// `[logits rows, V]`.
    pub(super) logits: Region<f32>,
    /// The logarithm of each row's softmax denominator `[logits rows]`.
    pub(super) log_sums: Region<f64>,
    /// `[workers, MOST_QUERIES, padded head size]`, as the two others of this shape.
    pub(super) queries: Region<f32>,
    pub(super) queries_i8: Region<i8>,
    pub(super) sums: Region<f32>,
    /// `[workers, QUERY_BLOCK, SEGMENT]`.
    pub(super) scores: Region<f32>,
    /// `[workers, QUERY_BLOCK, padded head size]`.
    pub(super) part: Region<f32>,
    /// What the heads gathered in each segment `[segments, H, part_width]`; empty where attention never
    /// goes by segments.
    pub(super) parts: Region<f32>,
}

impl Buffers {
    /// Plans the buffers for passes of at most `rows` tokens, `logits_rows` of them with logits, in a context of
    /// `positions`.
    pub fn plan(
        planner: &mut Planner,
        model: &Model,
        positions: usize,
        (rows, logits_rows): (usize, usize),
        workers: usize,
    ) -> Result<Self> {
        let config = model.config();
        let (e, attention) = (config.n_embd, &config.attention);
        let head_size = padded_head_size(attention.head_size);
        let most = |f: fn(&TileLayout) -> usize| {
            model.program().matrices().map(|matrix| f(&matrix.tiles)).max().unwrap_or(0)
        };
        let queries = [workers, MOST_QUERIES, head_size];
        let quantized = rows.max(workers);
        let normed_width = e.max(attention.query_width());
        let angles = match &config.positions {
            Positions::Rope { pairs, factors } => factors.len() * 2 * pairs,
            _ => 0,
        };
        let segments = if attention.kv_heads.is_multiple_of(workers) {
            0
        } else {
            positions.div_ceil(SEGMENT)
        };
        let branch = if config.norm.place.is_after() { e } else { 0 };
        Ok(Self {
            rows,
            workers,
            logits_rows,
            normed_width,
            residual: planner.reserve(&[rows, e])?,
            normed: planner.reserve(&[workers, normed_width])?,
            qkv: planner.reserve(&[rows, attention.qkv_width()])?,
            angles: planner.reserve(&[rows, angles])?,
            attended: planner.reserve(&[rows, attention.query_width()])?,
            inner: planner.reserve(&[rows, config.mlp.inner])?,
            branch: planner.reserve(&[rows, branch])?,
            values: planner.reserve(&[quantized, most(TileLayout::padded_cols)])?,
            scales: planner.reserve(&[quantized, most(TileLayout::groups)])?,
            corrections: planner.reserve(&[quantized, most(TileLayout::blocks)])?,
            logits: planner.reserve(&[logits_rows, config.vocab_size])?,
            log_sums: planner.reserve(&[logits_rows])?,
            queries: planner.reserve(&queries)?,
            queries_i8: planner.reserve(&queries)?,
            sums: planner.reserve(&queries)?,
            scores: planner.reserve(&[workers, QUERY_BLOCK, SEGMENT])?,
            part: planner.reserve(&[workers, QUERY_BLOCK, head_size])?,
            parts: planner.reserve(&[
                segments,
                attention.heads,
                part_width(attention.head_size),
            ])?,
        })
    }

    /// The buffer that operations name.
    pub(super) fn region(&self, buffer: Buffer) -> Region<f32> {
        match buffer {
            Buffer::Residual => self.residual,
            Buffer::Qkv => self.qkv,
            Buffer::Attended => self.attended,
            Buffer::Inner => self.inner,
            Buffer::Branch => self.branch,
        }
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
