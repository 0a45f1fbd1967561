//! Activation quantization (`docs/numbers.md` section 3).

use super::hadamard::hadamard_to;
use crate::kernels::scalar::scale_for;
use crate::kernels::types::{Correction, QuantizedRowMut};
use crate::kernels::vector::{LANES, Vector};
use crate::quant::{HADAMARD_BLOCK, MAX_GROUP_SIZE, block_size};

/// Values that are quantized together.
const CHUNK: usize = 2 * LANES;

/// Transforms one token's row and quantizes it by groups, the last one padded with zeros.
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
    let (values, _) = out.values.as_chunks_mut::<G>();
    let corrections = out.corrections.chunks_exact_mut(G / block_size(G));
    let mut out = values.iter_mut().zip(out.scales).zip(corrections);
    let mut padded = [0.0; MAX_GROUP_SIZE];
    for x in x.chunks(MAX_GROUP_SIZE) {
        let length = x.len().next_multiple_of(G);
        let (blocks, tail) = x.as_chunks::<HADAMARD_BLOCK>();
        for (from, to) in blocks.iter().zip(padded.as_chunks_mut().0) {
            hadamard_to(v, from, to);
        }
        padded[x.len() - tail.len()..x.len()].copy_from_slice(tail);
        padded[x.len()..length].fill(0.0);
        for x in padded[..length].as_chunks::<G>().0 {
            let ((values, scale), corrections) = out.next().expect("as many groups");
            *scale = quantize_group(v, x, values, corrections);
        }
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
    scale_for(highest(v, x))
}

/// The bits of the largest magnitude.
#[inline(always)]
fn highest<V: Vector>(v: V, x: &[f32]) -> u32 {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut max = v.bits(v.abs(v.load_part(tail)));
    for x in chunks {
        max = v.max_i32(max, v.bits(v.abs(v.load(x))));
    }
    v.highest_i32(max) as u32
}

/// The same of a row that is transformed first.
#[inline(always)]
pub(super) fn transformed_scale_of<V: Vector>(v: V, x: &[f32]) -> (f32, f32) {
    let mut max = 0;
    for x in x.chunks(HADAMARD_BLOCK) {
        let mut block = [0.0; HADAMARD_BLOCK];
        max = max.max(highest(v, transformed(v, x, &mut block)));
    }
    scale_for(max)
}

/// A block of a row, or what is left at its end, after the transform.
#[inline(always)]
pub(super) fn transformed<'a, V: Vector>(
    v: V,
    x: &[f32],
    block: &'a mut [f32; HADAMARD_BLOCK],
) -> &'a [f32] {
    match x.first_chunk() {
        Some(x) => hadamard_to(v, x, block),
        None => block[..x.len()].copy_from_slice(x),
    }
    &block[..x.len()]
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
