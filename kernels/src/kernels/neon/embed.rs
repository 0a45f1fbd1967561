//! The embedding (`docs/numbers.md` section 5).

use std::arch::aarch64::{vld1q_u16, vst1q_f32};

use super::F32x8;
use super::instructions::*;
use crate::kernels::EmbeddingRow;
use crate::kernels::scalar::f16_to_f32;
use crate::quant::{STEP_INPUTS, Scheme, TILE_ALIGN};

/// Inputs that are taken together: a line of int4, two of int8.
const CHUNK: usize = 2 * STEP_INPUTS;

/// A token's row out of its panel, plus the position's, times the scale.
pub(super) fn embed(row: &EmbeddingRow, out: &mut [f32]) {
    let group_size = row.weights.tiles.group_size();
    for (i, out) in out.chunks_mut(CHUNK).enumerate() {
        let mut x = embed8(row, CHUNK * i / group_size, CHUNK * i % group_size / CHUNK);
        if let Some(position) = row.position {
            let position = load_part(&position[CHUNK * i..][..out.len()]);
            x = [vaddq_f32(x[0], position[0]), vaddq_f32(x[1], position[1])];
        }
        if row.scale != 1.0 {
            x = x.map(|x| vmulq_n_f32(x, row.scale));
        }
        let mut padded = [0.0; CHUNK];
        // SAFETY: 8 floats.
        unsafe {
            vst1q_f32(padded.as_mut_ptr(), x[0]);
            vst1q_f32(padded.as_mut_ptr().add(4), x[1]);
        }
        out.copy_from_slice(&padded[..out.len()]);
    }
}

/// The weights at chunk `i` of a group.
#[inline(always)]
fn embed8(row: &EmbeddingRow, group: usize, i: usize) -> F32x8 {
    let tiles = &row.weights.tiles;
    let scale = f16_to_f32(tiles.scale(row.panel, row.row, group).to_bits());
    let stored = vmovl_u8(vcreate_u8(stored8(row, group, i)));
    let offset = vdupq_n_s32(tiles.scheme().offset());
    let stored = [vmovl_u16(vget_low_u16(stored)), vmovl_high_u16(stored)];
    stored.map(|stored| {
        let weights = vsubq_s32(vreinterpretq_s32_u32(stored), offset);
        vmulq_n_f32(vcvtq_f32_s32(weights), scale * row.weights.scale)
    })
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
#[inline(always)]
fn load_part(bits: &[u16]) -> F32x8 {
    let mut padded = [0; CHUNK];
    padded[..bits.len()].copy_from_slice(bits);
    // SAFETY: 8 float16.
    f16_to_f32x8(unsafe { vld1q_u16(padded.as_ptr()) })
}
