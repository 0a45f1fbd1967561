//! Layer norm (Ba et al., 2016; `docs/numbers.md` section 6).

use std::arch::x86_64::*;

use super::{F32x16, add16, fma16, fold16, load_part, load16, mul16, splat16, sub16};
use super::{store_part, store16};
use crate::kernels::LayerNorm;

/// Normalizes one token's row.
#[target_feature(enable = "avx2,fma")]
pub(super) fn layer_norm(x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
    let n = x.len() as f32;
    let (chunks, tail) = x.as_chunks::<16>();
    let tail_x = load_part(tail);

    let mut lanes = splat16(0.0);
    for chunk in chunks {
        lanes = add16(lanes, load16(chunk));
    }
    // A lane that started from +0 is never -0, so that adding a missing element's +0 changes nothing.
    lanes = add16(lanes, tail_x);
    let mean = fold16(lanes) / n;
    let mean16 = splat16(mean);

    let mut lanes = splat16(0.0);
    for chunk in chunks {
        let d = sub16(load16(chunk), mean16);
        lanes = fma16(d, d, lanes);
    }
    let d = keep_first(tail.len(), sub16(tail_x, mean16));
    lanes = fma16(d, d, lanes);
    let variance = fold16(lanes) / n;
    let rstd = splat16(1.0 / (variance + norm.epsilon).sqrt());

    let (weights, tail_weight) = norm.weight.as_chunks::<16>();
    let (biases, tail_bias) = norm.bias.as_chunks::<16>();
    let (outs, tail_out) = out.as_chunks_mut::<16>();
    for (((out, x), weight), bias) in outs.iter_mut().zip(chunks).zip(weights).zip(biases) {
        let scaled = mul16(sub16(load16(x), mean16), rstd);
        store16(fma16(scaled, load16(weight), load16(bias)), out);
    }
    let scaled = mul16(sub16(tail_x, mean16), rstd);
    store_part(fma16(scaled, load_part(tail_weight), load_part(tail_bias)), tail_out);
}

/// The first `n` lanes, the others 0.
#[inline]
#[target_feature(enable = "avx2")]
fn keep_first(n: usize, x: F32x16) -> F32x16 {
    let n = _mm256_set1_epi32(n as i32);
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let low = _mm256_cmpgt_epi32(n, lanes);
    let high = _mm256_cmpgt_epi32(n, _mm256_add_epi32(lanes, _mm256_set1_epi32(8)));
    [_mm256_and_ps(x[0], _mm256_castsi256_ps(low)), _mm256_and_ps(x[1], _mm256_castsi256_ps(high))]
}
