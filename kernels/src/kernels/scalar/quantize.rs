//! Activation quantization (`docs/numbers.md` section 3).

use crate::kernels::types::{Correction, QuantizedRowMut};
use crate::quant::{STEP_INPUTS, block_size};

/// Below this a group counts as zero, so that neither quotient leaves the normal range.
const ZERO_BELOW: f32 = f32::from_bits((127 - 100) << 23);

/// Largest magnitude of a quantized activation.
const QUANTIZED_MAX: f32 = 127.0;

/// `1.5 * 2^23`: adding and subtracting it rounds |x| < 2^22 to the nearest integer, ties to even.
const ROUND: f32 = 12_582_912.0;

/// Scale and its reciprocal for one group: `(s, r)`.
#[inline(always)]
pub(super) fn scale_of(group: &[f32]) -> (f32, f32) {
    // Bit patterns of |x| order like the values, with infinity and NaN on top.
    scale_for(group.iter().fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff)))
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

/// Quantizes one token's row by groups, the last one padded with zeros.
#[inline(always)]
pub(super) fn quantize(x: &[f32], group_size: usize, out: QuantizedRowMut) {
    let groups = x.chunks(group_size).zip(out.values.chunks_exact_mut(group_size));
    for (g, (x, values)) in groups.enumerate() {
        let (scale, r) = scale_of(x);
        for (i, value) in values.iter_mut().enumerate() {
            *value = x.get(i).map_or(0, |&x| quantize_one(x, r));
        }
        out.scales[g] = scale;
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
