//! Activation quantization (`docs/numbers.md` section 3).

use crate::kernels::types::{Correction, QuantizedRowMut};
use crate::quant::{HADAMARD_BLOCK, MAX_GROUP_SIZE, STEP_INPUTS, block_size, hadamard};

/// Below this a group counts as zero, so that neither quotient leaves the normal range.
const ZERO_BELOW: f32 = f32::from_bits((127 - 100) << 23);

/// Largest magnitude of a quantized activation.
const QUANTIZED_MAX: f32 = 127.0;

/// `1.5 * 2^23`: adding and subtracting it rounds |x| < 2^22 to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// Scale and its reciprocal for one group: `(s, r)`.
#[inline(always)]
pub(super) fn scale_of(group: &[f32]) -> (f32, f32) {
    scale_for(highest(group))
}

/// The same of a row that is transformed first.
#[inline(always)]
pub(super) fn transformed_scale_of(row: &[f32]) -> (f32, f32) {
    let mut max = 0;
    for block in row.chunks(HADAMARD_BLOCK) {
        let mut transformed = [0.0; HADAMARD_BLOCK];
        max = max.max(highest(transform(block, &mut transformed)));
    }
    scale_for(max)
}

/// A block of a row, or what is left at its end, after the transform.
#[inline(always)]
pub(super) fn transform<'a>(x: &[f32], to: &'a mut [f32; HADAMARD_BLOCK]) -> &'a [f32] {
    let to = &mut to[..x.len()];
    to.copy_from_slice(x);
    hadamard(to);
    to
}

/// The bits of the largest magnitude: bit patterns of |x| order like the values, with infinity and NaN on top.
#[inline(always)]
fn highest(x: &[f32]) -> u32 {
    x.iter().fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff))
}

/// The same, given the bits of the largest magnitude.
#[inline(always)]
pub(in crate::kernels) fn scale_for(max_bits: u32) -> (f32, f32) {
    let max = f32::from_bits(max_bits);
    if !max.is_finite() {
        (f32::NAN, 0.0)
    } else if max < ZERO_BELOW {
        (0.0, 0.0)
    } else {
        (max / QUANTIZED_MAX, QUANTIZED_MAX / max)
    }
}

/// `round_half_even(x * r)`, 0 where the group counts as zero or is not finite.
#[inline(always)]
pub(super) fn quantize_one(x: f32, r: f32) -> i8 {
    if r == 0.0 {
        return 0;
    }
    // |x * r| <= 127 up to rounding, far below 2^22; the low bits of the biased sum are the integer.
    let biased = x * r + ROUND;
    (biased.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32) as i8
}

/// Transforms one token's row and quantizes it by groups, the last one padded with zeros.
#[inline(always)]
pub(super) fn quantize(x: &[f32], group_size: usize, out: QuantizedRowMut) {
    let mut transformed = [0.0; MAX_GROUP_SIZE];
    let parts = out
        .values
        .chunks_mut(MAX_GROUP_SIZE)
        .zip(out.scales.chunks_mut(MAX_GROUP_SIZE / group_size));
    for (x, (values, scales)) in x.chunks(MAX_GROUP_SIZE).zip(parts) {
        let transformed = &mut transformed[..x.len()];
        transformed.copy_from_slice(x);
        hadamard(transformed);
        let groups = transformed.chunks(group_size).zip(values.chunks_exact_mut(group_size));
        for ((x, values), scale) in groups.zip(scales) {
            let (s, r) = scale_of(x);
            for (i, value) in values.iter_mut().enumerate() {
                *value = x.get(i).map_or(0, |&x| quantize_one(x, r));
            }
            *scale = s;
        }
    }
    let blocks = out.values.chunks_exact(block_size(group_size));
    for (block, correction) in blocks.zip(out.corrections.iter_mut()) {
        *correction = correction_of(block);
    }
}

/// See [`Correction`].
#[inline(always)]
fn correction_of(block: &[i8]) -> Correction {
    let mut sums = [0, 0];
    for step in block.chunks_exact(STEP_INPUTS) {
        sums[0] += i16::from(step[0]) + i16::from(step[1]);
        sums[1] += i16::from(step[2]) + i16::from(step[3]);
    }
    sums.map(|sum| -8 * sum)
}
