//! Layer norm (Ba et al., 2016; `docs/numbers.md` section 6).

use std::arch::x86_64::*;

use super::{first, fold16, load_part, load16, store_part, store16};
use crate::kernels::LayerNorm;

/// Normalizes one token's row.
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn layer_norm(x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
    let n = x.len() as f32;
    let (chunks, tail) = x.as_chunks::<16>();
    let tail_x = load_part(tail);

    let mut lanes = _mm512_setzero_ps();
    for chunk in chunks {
        lanes = _mm512_add_ps(lanes, load16(chunk));
    }
    // A lane that started from +0 is never -0, so that adding a missing element's +0 changes nothing.
    lanes = _mm512_add_ps(lanes, tail_x);
    let mean = _mm512_set1_ps(fold16(lanes) / n);

    let mut lanes = _mm512_setzero_ps();
    for chunk in chunks {
        let d = _mm512_sub_ps(load16(chunk), mean);
        lanes = _mm512_fmadd_ps(d, d, lanes);
    }
    let d = _mm512_maskz_sub_ps(first(tail.len()), tail_x, mean);
    lanes = _mm512_fmadd_ps(d, d, lanes);
    let variance = fold16(lanes) / n;
    let rstd = _mm512_set1_ps(1.0 / (variance + norm.epsilon).sqrt());

    let (weights, tail_weight) = norm.weight.as_chunks::<16>();
    let (biases, tail_bias) = norm.bias.as_chunks::<16>();
    let (outs, tail_out) = out.as_chunks_mut::<16>();
    for (((out, x), weight), bias) in outs.iter_mut().zip(chunks).zip(weights).zip(biases) {
        let scaled = _mm512_mul_ps(_mm512_sub_ps(load16(x), mean), rstd);
        store16(_mm512_fmadd_ps(scaled, load16(weight), load16(bias)), out);
    }
    let scaled = _mm512_mul_ps(_mm512_sub_ps(tail_x, mean), rstd);
    store_part(_mm512_fmadd_ps(scaled, load_part(tail_weight), load_part(tail_bias)), tail_out);
}
