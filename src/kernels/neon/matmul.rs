//! The matrix product (`docs/numbers.md` section 4).
//!
//! The plain algorithm, for a panel of 16 rows:
//!
//! ```text
//! for token:  for group:  for step:  sums[16] += weights[16][4] . values[4]
//!                         acc[16] = fma(f32(sums), scales[16] * token scale, acc)
//! ```
//!
//! and how this departs from it:
//!
//! 1. Tokens run innermost, a tile of them at a time: their sums stay in registers, and a step's
//!    weights are loaded once for all of them.
//! 2. A group is unpacked into a buffer in the first level cache, once for the [`TOKEN_BLOCK`] tokens
//!    that use it. Fewer than [`UNPACK_FROM`] tokens unpack it on the way.
//! 3. A group's scales are multiplied by the matrix's power of two instead of the tokens' scales. Both
//!    products are exact, so what follows is the same.

use std::arch::aarch64::vld1q_u8;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::dot::{Dot, Inputs, Level, PAIR_INPUTS, Packing, Source, Weights};
use super::instructions::*;
use super::math::activate;
use super::{F32x16, add16, load_part, load16, mul16, splat16};
use super::{store_part, store16};
use crate::kernels::{CellWriter, Epilogue, Matmul};
use crate::quant::{PANEL_ROWS, Scheme, TILE_ALIGN};

/// Tokens that share an unpacked group.
const TOKEN_BLOCK: usize = 64;
/// From how many tokens on a group is unpacked into a buffer.
const UNPACK_FROM: usize = 5;
/// How far ahead of the group that is read its successors are fetched.
const PREFETCH_BYTES: usize = 1024;
/// Pairs of steps of the largest group.
const MAX_PAIRS: usize = 128 / PAIR_INPUTS;

/// Computes the outputs of `panels` for every token.
///
/// # Safety
/// That of [`Kernels::matmul`](crate::kernels::Kernels::matmul), which has checked all lengths.
pub(super) unsafe fn matmul<L: Level>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.weights.tiles.scheme() {
            Scheme::Int4 => by_tokens::<L::FewInt4, L::ManyInt4>(job, panels, out),
            Scheme::Int8 => by_tokens::<L::FewInt8, L::ManyInt8>(job, panels, out),
        }
    }
}

#[inline]
unsafe fn by_tokens<F: Dot, M: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    const { assert!(UNPACK_FROM == 5) }
    // SAFETY: the caller's promise.
    unsafe {
        match job.tokens() {
            0 => {}
            1 => few_tokens::<F, 1>(job, panels, out),
            2 => few_tokens::<F, 2>(job, panels, out),
            3 => few_tokens::<F, 3>(job, panels, out),
            4 => few_tokens::<F, 4>(job, panels, out),
            _ => many_tokens::<M>(job, panels, out),
        }
    }
}

/// Streams the panels once, unpacking on the way.
#[inline(never)]
unsafe fn few_tokens<D: Dot, const T: usize>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    const { assert!(D::TOGETHER == 1) }
    for panel in panels {
        let mut acc = [splat16(0.0); T];
        for g in 0..job.input.groups {
            let group = Group::<D>::new(job, panel, g);
            for line in group.data.chunks_exact(TILE_ALIGN) {
                prefetch(line.as_ptr().wrapping_add(PREFETCH_BYTES));
            }
            let steps = Packed::<D>(group.data.as_ptr(), PhantomData);
            let mut inputs = group.inputs(0, T);
            let mut acc = &mut acc[..];
            // SAFETY: as many tokens as there are; the group's data are its steps.
            unsafe {
                if T > D::TILE {
                    let (tile, rest) = acc.split_at_mut(T / 2);
                    group.some(steps, &inputs, tile);
                    inputs.advance(T / 2);
                    acc = rest;
                }
                group.some(steps, &inputs, acc);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { finish(job, panel, 0, &acc, out) };
    }
}

/// Unpacks each group once for a block of tokens.
unsafe fn many_tokens<D: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    const { assert!(TOKEN_BLOCK.is_multiple_of(D::TOGETHER)) }
    let mut pairs = [const { MaybeUninit::uninit() }; MAX_PAIRS];
    let mut acc = [splat16(0.0); TOKEN_BLOCK];
    for first in (0..job.tokens()).step_by(TOKEN_BLOCK) {
        let tokens = (job.tokens() - first).min(TOKEN_BLOCK);
        for panel in panels.clone() {
            let acc = &mut acc[..tokens.next_multiple_of(D::TOGETHER)];
            acc.fill(splat16(0.0));
            for g in 0..job.input.groups {
                let group = Group::<D>::new(job, panel, g);
                // SAFETY: the tokens lie within the input, and `pairs` holds what was unpacked.
                unsafe {
                    group.unpack(&mut pairs);
                    let steps = Unpacked(pairs.as_ptr().cast());
                    group.tokens(steps, group.inputs(first, tokens), acc);
                }
            }
            D::settle(acc);
            // SAFETY: the caller's promise.
            unsafe { finish(job, panel, first, &acc[..tokens], out) };
        }
    }
}

/// Straight from the panel: a group's data.
struct Packed<D>(*const u8, PhantomData<D>);

impl<D> Clone for Packed<D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Packed<D> {}

impl<D: Dot> Source for Packed<D> {
    #[inline(always)]
    unsafe fn get(self, pair: usize) -> Weights {
        // SAFETY: the caller's promise.
        unsafe { D::unpack(self.0.add(pair * D::Packing::PAIR_BYTES)) }
    }
}

/// From a buffer with the unpacked steps of a group.
#[derive(Clone, Copy)]
struct Unpacked(*const Weights);

impl Source for Unpacked {
    #[inline(always)]
    unsafe fn get(self, pair: usize) -> Weights {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(pair) }
    }
}

/// One group of one panel.
struct Group<'a, D: Dot> {
    job: &'a Matmul<'a>,
    index: usize,
    /// Its weights.
    data: &'a [u8],
    /// Its rows' scales times the matrix's power of two.
    scales: D::Scales,
}

impl<'a, D: Dot> Group<'a, D> {
    #[inline(always)]
    fn new(job: &'a Matmul<'a>, panel: usize, index: usize) -> Self {
        let tiles = &job.weights.tiles;
        let panel = job.weights.panel(panel);
        let data = &panel[index * tiles.group_bytes()..][..tiles.group_bytes()];
        let scales = &panel[tiles.scale_offset(0, index)..][..2 * PANEL_ROWS];
        // SAFETY: a row's scale takes 2 bytes; the loads need no alignment as they are of bytes.
        let [low, high] = [0, 16].map(|at| unsafe {
            f16_to_f32x8(vreinterpretq_u16_u8(vld1q_u8(scales.as_ptr().add(at))))
        });
        let scales = mul16([low[0], low[1], high[0], high[1]], splat16(job.weights.scale));
        Self { job, index, data, scales: D::scales(scales) }
    }

    /// Fills the buffer with the steps of the group.
    #[inline(always)]
    fn unpack(&self, pairs: &mut [MaybeUninit<Weights>; MAX_PAIRS]) {
        let data = self.data.chunks_exact(D::Packing::PAIR_BYTES);
        for (data, unpacked) in data.zip(pairs) {
            for line in data.chunks_exact(TILE_ALIGN) {
                prefetch(line.as_ptr().wrapping_add(PREFETCH_BYTES));
            }
            // SAFETY: a pair of steps.
            unpacked.write(unsafe { D::unpack(data.as_ptr()) });
        }
    }

    /// Adds the group's products with the tokens of `inputs`.
    ///
    /// # Safety
    /// The processor supports `D`, `steps` has the group's weights, and there are as many tokens as
    /// accumulators, rounded up to a multiple of [`Dot::TOGETHER`].
    #[inline(always)]
    unsafe fn tokens<S: Source>(&self, steps: S, mut inputs: Inputs, acc: &mut [F32x16]) {
        let tiled = acc.len() / D::TILE * D::TILE;
        let (tiles, rest) = acc.split_at_mut(tiled);
        // SAFETY: the caller's promise.
        unsafe {
            match D::TILE {
                2 => self.tiles::<S, 2>(steps, &mut inputs, tiles),
                3 => self.tiles::<S, 3>(steps, &mut inputs, tiles),
                _ => self.tiles::<S, 4>(steps, &mut inputs, tiles),
            }
            self.some(steps, &inputs, rest);
        }
    }

    /// The same for at most [`Dot::TILE`] tokens.
    ///
    /// # Safety
    /// That of [`tokens`](Self::tokens).
    #[inline(always)]
    unsafe fn some<S: Source>(&self, steps: S, inputs: &Inputs, acc: &mut [F32x16]) {
        const { assert!(2 <= D::TILE && D::TILE <= 4) }
        // SAFETY: the caller's promise.
        unsafe {
            match acc {
                [] => {}
                [a] => D::tile(steps, inputs, &self.scales, std::array::from_mut(a)),
                acc => {
                    if let Ok(acc) = <&mut [F32x16; 2]>::try_from(&mut *acc) {
                        D::tile(steps, inputs, &self.scales, acc);
                    } else if let Ok(acc) = <&mut [F32x16; 3]>::try_from(&mut *acc) {
                        D::tile(steps, inputs, &self.scales, acc);
                    } else if let Ok(acc) = <&mut [F32x16; 4]>::try_from(acc) {
                        D::tile(steps, inputs, &self.scales, acc);
                    }
                }
            }
        }
    }

    /// The same for tiles of `T` tokens. Not inlined, so that the compiler gives the registers to one
    /// tile alone.
    ///
    /// # Safety
    /// That of [`tokens`](Self::tokens).
    #[inline(never)]
    unsafe fn tiles<S: Source, const T: usize>(
        &self,
        steps: S,
        inputs: &mut Inputs,
        acc: &mut [F32x16],
    ) {
        for acc in acc.as_chunks_mut::<T>().0 {
            // SAFETY: the caller's promise.
            unsafe { D::tile::<S, T>(steps, inputs, &self.scales, acc) };
            inputs.advance(T);
        }
    }

    /// The group's inputs of `tokens` tokens from `first` on.
    #[inline(always)]
    fn inputs(&self, first: usize, tokens: usize) -> Inputs {
        let input = &self.job.input;
        let size = self.job.weights.tiles.group_size();
        let blocks = input.blocks / input.groups;
        Inputs {
            values: input.values[first * input.padded_cols + self.index * size..].as_ptr(),
            stride: input.padded_cols,
            starts: input.starts[first * input.blocks + self.index * blocks..].as_ptr(),
            start_stride: input.blocks,
            scales: input.scales[first * input.groups + self.index..].as_ptr(),
            scale_stride: input.groups,
            tokens,
            size,
        }
    }
}

/// Bias, then residual or activation, into the cells of `panel` and the tokens from `first` on.
///
/// # Safety
/// Nobody else uses these cells, which exist.
#[inline]
unsafe fn finish(job: &Matmul, panel: usize, first: usize, acc: &[F32x16], out: &CellWriter) {
    let first_row = panel * PANEL_ROWS;
    let rows = first_row..job.weights.tiles.rows().min(first_row + PANEL_ROWS);
    // -0 is what changes nothing when it is added.
    let bias = job.bias.map_or([-0.0; PANEL_ROWS], |bias| {
        let mut padded = [0.0; PANEL_ROWS];
        padded[..rows.len()].copy_from_slice(&bias[rows.clone()]);
        padded
    });
    let bias = load16(&bias);
    for (t, &acc) in acc.iter().enumerate() {
        let y = add16(acc, bias);
        // SAFETY: the caller's promise.
        let cells = unsafe { out.cells(first + t, rows.clone()) };
        if let Ok(cells) = <&mut [f32; PANEL_ROWS]>::try_from(&mut *cells) {
            store16(apply(job.epilogue, y, load16(cells)), cells);
        } else {
            store_part(apply(job.epilogue, y, load_part(cells)), cells);
        }
    }
}

/// The epilogue on 16 outputs, given what the cells hold.
#[inline]
fn apply(epilogue: Epilogue, y: F32x16, cells: F32x16) -> F32x16 {
    match epilogue {
        Epilogue::Store => y,
        Epilogue::AddTo => add16(y, cells),
        Epilogue::MultiplyTo => mul16(y, cells),
        Epilogue::Scale(factor) => mul16(y, splat16(factor)),
        Epilogue::Activate(activation) => y.map(|y| activate(activation, y)),
    }
}
