//! [`crate::math`] in 4 lanes, operation for operation; the comments are there.
//!
//! `vminq_f32` hands a NaN on, whichever operand it is, and every function here wants just that.

use std::arch::aarch64::float32x4_t;

use super::instructions::*;
use crate::kernels::Activation;
use crate::math::{
    EXP_OVERFLOW, EXP_UNDERFLOW, EXP2, GELU, GELU_LIMIT, GELU_TANH, GELU_TANH_LIMIT, LOG2E,
    LOG2E_LOW, LOWEST_POWER, ROUND,
};

/// An activation function of every lane.
#[inline]
pub(super) fn activate(activation: Activation, x: float32x4_t) -> float32x4_t {
    match activation {
        Activation::Gelu => relu_less_tail(&GELU, GELU_LIMIT, x),
        Activation::GeluTanh => relu_less_tail(&GELU_TANH, GELU_TANH_LIMIT, x),
        Activation::Relu => relu(x),
        Activation::Silu => silu(x),
    }
}

/// 2^x.
#[inline(always)]
pub(super) fn exp2(x: float32x4_t) -> float32x4_t {
    let round = vdupq_n_f32(ROUND);
    let x = vminq_f32(x, vdupq_n_f32(128.0));
    let shifted = vaddq_f32(x, round);
    let n = vsubq_f32(shifted, round);
    let y = scale(horner(&EXP2, vsubq_f32(x, n)), shifted);
    zero_below(-126.0, x, y)
}

/// e^x.
#[inline(always)]
fn exp(x: float32x4_t) -> float32x4_t {
    let (round, log2e) = (vdupq_n_f32(ROUND), vdupq_n_f32(LOG2E));
    let x = vminq_f32(x, vdupq_n_f32(EXP_OVERFLOW));
    let shifted = vfmaq_f32(round, x, log2e);
    let n = vsubq_f32(shifted, round);
    let f = vfmaq_f32(vnegq_f32(n), x, log2e);
    let f = vfmaq_f32(f, x, vdupq_n_f32(LOG2E_LOW));
    let y = scale(horner(&EXP2, f), shifted);
    zero_below(EXP_UNDERFLOW, x, y)
}

/// `if x < 0 { 0 } else { x }`. (`vmaxq_f32` would make +0 of -0.)
#[inline(always)]
fn relu(x: float32x4_t) -> float32x4_t {
    zero_below(0.0, x, x)
}

#[inline(always)]
fn silu(x: float32x4_t) -> float32x4_t {
    vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0), exp(vnegq_f32(x))))
}

#[inline(always)]
fn relu_less_tail<const N: usize>(
    coefficients: &[f32; N],
    limit: f32,
    x: float32x4_t,
) -> float32x4_t {
    let a = vminq_f32(vabsq_f32(x), vdupq_n_f32(limit));
    let p = horner(coefficients, a);
    let p2 = vmulq_f32(p, p);
    let p4 = vmulq_f32(p2, p2);
    let p8 = vmulq_f32(p4, p4);
    vfmaq_f32(relu(x), vmulq_f32(vdupq_n_f32(-0.5), a), p8)
}

/// `if x < limit { 0 } else { y }`.
#[inline(always)]
fn zero_below(limit: f32, x: float32x4_t, y: float32x4_t) -> float32x4_t {
    let below = vcltq_f32(x, vdupq_n_f32(limit));
    vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), below))
}

#[inline(always)]
fn scale(p: float32x4_t, shifted: float32x4_t) -> float32x4_t {
    let exponent = vshlq_n_s32::<23>(vreinterpretq_s32_f32(shifted));
    let exponent = vaddq_s32(exponent, vdupq_n_s32(126 << 23));
    let exponent = vmaxq_s32(exponent, vdupq_n_s32(LOWEST_POWER));
    vmulq_f32(p, vreinterpretq_f32_s32(exponent))
}

#[inline(always)]
fn horner<const N: usize>(coefficients: &[f32; N], x: float32x4_t) -> float32x4_t {
    let mut p = vdupq_n_f32(coefficients[N - 1]);
    for &c in coefficients[..N - 1].iter().rev() {
        p = vfmaq_f32(vdupq_n_f32(c), p, x);
    }
    p
}
