//! 16 lanes in two registers: 0..8 and 8..16.
//!
//! `_mm256_min_ps(a, b)` is `if a < b { a } else { b }` and `_mm256_max_ps(a, b)` is
//! `if a > b { a } else { b }`, which settles what becomes of a NaN.

use core::arch::x86_64::*;

use super::dot::{Dot, Signed, SignedWeights};
use crate::kernels::types::Correction;
use crate::kernels::vector::{KeyDot, LANES, Vector};

/// 16 lanes: 0..8 and 8..16.
pub(super) type F32x16 = [__m256; 2];

/// AVX2 with FMA and F16C.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Avx2(());

/// The same instruction on both halves.
///
/// Every block of this file has the same reason: an `Avx2` exists only where the processor supports
/// AVX2, FMA and F16C, as `Vector::new` demands.
macro_rules! both {
    ($instruction:ident($($x:expr),*)) => {
        // SAFETY: an `Avx2` exists.
        unsafe { [$instruction($($x[0]),*), $instruction($($x[1]),*)] }
    };
}

/// The levels of the transform within 8 lanes: adds each lane, negated where it is the upper one of its pair,
/// to the other one.
///
/// # Safety
/// The processor has AVX2 and FMA.
#[inline(always)]
unsafe fn butterflies(x: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        let signs = _mm256_setr_ps(1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0);
        let x = _mm256_fmadd_ps(x, signs, _mm256_permute_ps::<0b10_11_00_01>(x));
        let signs = _mm256_setr_ps(1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0);
        let x = _mm256_fmadd_ps(x, signs, _mm256_permute_ps::<0b01_00_11_10>(x));
        let signs = _mm256_setr_ps(1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0);
        _mm256_fmadd_ps(x, signs, _mm256_permute2f128_ps::<1>(x, x))
    }
}

impl Vector for Avx2 {
    type F32 = F32x16;
    type I32 = [__m256i; 2];
    type Bytes = __m256i;
    type Pairs = __m256i;

    // 12 registers of sums at most, of 16.
    const SCORE_PANELS: [usize; 6] = [4, 3, 2, 1, 1, 1];
    const VALUE_VECTORS: [usize; 6] = [5, 2, 2, 1, 1, 1];
    const SOFTMAX_QUERIES: usize = 2;

    #[inline(always)]
    unsafe fn new() -> Self {
        Self(())
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        // SAFETY: an `Avx2` exists.
        [unsafe { _mm256_set1_ps(x) }; 2]
    }

    #[inline(always)]
    fn splat_i32(self, n: i32) -> [__m256i; 2] {
        // SAFETY: an `Avx2` exists.
        [unsafe { _mm256_set1_epi32(n) }; 2]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F32x16 {
        // SAFETY: an `Avx2` exists; 16 floats, and the loads may be unaligned.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn store(self, x: F32x16, to: &mut [f32; LANES]) {
        // SAFETY: an `Avx2` exists; 16 floats, and the stores may be unaligned.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
        }
    }

    #[inline(always)]
    fn keep_first(self, n: usize, x: F32x16) -> F32x16 {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let n = _mm256_set1_epi32(n as i32);
            let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let low = _mm256_cmpgt_epi32(n, lanes);
            let high = _mm256_cmpgt_epi32(n, _mm256_add_epi32(lanes, _mm256_set1_epi32(8)));
            let kept = [_mm256_castsi256_ps(low), _mm256_castsi256_ps(high)];
            [_mm256_and_ps(x[0], kept[0]), _mm256_and_ps(x[1], kept[1])]
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> F32x16 {
        // SAFETY: an `Avx2` exists; 32 bytes, and the loads may be unaligned.
        unsafe {
            let from = from.as_ptr().cast::<__m128i>();
            [_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))]
        }
    }

    #[inline(always)]
    fn to_f16(self, x: F32x16) -> [u16; LANES] {
        let mut to = [0; LANES];
        // SAFETY: an `Avx2` exists; 32 bytes, and the stores may be unaligned.
        unsafe {
            let [low, high] = x.map(|x| _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x));
            _mm_storeu_si128(to.as_mut_ptr().cast(), low);
            _mm_storeu_si128(to.as_mut_ptr().cast::<__m128i>().add(1), high);
        }
        to
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> F32x16 {
        // SAFETY: an `Avx2` exists; 16 bytes, and the loads may be unaligned.
        unsafe {
            let from = from.as_ptr();
            let [low, high] = [_mm_loadl_epi64(from.cast()), _mm_loadl_epi64(from.add(8).cast())];
            let [low, high] = [_mm256_cvtepi8_epi32(low), _mm256_cvtepi8_epi32(high)];
            [_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)]
        }
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> [__m256i; 2] {
        // SAFETY: an `Avx2` exists; 16 bytes, and the loads may be unaligned.
        unsafe {
            let from = from.as_ptr();
            let [low, high] = [_mm_loadl_epi64(from.cast()), _mm_loadl_epi64(from.add(8).cast())];
            [_mm256_cvtepu8_epi32(low), _mm256_cvtepu8_epi32(high)]
        }
    }

    #[inline(always)]
    fn add(self, a: F32x16, b: F32x16) -> F32x16 {
        both!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: F32x16, b: F32x16) -> F32x16 {
        both!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: F32x16, b: F32x16) -> F32x16 {
        both!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: F32x16, b: F32x16) -> F32x16 {
        both!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
        both!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn neg(self, x: F32x16) -> F32x16 {
        let sign = self.splat(-0.0);
        both!(_mm256_xor_ps(x, sign))
    }

    #[inline(always)]
    fn abs(self, x: F32x16) -> F32x16 {
        let sign = self.splat(-0.0);
        both!(_mm256_andnot_ps(sign, x))
    }

    #[inline(always)]
    fn at_most(self, x: F32x16, limit: F32x16) -> F32x16 {
        both!(_mm256_min_ps(limit, x))
    }

    #[inline(always)]
    fn at_least(self, x: F32x16, limit: F32x16) -> F32x16 {
        both!(_mm256_max_ps(limit, x))
    }

    #[inline(always)]
    fn relu(self, x: F32x16) -> F32x16 {
        self.at_least(x, self.splat(0.0))
    }

    #[inline(always)]
    fn larger(self, x: F32x16, max: F32x16) -> F32x16 {
        both!(_mm256_max_ps(x, max))
    }

    #[inline(always)]
    fn zero_below(self, limit: f32, x: F32x16, y: F32x16) -> F32x16 {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let limit = _mm256_set1_ps(limit);
            let below = [
                _mm256_cmp_ps::<_CMP_LT_OQ>(x[0], limit),
                _mm256_cmp_ps::<_CMP_LT_OQ>(x[1], limit),
            ];
            [_mm256_andnot_ps(below[0], y[0]), _mm256_andnot_ps(below[1], y[1])]
        }
    }

    #[inline(always)]
    fn butterflies(self, x: F32x16) -> F32x16 {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let (low, high) = (butterflies(x[0]), butterflies(x[1]));
            [_mm256_add_ps(low, high), _mm256_sub_ps(low, high)]
        }
    }

    #[inline(always)]
    fn fold(self, lanes: F32x16) -> f32 {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let a = _mm256_add_ps(lanes[0], lanes[1]);
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        }
    }

    #[inline(always)]
    fn highest(self, lanes: F32x16) -> f32 {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let a = _mm256_max_ps(lanes[0], lanes[1]);
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }

    #[inline(always)]
    fn add_i32(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn max_i32(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        both!(_mm256_max_epi32(a, b))
    }

    #[inline(always)]
    fn highest_i32(self, lanes: [__m256i; 2]) -> i32 {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let a = _mm256_max_epi32(lanes[0], lanes[1]);
            let a = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_max_epi32(a, _mm_unpackhi_epi64(a, a));
            _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<1>(a)))
        }
    }

    #[inline(always)]
    fn shift_to_exponent(self, x: F32x16) -> [__m256i; 2] {
        let bits = self.bits(x);
        // SAFETY: an `Avx2` exists.
        unsafe { [_mm256_slli_epi32::<23>(bits[0]), _mm256_slli_epi32::<23>(bits[1])] }
    }

    #[inline(always)]
    fn bits(self, x: F32x16) -> [__m256i; 2] {
        both!(_mm256_castps_si256(x))
    }

    #[inline(always)]
    fn with_bits(self, bits: [__m256i; 2]) -> F32x16 {
        both!(_mm256_castsi256_ps(bits))
    }

    #[inline(always)]
    fn to_f32(self, n: [__m256i; 2]) -> F32x16 {
        both!(_mm256_cvtepi32_ps(n))
    }

    #[inline(always)]
    fn round(self, x: F32x16) -> [__m256i; 2] {
        both!(_mm256_cvtps_epi32(x))
    }

    #[inline(always)]
    fn to_bytes(self, [low, high]: [[__m256i; 2]; 2]) -> __m256i {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let words = [_mm256_packs_epi32(low[0], low[1]), _mm256_packs_epi32(high[0], high[1])];
            // Packing works within halves of registers: put the quarters in order.
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            _mm256_permutevar8x32_epi32(_mm256_packs_epi16(words[0], words[1]), order)
        }
    }

    #[inline(always)]
    fn store_bytes(self, bytes: __m256i, to: &mut [i8; 2 * LANES]) {
        // SAFETY: an `Avx2` exists; 32 bytes, and the store may be unaligned.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) }
    }

    #[inline(always)]
    fn no_pairs(self) -> __m256i {
        // SAFETY: an `Avx2` exists.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn add_pairs(self, sums: __m256i, bytes: __m256i) -> __m256i {
        // SAFETY: an `Avx2` exists.
        unsafe { _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes)) }
    }

    #[inline(always)]
    fn correction_of(self, sums: __m256i) -> Correction {
        // SAFETY: an `Avx2` exists.
        unsafe {
            let a =
                _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let a = _mm_add_epi16(a, _mm_unpackhi_epi64(a, a));
            let a = _mm_add_epi16(a, _mm_shuffle_epi32::<1>(a));
            let a = _mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16::<3>(a));
            let both = _mm_cvtsi128_si32(a);
            [both as i16, (both >> 16) as i16]
        }
    }
}

impl KeyDot for Avx2 {
    type Vector = Self;
    type Keys = [SignedWeights; 2];

    // 6 registers of sums, 4 of keys, the query's values, a product and the ones.
    const PANELS: usize = 1;
    const QUERIES: usize = 3;

    #[inline(always)]
    fn vector(self) -> Self {
        self
    }

    #[inline(always)]
    fn keys(self, step: &[i8; 4 * LANES]) -> [SignedWeights; 2] {
        // SAFETY: an `Avx2` exists; 64 bytes, and the loads may be unaligned.
        unsafe {
            let step = step.as_ptr().cast::<__m256i>();
            [
                SignedWeights::new(_mm256_loadu_si256(step)),
                SignedWeights::new(_mm256_loadu_si256(step.add(1))),
            ]
        }
    }

    #[inline(always)]
    fn correction(self, _: i32) -> i32 {
        0
    }

    #[inline(always)]
    fn dot(self, mut sums: [__m256i; 2], keys: [SignedWeights; 2], query: i32) -> [__m256i; 2] {
        // SAFETY: an `Avx2` exists.
        unsafe { Signed::dot(&mut sums, keys, _mm256_set1_epi32(query)) };
        sums
    }
}
