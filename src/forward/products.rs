//! Operations that go by panels of a matrix: products, the head, and what is made of logits.

use core::ops::Range;

use super::{Pass, row_range};
use crate::kernels::{CellWriter, Epilogue, Matmul, QuantizedRows};
use crate::log_softmax::log_sum_exp_by;
use crate::memory::Region;
use crate::program::{Buffer, LinearAt, MatrixAt};
use crate::quant::PANEL_ROWS;
use crate::threads::Worker;

/// A matrix product: what is multiplied with the quantized rows, and where it goes.
struct Product<'a> {
    matrix: &'a MatrixAt,
    bias: Option<&'a [f32]>,
    epilogue: Epilogue,
    /// Rows as wide as the matrix has rows.
    to: Region<f32>,
    /// The row that takes the first quantized row's.
    to_row: usize,
}

impl Pass<'_> {
    /// The first `rows` quantized rows times a matrix, to a buffer as wide as the matrix has rows. If
    /// `narrow`, without queries that nobody wants.
    pub(super) fn matmul(
        &self,
        linear: &LinearAt,
        epilogue: Epilogue,
        to: Buffer,
        narrow: bool,
        rows: usize,
        worker: &Worker,
    ) {
        let product = Product {
            matrix: &linear.matrix,
            bias: linear.bias.as_ref().map(|bias| self.model.vector(bias)),
            epilogue,
            to: self.buffers.region(to),
            to_row: 0,
        };
        if !(narrow && to == Buffer::Qkv) {
            return self.product(&product, rows, worker);
        }
        // Panels of queries only, and the first row whose query is wanted. Those of other spans after
        // it are computed, too, but a prompt is one span.
        let queries = self.model.config().attention.query_width() / PANEL_ROWS;
        let first = self.wanted_rows(0..self.logits_rows()).next().map_or(rows, |(from, _)| from);
        for panels in claim_panels(linear.matrix.tiles.panels(), worker) {
            let middle = queries.clamp(panels.start, panels.end);
            self.multiply(&product, first..rows, panels.start..middle, worker);
            self.multiply(&product, 0..rows, middle..panels.end, worker);
        }
    }

    /// Quantized rows times the head -> logits.
    pub(super) fn head(&self, worker: &Worker) {
        if self.is_one_row() {
            self.norm_f(worker);
        }
        let epilogue = match self.model.config().logits_scale {
            1.0 => Epilogue::Store,
            scale => Epilogue::Scale(scale),
        };
        let (matrix, to) = (&self.model.program().head, self.buffers.logits);
        let product = Product { matrix, bias: None, epilogue, to, to_row: self.logits_row };
        self.product(&product, self.logits_rows(), worker);
    }

    /// Logits -> logarithms of their softmax denominators.
    pub(super) fn sum_logits(&self, worker: &Worker) {
        let vocab_size = self.model.config().vocab_size;
        for row in worker.share(self.logits_rows()) {
            let row = self.logits_row + row;
            // SAFETY: the contract of a phase: nobody writes logits in it, and this row's sum is this
            // worker's.
            let (logits, sum) = unsafe {
                let logits = self.arena.read(self.buffers.logits, row_range(row, vocab_size));
                (logits, self.arena.write(self.buffers.log_sums, row_range(row, 1)))
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
        let b = self.buffers;
        let first = rows.start + if self.is_one_row() { worker.index() } else { 0 };
        let of_rows = |width: usize| first * width..(first + rows.len()) * width;
        // SAFETY: the contract of a phase: nobody writes these quantized rows in it, or this worker
        // alone, which has done so.
        let input = unsafe {
            QuantizedRows {
                values: self.arena.read(b.values, of_rows(tiles.padded_cols())),
                scales: self.arena.read(b.scales, of_rows(tiles.groups())),
                corrections: self.arena.read(b.corrections, of_rows(tiles.blocks())),
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
    pub(super) unsafe fn cells_from(
        &self,
        buffer: Region<f32>,
        first: usize,
        width: usize,
    ) -> CellWriter<'_> {
        let (cells, len) = self.arena.pointer(buffer);
        assert!(first * width <= len, "outside the buffer");
        // SAFETY: the assertion keeps the rest inside the buffer, and the arena outlives the writer;
        // the caller promises the rest.
        unsafe { CellWriter::from_raw(cells.add(first * width), len - first * width, width) }
    }
}

/// Panels of a matrix, as the worker claims them: kernels take them two by two, or more at once.
fn claim_panels(panels: usize, worker: &Worker) -> impl Iterator<Item = Range<usize>> {
    let pairs = worker.claims(panels.div_ceil(2));
    pairs.map(move |pairs| 2 * pairs.start..panels.min(2 * pairs.end))
}
