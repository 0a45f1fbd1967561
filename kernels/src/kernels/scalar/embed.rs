//! The embedding (`docs/numbers.md` section 5).

use super::f16_to_f32;
use crate::kernels::types::EmbeddingRow;
use crate::quant::hadamard;

/// A token's row out of its panel, transformed back, plus the position's, times the scale.
#[inline(always)]
pub(super) fn embed(row: &EmbeddingRow, out: &mut [f32]) {
    let tiles = &row.weights.tiles;
    for (col, out) in out.iter_mut().enumerate() {
        let scale = f16_to_f32(tiles.scale(row.panel, row.row, col / tiles.group_size()).to_bits());
        let weight = f32::from(tiles.weight(row.panel, row.row, col));
        *out = weight * (scale * row.weights.scale);
    }
    hadamard(out);
    if let Some(position) = row.position {
        for (out, &position) in out.iter_mut().zip(position) {
            *out += f16_to_f32(position);
        }
    }
    if row.scale != 1.0 {
        for out in out.iter_mut() {
            *out *= row.scale;
        }
    }
}
