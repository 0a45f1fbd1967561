//! One tensor of a checkpoint: decoded whole, or by rows as a kernel uses them.

use std::ops::Range;

use super::error::{Error, Result};
use super::storage::MappedFile;
use crate::dtype::Dtype;

/// What the checkpoint knows of a tensor after its check against the configuration.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// The canonical name.
    pub name: String,
    /// As stored, row-major; as used, if several stored tensors make it.
    pub shape: Vec<usize>,
    /// As used, row-major: a linear layer's is `[out, in]`.
    pub used: Vec<usize>,
    /// Whether it is stored `[in, out]` but used as `[out, in]`; only of plain types and one segment.
    pub transposed: bool,
    /// What is added to every element.
    pub offset: f32,
    /// The stored tensors whose rows, or elements of a vector, make it, in order.
    pub segments: Vec<Segment>,
}

/// A stored tensor, or some of its rows.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// The name in the file, for messages.
    pub stored_name: String,
    pub dtype: Dtype,
    /// As stored, row-major, of these rows.
    pub shape: Vec<usize>,
    /// Rows of the stored tensor before these.
    pub skipped: usize,
    /// In which order the rows stand.
    pub order: Order,
    /// Which of the checkpoint's files.
    pub file: usize,
    /// The bytes in that file; their number agrees with shape and type.
    pub bytes: Range<usize>,
}

/// In which order rows stand that are used head by head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As they are used.
    Plain,
    /// Of each head, rows `i` and `i + head_size / 2` side by side.
    Interleaved { head_size: usize },
    /// Query, key and value of each head side by side.
    ByHead { heads: usize, head_size: usize },
}

impl Order {
    /// Where the row stands that is used as number `row`.
    pub fn place(self, row: usize) -> usize {
        match self {
            Self::Plain => row,
            Self::Interleaved { head_size } => {
                let (head, row) = (row / head_size, row % head_size);
                let (half, i) = (row / (head_size / 2), row % (head_size / 2));
                head * head_size + 2 * i + half
            }
            Self::ByHead { heads, head_size } => {
                let (kind, row) = (row / (heads * head_size), row % (heads * head_size));
                let (head, i) = (row / head_size, row % head_size);
                (3 * head + kind) * head_size + i
            }
        }
    }
}

impl Segment {
    /// Rows, or elements of a vector.
    fn rows(&self) -> usize {
        self.shape[0]
    }

    fn columns(&self) -> usize {
        self.shape.get(1).copied().unwrap_or(1)
    }

    fn byte_range(&self, start: usize, elements: usize) -> Range<usize> {
        let (base, dtype) = (self.bytes.start, self.dtype);
        let bytes = |elements| dtype.bytes(elements).expect("inside of a range that is checked");
        base + bytes(start)..base + bytes(start + elements)
    }

    /// Keeps only these rows; `None` if they are no whole blocks.
    pub fn cut(&mut self, rows: Range<usize>) -> Option<()> {
        let columns = self.columns();
        let start = self.dtype.bytes(rows.start * columns)?;
        let end = self.dtype.bytes(rows.end * columns)?;
        self.bytes = self.bytes.start + start..self.bytes.start + end;
        self.skipped += rows.start;
        self.shape[0] = rows.len();
        Some(())
    }
}

/// Elements decoded before their pages are given back, when a tensor is read front to back. A whole
/// number of blocks of every type.
const CHUNK: usize = 1 << 20;
/// Side of the square tile that a transposed read goes through: its 16 KiB stay in the L1 cache,
/// and one of its rows is whole cache lines of the file.
const TILE: usize = 64;

/// A handle on one tensor. It can be shared between threads that each read some rows; the memory
/// that the mapped files take is given back at the latest when the handle is dropped.
#[derive(Debug)]
pub struct Tensor<'a> {
    info: &'a TensorInfo,
    files: &'a [MappedFile],
}

impl<'a> Tensor<'a> {
    pub(super) fn new(info: &'a TensorInfo, files: &'a [MappedFile]) -> Self {
        Self { info, files }
    }

    /// The canonical name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The type of the stored elements; of several stored tensors, that of the first.
    pub fn dtype(&self) -> Dtype {
        self.info.segments[0].dtype
    }

    /// Bytes it takes in the files.
    pub fn stored_bytes(&self) -> u64 {
        self.info.segments.iter().map(|segment| segment.bytes.len() as u64).sum()
    }

    /// The shape as stored, row-major; that as used, if several stored tensors make it.
    pub fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    /// Rows of the tensor as used: outputs of a linear layer, entries of a table; 1 for a vector.
    pub fn rows(&self) -> usize {
        match self.info.used[..] {
            [rows, _] => rows,
            _ => 1,
        }
    }

    /// Columns of the tensor as used: inputs of a linear layer, the width of a table or vector.
    pub fn columns(&self) -> usize {
        self.info.used.last().copied().unwrap_or(1)
    }

    /// All elements: in stored order if one stored tensor makes it, else as used.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for the first NaN or infinity.
    pub fn read_f32(&self) -> Result<Vec<f32>> {
        if self.info.transposed {
            let mut values = vec![0.0; self.rows() * self.columns()];
            self.read_stored(&self.info.segments[0], 0, &mut values)?;
            return Ok(values);
        }
        self.read_rows(0..self.rows())
    }

    /// Rows `rows` of the tensor as used: `[rows.len(), columns]`, row-major, where a linear
    /// layer's weight is `[out, in]` whatever way round the file has it.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a NaN or infinity in these rows.
    ///
    /// # Panics
    /// If `rows` reaches beyond [`rows`](Self::rows).
    pub fn read_rows(&self, rows: Range<usize>) -> Result<Vec<f32>> {
        let mut values = vec![0.0; rows.len() * self.columns()];
        self.read_rows_into(rows, &mut values)?;
        Ok(values)
    }

    /// As [`read_rows`](Self::read_rows), into a buffer the caller keeps.
    ///
    /// # Errors
    /// As [`read_rows`](Self::read_rows).
    ///
    /// # Panics
    /// If `rows` reaches beyond [`rows`](Self::rows), or `values` has another length than
    /// `rows.len() * columns`.
    pub fn read_rows_into(&self, rows: Range<usize>, values: &mut [f32]) -> Result<()> {
        assert!(rows.start <= rows.end && rows.end <= self.rows(), "rows out of bounds");
        assert_eq!(values.len(), rows.len() * self.columns(), "buffer of another size");
        if self.info.transposed {
            return self.read_transposed(rows, values);
        }
        let columns = self.columns();
        let mut first = 0;
        for segment in &self.info.segments {
            if self.info.used.len() < 2 {
                let values = values.get_mut(first..first + segment.rows()).unwrap_or_default();
                self.read_vector(segment, values)?;
            } else {
                let (start, end) = (rows.start.max(first), rows.end.min(first + segment.rows()));
                if start < end {
                    let place = (start - rows.start) * columns..(end - rows.start) * columns;
                    self.read_ordered(segment, start - first..end - first, &mut values[place])?;
                }
            }
            first += segment.rows();
        }
        if self.info.offset != 0.0 {
            values.iter_mut().for_each(|value| *value += self.info.offset);
        }
        Ok(())
    }

    /// All elements of a stored vector in the order in which they are used. None if no row is read.
    fn read_vector(&self, segment: &Segment, values: &mut [f32]) -> Result<()> {
        self.read_stored(segment, 0, values)?;
        if segment.order != Order::Plain {
            let stored = values.to_vec();
            for (i, value) in values.iter_mut().enumerate() {
                *value = stored[segment.order.place(i)];
            }
        }
        Ok(())
    }

    /// Rows of a stored matrix in the order in which they are used.
    fn read_ordered(
        &self,
        segment: &Segment,
        rows: Range<usize>,
        values: &mut [f32],
    ) -> Result<()> {
        let columns = segment.columns();
        if segment.order == Order::Plain {
            return self.read_stored(segment, rows.start * columns, values);
        }
        // Pages stay until the handle is dropped, because the rows used next stand between these.
        for (row, values) in rows.zip(values.chunks_mut(columns)) {
            self.decode(segment, segment.order.place(row) * columns, values)?;
        }
        Ok(())
    }

    /// Elements from `start` on, in stored order. Pages are given back chunk by chunk.
    fn read_stored(&self, segment: &Segment, start: usize, values: &mut [f32]) -> Result<()> {
        for (chunk, values) in values.chunks_mut(CHUNK).enumerate() {
            let start = start + chunk * CHUNK;
            self.decode(segment, start, values)?;
            self.file(segment).release(segment.byte_range(start, values.len()));
        }
        Ok(())
    }

    /// Columns `rows` of the stored `[in, out]` matrix, as rows.
    ///
    /// The plain loop would touch a new page for every element. Going tile by tile, the file is
    /// read in whole cache lines and the result is written in runs of `TILE` elements. Pages stay
    /// until the handle is dropped, because the neighbouring rows need the same ones.
    fn read_transposed(&self, rows: Range<usize>, values: &mut [f32]) -> Result<()> {
        let segment = &self.info.segments[0];
        let (n_in, n_out) = (self.columns(), self.rows());
        let mut tile = [0.0; TILE * TILE];
        for row in rows.clone().step_by(TILE) {
            let width = TILE.min(rows.end - row);
            for column in (0..n_in).step_by(TILE) {
                let height = TILE.min(n_in - column);
                for (i, line) in tile.chunks_mut(TILE).take(height).enumerate() {
                    self.decode(segment, (column + i) * n_out + row, &mut line[..width])?;
                }
                for r in 0..width {
                    let first = (row - rows.start + r) * n_in + column;
                    for (c, value) in values[first..first + height].iter_mut().enumerate() {
                        *value = tile[c * TILE + r];
                    }
                }
            }
        }
        Ok(())
    }

    /// Decodes elements from `start` on and refuses those that are not finite.
    fn decode(&self, segment: &Segment, start: usize, values: &mut [f32]) -> Result<()> {
        let file = self.file(segment);
        let bytes = &file.bytes()[segment.byte_range(start, values.len())];
        segment.dtype.decode(bytes, values);
        match first_non_finite(values) {
            None => Ok(()),
            Some(offset) => {
                let before = segment.skipped * segment.columns();
                Err(Error::NotFinite {
                    file: file.path().to_owned(),
                    tensor: segment.stored_name.clone(),
                    value: values[offset],
                    index: unravel(before + start + offset, &segment.shape),
                })
            }
        }
    }

    fn file(&self, segment: &Segment) -> &MappedFile {
        &self.files[segment.file]
    }

    /// Calls `visit` with the stored bytes of a segment, a chunk at a time, giving pages back behind it.
    pub(super) fn for_each_chunk(&self, segment: usize, mut visit: impl FnMut(&[u8])) {
        let segment = &self.info.segments[segment];
        let file = self.file(segment);
        let mut start = segment.bytes.start;
        while start < segment.bytes.end {
            let end = segment.bytes.end.min(start + CHUNK);
            visit(&file.bytes()[start..end]);
            file.release(start..end);
            start = end;
        }
    }
}

impl Drop for Tensor<'_> {
    fn drop(&mut self) {
        for segment in &self.info.segments {
            self.file(segment).release(segment.bytes.clone());
        }
    }
}

/// The position of the first NaN or infinity. The common case, none, is one branch-free pass.
fn first_non_finite(values: &[f32]) -> Option<usize> {
    let any = values.iter().fold(false, |any, value| any | !value.is_finite());
    if any { values.iter().position(|value| !value.is_finite()) } else { None }
}

/// The index of element `flat` of a row-major array whose rows have shape `shape[1..]`.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, extent) in index.iter_mut().zip(shape).skip(1).rev() {
        *index = flat % extent;
        flat /= extent;
    }
    if let Some(first) = index.first_mut() {
        *first = flat;
    }
    index
}
