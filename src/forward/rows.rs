//! Operations that go by rows: embedding, norms, quantizing, rotating.

use core::ops::Range;

use super::{Pass, overlap, row_range};
use crate::format::Positions;
use crate::kernels::{EmbeddingRow, QuantizedRowMut};
use crate::model::Norm;
use crate::program::{Buffer, NormAt};
use crate::quant::TileLayout;
use crate::threads::Worker;

impl Pass<'_> {
    /// Token and position embeddings -> the residual stream; and the angles of rotated positions.
    pub(super) fn embed(&self, worker: &Worker) {
        let e = self.model.config().n_embd;
        let wte = self.model.weights(&self.model.program().wte);
        let scale = self.model.config().embeddings_scale;
        let share = worker.share(self.tokens.len());
        for span in self.spans {
            for t in overlap(&share, &span.rows()) {
                let position = span.position + t - span.row;
                let learned = self.model.position(position);
                let row = EmbeddingRow::new(wte, self.tokens[t] as usize, learned, scale);
                // SAFETY: the contract of a phase: row t of the residual stream is this worker's.
                let x = unsafe { self.arena.write(self.buffers.residual, row_range(t, e)) };
                self.kernels.embed(&row, x);
                self.compute_angles(t, position);
            }
        }
    }

    /// Cosines and sines of a row's position, for each base `[bases, 2, pairs]`. The row is the worker's.
    fn compute_angles(&self, t: usize, position: usize) {
        let Positions::Rope { pairs, factors } = &self.model.config().positions else { return };
        let row = row_range(t, factors.len() * 2 * pairs);
        // SAFETY: the contract of a phase: row t is this worker's.
        let angles = unsafe { self.arena.write(self.buffers.angles, row) };
        let bases = angles.chunks_exact_mut(2 * pairs).zip(factors);
        let frequencies = self.model.frequencies().chunks_exact(*pairs);
        let position = u32::try_from(position).expect("a context has at most 2^24 positions");
        for ((angles, &factor), frequencies) in bases.zip(frequencies) {
            let angles = angles.split_at_mut(*pairs);
            self.kernels.angles(position, frequencies, factor, angles);
        }
    }

    /// The first `rows` rows of a buffer, through a norm if there is one -> quantized.
    pub(super) fn quantize(
        &self,
        from: Buffer,
        norm: Option<&NormAt>,
        tiles: &TileLayout,
        rows: usize,
        worker: &Worker,
    ) {
        let norm = norm.map(|norm| self.model.norm(norm));
        let (rows, offset) = self.rows_to_quantize(rows, worker);
        for t in rows {
            // SAFETY: the contract of a phase: nobody else writes this row in it.
            let x =
                unsafe { self.arena.read(self.buffers.region(from), row_range(t, tiles.cols())) };
            self.quantize_row(x, norm.as_ref(), tiles, t + offset, worker);
        }
    }

    /// The rows whose logits are wanted -> final norm -> quantized for the head, as the first rows.
    pub(super) fn norm_f(&self, worker: &Worker) {
        let program = self.model.program();
        let (e, norm) = (self.model.config().n_embd, self.model.norm(&program.ln_f));
        let (rows, offset) = self.rows_to_quantize(self.logits_rows(), worker);
        for (from, to) in self.wanted_rows(rows) {
            let from = if self.narrows() { to } else { from };
            // SAFETY: the contract of a phase: nobody writes the residual stream in it.
            let x = unsafe { self.arena.read(self.buffers.residual, row_range(from, e)) };
            self.quantize_row(x, Some(&norm), &program.head.tiles, to + offset, worker);
        }
    }

    /// Rows that the worker quantizes, and how far after them their quantized rows lie.
    fn rows_to_quantize(&self, rows: usize, worker: &Worker) -> (Range<usize>, usize) {
        if self.is_one_row() { (0..rows, worker.index()) } else { (worker.share(rows), 0) }
    }

    /// A row, through a norm if there is one -> quantized row `to`, which is the worker's in this phase.
    fn quantize_row(
        &self,
        x: &[f32],
        norm: Option<&Norm>,
        tiles: &TileLayout,
        to: usize,
        worker: &Worker,
    ) {
        let b = self.buffers;
        // SAFETY: the contract of a phase: the quantized row `to` is this worker's.
        let out = unsafe {
            QuantizedRowMut {
                values: self.arena.write(b.values, row_range(to, tiles.padded_cols())),
                scales: self.arena.write(b.scales, row_range(to, tiles.groups())),
                corrections: self.arena.write(b.corrections, row_range(to, tiles.blocks())),
            }
        };
        match norm {
            None => self.kernels.quantize(x, tiles.group_size(), out),
            Some(norm) => {
                // SAFETY: no slice of an earlier call is left.
                let normed = unsafe { self.normed(x, norm, worker) };
                self.kernels.quantize(normed, tiles.group_size(), out);
            }
        }
    }

    /// The norm of `x`, in the worker's row of `normed`.
    ///
    /// # Safety
    /// The slice of an earlier call for this worker is not used any more.
    #[allow(clippy::mut_from_ref, reason = "the contract makes the row exclusive")]
    unsafe fn normed(&self, x: &[f32], norm: &Norm, worker: &Worker) -> &mut [f32] {
        let start = worker.index() * self.buffers.normed_width;
        // SAFETY: the contract of a phase: the row with the worker's index is its own; and the caller's
        // promise.
        let normed = unsafe { self.arena.write(self.buffers.normed, start..start + x.len()) };
        norm.apply(self.kernels, x, normed);
        normed
    }

    /// The norm of the branch, times `scale`, is added to the residual stream, of the first `rows` rows.
    pub(super) fn add_normed(&self, norm: &NormAt, scale: f32, rows: usize, worker: &Worker) {
        let (e, norm) = (self.model.config().n_embd, self.model.norm(norm));
        for t in worker.share(rows) {
            // SAFETY: the contract of a phase: nobody writes the branch in it, and row t of the residual
            // stream is this worker's.
            let (branch, x) = unsafe {
                let branch = self.arena.read(self.buffers.branch, row_range(t, e));
                (branch, self.arena.write(self.buffers.residual, row_range(t, e)))
            };
            // SAFETY: no slice of an earlier call is left.
            let normed = unsafe { self.normed(branch, &norm, worker) };
            normed.iter_mut().for_each(|y| *y *= scale);
            self.kernels.add(x, normed);
        }
    }

    /// Queries and keys of all rows -> the norms of all heads' together, in place.
    pub(super) fn norm_queries_and_keys(&self, query: &NormAt, key: &NormAt, worker: &Worker) {
        let attention = &self.model.config().attention;
        let (q, k) = (attention.query_width(), attention.kv_width());
        for t in worker.share(self.tokens.len()) {
            let start = t * attention.qkv_width();
            // SAFETY: the contract of a phase: row t of qkv is this worker's.
            let row = unsafe { self.arena.write(self.buffers.qkv, start..start + q + k) };
            let (queries, keys) = row.split_at_mut(q);
            self.norm_in_place(queries, query, worker);
            self.norm_in_place(keys, key, worker);
        }
    }

    fn norm_in_place(&self, x: &mut [f32], norm: &NormAt, worker: &Worker) {
        // SAFETY: no slice of an earlier call is left.
        x.copy_from_slice(unsafe { self.normed(x, &self.model.norm(norm), worker) });
    }

    /// Queries and keys of all rows -> normed and rotated, in place.
    pub(super) fn rotate_rows(
        &self,
        norms: Option<&(NormAt, NormAt)>,
        base: Option<usize>,
        worker: &Worker,
    ) {
        let attention = &self.model.config().attention;
        for t in worker.share(self.tokens.len()) {
            for head in 0..attention.heads + attention.kv_heads {
                // SAFETY: the contract of a phase: row t of qkv is this worker's.
                unsafe { self.rotate_head(t, head, norms, base, worker) };
            }
        }
    }

    /// One query or key, `head` counting queries first -> normed and rotated, in place.
    ///
    /// # Safety
    /// Nobody else uses this head of row `t` of qkv during the call, and nobody writes the row's angles.
    pub(super) unsafe fn rotate_head(
        &self,
        t: usize,
        head: usize,
        norms: Option<&(NormAt, NormAt)>,
        base: Option<usize>,
        worker: &Worker,
    ) {
        let attention = &self.model.config().attention;
        let d = attention.head_size;
        let start = t * attention.qkv_width() + head * d;
        // SAFETY: the caller's promise.
        let x = unsafe { self.arena.write(self.buffers.qkv, start..start + d) };
        if let Some((query, key)) = norms {
            self.norm_in_place(x, if head < attention.heads { query } else { key }, worker);
        }
        let (Some(base), Positions::Rope { pairs, factors }) =
            (base, &self.model.config().positions)
        else {
            return;
        };
        let row = t * factors.len() + base;
        // SAFETY: the caller's promise.
        let angles = unsafe { self.arena.read(self.buffers.angles, row_range(row, 2 * pairs)) };
        let (cos, sin) = angles.split_at(*pairs);
        self.kernels.rotate(x, cos, sin);
    }

    /// The wanted rows of the residual stream and of what the heads gathered -> the first rows.
    pub(super) fn narrow(&self, worker: &Worker) {
        if worker.index() != 0 {
            return;
        }
        let config = self.model.config();
        for (buffer, width) in [
            (self.buffers.residual, config.n_embd),
            (self.buffers.attended, config.attention.query_width()),
        ] {
            // SAFETY: the contract of a phase: only this worker uses the buffers in it.
            let rows = unsafe { self.arena.write(buffer, 0..self.tokens.len() * width) };
            // No row goes to where a later one still is.
            for (from, to) in self.wanted_rows(0..self.logits_rows()) {
                rows.copy_within(row_range(from, width), to * width);
            }
        }
    }
}
