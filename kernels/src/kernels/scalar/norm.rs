//! Layer norm (Ba et al., 2016) and RMS norm (Zhang & Sennrich, 2019; `docs/numbers.md` section 6).

use super::{LANES, fold16};
use crate::float::{fma, sqrt};
use crate::kernels::types::{LayerNorm, RmsNorm};

/// Layer norm of one token's row.
#[inline(always)]
pub(super) fn layer_norm(x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
    let n = x.len() as f32;
    let mut lanes = [0.0; LANES];
    for chunk in x.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    let mean = fold16(lanes) / n;

    let mut lanes = [0.0; LANES];
    for chunk in x.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            let d = x - mean;
            *lane = fma(d, d, *lane);
        }
    }
    let variance = fold16(lanes) / n;
    let rstd = 1.0 / sqrt(variance + norm.epsilon);

    for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(norm.weight).zip(norm.bias) {
        *out = fma((x - mean) * rstd, weight, bias);
    }
}

/// RMS norm of one token's row.
#[inline(always)]
pub(super) fn rms_norm(x: &[f32], norm: &RmsNorm, out: &mut [f32]) {
    let mut lanes = [0.0; LANES];
    for chunk in x.chunks(LANES) {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = fma(x, x, *lane);
        }
    }
    let mean_square = fold16(lanes) / x.len() as f32;
    let scale = 1.0 / sqrt(mean_square + norm.epsilon);
    for ((out, &x), &weight) in out.iter_mut().zip(x).zip(norm.weight) {
        *out = (x * scale) * weight;
    }
}
