//! The embedding (`docs/numbers.md` section 5).

use super::hadamard::hadamard;
use crate::kernels::scalar::f16_to_f32;
use crate::kernels::types::EmbeddingRow;
use crate::kernels::vector::{LANES, Vector};
use crate::quant::{HADAMARD_BLOCK, STEP_INPUTS, Scheme, TILE_ALIGN};

/// A token's row out of its panel, transformed back, plus the position's, times the scale.
#[inline(always)]
pub(in crate::kernels) fn embed<V: Vector>(v: V, row: &EmbeddingRow, out: &mut [f32]) {
    let tiles = &row.weights.tiles;
    let offset = v.splat_i32(-tiles.scheme().offset());
    for (i, out) in out.chunks_mut(LANES).enumerate() {
        let group = LANES * i / tiles.group_size();
        let scale = f16_to_f32(tiles.scale(row.panel, row.row, group).to_bits());
        let stored = match tiles.scheme().levels() {
            None => stored16(row, group, LANES * i % tiles.group_size() / LANES),
            Some(_) => levels16(row, LANES * i),
        };
        let weights = v.to_f32(v.add_i32(v.load_u8(&stored), offset));
        v.store_part(v.mul(weights, v.splat(scale * row.weights.scale)), out);
    }
    for block in out.as_chunks_mut::<HADAMARD_BLOCK>().0 {
        hadamard(v, block);
    }
    if row.position.is_none() && row.scale == 1.0 {
        return;
    }
    for (i, out) in out.chunks_mut(LANES).enumerate() {
        let mut x = v.load_part(out);
        if let Some(position) = row.position {
            let mut bits = [0; LANES];
            bits[..out.len()].copy_from_slice(&position[LANES * i..][..out.len()]);
            x = v.add(x, v.load_f16(&bits));
        }
        if row.scale != 1.0 {
            x = v.mul(x, v.splat(row.scale));
        }
        v.store_part(x, out);
    }
}

/// 16 weights of a group as they are stored, a byte each, from number `16 * i` on.
#[inline(always)]
fn stored16(row: &EmbeddingRow, group: usize, i: usize) -> [u8; LANES] {
    const LOW: u32 = 0x0f0f_0f0f;
    let data = &row.panel[group * row.weights.tiles.group_bytes()..];
    let step = |line: usize| {
        let bytes = &data[line * TILE_ALIGN + row.row * STEP_INPUTS..][..STEP_INPUTS];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    };
    let steps = match row.weights.tiles.scheme() {
        Scheme::Int8 => [step(4 * i), step(4 * i + 1), step(4 * i + 2), step(4 * i + 3)],
        Scheme::Int4 => {
            let lines = [step(2 * i), step(2 * i + 1)];
            [lines[0] & LOW, lines[0] >> 4 & LOW, lines[1] & LOW, lines[1] >> 4 & LOW]
        }
        Scheme::Nl4 | Scheme::Tc3 | Scheme::Tc2 => unreachable!("levels are not integers"),
    };
    let mut stored = [0; LANES];
    for (to, step) in stored.as_chunks_mut::<STEP_INPUTS>().0.iter_mut().zip(steps) {
        *to = step.to_le_bytes();
    }
    stored
}

/// 16 levels with their offset, from input `first` on. One by one: an embedding is a row among thousands.
#[inline(always)]
fn levels16(row: &EmbeddingRow, first: usize) -> [u8; LANES] {
    let tiles = &row.weights.tiles;
    let mut stored = [0; LANES];
    for (i, stored) in stored.iter_mut().enumerate() {
        let level = tiles.weight(row.panel, row.row, first + i);
        *stored = (i32::from(level) + tiles.scheme().offset()) as u8;
    }
    stored
}
