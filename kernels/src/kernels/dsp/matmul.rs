//! The matrix product in pairs of 16 bits.
//!
//! Four weights of a row are a word. Its bytes 0 and 2 are two halves of 16 bits after a mask, bytes 1 and 3 after a
//! shift and the mask, and the activations of a step are put into halves in that order, once for a group. So a row takes
//! 5 instructions for 4 int8 weights and 9 for 8 int4 weights. Four rows go together: their sums stay in registers, and
//! the activations are loaded once for them.

use core::ops::Range;

use super::instructions::{Lanes, add_scaled, smlad};
use crate::kernels::scalar::{dot_levels, matmul_by};
use crate::kernels::types::{CellWriter, Matmul, correction_factor};
use crate::quant::{MAX_GROUP_SIZE, PANEL_ROWS, STEP_INPUTS, Scheme, TILE_ALIGN};

/// Rows whose sums stay in registers.
const ROWS: usize = 4;
/// Bytes 0 and 2 of a word.
const BYTES: u32 = 0x00ff_00ff;
/// Their low nibbles.
const NIBBLES: u32 = 0x000f_000f;

/// The activations of a step, in halves of 16 bits: inputs 0 and 2, inputs 1 and 3.
type Step = [u32; 2];

/// As [`scalar`](crate::kernels::scalar)'s.
///
/// # Safety
/// As [`Kernels::matmul`](crate::kernels::Kernels::matmul).
pub(super) unsafe fn matmul(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    matmul_by(panel_product, job, panels, out);
}

/// 16 outputs of one token, before bias. A function of its own: with what is around it the compiler finds fewer registers
/// for the sums.
#[inline(never)]
fn panel_product(job: &Matmul, panel: usize, token: usize) -> Lanes<f32> {
    let tiles = &job.weights.tiles;
    let panel = job.weights.panel(panel);
    let (values, scales, corrections) = job.input.token(token);
    let blocks = job.input.blocks / job.input.groups;
    let mut acc = [0.0; PANEL_ROWS];
    let mut steps = [[0; 2]; MAX_GROUP_SIZE / STEP_INPUTS];
    let steps = &mut steps[..tiles.group_size() / STEP_INPUTS];
    for g in 0..tiles.groups() {
        let data = &panel[g * tiles.group_bytes()..][..tiles.group_bytes()];
        let values = &values[g * tiles.group_size()..][..tiles.group_size()];
        for (step, x) in steps.iter_mut().zip(values.as_chunks().0) {
            *step = halves(*x);
        }
        // -8 times the sum of the group's values.
        let correction =
            corrections[g * blocks..][..blocks].iter().flatten().map(|&s| i32::from(s)).sum();
        let n = match tiles.scheme() {
            Scheme::Int8 => {
                dot_int8(data, steps, i32::from(correction_factor(Scheme::Int8)) * correction)
            }
            Scheme::Int4 => dot_int4(data, steps, correction),
            Scheme::Nl4 | Scheme::Tc3 | Scheme::Tc2 => dot_levels(tiles, panel, g, values),
        };
        let row_scales = panel[tiles.scale_offset(0, g)..].first_chunk();
        let row_scales = row_scales.expect("a panel has a scale for each row of each group");
        add_scaled(&mut acc, &n, row_scales, scales[g] * job.weights.scale);
    }
    acc
}

#[inline(always)]
fn halves(x: [i8; STEP_INPUTS]) -> Step {
    let half = |x: i8| u32::from(i16::from(x) as u16);
    [half(x[0]) | half(x[2]) << 16, half(x[1]) | half(x[3]) << 16]
}

/// The words of `ROWS` rows in a line.
#[inline(always)]
fn words(line: &[u8; TILE_ALIGN], first: usize) -> [u32; ROWS] {
    core::array::from_fn(|r| {
        let word = line[STEP_INPUTS * (first + r)..].first_chunk();
        u32::from_le_bytes(*word.expect("a line has a word for each row"))
    })
}

/// Exact int32 dot products of a group with 16 rows of bytes, starting from `correction`.
fn dot_int8(data: &[u8], steps: &[Step], correction: i32) -> Lanes<i32> {
    let mut n = [correction; PANEL_ROWS];
    for first in (0..PANEL_ROWS).step_by(ROWS) {
        let mut sums = [correction; ROWS];
        for (line, x) in data.as_chunks().0.iter().zip(steps) {
            for (sum, w) in sums.iter_mut().zip(words(line, first)) {
                *sum = smlad(w & BYTES, x[0], *sum);
                *sum = smlad(w >> 8 & BYTES, x[1], *sum);
            }
        }
        n[first..first + ROWS].copy_from_slice(&sums);
    }
    n
}

/// The same with 16 rows of nibbles: a line's low ones are a step, its high ones the next.
fn dot_int4(data: &[u8], steps: &[Step], correction: i32) -> Lanes<i32> {
    let mut n = [correction; PANEL_ROWS];
    for first in (0..PANEL_ROWS).step_by(ROWS) {
        let mut sums = [correction; ROWS];
        for (line, [low, high]) in data.as_chunks().0.iter().zip(steps.as_chunks().0) {
            for (sum, w) in sums.iter_mut().zip(words(line, first)) {
                *sum = smlad(w & NIBBLES, low[0], *sum);
                *sum = smlad(w >> 8 & NIBBLES, low[1], *sum);
                *sum = smlad(w >> 4 & NIBBLES, high[0], *sum);
                *sum = smlad(w >> 12 & NIBBLES, high[1], *sum);
            }
        }
        n[first..first + ROWS].copy_from_slice(&sums);
    }
    n
}
