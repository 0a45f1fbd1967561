//! 16 lanes in one register.
//!
//! `_mm512_min_ps(a, b)` is `if a < b { a } else { b }` and `_mm512_max_ps(a, b)` is
//! `if a > b { a } else { b }`, which settles what becomes of a NaN.

use core::arch::x86_64::*;

use crate::kernels::ahead::Ahead;
use crate::kernels::avx2::Avx2;
use crate::kernels::types::Correction;
use crate::kernels::vector::{KeyDot, LANES, Vector};

/// AVX-512 F, BW, DQ, VL and VNNI, on top of AVX2.
#[derive(Clone, Copy)]
pub(super) struct Avx512(Avx2);

/// An expression of intrinsics.
///
/// Every block of this file has the same reason: an `Avx512` exists only where the processor supports
/// AVX-512 with VNNI, as `Vector::new` demands.
macro_rules! run {
    ($e:expr) => {
        // SAFETY: an `Avx512` exists.
        unsafe { $e }
    };
}

/// The lanes that a slice of `len` floats has, at most 16.
#[inline(always)]
pub(super) fn first(len: usize) -> __mmask16 {
    debug_assert!(len <= LANES);
    ((1u32 << len) - 1) as __mmask16
}

impl Vector for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Bytes = __m256i;
    type Pairs = __m256i;

    // 24 registers of sums at most, of 32.
    const SCORE_PANELS: [usize; 6] = [4, 8, 4, 4, 4, 4];
    const VALUE_VECTORS: [usize; 6] = [8, 8, 4, 4, 4, 4];
    const SOFTMAX_QUERIES: usize = 6;

    #[inline(always)]
    fn ahead(self) -> Ahead {
        Ahead::best()
    }

    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's promise; AVX2 is part of it.
        Self(unsafe { Avx2::new() })
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        run!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn splat_i32(self, n: i32) -> __m512i {
        run!(_mm512_set1_epi32(n))
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        // SAFETY: an `Avx512` exists; 16 floats, and the load may be unaligned.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; LANES]) {
        // SAFETY: an `Avx512` exists; 16 floats, and the store may be unaligned.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn load_part(self, from: &[f32]) -> __m512 {
        // SAFETY: an `Avx512` exists; lanes beyond the slice are not read.
        unsafe { _mm512_maskz_loadu_ps(first(from.len()), from.as_ptr()) }
    }

    #[inline(always)]
    fn store_part(self, x: __m512, to: &mut [f32]) {
        // SAFETY: an `Avx512` exists; lanes beyond the slice are not written.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), x) }
    }

    #[inline(always)]
    fn keep_first(self, n: usize, x: __m512) -> __m512 {
        run!(_mm512_maskz_mov_ps(first(n), x))
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: an `Avx512` exists; 32 bytes, and the load may be unaligned.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn to_f16(self, x: __m512) -> [u16; LANES] {
        let mut to = [0; LANES];
        // SAFETY: an `Avx512` exists; 32 bytes, and the store may be unaligned.
        unsafe {
            let bits = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), bits);
        }
        to
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m512 {
        // SAFETY: an `Avx512` exists; 16 bytes, and the load may be unaligned.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> __m512i {
        // SAFETY: an `Avx512` exists; 16 bytes, and the load may be unaligned.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        run!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        run!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        run!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        run!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        run!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn neg(self, x: __m512) -> __m512 {
        run!(_mm512_xor_ps(x, _mm512_set1_ps(-0.0)))
    }

    #[inline(always)]
    fn abs(self, x: __m512) -> __m512 {
        run!(_mm512_abs_ps(x))
    }

    #[inline(always)]
    fn at_most(self, x: __m512, limit: __m512) -> __m512 {
        run!(_mm512_min_ps(limit, x))
    }

    #[inline(always)]
    fn at_least(self, x: __m512, limit: __m512) -> __m512 {
        run!(_mm512_max_ps(limit, x))
    }

    #[inline(always)]
    fn relu(self, x: __m512) -> __m512 {
        self.at_least(x, self.splat(0.0))
    }

    #[inline(always)]
    fn larger(self, x: __m512, max: __m512) -> __m512 {
        run!(_mm512_max_ps(x, max))
    }

    #[inline(always)]
    fn zero_below(self, limit: f32, x: __m512, y: __m512) -> __m512 {
        // Not less than, true of a NaN.
        run!({
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(limit));
            _mm512_maskz_mov_ps(kept, y)
        })
    }

    #[inline(always)]
    fn butterflies(self, x: __m512) -> __m512 {
        // Adds each lane, negated where it is the upper one of its pair, to the other one.
        run!({
            let (one, minus) = (_mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
            let other = _mm512_permute_ps::<0b10_11_00_01>(x);
            let x = _mm512_fmadd_ps(x, _mm512_mask_blend_ps(0xaaaa, one, minus), other);
            let other = _mm512_permute_ps::<0b01_00_11_10>(x);
            let x = _mm512_fmadd_ps(x, _mm512_mask_blend_ps(0xcccc, one, minus), other);
            let other = _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x);
            let x = _mm512_fmadd_ps(x, _mm512_mask_blend_ps(0xf0f0, one, minus), other);
            let other = _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x);
            _mm512_fmadd_ps(x, _mm512_mask_blend_ps(0xff00, one, minus), other)
        })
    }

    #[inline(always)]
    fn fold(self, lanes: __m512) -> f32 {
        run!({
            let a =
                _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    fn highest(self, lanes: __m512) -> f32 {
        run!(_mm512_reduce_max_ps(lanes))
    }

    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        run!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn max_i32(self, a: __m512i, b: __m512i) -> __m512i {
        run!(_mm512_max_epi32(a, b))
    }

    #[inline(always)]
    fn highest_i32(self, lanes: __m512i) -> i32 {
        run!(_mm512_reduce_max_epi32(lanes))
    }

    #[inline(always)]
    fn shift_to_exponent(self, x: __m512) -> __m512i {
        run!(_mm512_slli_epi32::<23>(_mm512_castps_si512(x)))
    }

    #[inline(always)]
    fn bits(self, x: __m512) -> __m512i {
        run!(_mm512_castps_si512(x))
    }

    #[inline(always)]
    fn with_bits(self, bits: __m512i) -> __m512 {
        run!(_mm512_castsi512_ps(bits))
    }

    #[inline(always)]
    fn to_f32(self, n: __m512i) -> __m512 {
        run!(_mm512_cvtepi32_ps(n))
    }

    #[inline(always)]
    fn round(self, x: __m512) -> __m512i {
        run!(_mm512_cvtps_epi32(x))
    }

    #[inline(always)]
    fn to_bytes(self, [low, high]: [__m512i; 2]) -> __m256i {
        run!(_mm256_set_m128i(_mm512_cvtepi32_epi8(high), _mm512_cvtepi32_epi8(low)))
    }

    #[inline(always)]
    fn store_bytes(self, bytes: __m256i, to: &mut [i8; 2 * LANES]) {
        self.0.store_bytes(bytes, to);
    }

    #[inline(always)]
    fn no_pairs(self) -> __m256i {
        self.0.no_pairs()
    }

    #[inline(always)]
    fn add_pairs(self, sums: __m256i, bytes: __m256i) -> __m256i {
        self.0.add_pairs(sums, bytes)
    }

    #[inline(always)]
    fn correction_of(self, sums: __m256i) -> Correction {
        self.0.correction_of(sums)
    }
}

/// `vpdpbusd` takes unsigned by signed bytes: keys get an offset of 128, and a sum begins with -128 times
/// the sum of the query. Both are exact.
impl KeyDot for Avx512 {
    type Vector = Self;
    type Keys = __m512i;

    const PANELS: usize = 4;
    const QUERIES: usize = 6;

    #[inline(always)]
    fn vector(self) -> Self {
        self
    }

    #[inline(always)]
    fn keys(self, step: &[i8; 4 * LANES]) -> __m512i {
        // SAFETY: an `Avx512` exists; 64 bytes, and the load may be unaligned.
        unsafe {
            let step = _mm512_loadu_si512(step.as_ptr().cast());
            _mm512_xor_si512(step, _mm512_set1_epi8(-128))
        }
    }

    #[inline(always)]
    fn correction(self, query_sum: i32) -> i32 {
        -128 * query_sum
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, keys: __m512i, query: i32) -> __m512i {
        run!(_mm512_dpbusd_epi32(sums, keys, _mm512_set1_epi32(query)))
    }
}
