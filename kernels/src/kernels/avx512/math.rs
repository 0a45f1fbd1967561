//! [`crate::math`] in 16 lanes, operation for operation; the comments are there.
//!
//! `_mm512_min_ps(a, b)` is `if a < b { a } else { b }` and `_mm512_max_ps(a, b)` is
//! `if a > b { a } else { b }`, which settles what becomes of a NaN.

use std::arch::x86_64::*;

use crate::kernels::Activation;
use crate::math::{
    EXP_OVERFLOW, EXP_UNDERFLOW, EXP2, GELU, GELU_LIMIT, GELU_TANH, GELU_TANH_LIMIT, LOG2E,
    LOG2E_LOW, LOWEST_POWER, ROUND,
};

/// An activation function of every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(super) fn activate(activation: Activation, x: __m512) -> __m512 {
    match activation {
        Activation::Gelu => relu_less_tail(&GELU, GELU_LIMIT, x),
        Activation::GeluTanh => relu_less_tail(&GELU_TANH, GELU_TANH_LIMIT, x),
        Activation::Relu => relu(x),
        Activation::Silu => silu(x),
    }
}

/// 2^x.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp2(x: __m512) -> __m512 {
    let round = _mm512_set1_ps(ROUND);
    let x = _mm512_min_ps(_mm512_set1_ps(128.0), x);
    let shifted = _mm512_add_ps(x, round);
    let n = _mm512_sub_ps(shifted, round);
    let y = scale(horner(&EXP2, _mm512_sub_ps(x, n)), shifted);
    zero_below(-126.0, x, y)
}

/// e^x.
#[inline]
#[target_feature(enable = "avx512f")]
fn exp(x: __m512) -> __m512 {
    let (round, log2e) = (_mm512_set1_ps(ROUND), _mm512_set1_ps(LOG2E));
    let x = _mm512_min_ps(_mm512_set1_ps(EXP_OVERFLOW), x);
    let shifted = _mm512_fmadd_ps(x, log2e, round);
    let n = _mm512_sub_ps(shifted, round);
    let f = _mm512_fmsub_ps(x, log2e, n);
    let f = _mm512_fmadd_ps(x, _mm512_set1_ps(LOG2E_LOW), f);
    let y = scale(horner(&EXP2, f), shifted);
    zero_below(EXP_UNDERFLOW, x, y)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn relu(x: __m512) -> __m512 {
    _mm512_max_ps(_mm512_setzero_ps(), x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn silu(x: __m512) -> __m512 {
    let negated = _mm512_xor_ps(x, _mm512_set1_ps(-0.0));
    _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0), exp(negated)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn relu_less_tail<const N: usize>(coefficients: &[f32; N], limit: f32, x: __m512) -> __m512 {
    let a = _mm512_andnot_ps(_mm512_set1_ps(-0.0), x);
    let a = _mm512_min_ps(a, _mm512_set1_ps(limit));
    let p = horner(coefficients, a);
    let p2 = _mm512_mul_ps(p, p);
    let p4 = _mm512_mul_ps(p2, p2);
    let p8 = _mm512_mul_ps(p4, p4);
    _mm512_fmadd_ps(_mm512_mul_ps(_mm512_set1_ps(-0.5), a), p8, relu(x))
}

/// `if x < limit { 0 } else { y }`.
#[inline]
#[target_feature(enable = "avx512f")]
fn zero_below(limit: f32, x: __m512, y: __m512) -> __m512 {
    // Not less than, true of a NaN.
    let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(limit));
    _mm512_maskz_mov_ps(kept, y)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn scale(p: __m512, shifted: __m512) -> __m512 {
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let exponent = _mm512_add_epi32(exponent, _mm512_set1_epi32(126 << 23));
    let exponent = _mm512_max_epi32(exponent, _mm512_set1_epi32(LOWEST_POWER));
    _mm512_mul_ps(p, _mm512_castsi512_ps(exponent))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn horner<const N: usize>(coefficients: &[f32; N], x: __m512) -> __m512 {
    let mut p = _mm512_set1_ps(coefficients[N - 1]);
    for &c in coefficients[..N - 1].iter().rev() {
        p = _mm512_fmadd_ps(p, x, _mm512_set1_ps(c));
    }
    p
}
