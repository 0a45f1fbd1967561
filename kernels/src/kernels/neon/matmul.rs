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

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::bodies::finish;
use super::dot::{Dot, Inputs, Level, Levels, PAIR_INPUTS, Packing, Source, Weights};
use super::instructions::*;
use super::registers::F32x16;
use super::vector::Lanes;
use crate::kernels::types::{CellWriter, Matmul};
use crate::kernels::vector::Vector;
use crate::quant::{PANEL_ROWS, Scheme, TILE_ALIGN};

/// Tokens that share an unpacked group.
const TOKEN_BLOCK: usize = 66;
/// From how many tokens on a group is unpacked into a buffer.
const UNPACK_FROM: usize = 5;
/// How far ahead of the group that is read its successors are prefetched.
const PREFETCH_BYTES: usize = 1024;
/// Inputs whose weights are unpacked together: 8 KiB for a panel.
const UNPACKED_INPUTS: usize = 512;
const UNPACKED_GROUPS: usize = UNPACKED_INPUTS / 32;
const UNPACKED_PAIRS: usize = UNPACKED_INPUTS / PAIR_INPUTS;

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
            Scheme::Nl4 => levels::<L, 4>(job, panels, out),
            Scheme::Tc3 => levels::<L, 3>(job, panels, out),
            Scheme::Tc2 => levels::<L, 2>(job, panels, out),
        }
    }
}

/// The same for levels of `BITS` bits. Only one token unpacks them on the way.
///
/// # Safety
/// That of [`matmul`]; the weights are such levels.
#[inline]
unsafe fn levels<L: Level, const BITS: usize>(
    job: &Matmul,
    panels: Range<usize>,
    out: &CellWriter,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.tokens() {
            0 => {}
            1 => few_tokens::<L::FewLevels<Levels<BITS>>, 1>(job, panels, out),
            _ => many_tokens::<L::ManyLevels<Levels<BITS>>>(job, panels, out),
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
        let mut acc = [Lanes::HERE.splat(0.0); T];
        for g in 0..job.input.groups {
            let group = Group::<D>::new(job, panel, g);
            let steps = Packed::<D>(group.data.as_ptr(), PhantomData);
            let mut inputs = Inputs::new(job, g, 0, T);
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

/// Unpacks weights once for a block of tokens.
unsafe fn many_tokens<D: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    const { assert!(TOKEN_BLOCK.is_multiple_of(D::TOGETHER)) }
    let mut unpacked = UnpackedGroups::<D>::new();
    let mut acc = [Lanes::HERE.splat(0.0); TOKEN_BLOCK];
    let together = UNPACKED_INPUTS / job.weights.tiles.group_size();
    for first in (0..job.tokens()).step_by(TOKEN_BLOCK) {
        let tokens = (job.tokens() - first).min(TOKEN_BLOCK);
        for panel in panels.clone() {
            let acc = &mut acc[..tokens.next_multiple_of(D::TOGETHER)];
            acc.fill(Lanes::HERE.splat(0.0));
            for g in (0..job.input.groups).step_by(together) {
                unpacked.fill(job, panel, g..job.input.groups.min(g + together));
                // SAFETY: the tokens lie within the input.
                unsafe { unpacked.tokens(Inputs::new(job, g, first, tokens), acc) };
            }
            D::settle(acc);
            // SAFETY: the caller's promise.
            unsafe { finish(job, panel, first, &acc[..tokens], out) };
        }
    }
}

/// Fetches what lies [`PREFETCH_BYTES`] after a pair of steps.
#[inline(always)]
fn prefetch_ahead<D: Dot>(group: *const u8, pair: usize) {
    let ahead = group.wrapping_add(pair * D::Packing::PAIR_BYTES + PREFETCH_BYTES);
    for line in 0..D::Packing::PAIR_BYTES.div_ceil(TILE_ALIGN) {
        prefetch(ahead.wrapping_add(line * TILE_ALIGN));
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
        unsafe {
            prefetch_ahead::<D>(self.0, pair);
            D::unpack(self.0, pair)
        }
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

/// Some groups of one panel, unpacked.
struct UnpackedGroups<D: Dot> {
    groups: usize,
    /// The steps of all groups, one group after the other.
    pairs: [MaybeUninit<Weights>; UNPACKED_PAIRS],
    scales: [MaybeUninit<D::Scales>; UNPACKED_GROUPS],
}

impl<D: Dot> UnpackedGroups<D> {
    fn new() -> Self {
        Self {
            groups: 0,
            pairs: [const { MaybeUninit::uninit() }; UNPACKED_PAIRS],
            scales: [const { MaybeUninit::uninit() }; UNPACKED_GROUPS],
        }
    }

    /// Unpacks `groups` of a panel, at most [`UNPACKED_INPUTS`].
    #[inline(always)]
    fn fill(&mut self, job: &Matmul, panel: usize, groups: Range<usize>) {
        self.groups = groups.len();
        let pairs = job.weights.tiles.group_size() / PAIR_INPUTS;
        for (i, g) in groups.enumerate() {
            let group = Group::<D>::new(job, panel, g);
            group.unpack(&mut self.pairs[i * pairs..][..pairs]);
            self.scales[i].write(group.scales);
        }
    }

    /// Adds the products of the groups with the tokens of `inputs`, which are the first group's.
    ///
    /// # Safety
    /// The processor supports `D`, and there are as many tokens as accumulators, rounded up to a
    /// multiple of [`Dot::TOGETHER`].
    #[inline(always)]
    unsafe fn tokens(&self, mut inputs: Inputs, acc: &mut [F32x16]) {
        let tiled = acc.len() / D::LONG_TILE * D::LONG_TILE;
        let (tiles, rest) = acc.split_at_mut(tiled);
        // SAFETY: the caller's promise.
        unsafe {
            match D::LONG_TILE {
                2 => self.tiles::<2>(&mut inputs, tiles),
                3 => self.tiles::<3>(&mut inputs, tiles),
                _ => self.tiles::<4>(&mut inputs, tiles),
            }
            match rest.len() {
                0 => {}
                1 => self.tiles::<1>(&mut inputs, rest),
                2 => self.tiles::<2>(&mut inputs, rest),
                _ => self.tiles::<3>(&mut inputs, rest),
            }
        }
    }

    /// The same for tiles of `T` tokens, whose accumulators stay in registers if there are enough. Not
    /// inlined, so that the compiler gives the registers to one tile alone.
    ///
    /// # Safety
    /// That of [`tokens`](Self::tokens).
    #[inline(never)]
    unsafe fn tiles<const T: usize>(&self, inputs: &mut Inputs, acc: &mut [F32x16]) {
        for tile in acc.as_chunks_mut::<T>().0 {
            let mut acc = *tile;
            let mut group = *inputs;
            let mut steps = self.pairs.as_ptr().cast::<Weights>();
            for scales in &self.scales[..self.groups] {
                // SAFETY: the caller's promise; what `fill` has written.
                unsafe {
                    D::tile::<_, T>(Unpacked(steps), &group, scales.assume_init_ref(), &mut acc);
                    steps = steps.add(group.size / PAIR_INPUTS);
                }
                group.next_group();
            }
            *tile = acc;
            inputs.advance(T);
        }
    }
}

impl Inputs {
    /// Those of group `index` for `tokens` tokens from `first` on.
    #[inline(always)]
    fn new(job: &Matmul, index: usize, first: usize, tokens: usize) -> Self {
        let input = &job.input;
        let size = job.weights.tiles.group_size();
        let blocks = input.blocks / input.groups;
        Self {
            values: input.values[first * input.padded_cols + index * size..].as_ptr(),
            stride: input.padded_cols,
            corrections: input.corrections[first * input.blocks + index * blocks..].as_ptr(),
            correction_stride: input.blocks,
            scales: input.scales[first * input.groups + index..].as_ptr(),
            scale_stride: input.groups,
            tokens,
            size,
        }
    }
}

/// One group of one panel.
struct Group<'a, D: Dot> {
    /// Its weights.
    data: &'a [u8],
    /// Its rows' scales times the matrix's power of two.
    scales: D::Scales,
}

impl<'a, D: Dot> Group<'a, D> {
    #[inline(always)]
    fn new(job: &Matmul<'a>, panel: usize, index: usize) -> Self {
        let tiles = &job.weights.tiles;
        let panel = job.weights.panel(panel);
        let data = &panel[index * tiles.group_bytes()..][..tiles.group_bytes()];
        let scales = &panel[tiles.scale_offset(0, index)..][..2 * PANEL_ROWS];
        // SAFETY: a row's scale takes 2 bytes.
        let scales = unsafe { scales.as_ptr().cast::<[u16; PANEL_ROWS]>().read_unaligned() };
        let v = Lanes::HERE;
        let scales = v.mul(v.load_f16(&scales), v.splat(job.weights.scale));
        Self { data, scales: D::scales(scales) }
    }

    /// Fills the buffer with the steps of the group.
    #[inline(always)]
    fn unpack(&self, pairs: &mut [MaybeUninit<Weights>]) {
        let group = self.data.as_ptr();
        for (pair, unpacked) in pairs.iter_mut().enumerate() {
            prefetch_ahead::<D>(group, pair);
            // SAFETY: the group has as many pairs of steps as the buffer.
            unpacked.write(unsafe { D::unpack(group, pair) });
        }
    }

    /// Adds the group's products with the tokens of `inputs`, at most [`Dot::TILE`].
    ///
    /// # Safety
    /// The processor supports `D`, `steps` has the group's weights, and there are as many tokens as
    /// accumulators.
    #[inline(always)]
    unsafe fn some<S: Source>(&self, steps: S, inputs: &Inputs, acc: &mut [F32x16]) {
        const { assert!(2 <= D::TILE && D::TILE <= 4) }
        // SAFETY: the caller's promise.
        unsafe {
            match acc {
                [] => {}
                [a] => D::tile(steps, inputs, &self.scales, core::array::from_mut(a)),
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
}
