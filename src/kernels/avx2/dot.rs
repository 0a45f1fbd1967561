//! The dot product of bytes: all in which this folder's matrix products differ from those for
//! processors with VNNI instructions, which would be further implementations of [`Dot`].

use std::arch::x86_64::*;

/// Multiplies 8 rows x 4 inputs of weights, one row a 32-bit lane, with 4 inputs of a token.
pub(super) trait Dot {
    /// Weights of 8 rows x 4 inputs, ready to be multiplied.
    type Weights: Copy;

    /// The weights of rows 0..8 and 8..16 at `step` of a group's data.
    ///
    /// # Safety
    /// - The processor supports AVX2.
    /// - `data` is valid for reads of a group that has this step.
    unsafe fn unpack(data: *const u8, step: usize) -> [Self::Weights; 2];

    /// The sums of a block before its first product, given its [`Start`](crate::kernels::Start).
    ///
    /// # Safety
    /// The processor supports AVX2, and `start` is valid for reads of 4 bytes.
    unsafe fn start(start: *const i32) -> __m256i;

    /// `sums` plus the products with `x`: 4 inputs as i8 in -127..=127, repeated in every lane.
    ///
    /// # Safety
    /// The processor supports AVX2.
    unsafe fn dot(sums: __m256i, weights: Self::Weights, x: __m256i) -> __m256i;

    /// A block's sums as one i32 per row.
    ///
    /// # Safety
    /// The processor supports AVX2.
    unsafe fn total(sums: __m256i) -> __m256i;
}

/// Int4 weights: sums in 16 bits, two lanes per row, which over a block wrap around harmlessly.
///
/// `vpmaddubsw` gives at most 2 * 15 * 127 = 3810, so nothing saturates; the sums of a block, with
/// their start, lie within 16 bits again, so however often additions wrapped on the way, the total is
/// exact ([`block_size`](crate::quant::block_size)). Two instructions per 32 products.
pub(super) struct Int4;

impl Dot for Int4 {
    type Weights = __m256i;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn unpack(data: *const u8, step: usize) -> [__m256i; 2] {
        // SAFETY: a line holds two steps, so that of `step` lies in the group.
        let line = unsafe { load_line(data, step / 2) };
        let nibble = _mm256_set1_epi8(15);
        line.map(|bytes| {
            let bytes = if step % 2 == 0 { bytes } else { _mm256_srli_epi16::<4>(bytes) };
            _mm256_and_si256(bytes, nibble)
        })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn start(start: *const i32) -> __m256i {
        // SAFETY: the caller's promise.
        _mm256_set1_epi32(unsafe { start.read_unaligned() })
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot(sums: __m256i, weights: __m256i, x: __m256i) -> __m256i {
        _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, x))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn total(sums: __m256i) -> __m256i {
        _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
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
pub(super) struct SignedWeights {
    signed: __m256i,
    magnitude: __m256i,
}

impl SignedWeights {
    /// From signed bytes; the magnitude of -128 is 128, unsigned.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(signed: __m256i) -> Self {
        Self { signed, magnitude: _mm256_abs_epi8(signed) }
    }
}

impl Dot for Int8 {
    type Weights = SignedWeights;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn unpack(data: *const u8, step: usize) -> [SignedWeights; 2] {
        // SAFETY: a line holds one step.
        let line = unsafe { load_line(data, step) };
        let offset = _mm256_set1_epi8(-128);
        line.map(|bytes| SignedWeights::new(_mm256_xor_si256(bytes, offset)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn start(_: *const i32) -> __m256i {
        // The offset is gone already.
        _mm256_setzero_si256()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot(sums: __m256i, weights: SignedWeights, x: __m256i) -> __m256i {
        let x = _mm256_sign_epi8(x, weights.signed);
        let pairs = _mm256_maddubs_epi16(weights.magnitude, x);
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn total(sums: __m256i) -> __m256i {
        sums
    }
}

/// The 64 bytes of a line.
///
/// # Safety
/// `data` is valid for reads up to the end of that line.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_line(data: *const u8, line: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise; the loads may be unaligned.
    unsafe {
        let line = data.cast::<__m256i>().add(2 * line);
        [_mm256_loadu_si256(line), _mm256_loadu_si256(line.add(1))]
    }
}
