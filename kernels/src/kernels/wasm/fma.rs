//! `a * b + c`, rounded once.
//!
//! WebAssembly has no such instruction but `relaxed_madd`, which may round twice: an engine does what the
//! processor has. [`rounds_once`] asks it.
//!
//! Without it, binary64 does the work. The product of two binary32 is exact there (48 bits of 53, and no
//! exponent is too small). Their sum with `c` is rounded to 53 bits, and then to 24. Rounding twice gives
//! another result than rounding once only if the first rounding ends half-way between two binary32: then
//! the second one does not know on which side the exact sum was. Half-way means that the last 29 bits are a
//! one and zeros, or others if the result is subnormal. So a vector where that is so, one of some hundred
//! million, is computed again by [`to_odd`].

#[cfg(not(target_feature = "relaxed-simd"))]
use core::arch::wasm32::*;

#[cfg(not(target_feature = "relaxed-simd"))]
pub(super) use self::exact::fma;
#[cfg(target_feature = "relaxed-simd")]
pub(super) use self::relaxed::{fma, rounds_once};

#[cfg(target_feature = "relaxed-simd")]
mod relaxed {
    use core::arch::wasm32::{f32x4_extract_lane, f32x4_relaxed_madd, f32x4_splat, v128};
    use core::array::from_fn;
    use core::hint::black_box;

    /// `a * b + c` of 16 lanes.
    #[inline(always)]
    pub fn fma(a: [v128; 4], b: [v128; 4], c: [v128; 4]) -> [v128; 4] {
        from_fn(|i| f32x4_relaxed_madd(a[i], b[i], c[i]))
    }

    /// Whether the engine's `relaxed_madd` rounds once; it does the same throughout a program's life.
    pub fn rounds_once() -> bool {
        // (1 + 2^-12)^2 - 1 = 2^-11 + 2^-24, whose last bit a rounded product loses.
        let a = f32x4_splat(black_box(1.0 + 1.0 / 4096.0));
        let sum = f32x4_relaxed_madd(a, a, f32x4_splat(black_box(-1.0)));
        f32x4_extract_lane::<0>(sum) == 1.0 / 2048.0 + 1.0 / 16_777_216.0
    }
}

/// [`fma`] is exact everywhere.
#[cfg(not(target_feature = "relaxed-simd"))]
pub(super) fn rounds_once() -> bool {
    true
}

#[cfg(not(target_feature = "relaxed-simd"))]
mod exact {
    use super::*;

    /// `a * b + c` of 16 lanes.
    #[inline(always)]
    pub fn fma(a: [v128; 4], b: [v128; 4], c: [v128; 4]) -> [v128; 4] {
        let mut sums = [f32x4_splat(0.0); 4];
        let mut doubtful = i32x4_splat(0);
        for i in 0..4 {
            let low = f64x2_add(f64x2_mul(low(a[i]), low(b[i])), low(c[i]));
            let high = f64x2_add(f64x2_mul(high(a[i]), high(b[i])), high(c[i]));
            let sum = to_f32(low, high);
            // The lower halves of four binary64, without the three bits that a binary32 has, too.
            let dropped = i32x4_shl(i32x4_shuffle::<0, 2, 4, 6>(low, high), 3);
            let half_way = i32x4_eq(dropped, i32x4_splat(i32::MIN));
            let tiny = f32x4_le(f32x4_abs(sum), f32x4_splat(f32::MIN_POSITIVE));
            doubtful = v128_or(doubtful, v128_or(half_way, tiny));
            sums[i] = sum;
        }
        if v128_any_true(doubtful) {
            return [0, 1, 2, 3].map(|i| to_odd(a[i], b[i], c[i]));
        }
        sums
    }

    #[inline(always)]
    fn low(x: v128) -> v128 {
        f64x2_promote_low_f32x4(x)
    }

    #[inline(always)]
    fn high(x: v128) -> v128 {
        f64x2_promote_low_f32x4(i32x4_shuffle::<2, 3, 2, 3>(x, x))
    }

    #[inline(always)]
    fn to_f32(low: v128, high: v128) -> v128 {
        i32x4_shuffle::<0, 1, 4, 5>(f32x4_demote_f64x2_zero(low), f32x4_demote_f64x2_zero(high))
    }

    /// `a * b + c` of 4 lanes, by way of sums that are rounded to odd: after that a second rounding is the
    /// only one (Boldo & Melquiond, 2008).
    #[inline(never)]
    fn to_odd(a: v128, b: v128, c: v128) -> v128 {
        let low = sum_to_odd(f64x2_mul(low(a), low(b)), low(c));
        let high = sum_to_odd(f64x2_mul(high(a), high(b)), high(c));
        to_f32(low, high)
    }

    /// The sum of two binary64; if it is none, the one of its two neighbours whose last bit is 1.
    #[inline(always)]
    fn sum_to_odd(x: v128, y: v128) -> v128 {
        let sum = f64x2_add(x, y);
        // What the rounding lost (Knuth); a NaN where the sum is not finite.
        let z = f64x2_sub(sum, x);
        let lost = f64x2_add(f64x2_sub(x, f64x2_sub(sum, z)), f64x2_sub(y, z));
        let zero = f64x2_splat(0.0);
        let inexact = v128_or(f64x2_lt(lost, zero), f64x2_gt(lost, zero));
        let is_even = i64x2_eq(v128_and(sum, i64x2_splat(1)), i64x2_splat(0));
        // Away from zero, if what was lost has the sum's sign, and towards it otherwise.
        let apart = i64x2_shr(v128_xor(sum, lost), 63);
        let step = v128_or(apart, i64x2_splat(1));
        i64x2_add(sum, v128_and(step, v128_and(inexact, is_even)))
    }
}

#[cfg(test)]
mod tests {
    use std::arch::wasm32::v128;

    use super::fma;

    /// 16 sums of each kind of operands against the standard library's, which computes with integers.
    #[test]
    fn rounds_once_as_the_standard_library_does() {
        let mut state = 1u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 32) as u32
        };
        for case in 0..200_000 {
            let mut operands = [[0f32; 16]; 3];
            for lane in 0..16 {
                let [a, b, c] = [random(), random(), random()];
                let near = |bits: u32, range: u32| {
                    bits & 0x807f_ffff | (127 - range / 2 + bits % 97 % range) << 23
                };
                // Few bits, so that products end half-way between two sums; a third one far below decides.
                let short = |bits: u32| f32::from_bits(near(bits, 40) & 0xffff_f000);
                let [a, b, c] = match case % 4 {
                    0 => [a, b, c].map(f32::from_bits),
                    1 => [a, b, c].map(|x| f32::from_bits(near(x, 60))),
                    2 => [short(a), short(b), f32::from_bits(near(c, 60))],
                    // Around the least normal number.
                    _ => {
                        let tiny = (c & 0x8000_0000) | (c % 0x0180_0000);
                        [short(a), short(b) * f32::from_bits(0x0100_0000), f32::from_bits(tiny)]
                    }
                };
                for (operand, x) in operands.iter_mut().zip([a, b, c]) {
                    operand[lane] = x;
                }
            }
            let [a, b, c] = operands.map(|lanes| super::super::vector::load(&lanes));
            let mut got = [0f32; 16];
            for (got, sum) in got.chunks_exact_mut(4).zip(fma(a, b, c)) {
                got.copy_from_slice(&lanes(sum));
            }
            for lane in 0..16 {
                let [a, b, c] = operands.map(|lanes| lanes[lane]);
                let (got, want) = (got[lane], a.mul_add(b, c));
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "fma({a:e}, {b:e}, {c:e}) is {got:e}, not {want:e}");
            }
        }
    }

    fn lanes(x: v128) -> [f32; 4] {
        // SAFETY: both are 16 bytes.
        unsafe { std::mem::transmute(x) }
    }

    /// What is half-way in binary64 and not in truth: the sum must look at what was lost.
    #[test]
    fn a_sum_just_beside_half_way_is_not_a_tie() {
        // 1 + 2^-24 (half-way) + 2^-60 from the product, once above and once below.
        let tiny = f32::from_bits((127 - 24) << 23);
        for (a, b, c) in [
            (tiny, 1.0 + 1.0 / 8_388_608.0, 1.0),
            (tiny, 1.0 - 1.0 / 16_777_216.0, 1.0),
            (
                f32::from_bits((127 - 12) << 23) * (1.0 + 1.0 / 8_388_608.0),
                f32::from_bits((127 - 12) << 23),
                1.0 + 1.0 / 8_388_608.0,
            ),
            (1e-30, 1e-30, 1.0 + 1.0 / 8_388_608.0),
        ] {
            let splat = |x: f32| super::super::vector::load(&[x; 16]);
            let got = lanes(fma(splat(a), splat(b), splat(c))[3])[3];
            assert_eq!(got.to_bits(), a.mul_add(b, c).to_bits(), "fma({a:e}, {b:e}, {c:e})");
        }
    }
}
