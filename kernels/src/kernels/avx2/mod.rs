//! AVX2 with FMA and F16C: the scalar definition in vectors of 8 lanes.
//!
//! A panel of 16 rows, 16 keys or the 16 lanes of a sum are a pair of registers everywhere. See
//! `docs/kernels.md` for what bounds each kernel.

mod attention;
mod dot;
mod embed;
mod layer_norm;
mod math;
mod matmul;
mod quantize;

use std::arch::x86_64::*;

use super::{Isa, Kernels};

#[cfg(feature = "vnni")]
pub(super) use dot::{Dot, load_line};
#[cfg(feature = "vnni")]
pub(super) use matmul::by_tokens;
#[cfg(feature = "vnni")]
pub(super) use quantize::start_of;

/// What the processor must support for [`TABLE`].
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx2,
    embed: embed::embed,
    quantize: quantize::quantize,
    layer_norm: layer_norm::layer_norm,
    matmul: matmul::matmul,
    store: attention::store,
    attend: attention::attend,
};

/// 16 lanes: 0..8 and 8..16.
type F32x16 = [__m256; 2];

#[inline]
#[target_feature(enable = "avx")]
fn splat16(x: f32) -> F32x16 {
    [_mm256_set1_ps(x); 2]
}

#[inline]
#[target_feature(enable = "avx")]
fn add16(a: F32x16, b: F32x16) -> F32x16 {
    [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])]
}

#[inline]
#[target_feature(enable = "avx")]
fn sub16(a: F32x16, b: F32x16) -> F32x16 {
    [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])]
}

#[inline]
#[target_feature(enable = "avx")]
fn mul16(a: F32x16, b: F32x16) -> F32x16 {
    [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])]
}

/// `a * b + c`.
#[inline]
#[target_feature(enable = "avx,fma")]
fn fma16(a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
    [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
}

#[inline]
#[target_feature(enable = "avx")]
fn load16(x: &[f32; 16]) -> F32x16 {
    // SAFETY: 16 floats; the loads may be unaligned.
    unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
}

#[inline]
#[target_feature(enable = "avx")]
fn store16(x: F32x16, to: &mut [f32; 16]) {
    // SAFETY: 16 floats; the stores may be unaligned.
    unsafe {
        _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
        _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
    }
}

/// The floats of a slice of at most 16, the other lanes 0.
#[inline]
#[target_feature(enable = "avx")]
fn load_part(x: &[f32]) -> F32x16 {
    let mut padded = [0.0; 16];
    padded[..x.len()].copy_from_slice(x);
    load16(&padded)
}

/// The first lanes into a slice of at most 16.
#[inline]
#[target_feature(enable = "avx")]
fn store_part(x: F32x16, to: &mut [f32]) {
    let mut padded = [0.0; 16];
    store16(x, &mut padded);
    to.copy_from_slice(&padded[..to.len()]);
}

/// Exact values of 8 float16.
#[inline]
#[target_feature(enable = "avx,f16c")]
fn load_f16x8(bits: &[u16; 8]) -> __m256 {
    // SAFETY: 16 bytes; the load may be unaligned.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
}

/// `fold16` of the scalar definition: 8 apart, then 4, 2, 1.
#[inline]
#[target_feature(enable = "avx")]
fn fold16(lanes: F32x16) -> f32 {
    let a = _mm256_add_ps(lanes[0], lanes[1]);
    let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    let a = _mm_add_ss(a, _mm_movehdup_ps(a));
    _mm_cvtss_f32(a)
}
