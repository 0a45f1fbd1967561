//! Layer norm (Ba et al., 2016; `docs/numbers.md` section 6).

use std::arch::aarch64::vld1q_u32;
use std::array::from_fn;

use super::instructions::*;
use super::{F32x16, add16, fma16, fold16, load_part, load16, mul16, splat16, sub16};
use super::{store_part, store16};
use crate::kernels::LayerNorm;

/// Normalizes one token's row.
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
fn keep_first(n: usize, x: F32x16) -> F32x16 {
    let masks: [u32; 16] = from_fn(|lane| if lane < n { u32::MAX } else { 0 });
    from_fn(|i| {
        // SAFETY: 4 of the 16 masks.
        let mask = unsafe { vld1q_u32(masks.as_ptr().add(4 * i)) };
        vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x[i]), mask))
    })
}
