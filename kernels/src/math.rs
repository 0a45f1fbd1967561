//! Exponentials and activation functions that give the same bits on every processor.
//!
//! A platform's `expf` differs from the next platform's in the last bit, and so would logits. These
//! functions use only operations that IEEE 754 defines to the bit (add, multiply, fused
//! multiply-add, divide, comparison) and integer moves, in a fixed order. The scalar code here is the
//! definition; a SIMD kernel transcribes it operation for operation. `docs/elementary-functions.md`
//! lists the operations, the measured errors and the sources of the methods;
//! `docs/fit_elementary.py` derives the coefficients, which are written as bits because a decimal
//! would hide what is meant.
//!
//! Shared by all: a NaN gives a NaN (its sign and payload are not specified); every other input
//! gives what its documentation says; the default floating-point environment is assumed (round to
//! nearest even, subnormals kept: `fp_env` of the runtime sees to it).

use crate::float::fma;

/// 1.5 * 2^23. Adding it to a value below 2^22 in magnitude rounds that value to an integer, half to
/// even, and leaves the integer in the sum's low bits. Every instruction set can add, whereas
/// rounding instructions are missing from some.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// 2 * 2^f for f in [-1/2, 1/2], lowest power first. The factor of two is undone by [`scale`].
pub(crate) const EXP2: [f32; 7] = [
    f32::from_bits(0x40000000), // 0x1.p+1
    f32::from_bits(0x3fb17219), // 0x1.62e432p+0
    f32::from_bits(0x3ef5fdf9), // 0x1.ebfbf2p-2
    f32::from_bits(0x3de356d1), // 0x1.c6ada2p-4
    f32::from_bits(0x3c9d8dfc), // 0x1.3b1bf8p-6
    f32::from_bits(0x3b2fde13), // 0x1.5fbc26p-9
    f32::from_bits(0x39a6e795), // 0x1.4dcf2ap-12
];

/// log2(e) rounded to f32, and the part that rounding lost.
pub(crate) const LOG2E: f32 = f32::from_bits(0x3fb8aa3b); // 0x1.715476p+0
pub(crate) const LOG2E_LOW: f32 = f32::from_bits(0x32a57060); // 0x1.4ae0cp-26

/// The bits of 2^-127, the lowest power of two that [`scale`] multiplies by.
pub(crate) const LOWEST_POWER: i32 = 0x0040_0000;

/// The least f32 not below -126 ln 2: under it the exponential is subnormal.
pub(crate) const EXP_UNDERFLOW: f32 = f32::from_bits(0xc2aeac4f); // -0x1.5d589ep+6

/// Past this the exponential has overflowed, and the reduction may rely on |n| <= 128.
pub(crate) const EXP_OVERFLOW: f32 = 89.0;

/// (2 Phi(-a))^(1/8) for a in [0, `GELU_LIMIT`], lowest power first, Phi being the normal
/// distribution function.
pub(crate) const GELU: [f32; 9] = [
    f32::from_bits(0x3f800000), // 0x1.p+0
    f32::from_bits(0xbdcc423a), // -0x1.988474p-4
    f32::from_bits(0xbd0e9990), // -0x1.1d332p-5
    f32::from_bits(0xba41e754), // -0x1.83cea8p-11
    f32::from_bits(0x3ad7e438), // 0x1.afc87p-10
    f32::from_bits(0x380fc508), // 0x1.1f8a1p-15
    f32::from_bits(0xb888539e), // -0x1.10a73cp-14
    f32::from_bits(0x3707c947), // 0x1.0f928ep-17
    f32::from_bits(0xb4acde81), // -0x1.59bd02p-22
];

/// The root of the polynomial `GELU`, where GELU's tail has faded to exactly zero.
pub(crate) const GELU_LIMIT: f32 = f32::from_bits(0x40fd25d0); // 0x1.fa4bap+2

/// (1 - tanh(u(a)))^(1/8) for a in [0, `GELU_TANH_LIMIT`], lowest power first.
pub(crate) const GELU_TANH: [f32; 12] = [
    f32::from_bits(0x3f800000), // 0x1.p+0
    f32::from_bits(0xbdcc4223), // -0x1.988446p-4
    f32::from_bits(0xbd0e99ff), // -0x1.1d33fep-5
    f32::from_bits(0xba2e6c0d), // -0x1.5cd81ap-11
    f32::from_bits(0x3ae5a599), // 0x1.cb4b32p-10
    f32::from_bits(0xb8c8db05), // -0x1.91b60ap-14
    f32::from_bits(0x389a2b97), // 0x1.34572ep-14
    f32::from_bits(0xb8f8816e), // -0x1.f102dcp-14
    f32::from_bits(0x385e725a), // 0x1.bce4b4p-15
    f32::from_bits(0xb73a9753), // -0x1.752ea6p-17
    f32::from_bits(0x359a35d2), // 0x1.346ba4p-20
    f32::from_bits(0xb34be231), // -0x1.97c462p-25
];

/// The root of the polynomial `GELU_TANH`.
pub(crate) const GELU_TANH_LIMIT: f32 = f32::from_bits(0x40c943c8); // 0x1.92879p+2

/// 2^x, within 0.9 units in the last place.
///
/// Exact for integers. x < -126 gives +0 (no subnormal result), x >= 128 gives +inf.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let x = if x > 128.0 { 128.0 } else { x };
    let shifted = x + ROUND;
    let n = shifted - ROUND;
    let y = scale(horner(&EXP2, x - n), shifted);
    if x < -126.0 { 0.0 } else { y }
}

/// e^x, within 1.1 units in the last place.
///
/// e^0 is exactly 1. x < -126 ln 2 (about -87.34) gives +0 (no subnormal result), x above 88.72284
/// gives +inf.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x > EXP_OVERFLOW { EXP_OVERFLOW } else { x };
    let shifted = fma(x, LOG2E, ROUND);
    let n = shifted - ROUND;
    // Cody and Waite's two-part reduction: the first product cancels n without being rounded.
    let f = fma(x, LOG2E, -n);
    let f = fma(x, LOG2E_LOW, f);
    let y = scale(horner(&EXP2, f), shifted);
    if x < EXP_UNDERFLOW { 0.0 } else { y }
}

/// max(x, 0), as `if x < 0 { 0 } else { x }`: -0 stays -0, +inf stays, -inf gives +0.
///
/// The same as x86's `max_ps(zero, x)`.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// x / (1 + e^-x), the sigmoid linear unit (also called swish).
///
/// -0 stays -0, +inf stays, x < -88.72284 gives -0, and -inf gives a NaN.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// x Phi(x), the exact Gaussian error linear unit (Hendrycks and Gimpel, 2016), as Cerebras-GPT uses.
///
/// -0 stays -0, x >= 7.911 gives x (+inf too), x <= -7.911 gives +0 (-inf too).
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    relu_less_tail(&GELU, GELU_LIMIT, x)
}

/// x (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), OpenAI's `gelu_new`.
///
/// -0 stays -0, x >= 6.290 gives x (+inf too), x <= -6.290 gives +0 (-inf too).
#[inline(always)]
pub fn gelu_tanh(x: f32) -> f32 {
    relu_less_tail(&GELU_TANH, GELU_TANH_LIMIT, x)
}

/// relu(x) - |x| P(|x|)^8 / 2, where P(a)^8 / 2 is the share of an input -a that GELU lets through.
///
/// A Gaussian tail is hard on a polynomial, but its eighth root is nearly straight: this takes no
/// exponential and no division, and the power keeps the tail's relative accuracy.
#[inline(always)]
fn relu_less_tail<const N: usize>(coefficients: &[f32; N], limit: f32, x: f32) -> f32 {
    let a = x.abs();
    // A NaN becomes `limit` here, and comes back through `relu`.
    let a = if a < limit { a } else { limit };
    let p = horner(coefficients, a);
    let p2 = p * p;
    let p4 = p2 * p2;
    let p8 = p4 * p4;
    fma(-0.5 * a, p8, relu(x))
}

/// p * 2^(n-1), given `shifted` = n + [`ROUND`] with n in -126..=128.
///
/// Those are 255 powers of two and f32 has 254 normal ones, so the lowest, 2^-127, is a subnormal: it
/// has no exponent bits to shift into place, and a maximum supplies its pattern.
#[inline(always)]
fn scale(p: f32, shifted: f32) -> f32 {
    let exponent = (shifted.to_bits() << 23).wrapping_add(126 << 23) as i32;
    p * f32::from_bits(exponent.max(LOWEST_POWER) as u32)
}

/// The polynomial with these coefficients, lowest power first, by Horner's rule in fused steps.
#[inline(always)]
fn horner<const N: usize>(coefficients: &[f32; N], x: f32) -> f32 {
    let (&highest, rest) = coefficients.split_last().expect("a polynomial has a coefficient");
    rest.iter().rev().fold(highest, |p, &c| fma(p, x, c))
}

pub mod angle;
#[cfg(test)]
mod tests;
