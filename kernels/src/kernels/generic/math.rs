//! [`crate::math`] in 16 lanes, operation for operation; the comments are there.

use crate::kernels::types::Activation;
use crate::kernels::vector::Vector;
use crate::math::{
    EXP_OVERFLOW, EXP_UNDERFLOW, EXP2, GELU, GELU_LIMIT, GELU_TANH, GELU_TANH_LIMIT, LOG2E,
    LOG2E_LOW, LOWEST_POWER, ROUND,
};

/// An activation function of every lane.
#[inline(always)]
pub(in crate::kernels) fn activate<V: Vector>(v: V, activation: Activation, x: V::F32) -> V::F32 {
    match activation {
        Activation::Gelu => relu_less_tail(v, &GELU, GELU_LIMIT, x),
        Activation::GeluTanh => relu_less_tail(v, &GELU_TANH, GELU_TANH_LIMIT, x),
        Activation::Relu => v.relu(x),
        Activation::Silu => silu(v, x),
    }
}

/// 2^x.
#[inline(always)]
pub(in crate::kernels) fn exp2<V: Vector>(v: V, x: V::F32) -> V::F32 {
    let round = v.splat(ROUND);
    let x = v.at_most(x, v.splat(128.0));
    let shifted = v.add(x, round);
    let n = v.sub(shifted, round);
    let y = scale(v, horner(v, &EXP2, v.sub(x, n)), shifted);
    v.zero_below(-126.0, x, y)
}

/// e^x.
#[inline(always)]
fn exp<V: Vector>(v: V, x: V::F32) -> V::F32 {
    let (round, log2e) = (v.splat(ROUND), v.splat(LOG2E));
    let x = v.at_most(x, v.splat(EXP_OVERFLOW));
    let shifted = v.fma(x, log2e, round);
    let n = v.sub(shifted, round);
    let f = v.fma(x, log2e, v.neg(n));
    let f = v.fma(x, v.splat(LOG2E_LOW), f);
    let y = scale(v, horner(v, &EXP2, f), shifted);
    v.zero_below(EXP_UNDERFLOW, x, y)
}

#[inline(always)]
fn silu<V: Vector>(v: V, x: V::F32) -> V::F32 {
    v.div(x, v.add(v.splat(1.0), exp(v, v.neg(x))))
}

#[inline(always)]
fn relu_less_tail<V: Vector, const N: usize>(
    v: V,
    coefficients: &[f32; N],
    limit: f32,
    x: V::F32,
) -> V::F32 {
    let a = v.at_most(v.abs(x), v.splat(limit));
    let p = horner(v, coefficients, a);
    let p2 = v.mul(p, p);
    let p4 = v.mul(p2, p2);
    let p8 = v.mul(p4, p4);
    v.fma(v.mul(v.splat(-0.5), a), p8, v.relu(x))
}

#[inline(always)]
fn scale<V: Vector>(v: V, p: V::F32, shifted: V::F32) -> V::F32 {
    let exponent = v.add_i32(v.shift_to_exponent(shifted), v.splat_i32(126 << 23));
    let exponent = v.max_i32(exponent, v.splat_i32(LOWEST_POWER));
    v.mul(p, v.with_bits(exponent))
}

#[inline(always)]
fn horner<V: Vector, const N: usize>(v: V, coefficients: &[f32; N], x: V::F32) -> V::F32 {
    let mut p = v.splat(coefficients[N - 1]);
    for &c in coefficients[..N - 1].iter().rev() {
        p = v.fma(p, x, v.splat(c));
    }
    p
}
