//! One tensor of a checkpoint: decoded whole, or by rows as a kernel uses them.

use std::ops::Range;

use super::dtype::Dtype;
use super::error::{Error, Result};
use super::storage::MappedFile;

/// What the checkpoint knows of a tensor after its check against the configuration.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// The canonical name.
    pub name: String,
    /// The name in the file, for messages.
    pub stored_name: String,
    pub dtype: Dtype,
    /// As stored, row-major.
    pub shape: Vec<usize>,
    /// Whether it is stored `[in, out]` but used as `[out, in]`; only of plain types.
    pub transposed: bool,
    /// Which of the checkpoint's files.
    pub file: usize,
    /// The bytes in that file; their number agrees with shape and type.
    pub bytes: Range<usize>,
}

/// Elements decoded before their pages are given back, when a tensor is read front to back. A whole
/// number of blocks of every type.
const CHUNK: usize = 1 << 20;
/// Side of the square tile that a transposed read goes through: its 16 KiB stay in the L1 cache,
/// and one of its rows is whole cache lines of the file.
const TILE: usize = 64;

/// A handle on one tensor. It can be shared between threads that each read some rows; the memory
/// that the mapped file takes is given back at the latest when the handle is dropped.
#[derive(Debug)]
pub struct Tensor<'a> {
    info: &'a TensorInfo,
    file: &'a MappedFile,
}

impl<'a> Tensor<'a> {
    pub(super) fn new(info: &'a TensorInfo, file: &'a MappedFile) -> Self {
        Self { info, file }
    }

    /// The canonical name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The type of the stored elements.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// Bytes it takes in the file.
    pub fn stored_bytes(&self) -> u64 {
        self.info.bytes.len() as u64
    }

    /// The shape as stored, row-major.
    pub fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    /// Rows of the tensor as used: outputs of a linear layer, entries of a table; 1 for a vector.
    pub fn rows(&self) -> usize {
        match (self.shape(), self.info.transposed) {
            ([_, n_out], true) => *n_out,
            ([rows, _], false) => *rows,
            _ => 1,
        }
    }

    /// Columns of the tensor as used: inputs of a linear layer, the width of a table or vector.
    pub fn columns(&self) -> usize {
        match (self.shape(), self.info.transposed) {
            ([n_in, _], true) => *n_in,
            (shape, _) => shape.last().copied().unwrap_or(1),
        }
    }

    /// All elements in stored order.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for the first NaN or infinity.
    pub fn read_f32(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.rows() * self.columns()];
        self.read_stored(0, &mut values)?;
        Ok(values)
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
            self.read_transposed(rows, values)
        } else {
            self.read_stored(rows.start * self.columns(), values)
        }
    }

    /// Elements from `start` on, in stored order. Pages are given back chunk by chunk.
    fn read_stored(&self, start: usize, values: &mut [f32]) -> Result<()> {
        for (chunk, values) in values.chunks_mut(CHUNK).enumerate() {
            let start = start + chunk * CHUNK;
            self.decode(start, values)?;
            self.file.release(self.byte_range(start, values.len()));
        }
        Ok(())
    }

    /// Columns `rows` of the stored `[in, out]` matrix, as rows.
    ///
    /// The plain loop would touch a new page for every element. Going tile by tile, the file is
    /// read in whole cache lines and the result is written in runs of `TILE` elements. Pages stay
    /// until the handle is dropped, because the neighbouring rows need the same ones.
    fn read_transposed(&self, rows: Range<usize>, values: &mut [f32]) -> Result<()> {
        let (n_in, n_out) = (self.columns(), self.rows());
        let mut tile = [0.0; TILE * TILE];
        for row in rows.clone().step_by(TILE) {
            let width = TILE.min(rows.end - row);
            for column in (0..n_in).step_by(TILE) {
                let height = TILE.min(n_in - column);
                for (i, line) in tile.chunks_mut(TILE).take(height).enumerate() {
                    self.decode((column + i) * n_out + row, &mut line[..width])?;
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
    fn decode(&self, start: usize, values: &mut [f32]) -> Result<()> {
        let bytes = &self.file.bytes()[self.byte_range(start, values.len())];
        self.info.dtype.decode(bytes, values);
        match first_non_finite(values) {
            None => Ok(()),
            Some(offset) => Err(Error::NotFinite {
                file: self.file.path().to_owned(),
                tensor: self.info.stored_name.clone(),
                value: values[offset],
                index: unravel(start + offset, self.shape()),
            }),
        }
    }

    fn byte_range(&self, start: usize, elements: usize) -> Range<usize> {
        let (base, dtype) = (self.info.bytes.start, self.info.dtype);
        let bytes = |elements| dtype.bytes(elements).expect("inside of a range that is checked");
        base + bytes(start)..base + bytes(start + elements)
    }

    /// Calls `visit` with the stored bytes, a chunk at a time, giving pages back behind it.
    pub(super) fn for_each_chunk(&self, mut visit: impl FnMut(&[u8])) {
        let mut start = self.info.bytes.start;
        while start < self.info.bytes.end {
            let end = self.info.bytes.end.min(start + CHUNK);
            visit(&self.file.bytes()[start..end]);
            self.file.release(start..end);
            start = end;
        }
    }
}

impl Drop for Tensor<'_> {
    fn drop(&mut self) {
        self.file.release(self.info.bytes.clone());
    }
}

/// The position of the first NaN or infinity. The common case, none, is one branch-free pass.
fn first_non_finite(values: &[f32]) -> Option<usize> {
    let any = values.iter().fold(false, |any, value| any | !value.is_finite());
    if any { values.iter().position(|value| !value.is_finite()) } else { None }
}

/// The index of element `flat` of a row-major array of shape `shape`.
fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, extent) in index.iter_mut().zip(shape).rev() {
        *index = flat % extent;
        flat /= extent;
    }
    index
}
