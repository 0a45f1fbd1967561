//! 16 lanes in four vectors: 0..4, 4..8, 8..12 and 12..16.

use core::arch::wasm32::*;
use core::array::from_fn;

use super::fma;
use crate::kernels::types::Correction;
use crate::kernels::vector::{KeyDot, LANES, Vector};
use crate::math::ROUND;

/// 16 lanes.
pub(super) type X16 = [v128; 4];

/// Vectors of 128 bits, which every engine has that loads a module with them.
///
/// A smaller or larger number is chosen by `bitselect`: for `pmin` and `pmax`, or for anything that it can read as
/// them, the compiler takes the relaxed minimum and maximum where it may, which lose a NaN.
#[derive(Clone, Copy)]
pub(super) struct Lanes;

/// The exact values of 8 float16 that are finite.
///
/// Sign, exponent and fraction move to their places in a float, whose exponent is then too small by 112: that is made
/// good by a product, which also gives numbers below the least normal one their value. Both halves of the floats are
/// made 8 at a time.
#[inline(always)]
fn finite_f16_to_f32(bits: v128) -> [v128; 2] {
    let upper = v128_and(i16x8_shr(bits, 3), u16x8_splat(0x8fff));
    let lower = i16x8_shl(bits, 13);
    let low = i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(lower, upper);
    let high = i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(lower, upper);
    let power = f32x4_splat(f32::from_bits((127 + 112) << 23));
    [low, high].map(|moved| f32x4_mul(moved, power))
}

/// Makes infinities and NaNs of what [`finite_f16_to_f32`] took for finite.
#[cold]
fn with_special(values: X16) -> X16 {
    values.map(|value| {
        let special = f32x4_ge(f32x4_abs(value), f32x4_splat(65536.0));
        v128_or(value, v128_and(special, u32x4_splat(0x7f80_0000)))
    })
}

/// The nearest float16 of 4 floats, in the lower half of a lane each.
///
/// The float is scaled so that adding a number of its own magnitude drops the bits that a float16 does not
/// have, and rounds them (Maratyszcza's method, in the library FP16).
#[inline(always)]
fn f32_to_f16(x: v128) -> v128 {
    let [up, down] =
        [127 + 112, 127 - 110].map(|power: u32| f32x4_splat(f32::from_bits(power << 23)));
    let scaled = f32x4_mul(f32x4_mul(f32x4_abs(x), up), down);
    let doubled = i32x4_shl(x, 1);
    let exponent = v128_and(doubled, u32x4_splat(0xff00_0000));
    let exponent = u32x4_max(exponent, u32x4_splat(0x7100_0000));
    let rounder = i32x4_add(u32x4_shr(exponent, 1), u32x4_splat(0x0780_0000));
    let rounded = f32x4_add(rounder, scaled);
    let exponent = v128_and(u32x4_shr(rounded, 13), u32x4_splat(0x7c00));
    let magnitude = i32x4_add(exponent, v128_and(rounded, u32x4_splat(0x0fff)));
    let is_nan = u32x4_gt(doubled, u32x4_splat(0xff00_0000));
    let magnitude = v128_bitselect(u32x4_splat(0x7e00), magnitude, is_nan);
    v128_or(magnitude, v128_and(u32x4_shr(x, 16), u32x4_splat(0x8000)))
}

/// The levels of the transform within 4 lanes, of two vectors: even lanes, then odd ones, of both beside
/// each other; their sums and differences are two vectors again, of which the same makes the second level.
#[inline(always)]
fn levels(a: v128, b: v128) -> (v128, v128) {
    let even = |a, b| i32x4_shuffle::<0, 2, 4, 6>(a, b);
    let odd = |a, b| i32x4_shuffle::<1, 3, 5, 7>(a, b);
    let (x, y) = (even(a, b), odd(a, b));
    let (sum, difference) = (f32x4_add(x, y), f32x4_sub(x, y));
    let (x, y) = (even(sum, difference), odd(sum, difference));
    let (sum, difference) = (f32x4_add(x, y), f32x4_sub(x, y));
    (even(sum, difference), odd(sum, difference))
}

/// 4 vectors from memory.
#[inline(always)]
pub(super) fn load<T>(from: &[T; LANES]) -> X16 {
    const { assert!(size_of::<T>() == 4) }
    // SAFETY: 16 lanes of 4 bytes; a load may be unaligned.
    from_fn(|i| unsafe { v128_load(from.as_ptr().add(4 * i).cast()) })
}

impl Vector for Lanes {
    type F32 = X16;
    type I32 = X16;
    type Bytes = [v128; 2];
    type Pairs = v128;

    // An engine for x86 has 15 registers, one for Arm 32.
    const SCORE_PANELS: [usize; 6] = [2, 1, 1, 1, 1, 1];
    const VALUE_VECTORS: [usize; 6] = [2, 1, 1, 1, 1, 1];
    const SOFTMAX_QUERIES: usize = 2;

    #[inline(always)]
    unsafe fn new() -> Self {
        Self
    }

    #[inline(always)]
    fn splat(self, x: f32) -> X16 {
        [f32x4_splat(x); 4]
    }

    #[inline(always)]
    fn splat_i32(self, n: i32) -> X16 {
        [i32x4_splat(n); 4]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> X16 {
        load(from)
    }

    #[inline(always)]
    fn store(self, x: X16, to: &mut [f32; LANES]) {
        for (to, x) in to.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: 4 floats; a store may be unaligned.
            unsafe { v128_store(to.as_mut_ptr().cast(), x) };
        }
    }

    #[inline(always)]
    fn keep_first(self, n: usize, x: X16) -> X16 {
        let masks: [u32; LANES] = from_fn(|lane| if lane < n { u32::MAX } else { 0 });
        let masks = load(&masks);
        from_fn(|i| v128_and(x[i], masks[i]))
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> X16 {
        // SAFETY: 16 float16.
        let [a, b] =
            unsafe { [v128_load(from.as_ptr().cast()), v128_load(from.as_ptr().add(8).cast())] };
        let exponent = u16x8_splat(0x7c00);
        let is_special = |bits| i16x8_eq(v128_and(bits, exponent), exponent);
        let ([x, y], [z, w]) = (finite_f16_to_f32(a), finite_f16_to_f32(b));
        // Hardly ever, and a branch costs less than what it leaves out.
        match v128_any_true(v128_or(is_special(a), is_special(b))) {
            true => with_special([x, y, z, w]),
            false => [x, y, z, w],
        }
    }

    #[inline(always)]
    fn to_f16(self, x: X16) -> [u16; LANES] {
        let [a, b, c, d] = x.map(f32_to_f16);
        let mut to = [0; LANES];
        // SAFETY: 16 float16.
        unsafe {
            v128_store(to.as_mut_ptr().cast(), u16x8_narrow_i32x4(a, b));
            v128_store(to.as_mut_ptr().add(8).cast(), u16x8_narrow_i32x4(c, d));
        }
        to
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> X16 {
        // SAFETY: 16 bytes.
        let bytes = unsafe { v128_load(from.as_ptr().cast()) };
        let [a, b] = [i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes)];
        let (low, high) = (i32x4_extend_low_i16x8, i32x4_extend_high_i16x8);
        [low(a), high(a), low(b), high(b)].map(|x| f32x4_convert_i32x4(x))
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> X16 {
        // SAFETY: 16 bytes.
        let bytes = unsafe { v128_load(from.as_ptr().cast()) };
        let [a, b] = [i16x8_extend_low_u8x16(bytes), i16x8_extend_high_u8x16(bytes)];
        let (low, high) = (i32x4_extend_low_i16x8, i32x4_extend_high_i16x8);
        [low(a), high(a), low(b), high(b)]
    }

    #[inline(always)]
    fn add(self, a: X16, b: X16) -> X16 {
        from_fn(|i| f32x4_add(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: X16, b: X16) -> X16 {
        from_fn(|i| f32x4_sub(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: X16, b: X16) -> X16 {
        from_fn(|i| f32x4_mul(a[i], b[i]))
    }

    #[inline(always)]
    fn div(self, a: X16, b: X16) -> X16 {
        from_fn(|i| f32x4_div(a[i], b[i]))
    }

    #[inline(always)]
    fn fma(self, a: X16, b: X16, c: X16) -> X16 {
        fma::fma(a, b, c)
    }

    #[inline(always)]
    fn neg(self, x: X16) -> X16 {
        x.map(|x| f32x4_neg(x))
    }

    #[inline(always)]
    fn abs(self, x: X16) -> X16 {
        x.map(|x| f32x4_abs(x))
    }

    #[inline(always)]
    fn at_most(self, x: X16, limit: X16) -> X16 {
        from_fn(|i| v128_bitselect(limit[i], x[i], f32x4_gt(x[i], limit[i])))
    }

    #[inline(always)]
    fn at_least(self, x: X16, limit: X16) -> X16 {
        from_fn(|i| v128_bitselect(limit[i], x[i], f32x4_lt(x[i], limit[i])))
    }

    #[inline(always)]
    fn relu(self, x: X16) -> X16 {
        self.at_least(x, self.splat(0.0))
    }

    #[inline(always)]
    fn larger(self, x: X16, max: X16) -> X16 {
        from_fn(|i| v128_bitselect(x[i], max[i], f32x4_gt(x[i], max[i])))
    }

    #[inline(always)]
    fn zero_below(self, limit: f32, x: X16, y: X16) -> X16 {
        let limit = f32x4_splat(limit);
        from_fn(|i| v128_andnot(y[i], f32x4_lt(x[i], limit)))
    }

    #[inline(always)]
    fn butterflies(self, x: X16) -> X16 {
        let ((a, b), (c, d)) = (levels(x[0], x[1]), levels(x[2], x[3]));
        let (a, b, c, d) = (f32x4_add(a, b), f32x4_sub(a, b), f32x4_add(c, d), f32x4_sub(c, d));
        [f32x4_add(a, c), f32x4_add(b, d), f32x4_sub(a, c), f32x4_sub(b, d)]
    }

    #[inline(always)]
    fn fold(self, lanes: X16) -> f32 {
        let a = f32x4_add(f32x4_add(lanes[0], lanes[2]), f32x4_add(lanes[1], lanes[3]));
        let a = f32x4_add(a, i32x4_shuffle::<2, 3, 2, 3>(a, a));
        f32x4_extract_lane::<0>(a) + f32x4_extract_lane::<1>(a)
    }

    #[inline(always)]
    fn highest(self, [a, b, c, d]: X16) -> f32 {
        let larger = |a, b| v128_bitselect(a, b, f32x4_gt(a, b));
        let a = larger(larger(a, b), larger(c, d));
        let a = larger(a, i32x4_shuffle::<2, 3, 2, 3>(a, a));
        f32x4_extract_lane::<0>(a).max(f32x4_extract_lane::<1>(a))
    }

    #[inline(always)]
    fn add_i32(self, a: X16, b: X16) -> X16 {
        from_fn(|i| i32x4_add(a[i], b[i]))
    }

    #[inline(always)]
    fn max_i32(self, a: X16, b: X16) -> X16 {
        from_fn(|i| i32x4_max(a[i], b[i]))
    }

    #[inline(always)]
    fn highest_i32(self, [a, b, c, d]: X16) -> i32 {
        let a = i32x4_max(i32x4_max(a, b), i32x4_max(c, d));
        let a = i32x4_max(a, i32x4_shuffle::<2, 3, 2, 3>(a, a));
        i32x4_extract_lane::<0>(a).max(i32x4_extract_lane::<1>(a))
    }

    #[inline(always)]
    fn shift_to_exponent(self, x: X16) -> X16 {
        x.map(|x| i32x4_shl(x, 23))
    }

    #[inline(always)]
    fn bits(self, x: X16) -> X16 {
        x
    }

    #[inline(always)]
    fn with_bits(self, bits: X16) -> X16 {
        bits
    }

    #[inline(always)]
    fn to_f32(self, n: X16) -> X16 {
        n.map(|x| f32x4_convert_i32x4(x))
    }

    // An addition rounds to the nearest integer and leaves it in the last bits: engines for x86 take some six
    // instructions to convert, because a NaN must give 0.
    #[inline(always)]
    fn round(self, x: X16) -> X16 {
        let base = f32x4_splat(ROUND);
        x.map(|x| i32x4_sub(f32x4_add(x, base), base))
    }

    #[inline(always)]
    fn to_bytes(self, n: [X16; 2]) -> [v128; 2] {
        n.map(|n| {
            i8x16_narrow_i16x8(i16x8_narrow_i32x4(n[0], n[1]), i16x8_narrow_i32x4(n[2], n[3]))
        })
    }

    #[inline(always)]
    fn store_bytes(self, bytes: [v128; 2], to: &mut [i8; 2 * LANES]) {
        // SAFETY: 32 bytes; a store may be unaligned.
        unsafe {
            v128_store(to.as_mut_ptr().cast(), bytes[0]);
            v128_store(to.as_mut_ptr().add(LANES).cast(), bytes[1]);
        }
    }

    #[inline(always)]
    fn no_pairs(self) -> v128 {
        i16x8_splat(0)
    }

    #[inline(always)]
    fn add_pairs(self, sums: v128, bytes: [v128; 2]) -> v128 {
        let [a, b] = bytes.map(|bytes| i16x8_extadd_pairwise_i8x16(bytes));
        i16x8_add(sums, i16x8_add(a, b))
    }

    #[inline(always)]
    fn correction_of(self, sums: v128) -> Correction {
        let a = i16x8_add(sums, i64x2_shuffle::<1, 1>(sums, sums));
        // Two lanes 2 apart are left to add.
        let a = i16x8_add(a, i32x4_shuffle::<1, 1, 1, 1>(a, a));
        [i16x8_extract_lane::<0>(a), i16x8_extract_lane::<1>(a)].map(|sum| -8 * sum)
    }
}

/// The dot products of int8 attention: in 16 bits, dimensions 0 and 2 of each step together and 1 and 3.
#[derive(Clone, Copy)]
pub(super) struct Keys;

/// The even and the odd bytes, each in 16 bits.
#[inline(always)]
pub(super) fn even_and_odd(bytes: v128) -> [v128; 2] {
    [i16x8_shr(i16x8_shl(bytes, 8), 8), i16x8_shr(bytes, 8)]
}

impl KeyDot for Keys {
    type Vector = Lanes;
    type Keys = [[v128; 2]; 4];

    const PANELS: usize = 1;
    const QUERIES: usize = 2;

    #[inline(always)]
    fn vector(self) -> Lanes {
        Lanes
    }

    #[inline(always)]
    fn keys(self, step: &[i8; 4 * LANES]) -> [[v128; 2]; 4] {
        // SAFETY: 64 bytes.
        from_fn(|i| even_and_odd(unsafe { v128_load(step.as_ptr().add(16 * i).cast()) }))
    }

    #[inline(always)]
    fn correction(self, _: i32) -> i32 {
        0
    }

    #[inline(always)]
    fn dot(self, sums: X16, keys: [[v128; 2]; 4], query: i32) -> X16 {
        let [even, odd] = even_and_odd(i32x4_splat(query));
        from_fn(|i| {
            let sum = i32x4_add(sums[i], i32x4_dot_i16x8(keys[i][0], even));
            i32x4_add(sum, i32x4_dot_i16x8(keys[i][1], odd))
        })
    }
}
