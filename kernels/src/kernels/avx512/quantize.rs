//! Activation quantization (`docs/numbers.md` section 3).

use std::arch::x86_64::*;

use crate::kernels::avx2::start_of;
use crate::kernels::scalar::scale_for;
use crate::kernels::{QuantizedRowMut, Start};
use crate::quant::block_size;

/// Values that are quantized together: as bytes, half a register.
const CHUNK: usize = 32;

/// Quantizes one token's row by groups, the last one padded with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn quantize(x: &[f32], group_size: usize, out: QuantizedRowMut) {
    match group_size {
        32 => by_group::<32>(x, out),
        64 => by_group::<64>(x, out),
        _ => by_group::<128>(x, out),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn by_group<const G: usize>(x: &[f32], out: QuantizedRowMut) {
    let (groups, tail) = x.as_chunks::<G>();
    let (values, _) = out.values.as_chunks_mut::<G>();
    let starts = out.starts.chunks_exact_mut(G / block_size(G));
    let mut out = values.iter_mut().zip(out.scales).zip(starts);
    for x in groups {
        let ((values, scale), starts) = out.next().expect("as many groups");
        *scale = quantize_group(x, values, starts);
    }
    if let Some(((values, scale), starts)) = out.next() {
        let mut padded = [0.0; G];
        padded[..tail.len()].copy_from_slice(tail);
        *scale = quantize_group(&padded, values, starts);
    }
}

/// Fills values and starts, returns the scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn quantize_group<const G: usize>(x: &[f32; G], values: &mut [i8; G], starts: &mut [Start]) -> f32 {
    let (chunks, _) = x.as_chunks::<CHUNK>();
    let mut max = _mm512_setzero_si512();
    for x in chunks {
        for x in load32(x) {
            max = _mm512_max_epu32(max, magnitude_bits(x));
        }
    }
    let (scale, r) = scale_for(_mm512_reduce_max_epu32(max));

    let (blocks, _) = values.as_chunks_mut::<CHUNK>();
    let per_block = block_size(G) / CHUNK;
    let blocks = blocks.chunks_exact_mut(per_block).zip(chunks.chunks_exact(per_block));
    for ((values, x), start) in blocks.zip(starts) {
        let mut sums = _mm256_setzero_si256();
        for (values, x) in values.iter_mut().zip(x) {
            let [low, high] = load32(x).map(|x| _mm512_cvtepi32_epi8(round(x, r)));
            let q = _mm256_set_m128i(high, low);
            // SAFETY: 32 bytes; the store may be unaligned.
            unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), q) };
            sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi8(1), q));
        }
        *start = start_of(sums);
    }
    scale
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load32(x: &[f32; CHUNK]) -> [__m512; 2] {
    // SAFETY: 32 floats; the loads may be unaligned.
    unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))] }
}

/// The bits of |x|.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn magnitude_bits(x: __m512) -> __m512i {
    _mm512_castps_si512(_mm512_abs_ps(x))
}

/// `round_half_even(x * r)`, and 0 if r is 0, also where x is not finite.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn round(x: __m512, r: f32) -> __m512i {
    let some = if r == 0.0 { 0 } else { 0xffff };
    _mm512_maskz_cvtps_epi32(some, _mm512_mul_ps(x, _mm512_set1_ps(r)))
}
