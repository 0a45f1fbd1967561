//! The parts of a block that work on one token at a time: layer norm, linear layers, activation.

use super::matmul::{View, ViewMut, matmul_transposed};
use super::parallel::Parallelism;
use super::weights::Weights;
use crate::checkpoint::{Activation, Result};

/// Layer normalization. Ba, Kiros and Hinton, arXiv 1607.06450.
#[derive(Clone)]
pub(crate) struct LayerNorm {
    weight: Vec<f32>, // (n_embd)
    bias: Vec<f32>,   // (n_embd)
    epsilon: f64,
}

impl LayerNorm {
    pub fn load(weights: &impl Weights, name: &str) -> Result<Self> {
        Ok(Self {
            weight: weights.read_f32(&format!("{name}.weight"))?,
            bias: weights.read_f32(&format!("{name}.bias"))?,
            epsilon: f64::from(weights.config().layer_norm_epsilon),
        })
    }

    /// `x`: (tokens, n_embd) → the same. Statistics are in double precision.
    pub fn forward(&self, x: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let width = self.weight.len();
        let mut out = x.to_vec();
        parallelism.for_each_chunk(&mut out, width, |_, row| self.normalize(row));
        out
    }

    /// Divides the outputs, channel by channel.
    pub fn divide(&mut self, by: &[f32]) {
        for ((weight, bias), by) in self.weight.iter_mut().zip(&mut self.bias).zip(by) {
            *weight /= by;
            *bias /= by;
        }
    }

    fn normalize(&self, row: &mut [f32]) {
        let n = row.len() as f64;
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (variance + self.epsilon).sqrt();
        for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *x = ((f64::from(*x) - mean) * scale) as f32 * weight + bias;
        }
    }
}

/// A linear layer, `y = W x + b`.
#[derive(Clone)]
pub(crate) struct Linear {
    /// The weight's canonical name.
    pub name: String,
    pub weight: Vec<f32>, // (n_out, n_in)
    pub bias: Vec<f32>,   // (n_out)
}

impl Linear {
    pub fn load(weights: &impl Weights, name: &str) -> Result<Self> {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Ok(Self {
            weight: weights.read_matrix(&weight)?,
            bias: weights.read_f32(&bias)?,
            name: weight,
        })
    }

    /// `x`: (tokens, n_in) → (tokens, n_out).
    pub fn forward(&self, x: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let n_out = self.bias.len();
        let mut out = project(&self.weight, x, self.weight.len() / n_out, parallelism);
        parallelism.for_each_chunk(&mut out, n_out, |_, row| add(row, &self.bias));
        out
    }
}

/// `x`: (tokens, n_in) times `weight`: (n_out, n_in), transposed → (tokens, n_out).
pub(crate) fn project(
    weight: &[f32],
    x: &[f32],
    n_in: usize,
    parallelism: Parallelism,
) -> Vec<f32> {
    let (tokens, n_out) = (x.len() / n_in, weight.len() / n_in);
    let mut out = vec![0.0; tokens * n_out];
    matmul_transposed(
        ViewMut::new(&mut out, tokens, n_out, n_out),
        1.0,
        View::new(x, tokens, n_in, n_in),
        View::new(weight, n_out, n_in, n_in),
        parallelism,
    );
    out
}

/// `x *= y`, element by element.
pub(crate) fn multiply(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= y;
    }
}

/// `x *= factor`.
pub(crate) fn scale(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

/// `x += y`, element by element, up to the end of the shorter.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Applies the activation in place. Each value is computed in double precision.
pub(crate) fn activate(activation: Activation, x: &mut [f32], parallelism: Parallelism) {
    const CHUNK: usize = 4096;
    let function = match activation {
        Activation::GeluErf => gelu_erf,
        Activation::GeluTanh => gelu_tanh,
        Activation::Relu => relu,
        Activation::Silu => silu,
    };
    parallelism.for_each_chunk(x, CHUNK, |_, chunk| {
        for x in chunk {
            *x = function(f64::from(*x)) as f32;
        }
    });
}

/// `x · Φ(x)`, Φ being the normal distribution function.
fn gelu_erf(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// The approximation of Hendrycks and Gimpel, arXiv 1606.08415, section 2.
fn gelu_tanh(x: f64) -> f64 {
    const SQRT_2_OVER_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    0.5 * x * (1.0 + libm::tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))
}

fn relu(x: f64) -> f64 {
    x.max(0.0)
}

fn silu(x: f64) -> f64 {
    x / (1.0 + libm::exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the textbook formulas in CPython's double-precision `math`.
    #[test]
    fn activations_equal_the_formulas() {
        let cases = [
            (-3.0, -0.004049694095, -0.003637392082, -0.142277619533),
            (-0.5, -0.154268769363, -0.154285990175, -0.188770334399),
            (0.0, 0.0, 0.0, 0.0),
            (1.0, 0.841344746069, 0.841191990608, 0.731058578630),
            (2.5, 2.484475836686, 2.484915733910, 2.310354549947),
        ];
        for (x, erf, tanh, swish) in cases {
            for (found, expected) in [(gelu_erf(x), erf), (gelu_tanh(x), tanh), (silu(x), swish)] {
                assert!((found - expected).abs() < 1e-11, "{x}: {found} {expected}");
            }
            assert_eq!(relu(x), if x > 0.0 { x } else { 0.0 });
        }
    }
}
