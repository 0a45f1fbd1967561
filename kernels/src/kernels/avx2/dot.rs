//! The dot product of bytes: all in which this folder's matrix products differ from those for
//! processors with VNNI instructions, whose [`Dot`] is in `avx_vnni/dot.rs`.

use core::arch::asm;
use core::arch::x86_64::*;

/// Multiplies 8 rows x 4 inputs of weights, one row a 32-bit lane, with 4 inputs of a token.
///
/// The methods are `#[inline(always)]` and so cannot enable AVX2 themselves: they become part of
/// functions that do.
pub(in crate::kernels) trait Dot {
    /// Weights of 8 rows x 4 inputs, ready to be multiplied.
    type Weights: Copy;

    /// Tokens whose sums of 16 rows stay in registers, beside what a step needs.
    const TILE: usize;

    /// Steps that lie in one line of 64 bytes.
    const STEPS_PER_LINE: usize;

    /// The weights of rows 0..8 and 8..16 at `step` of a group's data.
    ///
    /// # Safety
    /// - The processor supports AVX2.
    /// - `data` is valid for reads of a group that has this step.
    unsafe fn unpack(data: *const u8, step: usize) -> [Self::Weights; 2];

    /// The sums of a block before its first product, given its [`Correction`](crate::kernels::Correction).
    ///
    /// # Safety
    /// The processor supports AVX2, and `at` is valid for reads of 4 bytes.
    unsafe fn correction(at: *const i32) -> __m256i;

    /// Adds the products of both halves with `x`: 4 inputs as i8 in -127..=127, repeated in every lane.
    ///
    /// # Safety
    /// The processor supports AVX2 and what the implementation names.
    unsafe fn dot(sums: &mut [__m256i; 2], weights: [Self::Weights; 2], x: __m256i);

    /// A block's sums as one i32 per row.
    ///
    /// # Safety
    /// The processor supports AVX2.
    unsafe fn total(sums: __m256i) -> __m256i;
}

/// Int4 weights: sums in 16 bits, two lanes per row, which over a block wrap around harmlessly.
///
/// `vpmaddubsw` gives at most 2 * 15 * 127 = 3810, so nothing saturates; the sums of a block, with
/// their correction, lie within 16 bits again, so however often additions wrapped on the way, the total is
/// exact ([`block_size`](crate::quant::block_size)). Two instructions per 32 products.
pub(super) struct Int4;

impl Dot for Int4 {
    type Weights = __m256i;

    // 12 registers of sums, 2 of weights, the token's values and a product.
    const TILE: usize = 6;
    const STEPS_PER_LINE: usize = 2;

    #[inline(always)]
    unsafe fn unpack(data: *const u8, step: usize) -> [__m256i; 2] {
        // SAFETY: a line holds two steps, so that of `step` lies in the group; AVX2 is promised.
        unsafe {
            let [mut low, mut high] = load_line(data, step / 2);
            if step % 2 == 1 {
                (low, high) = (_mm256_srli_epi16::<4>(low), _mm256_srli_epi16::<4>(high));
            }
            let nibble = _mm256_set1_epi8(15);
            [_mm256_and_si256(low, nibble), _mm256_and_si256(high, nibble)]
        }
    }

    #[inline(always)]
    unsafe fn correction(at: *const i32) -> __m256i {
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
pub(super) struct Int8;

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

impl Dot for Int8 {
    type Weights = SignedWeights;

    // 8 registers of sums, 4 of weights, the token's values, a product and the ones.
    const TILE: usize = 4;
    const STEPS_PER_LINE: usize = 1;

    #[inline(always)]
    unsafe fn unpack(data: *const u8, step: usize) -> [SignedWeights; 2] {
        // SAFETY: a line holds one step; AVX2 is promised.
        unsafe {
            let [low, high] = load_line(data, step);
            let offset = _mm256_set1_epi8(-128);
            [
                SignedWeights::new(_mm256_xor_si256(low, offset)),
                SignedWeights::new(_mm256_xor_si256(high, offset)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn correction(_: *const i32) -> __m256i {
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
