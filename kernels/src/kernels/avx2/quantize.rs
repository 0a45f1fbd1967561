//! Activation quantization (`docs/numbers.md` section 3).

use std::arch::x86_64::*;

use crate::kernels::scalar::scale_for;
use crate::kernels::{QuantizedRowMut, Start};
use crate::quant::block_size;

/// Values that are quantized together: as bytes they fill a register.
const CHUNK: usize = 32;

/// Quantizes one token's row by groups, the last one padded with zeros.
#[target_feature(enable = "avx2,fma")]
pub(super) fn quantize(x: &[f32], group_size: usize, out: QuantizedRowMut) {
    match group_size {
        32 => by_group::<32>(x, out),
        64 => by_group::<64>(x, out),
        _ => by_group::<128>(x, out),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
fn quantize_group<const G: usize>(x: &[f32; G], values: &mut [i8; G], starts: &mut [Start]) -> f32 {
    let (chunks, _) = x.as_chunks::<CHUNK>();
    let mut max = _mm256_setzero_si256();
    for x in chunks {
        for x in load32(x) {
            max = _mm256_max_epu32(max, magnitude_bits(x));
        }
    }
    let (scale, r) = scale_for(largest(max));

    let (blocks, _) = values.as_chunks_mut::<CHUNK>();
    let per_block = block_size(G) / CHUNK;
    let blocks = blocks.chunks_exact_mut(per_block).zip(chunks.chunks_exact(per_block));
    for ((values, x), start) in blocks.zip(starts) {
        let mut sums = _mm256_setzero_si256();
        for (values, x) in values.iter_mut().zip(x) {
            let x = load32(x);
            let q = pack([round(x[0], r), round(x[1], r), round(x[2], r), round(x[3], r)]);
            // SAFETY: 32 bytes; the store may be unaligned.
            unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), q) };
            let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q);
            sums = _mm256_add_epi16(sums, pairs);
        }
        *start = start_of(sums);
    }
    scale
}

/// The start of a block, given the sums of its neighbours in 8 x 2 lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn start_of(sums: __m256i) -> Start {
    let a = _mm_add_epi16(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let a = _mm_add_epi16(a, _mm_unpackhi_epi64(a, a));
    let a = _mm_add_epi16(a, _mm_shuffle_epi32::<1>(a));
    let a = _mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16::<3>(a));
    let both = _mm_cvtsi128_si32(a);
    [both as i16, (both >> 16) as i16]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load32(x: &[f32; CHUNK]) -> [__m256; 4] {
    // SAFETY: 32 floats; the loads may be unaligned.
    unsafe {
        let x = x.as_ptr();
        [
            _mm256_loadu_ps(x),
            _mm256_loadu_ps(x.add(8)),
            _mm256_loadu_ps(x.add(16)),
            _mm256_loadu_ps(x.add(24)),
        ]
    }
}

/// The bits of |x|.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn magnitude_bits(x: __m256) -> __m256i {
    _mm256_castps_si256(_mm256_andnot_ps(_mm256_set1_ps(-0.0), x))
}

/// The largest of 8 unsigned integers.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn largest(x: __m256i) -> u32 {
    let a = _mm_max_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let a = _mm_max_epu32(a, _mm_unpackhi_epi64(a, a));
    let a = _mm_max_epu32(a, _mm_shuffle_epi32::<1>(a));
    _mm_cvtsi128_si32(a) as u32
}

/// `round_half_even(x * r)`, and 0 if r is 0, also where x is not finite.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn round(x: __m256, r: f32) -> __m256i {
    let some = _mm256_set1_epi32(if r == 0.0 { 0 } else { -1 });
    _mm256_and_si256(_mm256_cvtps_epi32(_mm256_mul_ps(x, _mm256_set1_ps(r))), some)
}

/// 32 integers that fit into bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn pack(q: [__m256i; 4]) -> __m256i {
    let (a, b) = (_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    // Packing works within halves of registers: put the quarters in order.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order)
}
