//! How weights become bytes, and the dot product of bytes: all in which this folder's matrix products differ
//! from those for processors with VNNI instructions, whose [`Dot`] is in `avx_vnni/dot.rs`.

use core::arch::asm;
use core::arch::x86_64::*;
use core::marker::PhantomData;

use crate::quant::{LevelTable, Scheme};

/// Multiplies 8 rows x 4 inputs of weights, one row a 32-bit lane, with 4 inputs of a token.
///
/// The methods are `#[inline(always)]` and so cannot enable AVX2 themselves: they become part of
/// functions that do.
pub(in crate::kernels) trait Dot {
    /// Weights of 8 rows x 4 inputs, ready to be multiplied.
    type Weights: Copy;

    /// Tokens whose sums of 16 rows stay in registers, beside what a step needs.
    const TILE: usize;

    /// Whether sums have 32 bits, so that those of a group need not be taken block by block.
    const IS_WIDE: bool = true;

    /// Whether steps are multiplied in pairs, by [`dot_pair`](Self::dot_pair).
    const PAIRS: bool = false;

    /// The sums of a block before its first product, given its [`Correction`](crate::kernels::Correction), and
    /// how many times the weights' offset is that of int4.
    ///
    /// # Safety
    /// The processor supports AVX2, and `at` is valid for reads of 4 bytes.
    unsafe fn correction(at: *const i32, factor: i16) -> __m256i;

    /// Adds the products of both halves with `x`: 4 inputs as i8 in -127..=127, repeated in every lane.
    ///
    /// # Safety
    /// The processor supports AVX2 and what the implementation names.
    unsafe fn dot(sums: &mut [__m256i; 2], weights: [Self::Weights; 2], x: __m256i);

    /// The same for two steps.
    ///
    /// # Safety
    /// As for [`dot`](Self::dot).
    #[inline(always)]
    unsafe fn dot_pair(sums: &mut [__m256i; 2], weights: [[Self::Weights; 2]; 2], x: [__m256i; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            Self::dot(sums, weights[0], x[0]);
            Self::dot(sums, weights[1], x[1]);
        }
    }

    /// A block's sums as one i32 per row.
    ///
    /// # Safety
    /// The processor supports AVX2.
    unsafe fn total(sums: __m256i) -> __m256i;
}

/// How weights lie in lines: some steps in some lines, which are then a unit.
pub(in crate::kernels) trait Packing {
    /// What multiplies them.
    type Dot: Dot;

    /// Steps of a unit.
    const STEPS: usize;
    /// Lines of a unit.
    const LINES: usize;
    /// The most tokens for which the weights are unpacked on the way, once for all of them.
    const FEW: usize;

    /// The weights of rows 0..8 and 8..16 at `step` of a unit.
    ///
    /// # Safety
    /// - The processor supports AVX2.
    /// - `unit` is valid for reads of a unit.
    unsafe fn unpack(unit: *const u8, step: usize) -> [<Self::Dot as Dot>::Weights; 2];
}

/// Int4 weights. A line holds two steps, the first in its low nibbles.
pub(in crate::kernels) struct Nibbles<D>(PhantomData<D>);

impl<D: Dot<Weights = __m256i>> Packing for Nibbles<D> {
    type Dot = D;

    const STEPS: usize = 2;
    const LINES: usize = 1;
    const FEW: usize = 4;

    #[inline(always)]
    unsafe fn unpack(line: *const u8, step: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { nibbles(load_line(line, 0), step) }
    }
}

/// Int8 weights, for products that take them as they are. A line holds a step.
#[cfg(feature = "vnni")]
pub(in crate::kernels) struct Bytes<D>(PhantomData<D>);

#[cfg(feature = "vnni")]
impl<D: Dot<Weights = __m256i>> Packing for Bytes<D> {
    type Dot = D;

    const STEPS: usize = 1;
    const LINES: usize = 1;
    const FEW: usize = 4;

    #[inline(always)]
    unsafe fn unpack(line: *const u8, _: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { load_line(line, 0) }
    }
}

/// Indices of levels, `BITS` of them, which become the levels with their offset.
pub(in crate::kernels) struct Levels<D, const BITS: usize>(PhantomData<D>);

impl<D: Dot<Weights = __m256i>, const BITS: usize> Packing for Levels<D, BITS> {
    type Dot = D;

    const STEPS: usize = 8;
    const LINES: usize = BITS;
    const FEW: usize = 1;

    #[inline(always)]
    unsafe fn unpack(unit: *const u8, step: usize) -> [__m256i; 2] {
        const { assert!(BITS <= 4) }
        let pair = step / 2;
        // SAFETY: the caller's promise.
        unsafe {
            let indices = match BITS {
                4 => load_line(unit, pair),
                _ => along_path::<BITS>(unit, pair),
            };
            let table = table::<BITS>();
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            nibbles(indices, step).map(|index| _mm256_shuffle_epi8(table, index))
        }
    }
}

/// The indices of a pair of steps of levels along a path, of `BITS` bits: in each nibble the level's own bits and,
/// from bit 2 on, its quarter.
///
/// # Safety
/// The processor supports AVX2, and `unit` is valid for reads of `BITS` lines.
#[inline(always)]
unsafe fn along_path<const BITS: usize>(unit: *const u8, pair: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise; the path's line comes last.
    unsafe {
        let (own, path) = (load_line(unit, pair * (BITS - 1) / 4), load_line(unit, BITS - 1));
        let shift = pair * (BITS - 1) % 4;
        [index(own[0], shift, path[0], pair), index(own[1], shift, path[1], pair)]
    }
}

/// The same of half a line, of which the levels' own bits begin at bit `shift`.
///
/// # Safety
/// The processor supports AVX2.
#[inline(always)]
unsafe fn index(own: __m256i, shift: usize, path: __m256i, pair: usize) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let own = match shift {
            0 => own,
            1 => _mm256_srli_epi16::<1>(own),
            2 => _mm256_srli_epi16::<2>(own),
            _ => _mm256_srli_epi16::<3>(own),
        };
        let before = one_before(path);
        let (low, high) = (before, _mm256_xor_si256(path, one_before(before)));
        let (low, high) = match pair {
            0 => (_mm256_slli_epi16::<2>(low), _mm256_slli_epi16::<3>(high)),
            1 => (_mm256_slli_epi16::<1>(low), _mm256_slli_epi16::<2>(high)),
            2 => (low, _mm256_slli_epi16::<1>(high)),
            _ => (_mm256_srli_epi16::<1>(low), high),
        };
        let own = _mm256_and_si256(own, _mm256_set1_epi8(0x33));
        let low = _mm256_and_si256(low, _mm256_set1_epi8(0x44));
        let high = _mm256_and_si256(high, _mm256_set1_epi8(0x88_u8 as i8));
        _mm256_or_si256(own, _mm256_or_si256(low, high))
    }
}

/// Each weight's bit of a path one place before ([`trellis::quarters`](crate::quant::quarters)).
///
/// # Safety
/// The processor supports AVX2.
#[inline(always)]
unsafe fn one_before(path: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let last = _mm256_and_si256(_mm256_srli_epi32::<23>(path), _mm256_set1_epi32(0xfe));
        _mm256_or_si256(_mm256_slli_epi32::<8>(path), last)
    }
}

/// The levels whose indices have so many bits.
const fn table<const BITS: usize>() -> &'static LevelTable {
    let scheme = match BITS {
        4 => Scheme::Nl4,
        3 => Scheme::Tc3,
        _ => Scheme::Tc2,
    };
    scheme.level_table().expect("a scheme of levels")
}

/// The low nibbles of a line if `step` is even, else the high ones.
///
/// # Safety
/// The processor supports AVX2.
#[inline(always)]
unsafe fn nibbles(line: [__m256i; 2], step: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let nibble = _mm256_set1_epi8(15);
        let line = match step % 2 {
            0 => line,
            _ => line.map(|half| _mm256_srli_epi16::<4>(half)),
        };
        line.map(|half| _mm256_and_si256(half, nibble))
    }
}

/// Int4 weights: sums in 16 bits, two lanes per row, which over a block wrap around harmlessly.
///
/// `vpmaddubsw` gives at most 2 * 15 * 127 = 3810, so nothing saturates; the sums of a block, with
/// their correction, lie within 16 bits again, so however often additions wrapped on the way, the total is
/// exact ([`block_size`](crate::quant::block_size)). Two instructions per 32 products.
pub(super) struct Narrow;

impl Dot for Narrow {
    type Weights = __m256i;

    // 12 registers of sums, 2 of weights, the token's values and a product.
    const TILE: usize = 6;
    const IS_WIDE: bool = false;

    #[inline(always)]
    unsafe fn correction(at: *const i32, _: i16) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_epi32(at.read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn dot(sums: &mut [__m256i; 2], weights: [__m256i; 2], x: __m256i) {
        // SAFETY: AVX2 is promised.
        unsafe {
            sums[0] = add_16_bit(sums[0], _mm256_maddubs_epi16(weights[0], x));
            sums[1] = add_16_bit(sums[1], _mm256_maddubs_epi16(weights[1], x));
        }
    }

    #[inline(always)]
    unsafe fn total(sums: __m256i) -> __m256i {
        // SAFETY: AVX2 is promised.
        unsafe { _mm256_madd_epi16(sums, _mm256_set1_epi16(1)) }
    }
}

/// Int8 weights: sums in 32 bits.
///
/// `vpmaddubsw` takes unsigned by signed bytes, so the weight's sign moves to the input: |w| * (x with
/// the sign of w) is at most 128 * 127, and the sum of two of them does not saturate. Four
/// instructions per 32 products.
pub(super) struct Signed;

/// Signed weights and their magnitudes.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct SignedWeights {
    signed: __m256i,
    magnitude: __m256i,
}

impl SignedWeights {
    /// From signed bytes; the magnitude of -128 is 128, unsigned.
    ///
    /// # Safety
    /// The processor supports AVX2.
    #[inline(always)]
    pub(super) unsafe fn new(signed: __m256i) -> Self {
        // SAFETY: the caller's promise.
        Self { signed, magnitude: unsafe { _mm256_abs_epi8(signed) } }
    }
}

/// Int8 weights without their offset.
pub(super) struct SignedBytes;

impl Packing for SignedBytes {
    type Dot = Signed;

    const STEPS: usize = 1;
    const LINES: usize = 1;
    const FEW: usize = 4;

    #[inline(always)]
    unsafe fn unpack(line: *const u8, _: usize) -> [SignedWeights; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let offset = _mm256_set1_epi8(-128);
            load_line(line, 0).map(|half| SignedWeights::new(_mm256_xor_si256(half, offset)))
        }
    }
}

impl Dot for Signed {
    type Weights = SignedWeights;

    // 8 registers of sums, 4 of weights, the token's values, a product and the ones.
    const TILE: usize = 4;

    #[inline(always)]
    unsafe fn correction(_: *const i32, _: i16) -> __m256i {
        // The offset is gone already. SAFETY: AVX2 is promised.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn dot(sums: &mut [__m256i; 2], weights: [SignedWeights; 2], x: __m256i) {
        // SAFETY: AVX2 is promised.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            for half in 0..2 {
                let SignedWeights { signed, magnitude } = weights[half];
                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, signed));
                sums[half] = add_32_bit(sums[half], _mm256_madd_epi16(pairs, ones));
            }
        }
    }

    #[inline(always)]
    unsafe fn total(sums: __m256i) -> __m256i {
        sums
    }
}

/// Levels with their offset: sums in 32 bits, of four products each in 16.
///
/// With levels below 64 these are at most 4 * 63 * 127 = 32004, so nothing saturates. Five instructions per 64
/// products.
pub(super) struct Wide;

const _: () = assert!(4 * (2 * Scheme::Nl4.offset() - 1) * 127 <= i16::MAX as i32);

impl Dot for Wide {
    type Weights = __m256i;

    // 8 registers of sums, 4 of weights, the token's values, two products and the ones.
    const TILE: usize = 4;
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn correction(at: *const i32, factor: i16) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { sum_of_pair(at, factor) }
    }

    #[inline(always)]
    unsafe fn dot(sums: &mut [__m256i; 2], weights: [__m256i; 2], x: __m256i) {
        // SAFETY: AVX2 is promised.
        unsafe {
            let zero = _mm256_setzero_si256();
            Self::dot_pair(sums, [weights, [zero; 2]], [x, zero]);
        }
    }

    #[inline(always)]
    unsafe fn dot_pair(sums: &mut [__m256i; 2], weights: [[__m256i; 2]; 2], x: [__m256i; 2]) {
        // SAFETY: AVX2 is promised.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            for half in 0..2 {
                let first = _mm256_maddubs_epi16(weights[0][half], x[0]);
                let pairs = add_16_bit(first, _mm256_maddubs_epi16(weights[1][half], x[1]));
                sums[half] = add_32_bit(sums[half], _mm256_madd_epi16(pairs, ones));
            }
        }
    }

    #[inline(always)]
    unsafe fn total(sums: __m256i) -> __m256i {
        sums
    }
}

/// `factor` times the two parts of a [`Correction`](crate::kernels::Correction) together, in every lane.
///
/// # Safety
/// The processor supports AVX2, and `at` is valid for reads of 4 bytes.
#[inline(always)]
pub(in crate::kernels) unsafe fn sum_of_pair(at: *const i32, factor: i16) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = _mm256_set1_epi32(at.read_unaligned());
        _mm256_madd_epi16(pair, _mm256_set1_epi16(factor))
    }
}

/// `_mm256_add_epi16`, but not for the compiler to see: it regroups the additions of several steps, and
/// then more sums are alive than there are registers.
#[inline]
#[target_feature(enable = "avx2")]
fn add_16_bit(mut sums: __m256i, products: __m256i) -> __m256i {
    // SAFETY: AVX2 is enabled, and only the operand is changed.
    unsafe {
        asm!("vpaddw {0}, {0}, {1}", inout(ymm_reg) sums, in(ymm_reg) products,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// `_mm256_add_epi32`, hidden likewise.
#[inline]
#[target_feature(enable = "avx2")]
fn add_32_bit(mut sums: __m256i, products: __m256i) -> __m256i {
    // SAFETY: AVX2 is enabled, and only the operand is changed.
    unsafe {
        asm!("vpaddd {0}, {0}, {1}", inout(ymm_reg) sums, in(ymm_reg) products,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// The 64 bytes of a line.
///
/// # Safety
/// The processor supports AVX2, and `data` is valid for reads up to the end of that line.
#[inline(always)]
pub(in crate::kernels) unsafe fn load_line(data: *const u8, line: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise; the loads may be unaligned.
    unsafe {
        let line = data.cast::<__m256i>().add(2 * line);
        [_mm256_loadu_si256(line), _mm256_loadu_si256(line.add(1))]
    }
}
