//! Activation quantization (`docs/numbers.md` section 3).

use crate::kernels::scalar::scale_for;
use crate::kernels::types::{Correction, QuantizedRowMut};
use crate::kernels::vector::{LANES, Vector};
use crate::quant::block_size;

/// Values that are quantized together.
const CHUNK: usize = 2 * LANES;

/// Quantizes one token's row by groups, the last one padded with zeros.
#[inline(always)]
pub(in crate::kernels) fn quantize<V: Vector>(
    v: V,
    x: &[f32],
    group_size: usize,
    out: QuantizedRowMut,
) {
    match group_size {
        32 => by_group::<V, 32>(v, x, out),
        64 => by_group::<V, 64>(v, x, out),
        _ => by_group::<V, 128>(v, x, out),
    }
}

#[inline(always)]
fn by_group<V: Vector, const G: usize>(v: V, x: &[f32], out: QuantizedRowMut) {
    let (groups, tail) = x.as_chunks::<G>();
    let (values, _) = out.values.as_chunks_mut::<G>();
    let corrections = out.corrections.chunks_exact_mut(G / block_size(G));
    let mut out = values.iter_mut().zip(out.scales).zip(corrections);
    for x in groups {
        let ((values, scale), corrections) = out.next().expect("as many groups");
        *scale = quantize_group(v, x, values, corrections);
    }
    if let Some(((values, scale), corrections)) = out.next() {
        let mut padded = [0.0; G];
        padded[..tail.len()].copy_from_slice(tail);
        *scale = quantize_group(v, &padded, values, corrections);
    }
}

/// Fills values and corrections, returns the scale.
#[inline(always)]
fn quantize_group<V: Vector, const G: usize>(
    v: V,
    x: &[f32; G],
    values: &mut [i8; G],
    corrections: &mut [Correction],
) -> f32 {
    let (vectors, _) = x.as_chunks::<LANES>();
    let mut max = v.splat_i32(0);
    for x in vectors {
        max = v.max_i32(max, v.bits(v.abs(v.load(x))));
    }
    let (scale, r) = scale_for(v.highest_i32(max) as u32);
    if r == 0.0 {
        values.fill(0);
        corrections.fill([0, 0]);
        return scale;
    }
    let r = v.splat(r);
    let (pairs, _) = vectors.as_chunks::<2>();
    let (chunks, _) = values.as_chunks_mut::<CHUNK>();
    let per_block = block_size(G) / CHUNK;
    let blocks = chunks.chunks_exact_mut(per_block).zip(pairs.chunks_exact(per_block));
    for ((values, x), correction) in blocks.zip(corrections) {
        let mut sums = v.no_pairs();
        for (values, [low, high]) in values.iter_mut().zip(x) {
            let low = v.round(v.mul(v.load(low), r));
            let bytes = v.to_bytes([low, v.round(v.mul(v.load(high), r))]);
            v.store_bytes(bytes, values);
            sums = v.add_pairs(sums, bytes);
        }
        *correction = v.correction_of(sums);
    }
    scale
}

/// Scale and reciprocal of a row that is quantized as one group.
#[inline(always)]
pub(super) fn scale_of<V: Vector>(v: V, x: &[f32]) -> (f32, f32) {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut max = v.bits(v.abs(v.load_part(tail)));
    for x in chunks {
        max = v.max_i32(max, v.bits(v.abs(v.load(x))));
    }
    scale_for(v.highest_i32(max) as u32)
}

/// Up to 16 floats quantized, the other lanes 0.
#[inline(always)]
pub(super) fn to_i8<V: Vector>(v: V, x: &[f32], r: f32) -> [i8; LANES] {
    let mut bytes = [0; CHUNK];
    if r != 0.0 {
        let n = v.round(v.mul(v.load_part(x), v.splat(r)));
        v.store_bytes(v.to_bytes([n, n]), &mut bytes);
    }
    let (halves, _) = bytes.as_chunks();
    halves[0]
}
