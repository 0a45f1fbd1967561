//! The parts of a block that work on one token at a time: layer norm, linear layers, activation.

use cerebellum::format::Activation;
use cerebellum::format::network::TensorId;

use super::matmul::{View, ViewMut, matmul, matmul_transposed};
use super::parallel::Parallelism;
use super::weights::Weights;
use crate::checkpoint::Result;

const SQRT_2_OVER_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
/// Of GELU's approximation by tanh.
const GELU_CUBIC: f64 = 0.044715;

/// Layer normalization. Ba, Kiros and Hinton, arXiv 1607.06450.
#[derive(Clone)]
pub(crate) struct LayerNorm {
    weight: Vec<f32>, // (n_embd)
    bias: Vec<f32>,   // (n_embd)
    epsilon: f64,
}

impl LayerNorm {
    /// The norm with this weight.
    pub fn load(weights: &impl Weights, id: TensorId) -> Result<Self> {
        Ok(Self {
            weight: weights.read_f32(&id.name())?,
            bias: weights.read_f32(&id.bias().name())?,
            epsilon: f64::from(weights.config().norm.epsilon),
        })
    }

    /// `x`: (tokens, n_embd) → the same. Statistics are in double precision.
    pub fn forward(&self, x: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let width = self.weight.len();
        let mut out = x.to_vec();
        parallelism.for_each_chunk(&mut out, width, |_, row| self.normalize(row));
        out
    }

    /// `n_embd`.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Divides the outputs, channel by channel.
    pub fn divide(&mut self, by: &[f32]) {
        for ((weight, bias), by) in self.weight.iter_mut().zip(&mut self.bias).zip(by) {
            *weight /= by;
            *bias /= by;
        }
    }

    /// `x`: the input; `grad`: a loss's gradient by the output → by the input; (tokens, n_embd) all.
    ///
    /// With `n = (x - mean) · scale` and `g = grad · weight` it is `scale · (g - mean(g) - n · mean(g n))`.
    pub fn backward(&self, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let width = self.weight.len();
        let mut out = vec![0.0; x.len()];
        for ((out, x), grad) in out.chunks_mut(width).zip(x.chunks(width)).zip(grad.chunks(width)) {
            let (mean, scale) = self.statistics(x);
            let channel = |i: usize| {
                let normalized = (f64::from(x[i]) - mean) * scale;
                (normalized, f64::from(grad[i]) * f64::from(self.weight[i]))
            };
            let (mut sum, mut along) = (0.0, 0.0);
            for (normalized, g) in (0..width).map(channel) {
                sum += g;
                along += g * normalized;
            }
            let (sum, along) = (sum / width as f64, along / width as f64);
            for (out, (normalized, g)) in out.iter_mut().zip((0..width).map(channel)) {
                *out = (scale * (g - sum - normalized * along)) as f32;
            }
        }
        out
    }

    /// Mean, and the inverse of the standard deviation.
    fn statistics(&self, row: &[f32]) -> (f64, f64) {
        let n = row.len() as f64;
        let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }

    fn normalize(&self, row: &mut [f32]) {
        let (mean, scale) = self.statistics(row);
        for ((x, weight), bias) in row.iter_mut().zip(&self.weight).zip(&self.bias) {
            *x = ((f64::from(*x) - mean) * scale) as f32 * weight + bias;
        }
    }
}

/// A linear layer, `y = W x + b`.
#[derive(Clone)]
pub(crate) struct Linear {
    /// Its weight's.
    pub id: TensorId,
    pub weight: Vec<f32>, // (n_out, n_in)
    pub bias: Vec<f32>,   // (n_out)
}

impl Linear {
    /// The layer with this weight.
    pub fn load(weights: &impl Weights, id: TensorId) -> Result<Self> {
        Ok(Self {
            weight: weights.read_matrix(&id.name())?,
            bias: weights.read_f32(&id.bias().name())?,
            id,
        })
    }

    /// `x`: (tokens, n_in) → (tokens, n_out).
    pub fn forward(&self, x: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let n_out = self.bias.len();
        let mut out = project(&self.weight, x, self.weight.len() / n_out, parallelism);
        parallelism.for_each_chunk(&mut out, n_out, |_, row| add(row, &self.bias));
        out
    }

    /// `grad`: a loss's gradient by the output, (tokens, n_out) → by the input, (tokens, n_in).
    pub fn backward(&self, grad: &[f32]) -> Vec<f32> {
        project_back(&self.weight, grad, self.bias.len())
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

/// `y`: (tokens, n_out) times `weight`: (n_out, n_in) → (tokens, n_in). On the calling thread.
pub(crate) fn project_back(weight: &[f32], y: &[f32], n_out: usize) -> Vec<f32> {
    let (tokens, n_in) = (y.len() / n_out, weight.len() / n_out);
    let mut out = vec![0.0; tokens * n_in];
    matmul(
        ViewMut::new(&mut out, tokens, n_in, n_in),
        1.0,
        View::new(y, tokens, n_out, n_out),
        View::new(weight, n_out, n_in, n_in),
        Parallelism::Serial,
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
        Activation::Gelu => gelu_erf,
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

/// Multiplies `grad`, a loss's gradient by the activation's output, by the derivative at its input `x`.
pub(crate) fn activate_backward(activation: Activation, x: &[f32], grad: &mut [f32]) {
    let derivative = match activation {
        Activation::Gelu => gelu_erf_derivative,
        Activation::GeluTanh => gelu_tanh_derivative,
        Activation::Relu => relu_derivative,
        Activation::Silu => silu_derivative,
    };
    for (grad, &x) in grad.iter_mut().zip(x) {
        *grad *= derivative(f64::from(x)) as f32;
    }
}

/// `x · Φ(x)`, Φ being the normal distribution function.
fn gelu_erf(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// `Φ(x) + x · φ(x)`, φ being the normal density.
fn gelu_erf_derivative(x: f64) -> f64 {
    const INV_SQRT_2_PI: f64 =
        0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
    let cumulative = 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    cumulative + x * INV_SQRT_2_PI * libm::exp(-0.5 * x * x)
}

/// The approximation of Hendrycks and Gimpel, arXiv 1606.08415, section 2.
fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x)))
}

fn gelu_tanh_derivative(x: f64) -> f64 {
    let tanh = libm::tanh(SQRT_2_OVER_PI * (x + GELU_CUBIC * x * x * x));
    let inner = SQRT_2_OVER_PI * (1.0 + 3.0 * GELU_CUBIC * x * x);
    0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner
}

fn relu(x: f64) -> f64 {
    x.max(0.0)
}

fn relu_derivative(x: f64) -> f64 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

fn silu(x: f64) -> f64 {
    x / (1.0 + libm::exp(-x))
}

fn silu_derivative(x: f64) -> f64 {
    let sigmoid = 1.0 / (1.0 + libm::exp(-x));
    sigmoid * (1.0 + x * (1.0 - sigmoid))
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

    /// Against central differences.
    #[test]
    fn derivatives_are_those_of_the_activations() {
        type Function = fn(f64) -> f64;
        let pairs: [(Function, Function); 4] = [
            (gelu_erf, gelu_erf_derivative),
            (gelu_tanh, gelu_tanh_derivative),
            (relu, relu_derivative),
            (silu, silu_derivative),
        ];
        for (function, derivative) in pairs {
            for x in [-4.0, -1.3, -0.4, 0.02, 0.9, 3.1] {
                let slope = (function(x + 1e-5) - function(x - 1e-5)) / 2e-5;
                assert!((derivative(x) - slope).abs() < 1e-9, "{x}: {} {slope}", derivative(x));
            }
        }
    }
}
