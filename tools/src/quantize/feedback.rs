//! Rows that make up for one another's errors.
//!
//! [`super::rounding`] brings each output of a matrix close to the float model's, one row by itself. But
//! predictions depend on many outputs together: an error of one can undo that of another. With `H` the mean
//! of `x xᵀ` over the inputs, and `G` that of `g gᵀ` over gradients of the predictions by the outputs, errors
//! `E` of all weights cost about `tr(G E H Eᵀ)` (YAQA, Tseng et al., 2025, arXiv 2505.22988). With
//! `G = Mᵀ D M`, `M` unit lower triangular and `D` diagonal, that is
//!
//! ```text
//! Σ_t D_t (e_t + o_t) H (e_t + o_t)ᵀ,  o_t = Σ_u<t M_tu e_u
//! ```
//!
//! for errors `e_t` of the rows in the order of `M`. So rows are rounded one after another, each towards its
//! target plus `o_t`, as columns are within a row.
//!
//! A block of rows is rounded at a time, so that there is work for all lanes and threads. Its rows `t` know
//! nothing of one another's errors; given those before, `e_t = -o_t` for all of them costs least, where `o_t`
//! counts the block's own rows with their `e_u = -o_u`.

use half::f16;
use rayon::prelude::*;

use super::k_best::Lattice;
use super::lanes::ROWS;
use super::rounding::{Metric, Rounded, Unrounded};
use crate::reference::Parallelism;
use crate::reference::matmul::{View, ViewMut, matmul};

/// What is added to `G`'s diagonal, over the diagonal's mean: `G` is known from few tokens.
const DAMPING: f64 = 0.15;

/// Blocks that a matrix has at most; fewer if it has not the lanes of two threads for each.
const BLOCKS: usize = 16;

/// The factors of `G`.
pub struct Feedback {
    lattice: Lattice,
}

impl Feedback {
    /// From `G`, `[n, n]`, in any unit; `None` if it says nothing.
    pub fn new(mut outputs: Vec<f64>) -> Option<Self> {
        let n = outputs.len().isqrt();
        let mean = (0..n).map(|i| outputs[i * n + i]).sum::<f64>() / n as f64;
        let is_known = mean >= f64::MIN_POSITIVE && outputs.iter().all(|g| g.is_finite());
        is_known.then(|| Self { lattice: Lattice::factor(&mut outputs, DAMPING * mean) })
    }

    /// Rounds all rows of a matrix, by `metric` each.
    pub fn round(&self, metric: &Metric, matrix: Unrounded) -> Rounded {
        let order = &self.lattice.order;
        let (rows, cols, groups) = (order.len(), matrix.tiles.cols(), matrix.tiles.groups());
        let (mut scales, mut integers) = (vec![f16::ZERO; rows * groups], vec![0; rows * cols]);
        // In the order of the factors, `[rows, columns]`.
        let mut errors: Vec<f32> = Vec::with_capacity(rows * cols);
        let step = rows.div_ceil(BLOCKS).next_multiple_of(ROWS).max(2 * ROWS);
        for first in (0..rows).step_by(step) {
            let block = &order[first..rows.min(first + step)];
            let offsets = self.offsets(first, block.len(), &errors, cols);
            let work = block.par_chunks(ROWS).zip(offsets.par_chunks(ROWS * cols));
            let rounded = work.map(|(block, offsets)| {
                let weights = block.iter().flat_map(|row| &matrix.weights[row * cols..][..cols]);
                let weights: Vec<f32> = weights.copied().collect();
                metric.round(Unrounded { weights: &weights, offsets, ..matrix })
            });
            for (block, rounded) in block.chunks(ROWS).zip(rounded.collect::<Vec<Rounded>>()) {
                errors.extend(rounded.errors);
                let of_rows = rounded.scales.chunks(groups).zip(rounded.integers.chunks(cols));
                for (&row, (of_scales, of_integers)) in block.iter().zip(of_rows) {
                    scales[row * groups..][..groups].copy_from_slice(of_scales);
                    integers[row * cols..][..cols].copy_from_slice(of_integers);
                }
            }
        }
        Rounded { scales, integers, errors: Vec::new() }
    }

    /// What `count` rows from the `first` on have to make up for, given the errors of those before,
    /// `[rows, columns]` as the errors.
    fn offsets(&self, first: usize, count: usize, errors: &[f32], cols: usize) -> Vec<f32> {
        let n = self.lattice.order.len();
        let factor = |row: usize| &self.lattice.factor[(first + row) * n..];
        let mut offsets = vec![0.0; count * cols];
        if first > 0 {
            offsets.par_chunks_mut(ROWS * cols).enumerate().for_each(|(chunk, offsets)| {
                let rows = offsets.len() / cols;
                matmul(
                    ViewMut::new(offsets, rows, cols, cols),
                    1.0,
                    View::new(factor(chunk * ROWS), rows, first, n),
                    View::new(errors, first, cols, cols),
                    Parallelism::Serial,
                );
            });
        }
        for row in 1..count {
            let (before, own) = offsets.split_at_mut(row * cols);
            for (before, factor) in before.chunks(cols).zip(&factor(row)[first..]) {
                own.iter_mut().zip(before).for_each(|(own, before)| *own -= factor * before);
            }
        }
        offsets
    }
}

#[cfg(test)]
mod tests {
    use cerebellum::quant::{Scheme, TileLayout};

    use super::*;
    use crate::random::SplitMix;

    const ROWS_OF_ALL: usize = 136; // three blocks
    const COLUMNS: usize = 96;

    fn noise(seed: u64, count: usize) -> Vec<f64> {
        let mut random = SplitMix(seed);
        (0..count).map(|_| random.next() as i64 as f64 * 0.5f64.powi(63)).collect()
    }

    /// The mean of `v vᵀ` over vectors that have much in common, `[n, n]`.
    fn second_moments(seed: u64, n: usize) -> Vec<f64> {
        const VECTORS: usize = 300;
        const COMMON: usize = 20;
        let (mix, own) = (noise(seed, COMMON * n), noise(seed + 1, VECTORS * n));
        let common = noise(seed + 2, VECTORS * COMMON);
        let vector = |at: usize| -> Vec<f64> {
            let factors = &common[at * COMMON..][..COMMON];
            let shared = |i: usize| -> f64 {
                factors.iter().enumerate().map(|(k, f)| f * mix[k * n + i]).sum()
            };
            (0..n).map(|i| 0.3 * own[at * n + i] + shared(i)).collect()
        };
        let mut sums = vec![0.0; n * n];
        for at in 0..VECTORS {
            let v = vector(at);
            sums.chunks_mut(n).zip(&v).for_each(|(row, a)| {
                row.iter_mut().zip(&v).for_each(|(sum, b)| *sum += a * b / VECTORS as f64);
            });
        }
        sums
    }

    fn tiles() -> TileLayout {
        TileLayout::new(ROWS_OF_ALL, COLUMNS, Scheme::Int4, 32).unwrap()
    }

    /// `tr(G E H Eᵀ)`.
    fn cost(outputs: &[f64], inputs: &[f64], weights: &[f32], rounded: &Rounded) -> f64 {
        let error = |at: usize| {
            let group = at / COLUMNS * tiles().groups() + at % COLUMNS / tiles().group_size();
            let unit = f64::from(EXPONENT).exp2();
            let restored = f64::from(rounded.integers[at]) * rounded.scales[group].to_f64() * unit;
            f64::from(weights[at]) - restored
        };
        let errors: Vec<f64> = (0..weights.len()).map(error).collect();
        let mut by_inputs = vec![0.0; errors.len()];
        for (row, out) in errors.chunks(COLUMNS).zip(by_inputs.chunks_mut(COLUMNS)) {
            for (e, h) in row.iter().zip(inputs.chunks(COLUMNS)) {
                out.iter_mut().zip(h).for_each(|(out, h)| *out += e * h);
            }
        }
        let rows = |values: &[f64], row: usize| values[row * COLUMNS..][..COLUMNS].to_vec();
        let mut sum = 0.0;
        for t in 0..ROWS_OF_ALL {
            for u in 0..ROWS_OF_ALL {
                let products = rows(&by_inputs, t).into_iter().zip(rows(&errors, u));
                sum += outputs[t * ROWS_OF_ALL + u] * products.map(|(a, b)| a * b).sum::<f64>();
            }
        }
        sum
    }

    const EXPONENT: i32 = -16;

    #[test]
    fn errors_that_cancel_cost_less() {
        let (outputs, inputs) = (second_moments(1, ROWS_OF_ALL), second_moments(5, COLUMNS));
        let weights: Vec<f32> =
            noise(9, ROWS_OF_ALL * COLUMNS).iter().map(|&w| 0.1 * w as f32).collect();
        let metric = Metric::new(inputs.clone(), None);
        let matrix =
            Unrounded { weights: &weights, offsets: &[], tiles: tiles(), exponent: EXPONENT };
        let feedback = Feedback::new(outputs.clone()).unwrap();
        let together = feedback.round(&metric, matrix);
        let mut alone = Rounded::default();
        for weights in weights.chunks(ROWS * COLUMNS) {
            let rounded = metric.round(Unrounded { weights, ..matrix });
            alone.scales.extend(rounded.scales);
            alone.integers.extend(rounded.integers);
        }
        let [together, alone] =
            [together, alone].map(|rounded| cost(&outputs, &inputs, &weights, &rounded));
        println!("{together:e} of {alone:e}");
        assert!(together < 0.7 * alone, "{together:e} of {alone:e}");
    }

    /// With errors of `-o`, a block leaves nothing of its terms `Σ_u<=t M_tu e_u`.
    #[test]
    fn offsets_undo_what_came_before() {
        let feedback = Feedback::new(second_moments(1, ROWS_OF_ALL)).unwrap();
        let (first, count, columns) = (64, 40, 5);
        let before: Vec<f32> = noise(3, first * columns).iter().map(|&e| e as f32).collect();
        let offsets = feedback.offsets(first, count, &before, columns);
        let errors: Vec<f32> = before.iter().copied().chain(offsets.iter().map(|o| -o)).collect();
        let (n, factor) = (ROWS_OF_ALL, &feedback.lattice.factor);
        for t in first..first + count {
            for column in 0..columns {
                let of_others = (0..t).map(|u| factor[t * n + u] * errors[u * columns + column]);
                let sum = of_others.sum::<f32>() + errors[t * columns + column];
                assert!(sum.abs() < 1e-4, "row {t}: {sum}");
            }
        }
    }

    #[test]
    fn gradients_that_say_nothing_are_left_out() {
        for outputs in [vec![0.0; 9], vec![f64::NAN; 9], vec![f64::INFINITY; 9]] {
            assert!(Feedback::new(outputs).is_none());
        }
    }
}
