//! The products of weights and a token's values: all in which the products of int4 and int8 weights differ, and
//! those of the two builds.
//!
//! Weights come in **pairs** of steps, 8 inputs of 16 rows; 4 rows' are in 16 bytes of a line. A pair is
//! multiplied in pieces, each of them one operand for 4 rows, and one of the token's values that suits it,
//! repeated. Weights keep their offset, and sums start where that takes it away.

use core::arch::wasm32::*;

use super::vector::even_and_odd;
use crate::kernels::types::{Correction, correction_factor};
use crate::quant::{Scheme, TILE_ALIGN};

/// Inputs of a pair of steps.
pub(super) const PAIR_INPUTS: usize = 8;

/// A way to multiply.
pub(super) trait Dot {
    /// What 4 rows' weights of a pair are loaded as.
    type Packed: Copy;
    /// A token's values of a pair.
    type Values: Copy;

    /// Pieces of a pair, 2 or 4.
    const PIECES: usize;

    /// Weights of rows `4 * quarter ..` of a pair.
    ///
    /// # Safety
    /// `group` is valid for reads of a group that has this pair, and `quarter` is less than 4.
    unsafe fn load(group: *const u8, pair: usize, quarter: usize) -> Self::Packed;

    /// A piece of them, ready to be multiplied.
    fn piece<const PIECE: usize>(packed: Self::Packed) -> v128;

    /// The 8 values at `values`.
    ///
    /// # Safety
    /// It is valid for reads of 8 bytes, as long as the result is used.
    unsafe fn values(values: *const i8) -> Self::Values;

    /// Those that a piece is multiplied with.
    ///
    /// # Safety
    /// What [`values`](Self::values) demands.
    unsafe fn value<const PIECE: usize>(values: Self::Values) -> v128;

    /// The sums of a block before its first product.
    fn start(correction: Correction) -> v128;

    /// Adds the products of a piece.
    fn dot(sums: v128, weights: v128, values: v128) -> v128;

    /// A block's sums, one for each row.
    fn total(sums: v128) -> v128;
}

/// Products in 16 bits, of two inputs each summed in 32.
///
/// The bytes of a step's weights are, as numbers of 16 bits, two inputs on top of each other; a mask or a shift
/// takes one of them out. So inputs 0 and 2 of a step lie side by side, and 1 and 3.
pub(super) struct Words<S>(S);

/// How weights are stored.
pub(super) trait Packing {
    const SCHEME: Scheme;

    /// Rows `4 * quarter ..` of a pair: both steps in nibbles, or a byte for each weight.
    ///
    /// # Safety
    /// That of [`Dot::load`].
    unsafe fn load(group: *const u8, pair: usize, quarter: usize) -> [v128; 2];
}

/// Nibbles with an offset of 8. A line holds two steps, the first in its low nibbles.
#[cfg(not(target_feature = "relaxed-simd"))]
pub(super) struct Nibbles;

#[cfg(not(target_feature = "relaxed-simd"))]
impl Packing for Nibbles {
    const SCHEME: Scheme = Scheme::Int4;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize, quarter: usize) -> [v128; 2] {
        // SAFETY: the caller's promise.
        [unsafe { load_quarter(group, pair, quarter) }; 2]
    }
}

/// Bytes with an offset of 128. A line holds one step.
pub(super) struct Bytes;

impl Packing for Bytes {
    const SCHEME: Scheme = Scheme::Int8;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize, quarter: usize) -> [v128; 2] {
        // SAFETY: the caller's promise.
        [0, 1].map(|step| unsafe { load_quarter(group, 2 * pair + step, quarter) })
    }
}

/// Indices of levels, `BITS` of them, which become the levels with their offset.
pub(super) struct Levels<const BITS: usize>;

impl<const BITS: usize> Packing for Levels<BITS> {
    const SCHEME: Scheme = match BITS {
        4 => Scheme::Nl4,
        3 => Scheme::Tc3,
        _ => Scheme::Tc2,
    };

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize, quarter: usize) -> [v128; 2] {
        const { assert!(BITS <= 4) }
        // Four pairs of steps are a unit: 4 lines, or those of the levels' own bits and one of the paths'.
        let (unit, within) = (pair / 4 * BITS, pair % 4);
        // SAFETY: the caller's promise.
        let line = |line: usize| unsafe { load_quarter(group, unit + line, quarter) };
        let indices = match BITS {
            4 => line(within),
            _ => {
                let own = within * (BITS - 1);
                let own = u16x8_shr(line(own / 4), own as u32 % 4);
                // The pair's bits come to rest at 2 and 6, and at 3 and 7.
                let [low, high] =
                    quarters(line(BITS - 1)).map(|bits| u16x8_shr(bits, within as u32));
                let index = v128_bitselect(u16x8_shl(low, 2), own, u8x16_splat(0x44));
                v128_bitselect(u16x8_shl(high, 3), index, u8x16_splat(0x88))
            }
        };
        let table = Self::SCHEME.level_table().expect("a scheme of levels");
        // SAFETY: the table has 16 bytes.
        let table = unsafe { v128_load(table.as_ptr().cast()) };
        let nibble = u8x16_splat(15);
        [indices, u16x8_shr(indices, 4)]
            .map(|indices| u8x16_swizzle(table, v128_and(indices, nibble)))
    }
}

/// As [`trellis::quarters`](crate::quant::quarters).
#[inline(always)]
fn quarters(path: v128) -> [v128; 2] {
    let before = one_before(path);
    [before, v128_xor(path, one_before(before))]
}

/// Each weight's bit of a path one place before.
#[inline(always)]
fn one_before(path: v128) -> v128 {
    v128_or(u32x4_shl(path, 8), v128_and(u32x4_shr(path, 23), u32x4_splat(0xfe)))
}

/// 16 bytes of a line.
///
/// # Safety
/// `group` is valid for reads up to the end of that line, and `quarter` is less than 4.
#[inline(always)]
unsafe fn load_quarter(group: *const u8, line: usize, quarter: usize) -> v128 {
    // SAFETY: the caller's promise.
    unsafe { v128_load(group.add(TILE_ALIGN * line + 16 * quarter).cast()) }
}

impl<S: Packing> Dot for Words<S> {
    type Packed = [v128; 2];
    type Values = [v128; 2];

    const PIECES: usize = 4;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize, quarter: usize) -> [v128; 2] {
        // SAFETY: the caller's promise.
        unsafe { S::load(group, pair, quarter) }
    }

    /// Inputs 0 and 2, 1 and 3 of the first step, then of the second.
    #[inline(always)]
    fn piece<const PIECE: usize>([first, second]: [v128; 2]) -> v128 {
        let mask = u16x8_splat(if matches!(S::SCHEME, Scheme::Int4) { 15 } else { 255 });
        match (S::SCHEME, PIECE) {
            (_, 0) => v128_and(first, mask),
            (Scheme::Int4, 1) => v128_and(u16x8_shr(first, 8), mask),
            (Scheme::Int4, 2) => v128_and(u16x8_shr(first, 4), mask),
            (Scheme::Int4, _) => u16x8_shr(first, 12),
            (_, 1) => u16x8_shr(first, 8),
            (_, 2) => v128_and(second, mask),
            (_, _) => u16x8_shr(second, 8),
        }
    }

    #[inline(always)]
    unsafe fn values(values: *const i8) -> [v128; 2] {
        // SAFETY: the caller's promise.
        even_and_odd(unsafe { v128_load64_zero(values.cast()) })
    }

    #[inline(always)]
    unsafe fn value<const PIECE: usize>([even, odd]: [v128; 2]) -> v128 {
        match PIECE {
            0 => i32x4_shuffle::<0, 0, 0, 0>(even, even),
            1 => i32x4_shuffle::<0, 0, 0, 0>(odd, odd),
            2 => i32x4_shuffle::<1, 1, 1, 1>(even, even),
            _ => i32x4_shuffle::<1, 1, 1, 1>(odd, odd),
        }
    }

    #[inline(always)]
    fn start([first, second]: Correction) -> v128 {
        let sum = i32::from(first) + i32::from(second);
        i32x4_splat(sum * i32::from(correction_factor(S::SCHEME)))
    }

    #[inline(always)]
    fn dot(sums: v128, weights: v128, values: v128) -> v128 {
        i32x4_add(sums, i32x4_dot_i16x8(weights, values))
    }

    #[inline(always)]
    fn total(sums: v128) -> v128 {
        sums
    }
}

/// Products of bytes, of two inputs each summed in 16 bits.
///
/// The instruction asks for one operand of 7 bits: then no engine's result depends on whether it takes that
/// for signed, and 2 * 15 * 127 = 3810 does not saturate. The sums of a block, with their
/// correction, lie within 16 bits again, so however often additions wrapped on the way, the total is exact
/// ([`block_size`](crate::quant::block_size)).
#[cfg(target_feature = "relaxed-simd")]
pub(super) struct RelaxedNibbles;

#[cfg(target_feature = "relaxed-simd")]
impl Dot for RelaxedNibbles {
    type Packed = v128;
    type Values = *const u32;

    const PIECES: usize = 2;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize, quarter: usize) -> v128 {
        // SAFETY: the caller's promise.
        unsafe { load_quarter(group, pair, quarter) }
    }

    /// The first step, then the second.
    #[inline(always)]
    fn piece<const PIECE: usize>(packed: v128) -> v128 {
        let nibbles = if PIECE == 0 { packed } else { u16x8_shr(packed, 4) };
        v128_and(nibbles, u8x16_splat(15))
    }

    #[inline(always)]
    unsafe fn values(values: *const i8) -> *const u32 {
        values.cast()
    }

    #[inline(always)]
    unsafe fn value<const PIECE: usize>(values: *const u32) -> v128 {
        // SAFETY: the caller's promise; a load may be unaligned.
        unsafe { v128_load32_splat(values.wrapping_add(PIECE)) }
    }

    #[inline(always)]
    fn start([first, second]: Correction) -> v128 {
        i32x4_splat(i32::from(second) << 16 | i32::from(first.cast_unsigned()))
    }

    #[inline(always)]
    fn dot(sums: v128, weights: v128, values: v128) -> v128 {
        i16x8_add(sums, i16x8_relaxed_dot_i8x16_i7x16(values, weights))
    }

    #[inline(always)]
    fn total(sums: v128) -> v128 {
        i32x4_extadd_pairwise_i16x8(sums)
    }
}
