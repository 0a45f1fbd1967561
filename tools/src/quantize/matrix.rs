//! One matrix: its exponent from a first pass, its panels from a second.
//!
//! Both passes go through the rows in chunks that the threads of the current rayon pool take
//! independently, so memory depends on a few chunks and not on the matrix. Results are combined in
//! the order of the rows: the bytes and the reported error do not depend on the number of threads.

use std::ops::Range;

use cerebellum::quant::{PANEL_ROWS, Packer, TileLayout, hadamard, power_of_two};
use half::f16;
use rayon::prelude::*;

use super::error::{Error, Result};
use super::feedback::Feedback;
use super::lanes::ROWS;
use super::rounding::{Metric, Rounded, Unrounded};
use super::scale::{MAX_WEIGHT, choose_exponent, quantize_group};
use crate::checkpoint::Tensor;

/// Elements in a chunk of rows, about: small enough that small matrices occupy all threads.
const CHUNK_ELEMENTS: usize = 1 << 18;
/// The same for rounding with a metric, which takes longer.
const CHUNK_ELEMENTS_METRIC: usize = 1 << 14;
/// Chunks are whole multiples of this many rows: whole panels, and whole tiles of the checkpoint
/// reader's transposition.
const CHUNK_ROWS: usize = 64;
/// Chunks in flight for each thread.
const CHUNKS_PER_THREAD: usize = 4;

const _: () = assert!(CHUNK_ROWS.is_multiple_of(PANEL_ROWS) && ROWS == 2 * PANEL_ROWS);

/// What the header says of a quantized matrix, beside its shape.
pub struct Quantized {
    /// `k` of every scale.
    pub exponent: i32,
    /// Norm of the error over the norm of the weights; `None` if the weights are all zero.
    pub relative_error: Option<f32>,
}

/// Consecutive rows as the file has them.
pub struct Part {
    /// The rows' indices.
    pub rows: Range<usize>,
    /// Whole panels.
    pub panels: Vec<u8>,
    /// The weights that are meant, `[rows, columns]`; only if asked for.
    pub restored: Vec<f32>,
}

/// How to round a matrix.
#[derive(Clone, Copy)]
pub struct Method<'a> {
    /// What is known of the inputs, if anything is: without it, each weight becomes the nearest.
    pub metric: Option<&'a Metric>,
    /// What rows make up for of one another's errors, if anything is known of that, and of the inputs.
    pub feedback: Option<&'a Feedback>,
    /// Whether parts come with the restored weights.
    pub restore: bool,
}

impl Method<'_> {
    /// Each weight becomes the nearest.
    pub const NEAREST: Self = Self { metric: None, feedback: None, restore: false };
}

/// Reads and quantizes the matrix `source`. `emit` gets the parts in the order of the rows.
pub fn quantize_matrix(
    source: &Tensor,
    tiles: TileLayout,
    method: Method,
    mut emit: impl FnMut(Part) -> Result<()>,
) -> Result<Quantized> {
    let exponent = matrix_exponent(source)?;
    let mut sums = Sums::default();
    // Rows that make up for one another's errors are rounded beforehand, the whole matrix in memory.
    let rounded = match (method.metric, method.feedback) {
        (Some(metric), Some(feedback)) => {
            let mut buffer = Vec::new();
            let weights = read(source, &(0..tiles.rows()), &mut buffer)?;
            let rows = Unrounded { weights, offsets: &[], tiles, exponent };
            Some(feedback.round(metric, rows))
        }
        _ => None,
    };
    let elements = if method.metric.is_some() { CHUNK_ELEMENTS_METRIC } else { CHUNK_ELEMENTS };
    let chunks = chunks(tiles.rows(), tiles.cols(), elements);
    for wave in chunks.chunks(CHUNKS_PER_THREAD * rayon::current_num_threads()) {
        let work = wave.par_iter().map_init(Vec::new, |buffer, rows| {
            let weights = read(source, rows, buffer)?;
            let mut part = PartBuilder::new(rows.clone(), tiles, exponent, method.restore);
            match &rounded {
                Some(rounded) => part.push(weights, rounded, rows.start),
                None => part.quantize(weights, method.metric),
            }
            Ok(part)
        });
        for built in work.collect::<Vec<Result<PartBuilder>>>() {
            let PartBuilder { part, sums: of_panels, .. } = built?;
            of_panels.iter().for_each(|panel| sums.add(*panel));
            emit(part)?;
        }
    }
    Ok(Quantized { exponent, relative_error: sums.relative_error() })
}

/// The exponent that suits the largest weight.
fn matrix_exponent(source: &Tensor) -> Result<i32> {
    let chunks = chunks(source.rows(), source.columns(), CHUNK_ELEMENTS);
    let maxima = chunks.par_iter().map_init(Vec::new, |buffer, rows| -> Result<f32> {
        Ok(read(source, rows, buffer)?.iter().fold(0.0, |max, w| w.abs().max(max)))
    });
    let value = maxima.try_reduce(|| 0.0, |a, b| Ok(a.max(b)))?;
    if value > MAX_WEIGHT {
        return Err(Error::WeightTooLarge { tensor: source.name().to_owned(), value });
    }
    Ok(choose_exponent(value))
}

/// The rows `0..rows` in chunks of about so many elements.
fn chunks(rows: usize, cols: usize, elements: usize) -> Vec<Range<usize>> {
    let step = (elements / cols / CHUNK_ROWS).max(1) * CHUNK_ROWS;
    (0..rows).step_by(step).map(|start| start..rows.min(start + step)).collect()
}

/// Reads rows into a buffer that its thread keeps, and transforms them as the file has them.
fn read<'a>(source: &Tensor, rows: &Range<usize>, buffer: &'a mut Vec<f32>) -> Result<&'a [f32]> {
    buffer.resize(rows.len() * source.columns(), 0.0);
    source.read_rows_into(rows.clone(), buffer)?;
    buffer.chunks_mut(source.columns()).for_each(hadamard);
    Ok(buffer)
}

/// Fills a part panel by panel.
struct PartBuilder {
    part: Part,
    tiles: TileLayout,
    exponent: i32,
    restore: bool,
    /// One for each panel.
    sums: Vec<Sums>,
}

impl PartBuilder {
    fn new(rows: Range<usize>, tiles: TileLayout, exponent: i32, restore: bool) -> Self {
        let part = Part { rows, panels: Vec::new(), restored: Vec::new() };
        Self { part, tiles, exponent, restore, sums: Vec::new() }
    }

    /// Quantizes the part's rows, `weights: [rows, columns]`, beginning with a panel's first.
    fn quantize(&mut self, weights: &[f32], metric: Option<&Metric>) {
        let (cols, group_size) = (self.tiles.cols(), self.tiles.group_size());
        match metric {
            None => weights.chunks(PANEL_ROWS * cols).for_each(|weights| {
                let scheme = self.tiles.scheme();
                let exponent = self.exponent;
                self.push_panel(weights, |row, group, integers| {
                    let weights = &weights[row * cols..][..cols];
                    let weights = &weights[group * group_size..][..integers.len()];
                    quantize_group(weights, scheme, None, exponent, integers)
                });
            }),
            Some(metric) => weights.chunks(ROWS * cols).for_each(|weights| {
                let (tiles, exponent) = (self.tiles, self.exponent);
                let rows = Unrounded { weights, offsets: &[], tiles, exponent };
                self.push(weights, &metric.round(rows), 0);
            }),
        }
    }

    /// Packs rows, `weights: [rows, columns]`, as they were rounded: the first is row `first` of `rounded`.
    fn push(&mut self, weights: &[f32], rounded: &Rounded, first: usize) {
        let (cols, group_size) = (self.tiles.cols(), self.tiles.group_size());
        let groups = self.tiles.groups();
        for (panel, weights) in weights.chunks(PANEL_ROWS * cols).enumerate() {
            self.push_panel(weights, |row, group, integers| {
                let row = first + panel * PANEL_ROWS + row;
                let from = &rounded.integers[row * cols + group * group_size..];
                integers.copy_from_slice(&from[..integers.len()]);
                rounded.scales[row * groups + group]
            });
        }
    }

    /// Packs up to 16 rows: `quantized(row, group, integers)` returns a group's scale and writes its
    /// integers.
    fn push_panel(
        &mut self,
        weights: &[f32],
        mut quantized: impl FnMut(usize, usize, &mut [i8]) -> f16,
    ) {
        let (tiles, start) = (self.tiles, self.part.panels.len());
        self.part.panels.resize(start + tiles.panel_bytes(), 0);
        let mut packer = Packer::new(tiles, &mut self.part.panels[start..]);
        let (mut sums, mut integers) = (Sums::default(), vec![0; tiles.group_size()]);
        for (row, weights) in weights.chunks(tiles.cols()).enumerate() {
            for (group, weights) in weights.chunks(tiles.group_size()).enumerate() {
                let integers = &mut integers[..weights.len()];
                let h = quantized(row, group, integers);
                packer.put_group(row, group, h, integers);
                let scale = h.to_f32() * power_of_two(self.exponent);
                sums.add_group(weights, integers, scale);
                if self.restore {
                    self.part.restored.extend(integers.iter().map(|&q| f32::from(q) * scale));
                }
            }
            if self.restore {
                let start = self.part.restored.len() - weights.len();
                hadamard(&mut self.part.restored[start..]);
            }
        }
        self.sums.push(sums);
    }
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
