//! Cosine and sine of the angles of rotary positions (Su et al., 2021; `docs/numbers.md` section 12).
//!
//! A position times an inverse frequency is up to 2^20, so binary32 would lose the angle's fraction.
//! All is computed in binary64, in a fixed order, and rounded once.

use crate::float::fma64;

/// 1.5 * 2^52: as [`super::ROUND`] for binary64.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// 2/pi.
const TWO_OVER_PI: f64 = f64::from_bits(0x3fe4_5f30_6dc9_c883);

/// pi/2 in three parts: rounded to binary64, what that rounding lost, and what that lost (Cody & Waite,
/// 1980).
const HALF_PI: [f64; 3] = [
    f64::from_bits(0x3ff9_21fb_5444_2d18),
    f64::from_bits(0x3c91_a626_3314_5c07),
    f64::from_bits(0xb91f_1976_b7ed_8fbc),
];

/// -1/3!, 1/5!, ... -1/15!, rounded to binary64: the Taylor series of the sine, of which the first term
/// that is missing is below 2^-53 of the sine for |r| <= pi/4.
const SIN: [f64; 7] = [
    -1.0 / 6.0,
    1.0 / 120.0,
    -1.0 / 5_040.0,
    1.0 / 362_880.0,
    -1.0 / 39_916_800.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 1_307_674_368_000.0,
];

/// -1/2!, 1/4!, ... 1/16!, rounded to binary64.
const COS: [f64; 8] = [
    -1.0 / 2.0,
    1.0 / 24.0,
    -1.0 / 720.0,
    1.0 / 40_320.0,
    -1.0 / 3_628_800.0,
    1.0 / 479_001_600.0,
    -1.0 / 87_178_291_200.0,
    1.0 / 20_922_789_888_000.0,
];

/// The largest magnitude of an angle for which [`cos_sin`] is specified.
pub const MAX_ANGLE: f64 = 1_073_741_824.0; // 2^30

/// `(factor * cos(angle), factor * sin(angle))` for `angle = position * inverse_frequency`, in radians.
///
/// For positions up to 2^20 and inverse frequencies up to 1: within 0.51 units in the last place of the
/// exact values where those are at least 2^-7 (0.508 was measured), and within 2^-31 of smaller ones.
/// Most of that is the rounding of the angle, at most 2^-34. Not specified where the angle exceeds [`MAX_ANGLE`].
#[inline(always)]
pub fn cos_sin(position: u32, inverse_frequency: f64, factor: f64) -> (f32, f32) {
    let angle = f64::from(position) * inverse_frequency;
    let shifted = fma64(angle, TWO_OVER_PI, ROUND);
    let k = shifted - ROUND;
    // The first product cancels all but a fraction of the angle and is not rounded.
    let r = fma64(k, -HALF_PI[0], angle);
    let r = fma64(k, -HALF_PI[1], r);
    let r = fma64(k, -HALF_PI[2], r);
    let square = r * r;
    let sin = fma64(r * square, horner(&SIN, square), r);
    let cos = fma64(square, horner(&COS, square), 1.0);
    // The low bits of the sum are the quadrant.
    let quadrant = shifted.to_bits() & 3;
    let (cos, sin) = if quadrant & 1 == 0 { (cos, sin) } else { (sin, cos) };
    let cos = if quadrant == 1 || quadrant == 2 { -cos } else { cos };
    let sin = if quadrant >= 2 { -sin } else { sin };
    ((cos * factor) as f32, (sin * factor) as f32)
}

/// As [`super::horner`], in binary64.
#[inline(always)]
fn horner<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let (&highest, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    rest.iter().rev().fold(highest, |p, &c| fma64(p, x, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact product as a sum of two binary64, and the platform-independent functions of `libm`.
    fn oracle(position: u32, inverse_frequency: f64) -> (f64, f64) {
        let p = f64::from(position);
        let high = p * inverse_frequency;
        let low = p.mul_add(inverse_frequency, -high);
        let (sin, cos) = (libm::sin(high), libm::cos(high));
        (cos - low * sin, sin + low * cos)
    }

    fn ulp(x: f64) -> f64 {
        let x = x.abs() as f32;
        f64::from(f32::from_bits(x.to_bits() + 1)) - f64::from(x)
    }

    /// Inverse frequencies of heads of 64 to 256 with the bases of current models.
    fn frequencies() -> impl Iterator<Item = f64> {
        [10_000.0, 500_000.0, 1_000_000.0, 5_000_000.0].into_iter().flat_map(|base: f64| {
            [64, 80, 128, 256].into_iter().flat_map(move |size| {
                (0..size / 2).map(move |i| libm::pow(base, -2.0 * f64::from(i) / f64::from(size)))
            })
        })
    }

    /// Every position of short contexts, the neighbourhoods of powers of two, and steps between.
    fn positions() -> impl Iterator<Item = u32> {
        let step = if cfg!(miri) { 99_991 } else { 397 };
        let around = (8..=20).flat_map(|n| (1 << n) - 2..=(1 << n));
        (0..256).chain(around).chain((0..1 << 20).step_by(step))
    }

    #[test]
    fn errors_stay_in_bounds() {
        let (mut worst, mut absolute) = (0.0_f64, 0.0_f64);
        for frequency in frequencies().step_by(if cfg!(miri) { 97 } else { 7 }) {
            for position in positions() {
                let (cos, sin) = cos_sin(position, frequency, 1.0);
                let (exact_cos, exact_sin) = oracle(position, frequency);
                for (got, exact) in [(cos, exact_cos), (sin, exact_sin)] {
                    let error = (f64::from(got) - exact).abs();
                    if exact.abs() >= 1.0 / 128.0 {
                        worst = worst.max(error / ulp(exact));
                    } else {
                        absolute = absolute.max(error);
                    }
                }
            }
        }
        println!("{worst} units in the last place, {absolute:e} below 2^-7");
        assert!(worst < 0.51 && absolute < 2.0_f64.powi(-31), "{worst} {absolute:e}");
    }

    #[test]
    fn quadrants_and_factors() {
        assert_eq!(cos_sin(0, 1.0, 1.0), (1.0, 0.0));
        assert_eq!(cos_sin(7, 0.0, 1.25), (1.25, 0.0));
        for (k, want) in [(0, (1.0, 0.0)), (1, (0.0, 1.0)), (2, (-1.0, 0.0)), (3, (0.0, -1.0))] {
            for turns in [0, 1, 1000] {
                let (cos, sin) = cos_sin(4 * turns + k, HALF_PI[0], 1.0);
                assert!((cos - want.0).abs() < 1e-9 && (sin - want.1).abs() < 1e-9, "{k} {turns}");
            }
        }
    }

    /// The contract: these never change.
    #[test]
    fn bits_are_pinned() {
        let mut crc = crc32fast::Hasher::new();
        for frequency in frequencies().step_by(31) {
            for position in (0..1 << 20).step_by(9_973) {
                let (cos, sin) = cos_sin(position, frequency, 1.5);
                crc.update(&cos.to_bits().to_le_bytes());
                crc.update(&sin.to_bits().to_le_bytes());
            }
        }
        assert_eq!(crc.finalize(), 1_583_760_570, "of the cosines and sines");
    }
}
