//! Activations. Each value is computed in double precision.

use cerebellum::format::Activation;

use super::parallel::Parallelism;

const SQRT_2_OVER_PI: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
/// Of GELU's approximation by tanh.
const GELU_CUBIC: f64 = 0.044715;

/// The activation of each value.
pub(crate) fn activate(activation: Activation, x: &[f32], parallelism: Parallelism) -> Vec<f32> {
    const CHUNK: usize = 4096;
    let function = match activation {
        Activation::Gelu => gelu_erf,
        Activation::GeluTanh => gelu_tanh,
        Activation::Relu => relu,
        Activation::Silu => silu,
    };
    let mut out = x.to_vec();
    parallelism.for_each_chunk(&mut out, CHUNK, |_, chunk| {
        for x in chunk {
            *x = function(f64::from(*x)) as f32;
        }
    });
    out
}

/// `x`: the input; `grad`: a loss's gradient by the output → by the input.
pub(crate) fn activate_backward(activation: Activation, x: &[f32], mut grad: Vec<f32>) -> Vec<f32> {
    let derivative = match activation {
        Activation::Gelu => gelu_erf_derivative,
        Activation::GeluTanh => gelu_tanh_derivative,
        Activation::Relu => relu_derivative,
        Activation::Silu => silu_derivative,
    };
    for (grad, &x) in grad.iter_mut().zip(x) {
        *grad *= derivative(f64::from(x)) as f32;
    }
    grad
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
