//! Layer norm (Ba et al., 2016) and RMS norm (Zhang & Sennrich, 2019; `docs/numbers.md` section 6).

use crate::float::sqrt;
use crate::kernels::types::{LayerNorm, RmsNorm};
use crate::kernels::vector::{LANES, Vector};

/// Layer norm of one token's row.
#[inline(always)]
pub(in crate::kernels) fn layer_norm<V: Vector>(
    v: V,
    x: &[f32],
    norm: &LayerNorm,
    out: &mut [f32],
) {
    let n = x.len() as f32;
    let (chunks, tail) = x.as_chunks::<LANES>();
    let tail_x = v.load_part(tail);

    let mut lanes = v.splat(0.0);
    for chunk in chunks {
        lanes = v.add(lanes, v.load(chunk));
    }
    // A lane that started from +0 is never -0, so that adding a missing element's +0 changes nothing.
    lanes = v.add(lanes, tail_x);
    let mean = v.splat(v.fold(lanes) / n);

    let mut lanes = v.splat(0.0);
    for chunk in chunks {
        let d = v.sub(v.load(chunk), mean);
        lanes = v.fma(d, d, lanes);
    }
    let d = v.keep_first(tail.len(), v.sub(tail_x, mean));
    lanes = v.fma(d, d, lanes);
    let variance = v.fold(lanes) / n;
    let rstd = v.splat(1.0 / sqrt(variance + norm.epsilon));

    let (weights, tail_weight) = norm.weight.as_chunks::<LANES>();
    let (biases, tail_bias) = norm.bias.as_chunks::<LANES>();
    let (outs, tail_out) = out.as_chunks_mut::<LANES>();
    for (((out, x), weight), bias) in outs.iter_mut().zip(chunks).zip(weights).zip(biases) {
        let scaled = v.mul(v.sub(v.load(x), mean), rstd);
        v.store(v.fma(scaled, v.load(weight), v.load(bias)), out);
    }
    let scaled = v.mul(v.sub(tail_x, mean), rstd);
    v.store_part(v.fma(scaled, v.load_part(tail_weight), v.load_part(tail_bias)), tail_out);
}

/// RMS norm of one token's row.
#[inline(always)]
pub(in crate::kernels) fn rms_norm<V: Vector>(v: V, x: &[f32], norm: &RmsNorm, out: &mut [f32]) {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let tail_x = v.load_part(tail);
    let mut lanes = v.splat(0.0);
    for chunk in chunks {
        let x = v.load(chunk);
        lanes = v.fma(x, x, lanes);
    }
    // A missing element's +0 changes nothing.
    lanes = v.fma(tail_x, tail_x, lanes);
    let mean_square = v.fold(lanes) / x.len() as f32;
    let scale = v.splat(1.0 / sqrt(mean_square + norm.epsilon));

    let (weights, tail_weight) = norm.weight.as_chunks::<LANES>();
    let (outs, tail_out) = out.as_chunks_mut::<LANES>();
    for ((out, x), weight) in outs.iter_mut().zip(chunks).zip(weights) {
        v.store(v.mul(v.mul(v.load(x), scale), v.load(weight)), out);
    }
    v.store_part(v.mul(v.mul(tail_x, scale), v.load_part(tail_weight)), tail_out);
}
