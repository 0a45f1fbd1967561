//! AVX-512 with VNNI: the scalar definition in vectors of 16 lanes.
//!
//! A panel of 16 rows, 16 keys or the 16 lanes of a sum are one register everywhere, and a step of a
//! panel, 16 rows x 4 inputs, is one operand of `vpdpbusd`. See `docs/kernels.md` for what bounds each
//! kernel. The embedding, 8 weights out of each line it touches, gains nothing from wider registers and
//! is AVX2's.

mod attention;
mod layer_norm;
mod math;
mod matmul;
mod quantize;

use std::arch::x86_64::*;

use super::{Isa, Kernels, avx2};

/// What the processor must support for [`TABLE`].
pub(super) fn is_supported() -> bool {
    avx2::is_supported()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Avx512Vnni,
    embed: avx2::TABLE.embed,
    quantize: quantize::quantize,
    layer_norm: layer_norm::layer_norm,
    matmul: matmul::matmul,
    store: attention::store,
    attend: attention::attend,
};

/// The lanes that a slice of `len` floats has, at most 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn first(len: usize) -> __mmask16 {
    debug_assert!(len <= 16);
    ((1u32 << len) - 1) as __mmask16
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load16(x: &[f32; 16]) -> __m512 {
    // SAFETY: 16 floats; the load may be unaligned.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store16(x: __m512, to: &mut [f32; 16]) {
    // SAFETY: 16 floats; the store may be unaligned.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
}

/// The floats of a slice of at most 16, the other lanes 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_part(x: &[f32]) -> __m512 {
    // SAFETY: lanes beyond the slice are not read.
    unsafe { _mm512_maskz_loadu_ps(first(x.len()), x.as_ptr()) }
}

/// The first lanes into a slice of at most 16.
#[inline]
#[target_feature(enable = "avx512f")]
fn store_part(x: __m512, to: &mut [f32]) {
    // SAFETY: lanes beyond the slice are not written.
    unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), x) }
}

/// `fold16` of the scalar definition: 8 apart, then 4, 2, 1.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn fold16(lanes: __m512) -> f32 {
    let a = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    let a = _mm_add_ss(a, _mm_movehdup_ps(a));
    _mm_cvtss_f32(a)
}
