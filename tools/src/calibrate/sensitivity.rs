//! How much predictions change with the embedding, and with what other matrices put out.
//!
//! Errors of a token's row change predictions twice where the embedding is the head, too: as the head's
//! row they change one logit at every position, as the embedding they enter the residual stream wherever
//! the token stands. To second order the divergence of predictions is half a quadratic form of each error
//! `e` of a row, summed over tokens by how often they occur: `e (c H + F) eᵀ`.
//!
//! - `H`, the mean of `x xᵀ` of what the head reads, is the calibration's ([`Moments`]); `c` is the mean over
//!   positions of `1 - Σ p²`, since an error of the logit of probability `p` costs `p (1 - p)` times its square,
//!   times the square of what the model multiplies its logits by (muP).
//! - `F` is the Fisher information of predictions about the embedding: the mean of `g gᵀ`, where `g` are
//!   gradients of `v · logits` by the row that is looked up at a position, with random `v` at each
//!   position of the text so that the mean of `v vᵀ` is `diag(p) - p pᵀ`, the divergence's second derivative
//!   by the logits (Martens, "New insights and perspectives on the natural gradient method", 2020, section 9).
//!
//! The same gradients, by the residual stream after each layer, say what errors of a layer's matrices cost
//! ([`Walk::output_moments`](super::Walk::output_moments)), and [`Stake`] what noise on each matrix costs.

use std::collections::BTreeMap;

use cerebellum::format::network::{self, Role, TensorId};
use cerebellum::quant::GROUP_SIZES;
use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::{Calibration, Moments, round_activations};
use crate::checkpoint::Checkpoint;
use crate::random::SplitMix;
use crate::reference::linear::{project, project_back};
use crate::reference::matmul::{View, ViewMut, matmul_of_columns};
use crate::reference::{Layer, Norm, Parallelism, Result, Tensors, Weights, add, scale};

/// Tokens whose logits are in memory together, for each thread.
const CHUNK_TOKENS: usize = 128;
/// Rows of a matrix whose gradients are in memory together, for each thread.
const ROWS: usize = 128;

/// What errors of the embedding's rows cost.
pub struct Sensitivity {
    /// `F`, `[n_embd, n_embd]`, in nats a token.
    pub embedding: Vec<f64>,
    /// `c`.
    pub head: f64,
    /// The gradients by the residual stream after each layer, (tokens, n_embd).
    pub by_stream: Vec<Vec<bf16>>,
    /// What noise on each matrix costs.
    pub stakes: BTreeMap<TensorId, Stake>,
}

/// What noise costs a matrix, `y = W x`, to second order. With gradients `g` of the predictions by `y`, independent
/// errors of the weights of variance `s` cost half of `s |Σ g xᵀ|²`, the sum being over the tokens of a window and
/// the norm Frobenius's. Weights of mean square `s` that are no more dependent pass errors `d` of `x` on to `y`; those
/// of different tokens are independent, and cost half of `s Σ |g|² |d|²`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stake {
    /// `|Σ g xᵀ|²`, over the tokens.
    pub weights: f64,
    /// `Σ |g|² |d|²`, over the tokens, with errors `d` of inputs that are rounded in groups, by their size as in
    /// [`GROUP_SIZES`].
    pub activations: [f64; GROUP_SIZES.len()],
}

impl Stake {
    /// Of a window in which a matrix reads `x` (tokens, n_in) and has gradients `g` (tokens, n_out).
    fn new(x: &[f32], g: &[f32], tokens: usize) -> Self {
        let [n_in, n_out] = [x, g].map(|values| values.len() / tokens);
        let mut products = vec![0.0; ROWS.min(n_out) * n_in];
        let by_weights = |first| {
            let rows = ROWS.min(n_out - first);
            let products = &mut products[..rows * n_in];
            matmul_of_columns(
                ViewMut::new(products, rows, n_in, n_in),
                1.0,
                View::new(&g[first..], tokens, rows, n_out),
                View::new(x, tokens, n_in, n_in),
            );
            squared_norm(products)
        };
        let weights = (0..n_out).step_by(ROWS).map(by_weights).sum();
        let squares: Vec<f64> = g.chunks(n_out).map(squared_norm).collect();
        Self { weights, activations: of_activations(x, &squares) }
    }

    /// Of a window in which a head reads `x` (tokens, n_in) where the gradients have squares of these sums, and are
    /// independent between tokens.
    fn of_head(x: &[f32], squares: &[f64]) -> Self {
        let rows = x.chunks(x.len() / squares.len());
        let weights = rows.zip(squares).map(|(x, square)| square * squared_norm(x)).sum();
        Self { weights, activations: of_activations(x, squares) }
    }

    /// Both stakes, one matrix being used twice.
    fn join(&mut self, other: &Self) {
        self.weights += other.weights;
        self.activations.iter_mut().zip(other.activations).for_each(|(sum, other)| *sum += other);
    }

    fn scale(&mut self, factor: f64) {
        self.weights *= factor;
        self.activations.iter_mut().for_each(|sum| *sum *= factor);
    }
}

fn of_activations(x: &[f32], squares: &[f64]) -> [f64; GROUP_SIZES.len()] {
    let width = x.len() / squares.len();
    GROUP_SIZES.map(|group_size| {
        let mut errors = x.to_vec();
        round_activations(&mut errors, width, group_size);
        errors.iter_mut().zip(x).for_each(|(rounded, x)| *rounded -= x);
        errors.chunks(width).zip(squares).map(|(d, square)| square * squared_norm(d)).sum()
    })
}

/// The sum of squares.
pub(crate) fn squared_norm(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// A window on its way through the model and back.
struct Window {
    /// The residual stream before each layer and after the last, (tokens, n_embd).
    boundaries: Vec<Vec<f32>>,
    /// The gradient by the residual stream, (tokens, n_embd).
    grad: Vec<f32>,
    /// The sum over tokens of `1 - Σ p²`.
    spread: f64,
    /// The head's, before its multiplier of logits.
    head: Stake,
}

impl Sensitivity {
    /// Takes the float model through the text and back, layer by layer; in memory are the residual streams
    /// of all layers and half as many bytes of gradients, the head, one layer, and logits of 128 tokens for each
    /// thread.
    ///
    /// # Errors
    /// If the checkpoint cannot be read.
    pub fn measure(checkpoint: &Checkpoint, text: &Calibration) -> Result<Self> {
        let config = checkpoint.config();
        let mut windows = embed(checkpoint, text)?;
        for layer in 0..config.n_layer {
            let layer = Layer::load(checkpoint, layer)?;
            windows.par_iter_mut().for_each(|window| {
                let x = layer.forward(window.stream(), Parallelism::Serial, &mut |_, _| ());
                window.boundaries.push(x);
            });
        }
        let norm = Norm::load(&Tensors::new(checkpoint), TensorId::outside(Role::FinalNorm))?;
        let head = checkpoint.read(network::head(config))?;
        windows.par_iter_mut().enumerate().for_each(|(index, window)| {
            window.turn(&norm, &head, config.logits_scale, index as u64);
        });
        drop(head);
        let mut by_stream = vec![Vec::new(); config.n_layer];
        let mut stakes: BTreeMap<TensorId, Stake> = BTreeMap::new();
        for layer in (0..config.n_layer).rev() {
            for window in &windows {
                let start = by_stream[layer].len();
                by_stream[layer].resize(start + window.grad.len(), bf16::ZERO);
                by_stream[layer][start..].convert_from_f32_slice(&window.grad);
            }
            let layer = Layer::load(checkpoint, layer)?;
            let of_windows = windows.par_iter_mut().map(|window| {
                window.boundaries.pop();
                let grad = std::mem::take(&mut window.grad);
                let mut stakes = Vec::new();
                window.grad = layer.backward(window.stream(), grad, &mut |id, x, grad| {
                    stakes.push((id, Stake::new(x, grad, text.window())));
                });
                stakes
            });
            for (id, stake) in of_windows.collect::<Vec<_>>().iter().flatten() {
                stakes.entry(*id).or_default().join(stake);
            }
        }
        let mut moments = Moments::alone(config.n_embd);
        let mut embedding = Stake::default();
        for Window { grad, .. } in &mut windows {
            scale(grad, config.embeddings_scale);
            moments.add_alone(grad);
            embedding.weights += squared_norm(grad);
        }
        stakes.insert(TensorId::outside(Role::Embedding), embedding);
        let (mut spread, mut as_head) = (0.0, Stake::default());
        for window in &windows {
            spread += window.spread;
            as_head.join(&window.head);
        }
        let (tokens, of_logits) =
            (text.tokens().len() as f64, f64::from(config.logits_scale).powi(2));
        as_head.scale(of_logits);
        stakes.entry(network::head(config)).or_default().join(&as_head);
        stakes.values_mut().for_each(|stake| stake.scale(1.0 / tokens));
        let head = of_logits * spread / tokens;
        Ok(Self { embedding: moments.second(), head, by_stream, stakes })
    }
}

impl Window {
    fn stream(&self) -> &[f32] {
        self.boundaries.last().expect("begins with the embedding")
    }

    /// From the stream after the last layer to the gradient by it.
    fn turn(&mut self, norm: &Norm, head: &[f32], logits_scale: f32, seed: u64) {
        let x = self.stream();
        let h = norm.forward(x, Parallelism::Serial);
        let width = norm.width();
        let vocab_size = head.len() / width;
        let mut random = SplitMix(seed << 32);
        let (mut by_h, mut spreads) = (Vec::with_capacity(h.len()), Vec::new());
        for h in h.chunks(CHUNK_TOKENS * width) {
            let mut logits = project(head, h, width, Parallelism::Serial);
            scale(&mut logits, logits_scale);
            for logits in logits.chunks_mut(vocab_size) {
                spreads.push(spread_and_draw(logits, &mut random));
            }
            scale(&mut logits, logits_scale);
            by_h.extend(project_back(head, &logits, vocab_size));
        }
        self.grad = norm.backward(x, &by_h);
        self.head = Stake::of_head(&h, &spreads);
        self.spread = spreads.iter().sum();
    }
}

/// Replaces logits by a random vector `v` whose `v vᵀ` is `diag(p) - p pᵀ` in the mean:
/// `v = √p ∘ s - p (√p · s)` with signs `s`. Returns `1 - Σ p²`.
fn spread_and_draw(logits: &mut [f32], random: &mut SplitMix) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let exp = |z: f32| (f64::from(z) - max).exp();
    let sum: f64 = logits.iter().map(|&z| exp(z)).sum();
    let (mut along, mut squares) = (0.0, 0.0);
    let signs: Vec<u64> = (0..logits.len().div_ceil(64)).map(|_| random.next()).collect();
    let sign = |token: usize| if signs[token / 64] >> (token % 64) & 1 == 0 { 1.0 } else { -1.0 };
    for (token, &z) in logits.iter().enumerate() {
        let p = exp(z) / sum;
        along += p.sqrt() * sign(token);
        squares += p * p;
    }
    for (token, z) in logits.iter_mut().enumerate() {
        let p = exp(*z) / sum;
        *z = (p.sqrt() * sign(token) - p * along) as f32;
    }
    1.0 - squares
}

/// The windows with what enters the first layer.
fn embed(checkpoint: &Checkpoint, text: &Calibration) -> Result<Vec<Window>> {
    let config = checkpoint.config();
    let table = checkpoint.tensor(&TensorId::outside(Role::Embedding).name())?;
    let positions = Tensors::new(checkpoint).find(TensorId::outside(Role::Positions))?;
    let windows = text.tokens().chunks(text.window()).map(|tokens| {
        let mut x = vec![0.0; tokens.len() * config.n_embd];
        for (row, &token) in x.chunks_mut(config.n_embd).zip(tokens) {
            let token = token as usize;
            table.read_rows_into(token..token + 1, row)?;
        }
        if let Some(positions) = &positions {
            add(&mut x, positions);
        }
        scale(&mut x, config.embeddings_scale);
        Ok(Window { boundaries: vec![x], grad: Vec::new(), spread: 0.0, head: Stake::default() })
    });
    windows.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::eval::{LogSoftmax, kl_divergence};
    use crate::reference::Reference;

    /// Both kinds of GELU, ReLU, a gate with SiLU, ALiBi, muP's multipliers, a head of its own.
    const CASES: [&str; 5] = [
        "cerebras-17-heads",
        "inverse-layer-scale",
        "unscaled-relu",
        "btlm-6-heads",
        "untied-bin-sharded",
    ];

    fn checkpoint(case: &str) -> Checkpoint {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
        Checkpoint::open(&golden.join(case)).unwrap()
    }

    /// From -1 to 1.
    fn noise(random: &mut SplitMix, count: usize) -> Vec<f32> {
        (0..count).map(|_| (random.next() as i64 as f64 * 0.5f64.powi(63)) as f32).collect()
    }

    /// Small noise on all embeddings costs half the trace of `F` times its variance, and noise on what the
    /// head puts out half of `c` times its variance.
    #[test]
    fn small_errors_cost_what_the_quadratic_form_says() {
        for case in CASES {
            let checkpoint = checkpoint(case);
            let config = checkpoint.config();
            let mut random = SplitMix(2);
            let count = 10 * config.n_positions.min(512);
            let tokens: Vec<u32> =
                (0..count).map(|_| random.below(config.vocab_size) as u32).collect();
            let text = Calibration::new(&tokens, 10, config).unwrap();
            let Sensitivity { embedding, head, .. } =
                Sensitivity::measure(&checkpoint, &text).unwrap();

            let reference = Reference::load(&checkpoint).unwrap();
            let (mut as_table, mut as_head) = (0.0, 0.0);
            let variance = |size: f32| f64::from(size * size) / 3.0;
            let (table_noise, logit_noise) = (1e-3, 0.05);
            let logits_scale = config.logits_scale;
            for tokens in text.tokens().chunks(text.window()) {
                let exact = reference.embed(tokens);
                let logits = |mut x: Vec<f32>| {
                    for layer in &reference.layers {
                        x = reference.pass(layer, &x, &mut |_, _| ());
                    }
                    reference.finish(&x, &mut |_, _| ())
                };
                let mut changed = exact.clone();
                let size = table_noise * config.embeddings_scale;
                for (x, noise) in changed.iter_mut().zip(noise(&mut random, exact.len())) {
                    *x += size * noise;
                }
                let (exact, changed) = (logits(exact), logits(changed));
                let rows = exact.chunks(config.vocab_size).zip(changed.chunks(config.vocab_size));
                for (p, q) in rows {
                    as_table += kl_divergence(&LogSoftmax::new(p), &LogSoftmax::new(q));
                    let noise = noise(&mut random, p.len());
                    let q: Vec<f32> = p
                        .iter()
                        .zip(noise)
                        .map(|(p, n)| p + logits_scale * logit_noise * n)
                        .collect();
                    as_head += kl_divergence(&LogSoftmax::new(p), &LogSoftmax::new(&q));
                }
            }
            let tokens = text.tokens().len() as f64;
            let trace: f64 = embedding.iter().step_by(config.n_embd + 1).sum();
            for (what, measured, expected) in [
                ("table", as_table / tokens, 0.5 * variance(table_noise) * trace),
                ("head", as_head / tokens, 0.5 * variance(logit_noise) * head),
            ] {
                let ratio = measured / expected;
                println!("{case}, {what}: {ratio:.3} ({measured:.3e})");
                assert!((ratio - 1.0).abs() < 0.1, "{case}, {what}: {measured} {expected}");
            }
        }
    }

    /// Noise on a matrix of a layer costs half of what is at stake with it times its variance.
    #[test]
    fn noise_on_a_matrix_costs_what_is_at_stake() {
        const DRAWS: usize = 12;
        for case in CASES {
            let checkpoint = checkpoint(case);
            let config = checkpoint.config();
            let mut random = SplitMix(5);
            let count = 10 * config.n_positions.min(512);
            let tokens: Vec<u32> =
                (0..count).map(|_| random.below(config.vocab_size) as u32).collect();
            let text = Calibration::new(&tokens, 10, config).unwrap();
            let stakes = Sensitivity::measure(&checkpoint, &text).unwrap().stakes;
            let mut reference = Reference::load(&checkpoint).unwrap();
            let windows: Vec<&[u32]> = text.tokens().chunks(text.window()).collect();
            let exact: Vec<_> = windows.iter().map(|w| reference.logits(w).unwrap()).collect();
            for (id, stake) in stakes.iter().filter(|(id, _)| id.layer == Some(0)) {
                let trained = reference.layers[0].linear_mut(*id).weight.clone();
                let size = 0.02 * (squared_norm(&trained) / trained.len() as f64).sqrt();
                let mut divergence = 0.0;
                for _ in 0..DRAWS {
                    let weights = &mut reference.layers[0].linear_mut(*id).weight;
                    let noise = noise(&mut random, trained.len());
                    for ((weight, trained), noise) in weights.iter_mut().zip(&trained).zip(noise) {
                        *weight = trained + size as f32 * noise;
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
}
