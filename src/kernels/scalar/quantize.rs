//! Activation quantization (`docs/numbers.md` section 3).

use crate::kernels::QuantizedRowMut;

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
    let bits = group.iter().fold(0, |m: u32, x| m.max(x.to_bits() & 0x7fff_ffff));
    let max = f32::from_bits(bits);
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
        let mut sum = 0;
        for (i, value) in values.iter_mut().enumerate() {
            *value = x.get(i).map_or(0, |&x| quantize_one(x, r));
            sum += i32::from(*value);
        }
        out.scales[g] = scale;
        out.sums[g] = sum;
    }
}
