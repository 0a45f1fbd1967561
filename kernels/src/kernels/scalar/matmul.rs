//! The matrix product (`docs/numbers.md` section 4).

use core::ops::Range;

use super::f16_to_f32;
use crate::float::fma;
use crate::kernels::types::{Activation, CellWriter, Epilogue, Matmul, correction_factor};
use crate::math;
use crate::quant::{PANEL_ROWS, STEP_INPUTS, Scheme, TILE_ALIGN, TileLayout};

/// One value for each of a panel's rows.
type Lanes<T> = [T; PANEL_ROWS];

/// Computes the outputs of `panels` for every token.
#[inline(always)]
pub(super) fn matmul(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    matmul_by(panel_product, job, panels, out);
}

/// The same, by a function that gives a panel's 16 outputs of a token, before bias.
#[inline(always)]
pub(in crate::kernels) fn matmul_by(
    panel_product: impl Fn(&Matmul, usize, usize) -> Lanes<f32>,
    job: &Matmul,
    panels: Range<usize>,
    out: &CellWriter,
) {
    for panel in panels {
        let first_row = panel * PANEL_ROWS;
        let rows = PANEL_ROWS.min(job.weights.tiles.rows() - first_row);
        for token in 0..job.tokens() {
            let acc = panel_product(job, panel, token);
            // SAFETY: the caller of this kernel owns these panels' cells (`Kernels::matmul`).
            let cells = unsafe { out.cells(token, first_row..first_row + rows) };
            finish(job, first_row, &acc, cells);
        }
    }
}

/// 16 outputs of one token, before bias.
#[inline(always)]
pub(in crate::kernels) fn panel_product(job: &Matmul, panel: usize, token: usize) -> Lanes<f32> {
    let tiles = &job.weights.tiles;
    let panel = job.weights.panel(panel);
    let (values, scales, corrections) = job.input.token(token);
    let blocks = job.input.blocks / job.input.groups;
    let mut acc = [0.0; PANEL_ROWS];
    for g in 0..tiles.groups() {
        let data = &panel[g * tiles.group_bytes()..][..tiles.group_bytes()];
        let values = &values[g * tiles.group_size()..][..tiles.group_size()];
        // -8 times the sum of the group's values.
        let correction =
            corrections[g * blocks..][..blocks].iter().flatten().map(|&s| i32::from(s)).sum();
        let n = match tiles.scheme() {
            Scheme::Int8 => {
                dot_int8(data, values, i32::from(correction_factor(Scheme::Int8)) * correction)
            }
            Scheme::Int4 => dot_int4(data, values, correction),
            Scheme::Nl4 | Scheme::Tc3 | Scheme::Tc2 => dot_levels(tiles, panel, g, values),
        };
        let token_scale = scales[g] * job.weights.scale;
        let row_scales = &panel[tiles.scale_offset(0, g)..][..2 * PANEL_ROWS];
        for r in 0..PANEL_ROWS {
            let h = u16::from_le_bytes([row_scales[2 * r], row_scales[2 * r + 1]]);
            acc[r] = fma(n[r] as f32, f16_to_f32(h) * token_scale, acc[r]);
        }
    }
    acc
}

/// Exact int32 dot products of a group with 16 rows of bytes, starting from `correction`.
#[inline(always)]
fn dot_int8(data: &[u8], values: &[i8], correction: i32) -> Lanes<i32> {
    let mut n = [correction; PANEL_ROWS];
    for (step, x) in data.chunks_exact(TILE_ALIGN).zip(values.chunks_exact(STEP_INPUTS)) {
        for r in 0..PANEL_ROWS {
            for i in 0..STEP_INPUTS {
                n[r] += i32::from(step[STEP_INPUTS * r + i]) * i32::from(x[i]);
            }
        }
    }
    n
}

/// The same with 16 rows of nibbles: a line's low ones are a step, its high ones the next.
#[inline(always)]
fn dot_int4(data: &[u8], values: &[i8], correction: i32) -> Lanes<i32> {
    let mut n = [correction; PANEL_ROWS];
    for (line, x) in data.chunks_exact(TILE_ALIGN).zip(values.chunks_exact(2 * STEP_INPUTS)) {
        for r in 0..PANEL_ROWS {
            for i in 0..STEP_INPUTS {
                let byte = line[STEP_INPUTS * r + i];
                n[r] += i32::from(byte & 15) * i32::from(x[i]);
                n[r] += i32::from(byte >> 4) * i32::from(x[STEP_INPUTS + i]);
            }
        }
    }
    n
}

/// The same with 16 rows of levels of group `g`, which need no correction.
#[inline(always)]
pub(in crate::kernels) fn dot_levels(
    tiles: &TileLayout,
    panel: &[u8],
    g: usize,
    values: &[i8],
) -> Lanes<i32> {
    let mut n = [0; PANEL_ROWS];
    for (i, &x) in values.iter().enumerate() {
        let column = tiles.column(panel, g * values.len() + i);
        for (n, w) in n.iter_mut().zip(column) {
            *n += i32::from(w) * i32::from(x);
        }
    }
    n
}

/// Bias, then what the epilogue says. Compiled once, where there is nothing to compile it for twice (see [`super`]).
#[cfg_attr(any(target_arch = "x86", target_arch = "x86_64"), inline(always))]
#[cfg_attr(not(any(target_arch = "x86", target_arch = "x86_64")), inline(never))]
fn finish(job: &Matmul, first_row: usize, acc: &Lanes<f32>, cells: &mut [f32]) {
    for (r, cell) in cells.iter_mut().enumerate() {
        let y = match job.bias {
            Some(bias) => acc[r] + bias[first_row + r],
            None => acc[r],
        };
        *cell = match job.epilogue {
            Epilogue::Store => y,
            Epilogue::AddTo => y + *cell,
            Epilogue::AddScaled(factor) => y * factor + *cell,
            Epilogue::Activate(activation) => activate(activation, y),
            Epilogue::MultiplyTo => y * *cell,
            Epilogue::Scale(factor) => y * factor,
        };
    }
}

#[inline(always)]
fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Gelu => math::gelu(x),
        Activation::GeluTanh => math::gelu_tanh(x),
        Activation::Relu => math::relu(x),
        Activation::Silu => math::silu(x),
    }
}
