//! The embedding (`docs/numbers.md` section 5).

use std::arch::x86_64::*;

use super::load_f16x8;
use crate::kernels::EmbeddingRow;
use crate::kernels::scalar::f16_to_f32;
use crate::quant::{STEP_INPUTS, Scheme, TILE_ALIGN};

/// Inputs that are taken together: a line of int4, two of int8.
const CHUNK: usize = 2 * STEP_INPUTS;

/// A token's row out of its panel, plus the position's, times the scale.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn embed(row: &EmbeddingRow, out: &mut [f32]) {
    let group_size = row.weights.tiles.group_size();
    for (i, out) in out.chunks_mut(CHUNK).enumerate() {
        let x = embed8(row, CHUNK * i / group_size, CHUNK * i % group_size / CHUNK);
        let x = match row.position {
            Some(position) => _mm256_add_ps(x, load_part(&position[CHUNK * i..][..out.len()])),
            None => x,
        };
        let x = match row.scale {
            1.0 => x,
            scale => _mm256_mul_ps(x, _mm256_set1_ps(scale)),
        };
        let mut padded = [0.0; CHUNK];
        // SAFETY: 8 floats; the store may be unaligned.
        unsafe { _mm256_storeu_ps(padded.as_mut_ptr(), x) };
        out.copy_from_slice(&padded[..out.len()]);
    }
}

/// The weights at chunk `i` of a group.
#[inline]
#[target_feature(enable = "avx2")]
fn embed8(row: &EmbeddingRow, group: usize, i: usize) -> __m256 {
    let tiles = &row.weights.tiles;
    let scale = f16_to_f32(tiles.scale(row.panel, row.row, group).to_bits());
    let stored = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(stored8(row, group, i) as i64));
    let weights = _mm256_sub_epi32(stored, _mm256_set1_epi32(tiles.scheme().offset()));
    _mm256_mul_ps(_mm256_cvtepi32_ps(weights), _mm256_set1_ps(scale * row.weights.scale))
}

/// The same as they are stored, a byte each.
#[inline(always)]
fn stored8(row: &EmbeddingRow, group: usize, i: usize) -> u64 {
    const LOW: u32 = 0x0f0f_0f0f;
    let data = &row.panel[group * row.weights.tiles.group_bytes()..];
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

/// The values of up to 8 float16, the other lanes 0.
#[inline]
#[target_feature(enable = "avx,f16c")]
fn load_part(bits: &[u16]) -> __m256 {
    let mut padded = [0; CHUNK];
    padded[..bits.len()].copy_from_slice(bits);
    load_f16x8(&padded)
}
