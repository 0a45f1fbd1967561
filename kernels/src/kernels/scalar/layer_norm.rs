//! Layer norm (Ba et al., 2016; `docs/numbers.md` section 6).

use super::{LANES, fold16};
use crate::kernels::LayerNorm;

/// Normalizes one token's row.
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
            *lane = d.mul_add(d, *lane);
        }
    }
    let variance = fold16(lanes) / n;
    let rstd = 1.0 / (variance + norm.epsilon).sqrt();

    for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(norm.weight).zip(norm.bias) {
        *out = ((x - mean) * rstd).mul_add(weight, bias);
    }
}
