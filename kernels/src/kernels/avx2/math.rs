//! [`crate::math`] in 8 lanes, operation for operation; the comments are there.
//!
//! `_mm256_min_ps(a, b)` is `if a < b { a } else { b }` and `_mm256_max_ps(a, b)` is
//! `if a > b { a } else { b }`, which settles what becomes of a NaN.

use std::arch::x86_64::*;

use crate::kernels::Activation;
use crate::math::{
    EXP_OVERFLOW, EXP_UNDERFLOW, EXP2, GELU, GELU_LIMIT, GELU_TANH, GELU_TANH_LIMIT, LOG2E,
    LOG2E_LOW, LOWEST_POWER, ROUND,
};

/// An activation function of every lane.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn activate(activation: Activation, x: __m256) -> __m256 {
    match activation {
        Activation::Gelu => relu_less_tail(&GELU, GELU_LIMIT, x),
        Activation::GeluTanh => relu_less_tail(&GELU_TANH, GELU_TANH_LIMIT, x),
        Activation::Relu => relu(x),
        Activation::Silu => silu(x),
    }
}

/// 2^x.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn exp2(x: __m256) -> __m256 {
    let round = _mm256_set1_ps(ROUND);
    let x = _mm256_min_ps(_mm256_set1_ps(128.0), x);
    let shifted = _mm256_add_ps(x, round);
    let n = _mm256_sub_ps(shifted, round);
    let y = scale(horner(&EXP2, _mm256_sub_ps(x, n)), shifted);
    zero_below(-126.0, x, y)
}

/// e^x.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp(x: __m256) -> __m256 {
    let (round, log2e) = (_mm256_set1_ps(ROUND), _mm256_set1_ps(LOG2E));
    let x = _mm256_min_ps(_mm256_set1_ps(EXP_OVERFLOW), x);
    let shifted = _mm256_fmadd_ps(x, log2e, round);
    let n = _mm256_sub_ps(shifted, round);
    let f = _mm256_fmsub_ps(x, log2e, n);
    let f = _mm256_fmadd_ps(x, _mm256_set1_ps(LOG2E_LOW), f);
    let y = scale(horner(&EXP2, f), shifted);
    zero_below(EXP_UNDERFLOW, x, y)
}

#[inline]
#[target_feature(enable = "avx2")]
fn relu(x: __m256) -> __m256 {
    _mm256_max_ps(_mm256_setzero_ps(), x)
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn silu(x: __m256) -> __m256 {
    let negated = _mm256_xor_ps(x, _mm256_set1_ps(-0.0));
    _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0), exp(negated)))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn relu_less_tail<const N: usize>(coefficients: &[f32; N], limit: f32, x: __m256) -> __m256 {
    let a = _mm256_andnot_ps(_mm256_set1_ps(-0.0), x);
    let a = _mm256_min_ps(a, _mm256_set1_ps(limit));
    let p = horner(coefficients, a);
    let p2 = _mm256_mul_ps(p, p);
    let p4 = _mm256_mul_ps(p2, p2);
    let p8 = _mm256_mul_ps(p4, p4);
    _mm256_fmadd_ps(_mm256_mul_ps(_mm256_set1_ps(-0.5), a), p8, relu(x))
}

/// `if x < limit { 0 } else { y }`.
#[inline]
#[target_feature(enable = "avx2")]
fn zero_below(limit: f32, x: __m256, y: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(limit)), y)
}

#[inline]
#[target_feature(enable = "avx2")]
fn scale(p: __m256, shifted: __m256) -> __m256 {
    let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
    let exponent = _mm256_add_epi32(exponent, _mm256_set1_epi32(126 << 23));
    let exponent = _mm256_max_epi32(exponent, _mm256_set1_epi32(LOWEST_POWER));
    _mm256_mul_ps(p, _mm256_castsi256_ps(exponent))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn horner<const N: usize>(coefficients: &[f32; N], x: __m256) -> __m256 {
    let mut p = _mm256_set1_ps(coefficients[N - 1]);
    for &c in coefficients[..N - 1].iter().rev() {
        p = _mm256_fmadd_ps(p, x, _mm256_set1_ps(c));
    }
    p
}
