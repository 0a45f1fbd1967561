//! Activation quantization (`docs/numbers.md` section 3) and the embedding row (section 5).

use std::arch::x86_64::*;

use super::load_f16x8;
use crate::kernels::scalar::{f16_to_f32, scale_for};
use crate::kernels::{EmbeddingRow, QuantizedRowMut, Start};
use crate::quant::{PANEL_ROWS, STEP_INPUTS, Scheme, TILE_ALIGN, block_size};

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
fn start_of(sums: __m256i) -> Start {
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

/// Token embedding out of its panel, plus the position's.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn embed(row: &EmbeddingRow, position: &[u16], out: &mut [f32]) {
    let group_size = row.weights.tiles.group_size();
    let groups = out.chunks_mut(group_size).zip(position.chunks(group_size));
    for (g, (out, position)) in groups.enumerate() {
        let scale = row.weights.tiles.scale(row.panel, row.row, g).to_bits();
        let scale = _mm256_set1_ps(f16_to_f32(scale) * row.weights.scale);
        let (outs, tail_out) = out.as_chunks_mut::<8>();
        let (positions, tail_position) = position.as_chunks::<8>();
        for (i, (out, position)) in outs.iter_mut().zip(positions).enumerate() {
            *out = embed8(row, g, i, scale, position);
        }
        if !tail_out.is_empty() {
            let mut position = [0; 8];
            position[..tail_position.len()].copy_from_slice(tail_position);
            let padded = embed8(row, g, outs.len(), scale, &position);
            tail_out.copy_from_slice(&padded[..tail_out.len()]);
        }
    }
}

/// Values `8 i..8 i + 8` of a group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn embed8(row: &EmbeddingRow, g: usize, i: usize, scale: __m256, position: &[u16; 8]) -> [f32; 8] {
    let tiles = &row.weights.tiles;
    let stored = stored8(row, g, i);
    let stored = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(stored as i64));
    let weight = _mm256_sub_epi32(stored, _mm256_set1_epi32(tiles.scheme().offset()));
    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(weight), scale);
    let sum = _mm256_add_ps(scaled, load_f16x8(position));
    let mut out = [0.0; 8];
    // SAFETY: 8 floats; the store may be unaligned.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), sum) };
    out
}

/// The stored weights of the row at inputs `8 i..8 i + 8` of a group, a byte each.
#[inline(always)]
fn stored8(row: &EmbeddingRow, g: usize, i: usize) -> u64 {
    const LOW: u32 = 0x0f0f_0f0f;
    let data = &row.panel[g * row.weights.tiles.group_bytes()..];
    let step = |line: usize| {
        let bytes = &data[line * TILE_ALIGN + row.row * STEP_INPUTS..][..STEP_INPUTS];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    let (first, second) = match row.weights.tiles.scheme() {
        Scheme::Int8 => (step(2 * i), step(2 * i + 1)),
        Scheme::Int4 => (step(i) & LOW, step(i) >> 4 & LOW),
    };
    u64::from(first) | u64::from(second) << 32
}

const _: () = assert!(PANEL_ROWS * STEP_INPUTS == TILE_ALIGN);
