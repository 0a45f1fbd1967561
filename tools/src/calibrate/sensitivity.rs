//! How much predictions change with the embedding, and with what the layers put out.
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
//! ([`Walk::output_moments`](super::Walk::output_moments), and `quantize/stakes.rs`).

use cerebellum::format::network::{self, Role, TensorId};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::{Calibration, Moments};
use crate::checkpoint::Checkpoint;
use crate::random::SplitMix;
use crate::reference::linear::{project, project_back};
use crate::reference::{Layer, Norm, Parallelism, Result, Tensors, Weights, add, scale};

/// Tokens whose logits are in memory together, for each thread.
const CHUNK_TOKENS: usize = 128;

/// What errors of the embedding's rows cost.
pub struct Sensitivity {
    /// `F`, `[n_embd, n_embd]`, in nats a token.
    pub embedding: Vec<f64>,
    /// `c`.
    pub head: f64,
    /// The gradients by the residual stream after each layer, (tokens, n_embd).
    pub by_stream: Vec<Vec<bf16>>,
}

/// A window on its way through the model and back.
struct Window {
    /// The residual stream before each layer and after the last, (tokens, n_embd).
    boundaries: Vec<Vec<f32>>,
    /// The gradient by the residual stream, (tokens, n_embd).
    grad: Vec<f32>,
    /// The sum over tokens of `1 - Σ p²`.
    spread: f64,
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
        let windows = embed(checkpoint, text)?.into_iter();
        let mut windows: Vec<Window> = windows.map(Window::new).collect();
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
        for layer in (0..config.n_layer).rev() {
            for window in &windows {
                let start = by_stream[layer].len();
                by_stream[layer].resize(start + window.grad.len(), bf16::ZERO);
                by_stream[layer][start..].convert_from_f32_slice(&window.grad);
            }
            let layer = Layer::load(checkpoint, layer)?;
            windows.par_iter_mut().for_each(|window| {
                window.boundaries.pop();
                let grad = std::mem::take(&mut window.grad);
                window.grad = layer.backward(window.stream(), grad, &mut |_, _, _| ());
            });
        }
        let mut moments = Moments::alone(config.n_embd);
        for Window { grad, .. } in &mut windows {
            scale(grad, config.embeddings_scale);
            moments.add_alone(grad);
        }
        let spread = windows.iter().map(|window| window.spread).sum::<f64>();
        let spread = spread / text.tokens().len() as f64;
        let head = f64::from(config.logits_scale).powi(2) * spread;
        Ok(Self { embedding: moments.second(), head, by_stream })
    }
}

impl Window {
    /// With what enters the first layer.
    fn new(x: Vec<f32>) -> Self {
        Self { boundaries: vec![x], grad: Vec::new(), spread: 0.0 }
    }

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
        let (mut by_h, mut spread) = (Vec::with_capacity(h.len()), 0.0);
        for h in h.chunks(CHUNK_TOKENS * width) {
            let mut logits = project(head, h, width, Parallelism::Serial);
            scale(&mut logits, logits_scale);
            for logits in logits.chunks_mut(vocab_size) {
                spread += spread_and_draw(logits, &mut random);
            }
            scale(&mut logits, logits_scale);
            by_h.extend(project_back(head, &logits, vocab_size));
        }
        self.grad = norm.backward(x, &by_h);
        self.spread = spread;
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

/// What enters the first layer, window by window, (tokens, n_embd) each.
pub(crate) fn embed(checkpoint: &Checkpoint, text: &Calibration) -> Result<Vec<Vec<f32>>> {
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
        Ok(x)
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
}
