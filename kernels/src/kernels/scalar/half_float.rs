//! Float16 conversions without branches, so that a loop of them vectorizes.

/// Exact value of a float16 given by its bits.
///
/// The exponent and mantissa are moved into a float32's fields and rescaled by `2^112`, the
/// difference of the biases; the product is exact, also for subnormals. Infinities and NaN, whose
/// exponent is all ones in either format, are set right afterwards.
#[inline(always)]
pub fn f16_to_f32(bits: u16) -> f32 {
    const RESCALE: f32 = f32::from_bits((127 + 112) << 23);
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff) << 13;
    let finite = f32::from_bits(magnitude) * RESCALE;
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(finite.to_bits() | special | sign)
}

/// Nearest float16, ties to even; magnitudes past 65504, infinity too, become 65504. NaN stays NaN.
#[inline(always)]
pub fn f32_to_f16_saturating(x: f32) -> u16 {
    const MAX: f32 = 65504.0;
    let x = if x > MAX { MAX } else { x };
    let x = if x < -MAX { -MAX } else { x };
    half::f16::from_f32(x).to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float16_converts_as_the_half_crate_does() {
        for bits in (0..=u16::MAX).step_by(if cfg!(miri) { 61 } else { 1 }) {
            let want = half::f16::from_bits(bits).to_f32_const();
            let got = f16_to_f32(bits);
            assert!(
                got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()),
                "{bits:#x}"
            );
            if want.is_finite() {
                assert_eq!(f32_to_f16_saturating(want), bits);
            }
        }
    }

    #[test]
    fn large_magnitudes_saturate_and_nan_stays() {
        for x in [65504.0, 65520.0, 1e9, f32::INFINITY] {
            assert_eq!(f32_to_f16_saturating(x), 0x7bff);
            assert_eq!(f32_to_f16_saturating(-x), 0xfbff);
        }
        assert!(f16_to_f32(f32_to_f16_saturating(f32::NAN)).is_nan());
    }
}
