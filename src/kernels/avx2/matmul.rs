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
//!    that use it. Fewer than [`UNPACK_FROM`] tokens unpack it on the way.
//! 3. A group's scales are multiplied by the matrix's power of two instead of the tokens' scales. Both
//!    products are exact, so what follows is the same.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::dot::{Dot, Int4, Int8};
use super::math::activate;
use super::{F32x16, add16, fma16, load_part, load16, mul16, splat16};
use super::{store_part, store16};
use crate::kernels::{CellWriter, Epilogue, Matmul};
use crate::quant::{PANEL_ROWS, STEP_INPUTS, Scheme, block_size};

/// Tokens whose sums are held in registers.
const TILE: usize = 6;
/// Tokens that share an unpacked group.
const TOKEN_BLOCK: usize = 64;
/// From how many tokens on a group is unpacked into a buffer.
const UNPACK_FROM: usize = 5;
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
            Scheme::Int4 => by_tokens::<Int4>(job, panels, out),
            Scheme::Int8 => by_tokens::<Int8>(job, panels, out),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn by_tokens<D: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    const { assert!(UNPACK_FROM == 5) }
    // SAFETY: the caller's promise.
    unsafe {
        match job.tokens() {
            0 => {}
            1 => few_tokens::<D, 1>(job, panels, out),
            2 => few_tokens::<D, 2>(job, panels, out),
            3 => few_tokens::<D, 3>(job, panels, out),
            4 => few_tokens::<D, 4>(job, panels, out),
            _ => many_tokens::<D>(job, panels, out),
        }
    }
}

/// Streams the panels once, unpacking on the way.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn few_tokens<D: Dot, const T: usize>(
    job: &Matmul,
    panels: Range<usize>,
    out: &CellWriter,
) {
    for panel in panels {
        let mut acc = [splat16(0.0); T];
        for g in 0..job.input.groups {
            let group = Group::new(job, panel, g);
            // SAFETY: as many tokens as there are.
            unsafe { group.tile::<D, _, T>(Packed(group.data.as_ptr()), 0, &mut acc) };
        }
        // SAFETY: the caller's promise.
        unsafe { finish(job, panel, 0, &acc, out) };
    }
}

/// Unpacks each group once for a block of tokens.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn many_tokens<D: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    let mut steps = [const { MaybeUninit::uninit() }; MAX_STEPS];
    let mut acc = [splat16(0.0); TOKEN_BLOCK];
    for panel in panels {
        for first in (0..job.tokens()).step_by(TOKEN_BLOCK) {
            let acc = &mut acc[..(job.tokens() - first).min(TOKEN_BLOCK)];
            acc.fill(splat16(0.0));
            for g in 0..job.input.groups {
                let group = Group::new(job, panel, g);
                // SAFETY: the steps of a group fit, and the tiles lie within the block of tokens.
                unsafe {
                    group.unpack::<D>(&mut steps);
                    group.tiles::<D>(Unpacked(steps.as_ptr().cast()), first, acc);
                }
            }
            // SAFETY: the caller's promise.
            unsafe { finish(job, panel, first, acc, out) };
        }
    }
}

/// Where the weights of a group's steps come from.
trait Steps<D: Dot>: Copy {
    /// Those of rows 0..8 and 8..16.
    ///
    /// # Safety
    /// The processor supports AVX2, and the group has this step.
    unsafe fn get(self, step: usize) -> [D::Weights; 2];
}

/// Straight from the panel: a group's data.
#[derive(Clone, Copy)]
struct Packed(*const u8);

impl<D: Dot> Steps<D> for Packed {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn get(self, step: usize) -> [D::Weights; 2] {
        // SAFETY: the caller's promise.
        unsafe { D::unpack(self.0, step) }
    }
}

/// From a buffer with the unpacked steps of a group.
#[derive(Clone, Copy)]
struct Unpacked<W>(*const [W; 2]);

impl<D: Dot> Steps<D> for Unpacked<D::Weights> {
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn get(self, step: usize) -> [D::Weights; 2] {
        // SAFETY: the caller's promise.
        unsafe { *self.0.add(step) }
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
}

impl<'a> Group<'a> {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn new(job: &'a Matmul<'a>, panel: usize, index: usize) -> Self {
        let tiles = &job.weights.tiles;
        let panel = job.weights.panel(panel);
        let data = &panel[index * tiles.group_bytes()..][..tiles.group_bytes()];
        let scales = &panel[tiles.scale_offset(0, index)..][..2 * PANEL_ROWS];
        // SAFETY: a row's scale takes 2 bytes; the loads may be unaligned.
        let scales = unsafe {
            let scales = scales.as_ptr().cast::<__m128i>();
            [_mm_loadu_si128(scales), _mm_loadu_si128(scales.add(1))]
        };
        let scales = scales.map(|bits| _mm256_cvtph_ps(bits));
        Self { job, index, data, scales: mul16(scales, splat16(job.weights.scale)) }
    }

    /// Fills the buffer with the steps of the group.
    ///
    /// # Safety
    /// The processor supports AVX2.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn unpack<D: Dot>(&self, steps: &mut [MaybeUninit<[D::Weights; 2]>; MAX_STEPS]) {
        let used = self.job.weights.tiles.group_size() / STEP_INPUTS;
        for (step, unpacked) in steps[..used].iter_mut().enumerate() {
            // SAFETY: `data` is a whole group.
            unpacked.write(unsafe { D::unpack(self.data.as_ptr(), step) });
        }
    }

    /// Adds this group's products with the tokens from `first` on to their accumulators.
    ///
    /// # Safety
    /// The input has these tokens, and `steps` gives this group's weights.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tiles<D: Dot>(
        &self,
        steps: Unpacked<D::Weights>,
        first: usize,
        acc: &mut [F32x16],
    ) {
        for (i, acc) in acc.chunks_mut(TILE).enumerate() {
            let token = first + i * TILE;
            // SAFETY: the caller's promise.
            unsafe {
                match acc.len() {
                    1 => self.tile::<D, _, 1>(steps, token, acc),
                    2 => self.tile::<D, _, 2>(steps, token, acc),
                    3 => self.tile::<D, _, 3>(steps, token, acc),
                    4 => self.tile::<D, _, 4>(steps, token, acc),
                    5 => self.tile::<D, _, 5>(steps, token, acc),
                    _ => self.tile::<D, _, TILE>(steps, token, acc),
                }
            }
        }
    }

    /// The same for `T` tokens.
    ///
    /// # Safety
    /// That of [`tiles`](Self::tiles); there are `T` accumulators.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile<D: Dot, S: Steps<D>, const T: usize>(
        &self,
        steps: S,
        first: usize,
        acc: &mut [F32x16],
    ) {
        debug_assert_eq!(acc.len(), T);
        let input = &self.job.input;
        // SAFETY: the caller's promise.
        unsafe {
            let sums = self.sums::<D, S, T>(steps, first);
            for t in 0..T {
                let sums = sums[t].map(|n| _mm256_cvtepi32_ps(n));
                let scale = input.scales.get_unchecked((first + t) * input.groups + self.index);
                let acc = acc.get_unchecked_mut(t);
                *acc = fma16(sums, mul16(self.scales, splat16(*scale)), *acc);
            }
        }
    }

    /// The exact sums of the group, one per row.
    ///
    /// # Safety
    /// That of [`tile`](Self::tile).
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<D: Dot, S: Steps<D>, const T: usize>(
        &self,
        steps: S,
        first: usize,
    ) -> [[__m256i; 2]; T] {
        let group_size = self.job.weights.tiles.group_size();
        // SAFETY: the caller's promise; a group has one block or two.
        unsafe {
            let mut sums = self.block_sums::<D, S, T>(steps, 0, first);
            if group_size > block_size(group_size) {
                let second = self.block_sums::<D, S, T>(steps, 1, first);
                for (a, b) in sums.as_flattened_mut().iter_mut().zip(second.as_flattened()) {
                    *a = _mm256_add_epi32(*a, *b);
                }
            }
            sums
        }
    }

    /// The exact sums of a block of the group.
    ///
    /// # Safety
    /// That of [`tile`](Self::tile); the group has this block.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn block_sums<D: Dot, S: Steps<D>, const T: usize>(
        &self,
        steps: S,
        block: usize,
        first: usize,
    ) -> [[__m256i; 2]; T] {
        let (input, group_size) = (&self.job.input, self.job.weights.tiles.group_size());
        let block_steps = block_size(group_size) / STEP_INPUTS;
        let first_step = block * block_steps;
        let block = self.index * (group_size / block_size(group_size)) + block;
        // SAFETY: the caller's promise keeps every address within the input's slices, whose lengths
        // `Kernels::matmul` has checked.
        unsafe {
            let start = input.starts.as_ptr().add(first * input.blocks + block).cast::<i32>();
            let values = input.values.as_ptr().add(first * input.padded_cols);
            let values = values.add(self.index * group_size).cast::<i32>();
            let stride = input.padded_cols / STEP_INPUTS;
            let mut sums: [[__m256i; 2]; T] =
                std::array::from_fn(|t| [D::start(start.add(t * input.blocks)); 2]);
            for step in first_step..first_step + block_steps {
                let weights = steps.get(step);
                for (t, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_epi32(values.add(t * stride + step).read_unaligned());
                    sums[0] = D::dot(sums[0], weights[0], x);
                    sums[1] = D::dot(sums[1], weights[1], x);
                }
            }
            sums.map(|sums| sums.map(|sums| D::total(sums)))
        }
    }
}

/// Bias, then residual or activation, into the cells of `panel` and the tokens from `first` on.
///
/// # Safety
/// Nobody else uses these cells, which exist.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn finish(job: &Matmul, panel: usize, first: usize, acc: &[F32x16], out: &CellWriter) {
    let first_row = panel * PANEL_ROWS;
    let rows = first_row..job.weights.tiles.rows().min(first_row + PANEL_ROWS);
    let bias = job.bias.map(|bias| load_part(&bias[rows.clone()]));
    for (t, &acc) in acc.iter().enumerate() {
        let y = bias.map_or(acc, |bias| add16(acc, bias));
        // SAFETY: the caller's promise.
        let cells = unsafe { out.cells(first + t, rows.clone()) };
        if let Ok(cells) = <&mut [f32; PANEL_ROWS]>::try_from(&mut *cells) {
            let y = apply(job.epilogue, y, || load16(cells));
            store16(y, cells);
        } else {
            let y = apply(job.epilogue, y, || load_part(cells));
            store_part(y, cells);
        }
    }
}

/// The epilogue on 16 outputs, given what the cells hold.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn apply(epilogue: Epilogue, y: F32x16, cells: impl FnOnce() -> F32x16) -> F32x16 {
    match epilogue {
        Epilogue::Store => y,
        Epilogue::AddTo => add16(y, cells()),
        Epilogue::Activate(activation) => y.map(|y| activate(activation, y)),
    }
}
