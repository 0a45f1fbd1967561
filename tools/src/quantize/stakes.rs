//! What noise on each matrix costs, to second order.
//!
//! Rounding a matrix `W` leaves errors `E`. With gradients `g` of the predictions by its outputs, they cost half of
//! the mean of `(Σ gᵀ E x)²`, the sum being over the tokens of a window ([`Sensitivity`] says what `g` are). If each
//! weight became the nearest, errors would be independent, of some variance `s`, and cost half of `s |Σ g xᵀ|²` with
//! Frobenius's norm. But each column makes up for the columns before it ([`super::k_best`]): with `H = Mᵀ D M` of the
//! inputs, `e = M⁻¹ r` for a row's errors `e`, and it is the remainders `r` that are independent. So the cost is half
//! of `s |Σ g x̃ᵀ|²` with `x̃ = M⁻ᵀ x`: the part of each input that later inputs do not explain. The difference
//! matters where a few tokens have huge inputs, as the first one has in many models: errors of calibrated weights
//! hardly show there.
//!
//! The inputs are rounded, too. Their errors `d`, in groups of int8, are independent between tokens and meet weights
//! of some mean square `w`, which costs half of `w Σ |g|² |d|²`.

use std::collections::BTreeMap;

use cerebellum::format::network::{self, Input, Role, TensorId};
use cerebellum::quant::{GROUP_SIZES, hadamard};
use half::bf16;
use rayon::prelude::*;

use super::calibrated::transform;
use super::error::Result;
use super::k_best::Lattice;
use super::rounding::DAMPING;
use crate::calibrate::{Calibration, Moments, Sensitivity, embed, round_activations};
use crate::checkpoint::Checkpoint;
use crate::reference::matmul::{View, ViewMut, matmul_of_columns};
use crate::reference::{Layer, Norm, Parallelism, Tensors, squared_norm};

/// Rows of a matrix whose gradients are in memory together, for each thread.
const ROWS: usize = 128;

/// Tokens whose inputs go through a factor together: they stay in a cache.
const TOKENS: usize = 16;

/// What noise on a matrix costs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stake {
    /// `|Σ g x̃ᵀ|²` a token.
    pub weights: f64,
    /// `|g|² |d|²` a token, with inputs rounded in groups, by their size as in [`GROUP_SIZES`].
    pub activations: [f64; GROUP_SIZES.len()],
}

impl Stake {
    /// Of a window in which a matrix reads `x` (tokens, n_in) and has gradients `g` (tokens, n_out).
    fn new(x: &[f32], g: &[f32], tokens: usize, lattice: &Lattice) -> Self {
        let [n_in, n_out] = [x, g].map(|values| values.len() / tokens);
        let mut remainders = x.to_vec();
        remainders.chunks_mut(n_in).for_each(hadamard);
        back_substitute(lattice, &mut remainders);
        let mut products = vec![0.0; ROWS.min(n_out) * n_in];
        let by_weights = |first| {
            let rows = ROWS.min(n_out - first);
            let products = &mut products[..rows * n_in];
            matmul_of_columns(
                ViewMut::new(products, rows, n_in, n_in),
                1.0,
                View::new(&g[first..], tokens, rows, n_out),
                View::new(&remainders, tokens, n_in, n_in),
            );
            squared_norm(products)
        };
        let weights = (0..n_out).step_by(ROWS).map(by_weights).sum();
        let squares: Vec<f64> = g.chunks(n_out).map(squared_norm).collect();
        Self { weights, activations: of_activations(x, &squares) }
    }

    fn add(&mut self, other: &Self) {
        self.weights += other.weights;
        self.activations.iter_mut().zip(other.activations).for_each(|(sum, other)| *sum += other);
    }

    fn scale(&mut self, factor: f64) {
        self.weights *= factor;
        self.activations.iter_mut().for_each(|sum| *sum *= factor);
    }
}

/// What is at stake with all matrices; `sensitivity` is that of the same text.
///
/// In memory are the residual streams of the text, one layer, and the moments of its inputs.
///
/// # Errors
/// If the checkpoint cannot be read.
pub fn measure(
    checkpoint: &Checkpoint,
    text: &Calibration,
    sensitivity: &Sensitivity,
) -> Result<BTreeMap<TensorId, Stake>> {
    let (config, window) = (checkpoint.config(), text.window());
    let mut streams = embed(checkpoint, text)?;
    let mut stakes: BTreeMap<TensorId, Stake> = BTreeMap::new();
    for (index, gradients) in sensitivity.by_stream.iter().enumerate() {
        let layer = Layer::load(checkpoint, index)?;
        let (after, lattices) = forward(&layer, &streams, window);
        let work = streams.par_iter().zip(gradients.par_chunks(window * config.n_embd));
        let of_windows = work.map(|(x, gradients)| {
            let gradients = gradients.iter().copied().map(bf16::to_f32).collect();
            let mut stakes = Vec::new();
            layer.backward(x, gradients, &mut |id, x, g| {
                let input = id.role.reads().expect("it does in a layer");
                stakes.push((id, Stake::new(x, g, window, &lattices[&input])));
            });
            stakes
        });
        for (id, stake) in of_windows.collect::<Vec<_>>().iter().flatten() {
            stakes.entry(*id).or_default().add(stake);
        }
        streams = after;
    }
    stakes.values_mut().for_each(|stake| stake.scale(1.0 / text.tokens().len() as f64));

    // Of a token's errors as a row of the head nothing but its own logit changes: what is at stake is known in the
    // mean over all tokens' rows.
    let norm = Norm::load(&Tensors::new(checkpoint), TensorId::outside(Role::FinalNorm))?;
    let mut moments = Moments::alone(config.n_embd);
    let mut head = Stake::default();
    for x in &streams {
        let mut h = norm.forward(x, Parallelism::Rayon);
        let activations = of_activations(&h, &vec![sensitivity.head; window]);
        head.add(&Stake { weights: 0.0, activations });
        h.chunks_mut(config.n_embd).for_each(hadamard);
        moments.add_alone(&h);
    }
    head.scale(1.0 / text.tokens().len() as f64);
    let mut as_head = moments.second();
    as_head.iter_mut().for_each(|sum| *sum *= sensitivity.head);
    let mut as_table = sensitivity.embedding.clone();
    transform(&mut as_table);
    if config.tie_word_embeddings {
        as_head.iter_mut().zip(&as_table).for_each(|(sum, as_table)| *sum += as_table);
    } else {
        let weights = remaining_trace(&as_table);
        stakes.insert(TensorId::outside(Role::Embedding), Stake { weights, ..Stake::default() });
    }
    stakes.insert(network::head(config), Stake { weights: remaining_trace(&as_head), ..head });
    Ok(stakes)
}

/// Takes residual streams of so many tokens each through a layer; factors of the transformed inputs' second moments.
fn forward(
    layer: &Layer,
    streams: &[Vec<f32>],
    tokens: usize,
) -> (Vec<Vec<f32>>, BTreeMap<Input, Lattice>) {
    let mut after = Vec::with_capacity(streams.len());
    let mut moments: BTreeMap<Input, Moments> = BTreeMap::new();
    for wave in streams.chunks(rayon::current_num_threads()) {
        let passes = wave.par_iter().map(|x| {
            let mut inputs = Vec::new();
            let x = layer.forward(x, Parallelism::Serial, &mut |at, h| {
                inputs.push((at.input, h.to_vec()));
            });
            (x, inputs)
        });
        for (x, inputs) in passes.collect::<Vec<_>>() {
            after.push(x);
            for (input, mut h) in inputs {
                let width = h.len() / tokens;
                h.chunks_mut(width).for_each(hadamard);
                moments.entry(input).or_insert_with(|| Moments::alone(width)).add_alone(&h);
            }
        }
    }
    let lattices = moments.into_iter().map(|(input, moments)| (input, lattice(moments.second())));
    (after, lattices.collect())
}

/// The factors that rounding goes by, if `second` are the second moments of inputs.
fn lattice(mut second: Vec<f64>) -> Lattice {
    let n = second.len().isqrt();
    let mean = (0..n).map(|i| second[i * n + i]).sum::<f64>() / n as f64;
    if mean >= f64::MIN_POSITIVE && second.iter().all(|h| h.is_finite()) {
        return Lattice::along_paths(&mut second, DAMPING * mean);
    }
    second.fill(0.0);
    Lattice::along_paths(&mut second, 1.0)
}

/// `tr(M⁻ᵀ H M⁻¹)`, for `H`, `[n, n]`: what remainders of variance 1 in a row cost.
fn remaining_trace(metric: &[f64]) -> f64 {
    let n = metric.len().isqrt();
    let lattice = lattice(metric.to_vec());
    let mut rows: Vec<f32> = metric.iter().map(|&h| h as f32).collect();
    back_substitute(&lattice, &mut rows);
    let mut columns: Vec<f32> = (0..n * n).map(|at| rows[at % n * n + at / n]).collect();
    back_substitute(&lattice, &mut columns);
    (0..n).map(|t| f64::from(columns[t * n + t])).sum()
}

/// Rows `x`, `[_, n]`, become `M⁻ᵀ x`, in the order of the factor.
fn back_substitute(lattice: &Lattice, rows: &mut [f32]) {
    let n = lattice.order.len();
    let mut chunk = Vec::with_capacity(TOKENS * n);
    for rows in rows.chunks_mut(TOKENS * n) {
        chunk.clear();
        for row in rows.chunks(n) {
            chunk.extend(lattice.order.iter().map(|&column| row[column]));
        }
        for t in (1..n).rev() {
            let factor = &lattice.factor[t * n..][..t];
            for row in chunk.chunks_mut(n) {
                let own = row[t];
                row.iter_mut().zip(factor).for_each(|(x, factor)| *x -= factor * own);
            }
        }
        rows.copy_from_slice(&chunk);
    }
}

/// `Σ |g|² |d|²` for each group size, of inputs `x`; `squares` are `|g|²`, one for each token.
fn of_activations(x: &[f32], squares: &[f64]) -> [f64; GROUP_SIZES.len()] {
    let width = x.len() / squares.len();
    GROUP_SIZES.map(|group_size| {
        let mut errors = x.to_vec();
        round_activations(&mut errors, width, group_size);
        errors.iter_mut().zip(x).for_each(|(rounded, x)| *rounded -= x);
        errors.chunks(width).zip(squares).map(|(d, square)| square * squared_norm(d)).sum()
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::distribution::{LogSoftmax, kl_divergence};
    use crate::random::SplitMix;
    use crate::reference::Reference;

    /// Both kinds of GELU, ReLU, a gate with SiLU, ALiBi, muP's multipliers.
    const CASES: [&str; 4] =
        ["cerebras-17-heads", "inverse-layer-scale", "unscaled-relu", "btlm-6-heads"];

    fn text(checkpoint: &Checkpoint) -> Calibration {
        let (config, mut random) = (checkpoint.config(), SplitMix(5));
        let count = 10 * config.n_positions.min(512);
        let tokens: Vec<u32> = (0..count).map(|_| random.below(config.vocab_size) as u32).collect();
        Calibration::new(&tokens, 10, config).unwrap()
    }

    fn checkpoint(case: &str) -> Checkpoint {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
        Checkpoint::open(&golden.join(case)).unwrap()
    }

    /// Rows of noise from -1 to 1 as rounding leaves it: each column makes up for those before it.
    fn errors(random: &mut SplitMix, lattice: &Lattice, rows: usize) -> Vec<f32> {
        let n = lattice.order.len();
        let mut errors = vec![0.0; rows * n];
        for row in errors.chunks_mut(n) {
            let mut in_order: Vec<f32> = Vec::with_capacity(n);
            for t in 0..n {
                let noise = (random.next() as i64 as f64 * 0.5f64.powi(63)) as f32;
                let made_up: f32 =
                    in_order.iter().zip(&lattice.factor[t * n..]).map(|(e, m)| e * m).sum();
                in_order.push(noise - made_up);
                row[lattice.order[t]] = in_order[t];
            }
            hadamard(row);
        }
        errors
    }

    /// Errors in a layer's matrix cost half of what is at stake with it times the variance of their remainders.
    #[test]
    fn errors_of_a_matrix_cost_what_is_at_stake() {
        const DRAWS: usize = 12;
        for case in CASES {
            let checkpoint = checkpoint(case);
            let (config, text) = (checkpoint.config(), text(&checkpoint));
            let sensitivity = Sensitivity::measure(&checkpoint, &text).unwrap();
            let stakes = measure(&checkpoint, &text, &sensitivity).unwrap();
            let mut reference = Reference::load(&checkpoint).unwrap();
            let windows: Vec<&[u32]> = text.tokens().chunks(text.window()).collect();
            let exact: Vec<_> = windows.iter().map(|w| reference.logits(w).unwrap()).collect();
            let streams = embed(&checkpoint, &text).unwrap();
            let (_, lattices) = forward(&reference.layers[0], &streams, text.window());
            let mut random = SplitMix(3);
            for (id, stake) in stakes.iter().filter(|(id, _)| id.layer == Some(0)) {
                let lattice = &lattices[&id.role.reads().unwrap()];
                let trained = reference.layers[0].linear_mut(*id).weight.clone();
                let size = 0.02 * (squared_norm(&trained) / trained.len() as f64).sqrt();
                let mut divergence = 0.0;
                for _ in 0..DRAWS {
                    let weights = &mut reference.layers[0].linear_mut(*id).weight;
                    let errors = errors(&mut random, lattice, trained.len() / lattice.order.len());
                    for ((weight, trained), error) in weights.iter_mut().zip(&trained).zip(errors) {
                        *weight = trained + size as f32 * error;
                    }
                    for (window, exact) in windows.iter().zip(&exact) {
                        let changed = reference.logits(window).unwrap();
                        let rows = exact.chunks(config.vocab_size);
                        for (p, q) in rows.zip(changed.chunks(config.vocab_size)) {
                            divergence += kl_divergence(&LogSoftmax::new(p), &LogSoftmax::new(q));
                        }
                    }
                }
                reference.layers[0].linear_mut(*id).weight = trained;
                let measured = divergence / (text.tokens().len() * DRAWS) as f64;
                let ratio = measured / (0.5 * size * size / 3.0 * stake.weights);
                println!("{case} {id:?}: {ratio:.3} ({measured:.3e})");
                assert!((ratio - 1.0).abs() < 0.2, "{case} {id:?}: {ratio}");
            }
        }
    }

    /// The trace is the mean of the metric over errors of remainders of variance 1.
    #[test]
    fn what_remains_costs_the_trace() {
        const N: usize = 64;
        let mut random = SplitMix(1);
        let mut noise = || (random.next() as i64 as f64 * 0.5f64.powi(63)) as f32;
        let vectors: Vec<f32> = (0..300 * N).map(|_| noise()).collect();
        let mut moments = Moments::alone(N);
        // Neighbours have much in common.
        let mixed: Vec<f32> = vectors.windows(2).map(|pair| pair[0] + 0.9 * pair[1]).collect();
        moments.add_alone(&mixed[..299 * N]);
        let metric = moments.second();
        let lattice = lattice(metric.clone());
        let rows = 4000;
        let mut errors = errors(&mut random, &lattice, rows);
        let mut sum = 0.0;
        for error in errors.chunks_mut(N) {
            hadamard(error);
            for (row, a) in metric.chunks(N).zip(&*error) {
                let along: f64 = row.iter().zip(&*error).map(|(h, &b)| h * f64::from(b)).sum();
                sum += f64::from(*a) * along;
            }
        }
        let ratio = 3.0 * sum / rows as f64 / remaining_trace(&metric);
        assert!((ratio - 1.0).abs() < 0.03, "{ratio}");
    }
}
