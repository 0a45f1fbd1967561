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
//!    weights are loaded once for all of them. The 6 tokens of [`TILE`] take 12 registers of sums,
//!    2 of weights, one of values and one of products, which are the 16 there are.
//! 2. A group is unpacked into a buffer in the first level cache, once for the [`TOKEN_BLOCK`] tokens
//!    that use it. Up to [`Packing::FEW`] tokens unpack it on the way.
//! 3. A group's scales are multiplied by the matrix's power of two instead of the tokens' scales. Both
//!    products are exact, so what follows is the same.
//! 4. Few tokens wait for memory: they read every line once, in the order in which it lies, because the
//!    processor fetches ahead of such a stream by itself and starts anew after every jump. The scales of
//!    a panel lie behind its weights; so the groups' sums are kept in the first level cache until then.

use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::Range;

use super::bodies::finish;
use super::dot::{Dot, Levels, Narrow, Nibbles, Packing, SignedBytes, Wide};
use super::vector::{Avx2, F32x16};
use crate::kernels::ahead::Ahead;
use crate::kernels::types::{CellWriter, Matmul, correction_factor};
use crate::kernels::vector::{LANES, Vector};
use crate::quant::{BLOCK_INPUTS, PANEL_ROWS, STEP_INPUTS, Scheme, TILE_ALIGN, block_size};

/// Tokens that share an unpacked group.
const TOKEN_BLOCK: usize = 64;
/// How many groups' sums are kept until their scales are read: those of a row of 4096 inputs in groups
/// of 64. Longer rows jump between weights and scales once in so many groups. Those of four tokens take
/// 16 KiB, a quarter of the smallest stack that a host's threads may have.
const KEPT: usize = 64;
/// Steps in a round of the innermost loop, at least.
const UNROLL: usize = 4;
/// How far ahead of what is unpacked its successors are prefetched.
const PREFETCH_BYTES: usize = 2048;
/// Steps of the largest group.
const MAX_STEPS: usize = 128 / STEP_INPUTS;

/// Computes the outputs of `panels` for every token.
///
/// # Safety
/// That of [`Kernels::matmul`](crate::kernels::Kernels::matmul), which has checked all lengths.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn matmul(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.weights.tiles.scheme() {
            Scheme::Int8 => by_tokens::<SignedBytes>(job, panels, out),
            Scheme::Int4 => by_tokens::<Nibbles<Narrow>>(job, panels, out),
            Scheme::Nl4 => by_tokens::<Levels<Wide, 4>>(job, panels, out),
            Scheme::Tc3 => by_tokens::<Levels<Wide, 3>>(job, panels, out),
            Scheme::Tc2 => by_tokens::<Levels<Wide, 2>>(job, panels, out),
        }
    }
}

/// The same with a given packing.
///
/// # Safety
/// That of [`matmul`]; the weights are packed so, and the processor supports the product's instructions.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) unsafe fn by_tokens<P: Packing>(
    job: &Matmul,
    panels: Range<usize>,
    out: &CellWriter,
) {
    const { assert!(P::FEW == 1 || P::FEW == 4) }
    // SAFETY: the caller's promise.
    unsafe {
        match job.tokens() {
            0 => {}
            1 => few_tokens::<P, 1>(job, panels, out),
            2 if P::FEW > 1 => few_tokens::<P, 2>(job, panels, out),
            3 if P::FEW > 1 => few_tokens::<P, 3>(job, panels, out),
            4 if P::FEW > 1 => few_tokens::<P, 4>(job, panels, out),
            _ => many_tokens::<P::Dot>(job, unpack::<P>, panels, out),
        }
    }
}

/// Streams the panels once, unpacking on the way.
///
/// # Safety
/// That of [`by_tokens`]; there are `T` tokens.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn few_tokens<P: Packing, const T: usize>(
    job: &Matmul,
    panels: Range<usize>,
    out: &CellWriter,
) {
    let tiles = &job.weights.tiles;
    // SAFETY: AVX2, FMA and F16C are enabled.
    let v = unsafe { Avx2::new() };
    let ahead = Ahead::best();
    let mut kept = [const { MaybeUninit::<[F32x16; T]>::uninit() }; KEPT];
    for panel in panels {
        let mut acc = [v.splat(0.0); T];
        let mut group = Group::new(job, panel, 0);
        let data = job.weights.panel(panel).as_ptr();
        for first in (0..job.input.groups).step_by(KEPT) {
            let groups = first..job.input.groups.min(first + KEPT);
            // SAFETY: as many tokens as there are, and groups as the panel has; sums are written before
            // they are read.
            unsafe {
                for (g, kept) in groups.clone().zip(&mut kept) {
                    group.index = g;
                    let steps = Packed::<P>(data.add(g * tiles.group_bytes()), PhantomData);
                    ahead.fetch(steps.0, tiles.group_bytes());
                    kept.write(group.sums::<P::Dot, _, T>(steps, &group.inputs(0)));
                }
                for (g, kept) in groups.zip(&kept) {
                    group.index = g;
                    let scales = data.add(tiles.scale_offset(0, g));
                    ahead.fetch(scales, 2 * PANEL_ROWS);
                    group.scales = row_scales(scales, job.weights.scale);
                    group.add_scaled(kept.assume_init_ref(), &group.inputs(0), &mut acc);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { finish(job, panel, 0, &acc, out) };
    }
}

/// 16 rows' scales of a group, times a factor.
///
/// # Safety
/// The processor supports AVX2 and F16C, and `scales` is valid for reads of 32 bytes.
#[inline(always)]
unsafe fn row_scales(scales: *const u8, factor: f32) -> F32x16 {
    // SAFETY: the caller's promise; a row's scale takes 2 bytes.
    let (v, scales) = unsafe { (Avx2::new(), scales.cast::<[u16; LANES]>().read_unaligned()) };
    v.mul(v.load_f16(&scales), v.splat(factor))
}

/// Unpacks each group once for a block of tokens.
///
/// # Safety
/// That of [`by_tokens`]; `unpack` is that of the weights' packing.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn many_tokens<D: Dot>(
    job: &Matmul,
    unpack: unsafe fn(&[u8], &mut UnpackedGroup<D>),
    panels: Range<usize>,
    out: &CellWriter,
) {
    // SAFETY: AVX2, FMA and F16C are enabled.
    let v = unsafe { Avx2::new() };
    let mut steps = [const { MaybeUninit::uninit() }; MAX_STEPS];
    let mut acc = [v.splat(0.0); TOKEN_BLOCK];
    for first in (0..job.tokens()).step_by(TOKEN_BLOCK) {
        for panel in panels.clone() {
            let acc = &mut acc[..(job.tokens() - first).min(TOKEN_BLOCK)];
            acc.fill(v.splat(0.0));
            for g in 0..job.input.groups {
                let group = Group::new(job, panel, g);
                // SAFETY: the tokens lie within the input, and `steps` holds what was unpacked.
                unsafe {
                    unpack(group.data, &mut steps);
                    group.tokens::<D>(Unpacked(steps.as_ptr().cast()), first, acc);
                }
            }
            // SAFETY: the caller's promise.
            unsafe { finish(job, panel, first, acc, out) };
        }
    }
}

/// The steps of a group, unpacked.
type UnpackedGroup<D> = [MaybeUninit<[<D as Dot>::Weights; 2]>; MAX_STEPS];

/// Fills the buffer with the steps of a group, and prefetches what follows.
///
/// # Safety
/// The processor supports AVX2.
#[target_feature(enable = "avx2")]
unsafe fn unpack<P: Packing>(group: &[u8], steps: &mut UnpackedGroup<P::Dot>) {
    let units = group.chunks_exact(P::LINES * TILE_ALIGN);
    for (unit, steps) in units.zip(steps.chunks_exact_mut(P::STEPS)) {
        // SAFETY: a prefetch never faults; `unit` is as many steps as `steps`.
        unsafe {
            for line in unit.as_chunks::<TILE_ALIGN>().0 {
                let ahead = line.as_ptr().wrapping_add(PREFETCH_BYTES);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            const { assert!(P::STEPS <= 8) }
            unrolled!(step in 0, 1, 2, 3, 4, 5, 6, 7 => {
                if step < P::STEPS {
                    steps[step].write(P::unpack(unit.as_ptr(), step));
                }
            });
        }
    }
}

/// Where the weights of a group's steps come from.
trait Steps<D: Dot>: Copy {
    /// Steps in a round of the innermost loop.
    const ROUND: usize;

    /// Whether steps are unpacked on the way.
    const IS_PACKED: bool;

    /// Those of rows 0..8 and 8..16.
    ///
    /// # Safety
    /// The processor supports AVX2, and the group has this step.
    unsafe fn get(self, step: usize) -> [D::Weights; 2];

    /// Those that follow `steps` of these, which must be whole rounds.
    fn advance(self, steps: usize) -> Self;
}

/// Straight from the panel: a group's data.
struct Packed<P>(*const u8, PhantomData<P>);

impl<P> Clone for Packed<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Packed<P> {}

impl<P: Packing> Steps<P::Dot> for Packed<P> {
    const ROUND: usize = if P::STEPS > UNROLL { P::STEPS } else { UNROLL };
    const IS_PACKED: bool = true;

    #[inline(always)]
    unsafe fn get(self, step: usize) -> [<P::Dot as Dot>::Weights; 2] {
        let unit = self.0.wrapping_add(step / P::STEPS * P::LINES * TILE_ALIGN);
        // SAFETY: the caller's promise; a prefetch never faults.
        unsafe {
            // Unpacking levels takes about as long as reading them, so that little waits for memory at a time.
            if P::STEPS > UNROLL && step < P::LINES {
                let ahead = unit.wrapping_add(step * TILE_ALIGN + PREFETCH_BYTES);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            P::unpack(unit, step % P::STEPS)
        }
    }

    #[inline(always)]
    fn advance(self, steps: usize) -> Self {
        Self(self.0.wrapping_add(steps / P::STEPS * P::LINES * TILE_ALIGN), PhantomData)
    }
}

/// From a buffer with the unpacked steps of a group.
#[derive(Clone, Copy)]
struct Unpacked<W>(*const [W; 2]);

impl<D: Dot> Steps<D> for Unpacked<D::Weights> {
    const ROUND: usize = UNROLL;
    const IS_PACKED: bool = false;

    #[inline(always)]
    unsafe fn get(self, step: usize) -> [D::Weights; 2] {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(step) }
    }

    #[inline(always)]
    fn advance(self, steps: usize) -> Self {
        Self(self.0.wrapping_add(steps))
    }
}

/// One group of one panel.
struct Group<'a> {
    job: &'a Matmul<'a>,
    index: usize,
    /// Its weights.
    data: &'a [u8],
    /// Its rows' scales times the matrix's power of two.
    scales: F32x16,
    /// Blocks of a group, one or two.
    blocks: usize,
    /// Steps of a block.
    block_steps: usize,
    /// The weights' offset is so many times that of int4.
    offset: i16,
}

impl<'a> Group<'a> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn new(job: &'a Matmul<'a>, panel: usize, index: usize) -> Self {
        let tiles = &job.weights.tiles;
        let panel = job.weights.panel(panel);
        let data = &panel[index * tiles.group_bytes()..][..tiles.group_bytes()];
        let scales = &panel[tiles.scale_offset(0, index)..][..2 * PANEL_ROWS];
        // SAFETY: AVX2 and F16C are enabled; the slice has 32 bytes.
        let scales = unsafe { row_scales(scales.as_ptr(), job.weights.scale) };
        let block_steps = block_size(tiles.group_size()) / STEP_INPUTS;
        let blocks = if tiles.group_size() > BLOCK_INPUTS { 2 } else { 1 };
        let offset = correction_factor(tiles.scheme());
        Self { job, index, data, scales, blocks, block_steps, offset }
    }

    /// Adds this group's products with the tokens from `first` on to their accumulators.
    ///
    /// # Safety
    /// The input has these tokens, and `steps` gives this group's weights.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tokens<D: Dot>(&self, steps: Unpacked<D::Weights>, first: usize, acc: &mut [F32x16]) {
        let rest = first + acc.len() / D::TILE * D::TILE;
        // SAFETY: the caller's promise.
        unsafe {
            match D::TILE {
                6 => self.tiles::<D, _, 6>(steps, first, acc),
                _ => self.tiles::<D, _, 4>(steps, first, acc),
            }
            let acc = &mut acc[rest - first..];
            match acc.len() {
                0 => {}
                1 => self.tiles::<D, _, 1>(steps, rest, acc),
                2 => self.tiles::<D, _, 2>(steps, rest, acc),
                3 => self.tiles::<D, _, 3>(steps, rest, acc),
                4 if D::TILE > 4 => self.tiles::<D, _, 4>(steps, rest, acc),
                _ if D::TILE > 4 => self.tiles::<D, _, 5>(steps, rest, acc),
                _ => {}
            }
        }
    }

    /// The same for as many tiles of `T` tokens as there are in `acc`. Not inlined, so that the
    /// compiler gives the registers to one tile alone.
    ///
    /// # Safety
    /// That of [`tokens`](Self::tokens).
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tiles<D: Dot, S: Steps<D>, const T: usize>(
        &self,
        steps: S,
        first: usize,
        acc: &mut [F32x16],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut inputs = self.inputs(first);
            for acc in acc.as_chunks_mut::<T>().0 {
                self.tile::<D, S, T>(steps, &inputs, acc);
                inputs.advance(T);
            }
        }
    }

    /// The same for one tile.
    ///
    /// # Safety
    /// That of [`tokens`](Self::tokens).
    #[inline(always)]
    unsafe fn tile<D: Dot, S: Steps<D>, const T: usize>(
        &self,
        steps: S,
        inputs: &Inputs,
        acc: &mut [F32x16; T],
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.add_scaled(&self.sums::<D, S, T>(steps, inputs), inputs, acc) };
    }

    /// The exact sums of the group, as floats.
    ///
    /// # Safety
    /// That of [`tokens`](Self::tokens).
    #[inline(always)]
    unsafe fn sums<D: Dot, S: Steps<D>, const T: usize>(
        &self,
        steps: S,
        inputs: &Inputs,
    ) -> [F32x16; T] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums;
            if D::IS_WIDE {
                sums = self.part_sums::<D, S, T>(steps, inputs, 0, self.blocks);
            } else if S::IS_PACKED {
                // Few tokens, for which the code may be shorter than what is fastest.
                sums = [[_mm256_setzero_si256(); 2]; T];
                for block in 0..self.blocks {
                    let of_block = self.part_sums::<D, S, T>(steps, inputs, block, 1);
                    for (a, b) in sums.as_flattened_mut().iter_mut().zip(of_block.as_flattened()) {
                        *a = _mm256_add_epi32(*a, *b);
                    }
                }
            } else {
                sums = self.part_sums::<D, S, T>(steps, inputs, 0, 1);
                if self.blocks == 2 {
                    let second = self.part_sums::<D, S, T>(steps, inputs, 1, 1);
                    for (a, b) in sums.as_flattened_mut().iter_mut().zip(second.as_flattened()) {
                        *a = _mm256_add_epi32(*a, *b);
                    }
                }
            }
            let mut floats = [[_mm256_setzero_ps(); 2]; T];
            for (float, sum) in floats.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                *float = _mm256_cvtepi32_ps(*sum);
            }
            floats
        }
    }

    /// Adds sums times the rows' and the tokens' scales to accumulators.
    ///
    /// # Safety
    /// The processor supports AVX2 and FMA, and there are `T` tokens at `inputs`.
    #[inline(always)]
    unsafe fn add_scaled<const T: usize>(
        &self,
        sums: &[F32x16; T],
        inputs: &Inputs,
        acc: &mut [F32x16; T],
    ) {
        for (t, (&sums, acc)) in sums.iter().zip(acc).enumerate() {
            // SAFETY: the caller's promise.
            let (v, scale) = unsafe { (Avx2::new(), *inputs.scales.add(t * inputs.groups)) };
            *acc = v.fma(sums, v.mul(self.scales, v.splat(scale)), *acc);
        }
    }

    /// The exact sums of so many blocks of the group from `block` on, one per row.
    ///
    /// # Safety
    /// That of [`tokens`](Self::tokens); the group has these blocks, and it is one if sums are not wide.
    #[inline(always)]
    unsafe fn part_sums<D: Dot, S: Steps<D>, const T: usize>(
        &self,
        steps: S,
        inputs: &Inputs,
        block: usize,
        blocks: usize,
    ) -> [[__m256i; 2]; T] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[_mm256_setzero_si256(); 2]; T];
            for (t, sums) in sums.iter_mut().enumerate() {
                let at = inputs.corrections.add(t * inputs.blocks + block);
                let mut correction = D::correction(at, self.offset);
                if D::IS_WIDE && blocks == 2 {
                    let second = D::correction(at.add(1), self.offset);
                    correction = _mm256_add_epi32(correction, second);
                }
                *sums = [correction; 2];
            }
            let mut steps = steps.advance(block * self.block_steps);
            let mut values = inputs.values.add(block * self.block_steps);
            for _ in 0..blocks * self.block_steps / S::ROUND {
                let value = |t: usize, step: usize| {
                    _mm256_set1_epi32(values.add(t * inputs.stride + step).read_unaligned())
                };
                const { assert!(S::ROUND <= 8 && S::ROUND.is_multiple_of(2)) }
                unrolled!(step in 0, 2, 4, 6 => {
                    if step >= S::ROUND {
                    } else if D::PAIRS {
                        let weights = [steps.get(step), steps.get(step + 1)];
                        for (t, sums) in sums.iter_mut().enumerate() {
                            D::dot_pair(sums, weights, [value(t, step), value(t, step + 1)]);
                        }
                    } else {
                        unrolled!(half in 0, 1 => {
                            let weights = steps.get(step + half);
                            for (t, sums) in sums.iter_mut().enumerate() {
                                D::dot(sums, weights, value(t, step + half));
                            }
                        });
                    }
                });
                steps = steps.advance(S::ROUND);
                values = values.add(S::ROUND);
            }
            for sums in sums.as_flattened_mut() {
                *sums = D::total(*sums);
            }
            sums
        }
    }

    /// The group's inputs of the token `first` and those after it.
    #[inline(always)]
    unsafe fn inputs(&self, first: usize) -> Inputs {
        let input = &self.job.input;
        let group_size = self.job.weights.tiles.group_size();
        // SAFETY: `Kernels::matmul` has checked the lengths of the slices.
        unsafe {
            let values = input.values.as_ptr().add(first * input.padded_cols);
            let corrections = input.corrections.as_ptr().add(first * input.blocks);
            let scales = input.scales.as_ptr().add(first * input.groups);
            Inputs {
                values: values.add(self.index * group_size).cast(),
                stride: input.padded_cols / STEP_INPUTS,
                corrections: corrections.add(self.index * self.blocks).cast(),
                blocks: input.blocks,
                scales: scales.add(self.index),
                groups: input.groups,
            }
        }
    }
}

/// One group's inputs of consecutive tokens: where those of the first lie, and how far apart they are.
struct Inputs {
    /// Steps of 4 values.
    values: *const i32,
    stride: usize,
    /// [`Correction`](crate::kernels::Correction)s.
    corrections: *const i32,
    blocks: usize,
    scales: *const f32,
    groups: usize,
}

impl Inputs {
    #[inline(always)]
    unsafe fn advance(&mut self, tokens: usize) {
        self.values = self.values.wrapping_add(tokens * self.stride);
        self.corrections = self.corrections.wrapping_add(tokens * self.blocks);
        self.scales = self.scales.wrapping_add(tokens * self.groups);
    }
}
