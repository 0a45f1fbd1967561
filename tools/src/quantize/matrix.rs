//! One matrix: its exponent from a first pass, its panels from a second.
//!
//! Both passes go through the rows in chunks that the threads of the current rayon pool take
//! independently, so memory depends on a few chunks and not on the matrix. Results are combined in
//! the order of the rows: the bytes and the reported error do not depend on the number of threads.

use std::ops::Range;

use cerebellum::quant::{PANEL_ROWS, Packer, TileLayout, power_of_two};
use rayon::prelude::*;

use super::error::{Error, Result};
use super::scale::{MAX_WEIGHT, choose_exponent, quantize_group};
use super::writer::ModelWriter;
use crate::checkpoint::Tensor;

/// Elements in a chunk of rows, about: small enough that small matrices occupy all threads.
const CHUNK_ELEMENTS: usize = 1 << 18;
/// Chunks are whole multiples of this many rows: whole panels, and whole tiles of the checkpoint
/// reader's transposition.
const CHUNK_ROWS: usize = 64;
/// Chunks in flight for each thread.
const CHUNKS_PER_THREAD: usize = 4;

const _: () = assert!(CHUNK_ROWS.is_multiple_of(PANEL_ROWS));

/// What the header says of a quantized matrix, beside its shape.
pub struct Quantized {
    /// `k` of every scale.
    pub exponent: i32,
    /// Norm of the error over the norm of the weights; `None` if the weights are all zero.
    pub relative_error: Option<f32>,
}

/// Reads, quantizes and writes the matrix `source` as the writer's current tensor. `advance` is told
/// of every so many finished weights.
pub fn quantize_matrix(
    source: &Tensor,
    tiles: TileLayout,
    writer: &mut ModelWriter,
    advance: impl Fn(u64),
) -> Result<Quantized> {
    let exponent = matrix_exponent(source)?;
    let mut sums = Sums::default();
    let chunks = chunks(tiles.rows(), tiles.cols());
    for wave in chunks.chunks(CHUNKS_PER_THREAD * rayon::current_num_threads()) {
        let work = wave.par_iter().map_init(Vec::new, |buffer, rows| {
            Ok(quantize_rows(read(source, rows, buffer)?, tiles, exponent))
        });
        for (rows, part) in wave.iter().zip(work.collect::<Vec<Result<Part>>>()) {
            let part = part?;
            writer.write(&part.panels)?;
            part.sums.iter().for_each(|panel| sums.add(*panel));
            advance((rows.len() * tiles.cols()) as u64);
        }
    }
    Ok(Quantized { exponent, relative_error: sums.relative_error() })
}

/// The exponent that suits the largest weight.
fn matrix_exponent(source: &Tensor) -> Result<i32> {
    let chunks = chunks(source.rows(), source.columns());
    let maxima = chunks.par_iter().map_init(Vec::new, |buffer, rows| -> Result<f32> {
        Ok(read(source, rows, buffer)?.iter().fold(0.0, |max, w| w.abs().max(max)))
    });
    let value = maxima.try_reduce(|| 0.0, |a, b| Ok(a.max(b)))?;
    if value > MAX_WEIGHT {
        return Err(Error::WeightTooLarge { tensor: source.name().to_owned(), value });
    }
    Ok(choose_exponent(value))
}

/// The rows `0..rows` in chunks.
fn chunks(rows: usize, cols: usize) -> Vec<Range<usize>> {
    let step = (CHUNK_ELEMENTS / cols / CHUNK_ROWS).max(1) * CHUNK_ROWS;
    (0..rows).step_by(step).map(|start| start..rows.min(start + step)).collect()
}

/// Reads rows into a buffer that its thread keeps.
fn read<'a>(source: &Tensor, rows: &Range<usize>, buffer: &'a mut Vec<f32>) -> Result<&'a [f32]> {
    buffer.resize(rows.len() * source.columns(), 0.0);
    source.read_rows_into(rows.clone(), buffer)?;
    Ok(buffer)
}

/// Finished panels.
struct Part {
    panels: Vec<u8>,
    /// One for each panel.
    sums: Vec<Sums>,
}

/// Quantizes consecutive rows (`[n, cols]`, beginning with a panel's first) into panels.
fn quantize_rows(weights: &[f32], tiles: TileLayout, exponent: i32) -> Part {
    let panels = weights.chunks(PANEL_ROWS * tiles.cols());
    let mut bytes = vec![0; panels.len() * tiles.panel_bytes()];
    let sums = bytes.chunks_mut(tiles.panel_bytes()).zip(panels);
    let sums = sums.map(|(panel, weights)| quantize_panel(weights, tiles, exponent, panel));
    Part { sums: sums.collect(), panels: bytes }
}

/// Quantizes up to 16 rows into one panel.
fn quantize_panel(weights: &[f32], tiles: TileLayout, exponent: i32, panel: &mut [u8]) -> Sums {
    let (mut packer, mut sums) = (Packer::new(tiles, panel), Sums::default());
    let mut integers = vec![0; tiles.group_size()];
    for (row, weights) in weights.chunks(tiles.cols()).enumerate() {
        for (group, weights) in weights.chunks(tiles.group_size()).enumerate() {
            let integers = &mut integers[..weights.len()];
            let h = quantize_group(weights, tiles.scheme(), None, exponent, integers);
            packer.put_group(row, group, h, integers);
            sums.add_group(weights, integers, h.to_f32() * power_of_two(exponent));
        }
    }
    sums
}

/// Sums of squares, from which the relative error comes.
#[derive(Clone, Copy, Default)]
struct Sums {
    error: f64,
    weights: f64,
}

impl Sums {
    fn add_group(&mut self, weights: &[f32], integers: &[i8], scale: f32) {
        for (&w, &q) in weights.iter().zip(integers) {
            let difference = f64::from(w - f32::from(q) * scale);
            self.error += difference * difference;
            self.weights += f64::from(w) * f64::from(w);
        }
    }

    fn add(&mut self, other: Self) {
        self.error += other.error;
        self.weights += other.weights;
    }

    /// Rounded to four significant digits, which is more than anyone needs and prints shortly.
    fn relative_error(self) -> Option<f32> {
        let error = (self.error / self.weights).sqrt();
        error.is_finite().then(|| format!("{error:.3e}").parse().expect("a float's own text"))
    }
}
