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
//! 1. Tokens and panels run innermost, in tiles of at most 6 tokens x 2 panels: 12 registers of sums and
//!    12 of accumulators leave 8 of the 32 free, so that both stay in registers from a row's first group
//!    to its last. A step's weights are loaded once for 6 tokens, a token's values once for 2 panels.
//! 2. A line of int4 weights is unpacked once for a tile by a shift and two masks, which run beside the
//!    products: these fill two of the four vector pipes, and stores of unpacked weights would cost more.
//! 3. The sums begin with the zero-point correction. Those of a tile are multiplied by the weights' offset
//!    first, as vectors of blocks; a [`Correction`] is then one broadcast.
//! 4. A group's scales are multiplied by the matrix's power of two instead of the tokens' scales. Both
//!    products are exact, so what follows is the same.
//! 5. The tiles of a pair of panels together prefetch the next pair, a few lines a group each, so that
//!    reading memory hides behind the products.
//! 6. One token waits for memory, as do two or three of short rows: they read every line once, in the order
//!    in which it lies, because the processor fetches ahead of such a stream by itself and starts anew after
//!    every jump. The scales of a panel lie behind its weights; so the groups' sums are kept in the first
//!    level cache until then.
//! 7. So few tokens add the two steps of a line to sums of their own, so that fewer products wait for each
//!    other.

use core::arch::asm;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::sync::atomic::{Ordering, compiler_fence};

use super::bodies::finish;
use super::vector::first as first_lanes;
use crate::kernels::ahead::Ahead;
use crate::kernels::types::{CellWriter, Correction, Epilogue, Matmul, correction_factor};
use crate::quant::{
    BLOCK_INPUTS, GROUP_SIZES, LevelTable, PANEL_ROWS, STEP_INPUTS, Scheme, TILE_ALIGN,
};

/// The most tokens of a tile.
const TILE: usize = 6;
/// Tokens that a panel is multiplied with before the next one: few enough that their values stay in the
/// second level cache.
const TOKEN_BLOCK: usize = 16 * TILE;
/// How many corrections of a token are computed together.
const CORRECTIONS: usize = 32;
/// How many registers of groups' sums are kept until their scales are read: twice those of a row of 8192
/// inputs in groups of 64. Longer rows, or smaller groups, jump between weights and scales once in so many
/// sums: 16 KiB are a quarter of the smallest stack that a host's threads may have.
const KEPT: usize = 256;
/// Below how many bytes of values two or three tokens are streamed: from there on, the first level cache has
/// no room for values and sums, and tiles, which keep their sums in registers, are faster. So they are
/// for more tokens at any length.
const SHORT: usize = 6 << 10;
/// Pairs of steps in a row without a branch: the smallest group has so many.
const PAIRS: usize = 4;
const _: () = assert!(GROUP_SIZES[0] == 2 * PAIRS * STEP_INPUTS);
/// How many steps of levels are unpacked together for a block of tokens: 8 KiB for two panels.
const UNPACKED_STEPS: usize = 64;

/// Computes the outputs of `panels` for every token.
///
/// # Safety
/// That of [`Kernels::matmul`](crate::kernels::Kernels::matmul), which has checked all lengths.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn matmul(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.tokens() {
            0 => {}
            tokens if tokens <= most_streamed(job) => few_tokens(job, panels, out),
            _ => many_tokens(job, panels, out),
        }
    }
}

/// How many tokens are streamed: as many as memory keeps waiting, and whose values and sums leave room in the
/// first level cache.
fn most_streamed(job: &Matmul) -> usize {
    match job.weights.tiles.scheme() {
        Scheme::Nl4 | Scheme::Tc3 | Scheme::Tc2 => 1,
        // Tiles of int8 weights reach two thirds of what a stream reads that is fetched ahead of.
        Scheme::Int8 if Ahead::best().is_some() => 6,
        Scheme::Int4 if Ahead::best().is_some() => 3,
        _ if job.input.values.len() < SHORT => 3,
        _ => 1,
    }
}

/// Streams the panels once.
///
/// # Safety
/// That of [`matmul`]; there are 1 to [`most_streamed`] tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn few_tokens(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe {
        match (job.weights.tiles.scheme(), job.tokens()) {
            (Scheme::Int4, 1) => stream::<1, INT4>(job, panels, out),
            (Scheme::Int4, 2) => stream::<2, INT4>(job, panels, out),
            (Scheme::Int4, _) => stream::<3, INT4>(job, panels, out),
            (Scheme::Int8, 1) => stream::<1, INT8>(job, panels, out),
            (Scheme::Int8, 2) => stream::<2, INT8>(job, panels, out),
            (Scheme::Int8, 3) => stream::<3, INT8>(job, panels, out),
            (Scheme::Int8, 4) => stream::<4, INT8>(job, panels, out),
            (Scheme::Int8, 5) => stream::<5, INT8>(job, panels, out),
            (Scheme::Int8, _) => stream::<6, INT8>(job, panels, out),
            (Scheme::Nl4, _) => stream::<1, NL4>(job, panels, out),
            (Scheme::Tc3, _) => stream::<1, TC3>(job, panels, out),
            (Scheme::Tc2, _) => stream::<1, TC2>(job, panels, out),
        }
    }
}

/// The same for weights of scheme `S`.
///
/// # Safety
/// That of [`few_tokens`]; there are `T` tokens.
#[inline(never)] // or every caller's frame has room for the kept sums
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn stream<const T: usize, const S: u8>(
    job: &Matmul,
    panels: Range<usize>,
    out: &CellWriter,
) {
    let tiles = &job.weights.tiles;
    let row_factor = _mm512_set1_ps(job.weights.scale);
    let ahead = Ahead::best();
    let mut kept = [const { MaybeUninit::<__m512>::uninit() }; KEPT];
    let (kept, _) = kept.as_chunks_mut::<T>();
    for panel in panels {
        let mut acc = [_mm512_setzero_ps(); T];
        let data = job.weights.panel(panel).as_ptr();
        for first in (0..job.input.groups).step_by(kept.len()) {
            let groups = first..job.input.groups.min(first + kept.len());
            // SAFETY: as many tokens as there are, and groups as the panel has; sums are written before
            // they are read.
            unsafe {
                for (g, kept) in groups.clone().zip(&mut *kept) {
                    let group = data.add(g * tiles.group_bytes());
                    ahead.fetch(group, tiles.group_bytes());
                    let sums = line_sums::<T, S>(group, &Inputs::new(job, g, 0));
                    for (kept, sum) in kept.iter_mut().zip(sums) {
                        kept.write(_mm512_cvtepi32_ps(sum));
                    }
                }
                for (g, kept) in groups.zip(&*kept) {
                    let scales = data.add(tiles.scale_offset(0, g));
                    ahead.fetch(scales, 2 * PANEL_ROWS);
                    let scales = _mm256_loadu_si256(scales.cast());
                    let scales = _mm512_mul_ps(_mm512_cvtph_ps(scales), row_factor);
                    let token_scales = job.input.scales.as_ptr().add(g);
                    for (t, (sum, acc)) in kept.iter().zip(&mut acc).enumerate() {
                        let token_scale = _mm512_set1_ps(*token_scales.add(t * job.input.groups));
                        let scale = _mm512_mul_ps(scales, token_scale);
                        *acc = _mm512_fmadd_ps(sum.assume_init(), scale, *acc);
                    }
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { finish(job, panel, 0, &acc, out) };
    }
}

/// The exact sums of a group of scheme `S`.
///
/// # Safety
/// `data` is valid for reads of a group, and there are `T` tokens at `inputs`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn line_sums<const T: usize, const S: u8>(data: *const u8, inputs: &Inputs) -> [__m512i; T] {
    // SAFETY: the caller's promise; every group has an even number of lines.
    unsafe {
        inputs.prefetch_values::<T>();
        // Of even steps, and of odd ones.
        let mut sums = [inputs.corrections::<T>(), [_mm512_setzero_si512(); T]];
        let mut add = |unit: *const u8, within: usize, pair: usize| {
            for (i, weights) in two_steps::<S>(unit, within).into_iter().enumerate() {
                let sums = &mut sums[i];
                for (t, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_dpbusd_epi32(*sum, weights, inputs.values(t, 2 * pair + i));
                }
            }
        };
        if is_levels(S) {
            for unit in 0..inputs.steps / (2 * PAIRS) {
                let data = data.add(unit * unit_bytes(S));
                unrolled!(within in 0, 1, 2, 3 => { add(data, within, PAIRS * unit + within) });
            }
        } else {
            for pair in 0..inputs.steps / 2 {
                add(data.add(pair * unit_bytes(S) / PAIRS), 0, pair);
            }
        }
        let [mut sums, odd] = sums;
        for (sum, odd) in sums.iter_mut().zip(odd) {
            *sum = _mm512_add_epi32(*sum, odd);
        }
        sums
    }
}

/// Multiplies pairs of panels with a block of tokens, tile by tile.
///
/// # Safety
/// That of [`matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn many_tokens(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    for first in (0..job.tokens()).step_by(TOKEN_BLOCK) {
        let tokens = first..job.tokens().min(first + TOKEN_BLOCK);
        let odd = panels.len() % 2;
        // SAFETY: the caller's promise.
        unsafe {
            for panel in (panels.start..panels.end - odd).step_by(2) {
                token_block::<2>(job, panel, tokens.clone(), out);
            }
            if odd == 1 {
                token_block::<1>(job, panels.end - 1, tokens, out);
            }
        }
    }
}

/// The outputs of `P` panels from `panel` on for a block of tokens.
///
/// # Safety
/// That of [`matmul`]; the panels and tokens exist.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn token_block<const P: usize>(
    job: &Matmul,
    panel: usize,
    tokens: Range<usize>,
    out: &CellWriter,
) {
    let tiles = tokens.len().div_ceil(TILE);
    let bytes = P * job.weights.tiles.panel_bytes();
    // A batch or a draft waits for memory.
    let nearest = tiles <= 2 && Ahead::best().is_some();
    let lines = (bytes / TILE_ALIGN).div_ceil(tiles * job.input.groups);
    let next = job.weights.panel(panel).as_ptr().wrapping_add(bytes);
    let rows = panel * PANEL_ROWS..job.weights.tiles.rows().min((panel + P) * PANEL_ROWS);
    let residual = match job.epilogue {
        Epilogue::Store => Some(Residual::None),
        Epilogue::AddTo => Some(Residual::Added),
        Epilogue::AddScaled(factor) => Some(Residual::AddedScaled(factor)),
        _ => None,
    };
    let residual = residual.filter(|_| rows.len() == P * PANEL_ROWS);
    let bias = job.bias.map_or(&NO_BIAS[..rows.len()], |bias| &bias[rows.clone()]);
    // Tiles of about the same size: a small one would leave products waiting for each other.
    let (least, larger) = (tokens.len() / tiles, tokens.len() % tiles);
    let mut acc = [const { MaybeUninit::<[[__m512; TILE]; P]>::uninit() }; TOKEN_BLOCK / TILE];
    let mut unpacked = MaybeUninit::<[[__m512i; UNPACKED_STEPS]; P]>::uninit();
    let is_levels = job.weights.tiles.scheme().levels().is_some();
    let together = match is_levels {
        true => UNPACKED_STEPS * STEP_INPUTS / job.weights.tiles.group_size(),
        false => job.input.groups,
    };
    for start in (0..job.input.groups).step_by(together) {
        let groups = start..job.input.groups.min(start + together);
        let is_last = groups.end == job.input.groups;
        // SAFETY: the caller's promise; there is room for so many groups.
        let weights = unsafe {
            match is_levels {
                true => unpack::<P>(job, panel, groups.clone(), unpacked.as_mut_ptr().cast()),
                false => Lines::in_place(job, panel),
            }
        };
        let mut first = tokens.start;
        for (tile, acc) in acc[..tiles].iter_mut().enumerate() {
            let count = least + usize::from(tile < larger);
            let from = next.wrapping_add(tile * job.input.groups * lines * TILE_ALIGN);
            let prefetch = Prefetch { from, lines, nearest };
            // SAFETY: the caller's promise; so many tokens are left. The first cells of a tile lie within
            // the buffer, as all of them are asserted to.
            unsafe {
                if is_last {
                    for token in first..first + count {
                        prefetch_cells::<P>(out.cells(token, rows.clone()));
                    }
                }
                let cells = out.cells.add(first * out.stride + rows.start);
                let (stride, bias) = (out.stride, bias.as_ptr());
                let end = residual.map(|residual| End { cells, stride, bias, residual });
                let acc = acc.as_mut_ptr().cast::<[__m512; TILE]>();
                let tokens = first..first + count;
                multiply::<P>(job, &weights, groups.clone(), tokens, prefetch, acc, end.as_ref());
                for p in 0..if end.is_some() || !is_last { 0 } else { P } {
                    let acc = core::slice::from_raw_parts(acc.add(p).cast::<__m512>(), count);
                    finish(job, panel + p, first, acc, out);
                }
            }
            first += count;
        }
    }
}

/// Where panels' weights lie for a tile, each in a line or two for a pair of steps, and the panels' scales.
struct Lines {
    scheme: Scheme,
    /// Those of the first panel's group 0.
    data: *const u8,
    group_bytes: usize,
    /// From one panel to the next.
    stride: usize,
    /// Of the first panel's group 0.
    scales: *const u8,
    /// From one panel to the next.
    scale_stride: usize,
}

impl Lines {
    /// In the matrix.
    #[inline]
    fn in_place(job: &Matmul, panel: usize) -> Self {
        let tiles = &job.weights.tiles;
        let data = job.weights.panel(panel).as_ptr();
        Self {
            scheme: tiles.scheme(),
            data,
            group_bytes: tiles.group_bytes(),
            stride: tiles.panel_bytes(),
            scales: data.wrapping_add(tiles.scales_offset()),
            scale_stride: tiles.panel_bytes(),
        }
    }
}

/// Unpacks some groups of `P` panels to `to`: a line for each step, as int8 weights have.
///
/// # Safety
/// That of [`matmul`]; the panels and groups exist, and `to` is valid for writes of [`UNPACKED_STEPS`] lines for
/// each panel, as many as the groups have steps at least.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn unpack<const P: usize>(
    job: &Matmul,
    panel: usize,
    groups: Range<usize>,
    to: *mut u8,
) -> Lines {
    let mut lines = Lines::in_place(job, panel);
    let (tiles, start) = (&job.weights.tiles, groups.start);
    let units = groups.len() * tiles.group_size() / (2 * PAIRS * STEP_INPUTS);
    for p in 0..P {
        let data = lines.data.wrapping_add(p * lines.stride + start * lines.group_bytes);
        let to = to.wrapping_add(p * UNPACKED_STEPS * TILE_ALIGN);
        // SAFETY: the caller's promise.
        unsafe {
            match tiles.scheme() {
                Scheme::Tc3 => unpack_units::<TC3>(data, units, to),
                Scheme::Tc2 => unpack_units::<TC2>(data, units, to),
                _ => unpack_units::<NL4>(data, units, to),
            }
        }
    }
    lines.scheme = Scheme::Int8;
    lines.group_bytes = tiles.group_size() / STEP_INPUTS * TILE_ALIGN;
    lines.stride = UNPACKED_STEPS * TILE_ALIGN;
    lines.data = to.wrapping_sub(start * lines.group_bytes);
    lines
}

/// # Safety
/// `data` is valid for reads of so many units of scheme `S`, `to` for writes of a line for each step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn unpack_units<const S: u8>(data: *const u8, units: usize, to: *mut u8) {
    for unit in 0..units {
        let (data, to) = (data.wrapping_add(unit * unit_bytes(S)), to.cast::<__m512i>());
        // SAFETY: the caller's promise.
        unsafe {
            unrolled!(pair in 0, 1, 2, 3 => {
                let to = to.add(2 * (PAIRS * unit + pair));
                let [first, second] = two_steps::<S>(data, pair);
                _mm512_storeu_si512(to, first);
                _mm512_storeu_si512(to.add(1), second);
            });
        }
    }
}

/// Prefetches the cells of `P` panels that are written later. They may be in another core's cache, and few
/// such stores can wait at once.
#[inline]
fn prefetch_cells<const P: usize>(cells: &[f32]) {
    for p in 0..P {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(cells.as_ptr().wrapping_add(p * PANEL_ROWS).cast()) };
    }
}

/// What changes nothing when it is added.
static NO_BIAS: [f32; 2 * PANEL_ROWS] = [-0.0; 2 * PANEL_ROWS];

/// Where whole panels' outputs go that need a bias and a residual at most.
struct End {
    /// Those of the first token.
    cells: *mut f32,
    /// From one token's to the next one's.
    stride: usize,
    /// As long as the panels.
    bias: *const f32,
    residual: Residual,
}

/// What the cells get besides the outputs.
#[derive(Clone, Copy)]
enum Residual {
    /// Nothing: the outputs replace them.
    None,
    /// The outputs are added to them.
    Added,
    /// The same, times a factor.
    AddedScaled(f32),
}

/// What a tile prefetches of the next panels.
#[derive(Clone, Copy)]
struct Prefetch {
    from: *const u8,
    /// Lines in every group.
    lines: usize,
    /// Into the first level cache, not the second.
    nearest: bool,
}

/// The products of some groups of `P` panels with a tile of tokens: those of a row's last group are finished in
/// their cells if `end` says where those are, otherwise without bias in `acc`, the first so many registers of
/// each panel's.
///
/// # Safety
/// That of [`matmul`]; these tokens exist, at least 1 and at most [`TILE`]; `acc` is valid for reads and
/// writes of `P` panels, and what is at `end` belongs to these panels and tokens.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn multiply<const P: usize>(
    job: &Matmul,
    weights: &Lines,
    all: Range<usize>,
    tokens: Range<usize>,
    prefetch: Prefetch,
    acc: *mut [__m512; TILE],
    end: Option<&End>,
) {
    let tile = tile_of(P, tokens.len(), weights.scheme);
    let mut corrections = [[MaybeUninit::uninit(); CORRECTIONS]; TILE];
    // A group has one block or two.
    let shift = u32::from(job.input.blocks > job.input.groups);
    let mut done = all.start;
    while done < all.end {
        let groups = done..all.end.min(done + (CORRECTIONS >> shift));
        done = groups.end;
        // SAFETY: the caller's promise; the tokens' corrections are as many as `Kernels::matmul` has checked.
        unsafe {
            let mut from = job.input.corrections.as_ptr();
            from = from.add(tokens.start * job.input.blocks + (groups.start << shift));
            for corrections in &mut corrections[..tokens.len()] {
                multiply_corrections(job, from, groups.len() << shift, corrections);
                from = from.wrapping_add(job.input.blocks);
            }
            let end = end.filter(|_| done == job.input.groups);
            tile(
                job,
                weights,
                groups,
                tokens.start,
                corrections.as_ptr().cast(),
                prefetch,
                acc,
                end,
            );
        }
    }
}

type TileFn = unsafe fn(
    &Matmul,
    &Lines,
    Range<usize>,
    usize,
    *const [i32; CORRECTIONS],
    Prefetch,
    *mut [__m512; TILE],
    Option<&End>,
);

/// [`tile`] for so many panels and tokens.
fn tile_of(panels: usize, tokens: usize, scheme: Scheme) -> TileFn {
    macro_rules! tiles {
        ($(($p:literal, $t:literal))+) => {
            match (panels, tokens, scheme) {
                $(($p, $t, Scheme::Int4) => tile::<$p, $t, INT4>,
                ($p, $t, _) => tile::<$p, $t, INT8>,)+
                _ => unreachable!("a tile of {tokens} tokens and {panels} panels"),
            }
        };
    }
    tiles! {
        (2, 1) (2, 2) (2, 3) (2, 4) (2, 5) (2, 6)
        (1, 1) (1, 2) (1, 3) (1, 4) (1, 5) (1, 6)
    }
}

/// Adds the products of some groups of `P` panels with `T` tokens from `first` on, weights of scheme
/// `S`, int4 or int8. The row's first group begins with 0, whatever is in `out`; the last one's outputs go to
/// `end`, if there is one. Not inlined, so that the compiler gives the registers to one tile alone.
///
/// # Safety
/// That of [`multiply`]; these groups exist, and `corrections` has those of their blocks and of `T` tokens.
#[inline(never)]
#[allow(clippy::too_many_arguments, reason = "registers, all but two")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<const P: usize, const T: usize, const S: u8>(
    job: &Matmul,
    weights: &Lines,
    groups: Range<usize>,
    first: usize,
    corrections: *const [i32; CORRECTIONS],
    prefetch: Prefetch,
    out: *mut [__m512; TILE],
    end: Option<&End>,
) {
    let &Lines { data, group_bytes, stride, scales, scale_stride, .. } = weights;
    let row_factor = _mm512_set1_ps(job.weights.scale);
    let mut acc = [[_mm512_setzero_ps(); T]; P];
    // SAFETY: the groups and the tokens exist, and registers of `out` were written with the first group;
    // a prefetch never faults.
    unsafe {
        let out = out.cast::<__m512>();
        if groups.start > 0 {
            for (p, acc) in acc.iter_mut().enumerate() {
                for (t, acc) in acc.iter_mut().enumerate() {
                    *acc = *out.add(p * TILE + t);
                }
            }
        }
        let inputs = Inputs::new(job, groups.start, first);
        let mut corrections = corrections.cast::<i32>();
        let mut data = data.wrapping_add(groups.start * group_bytes);
        let mut row_scales = scales.add(groups.start * 2 * PANEL_ROWS);
        let mut token_scales = inputs.scales;
        let mut next = prefetch.from.wrapping_add(groups.start * prefetch.lines * TILE_ALIGN);
        let mut step = 0;
        for _ in groups {
            let mut sums = [[_mm512_setzero_si512(); T]; P];
            for t in 0..T {
                let mut correction = _mm512_set1_epi32(*corrections.add(t * CORRECTIONS));
                if inputs.two_blocks {
                    let second = _mm512_set1_epi32(*corrections.add(t * CORRECTIONS + 1));
                    correction = _mm512_add_epi32(correction, second);
                }
                sums.iter_mut().for_each(|sums| sums[t] = correction);
            }
            let end = step + inputs.steps;
            let mut line = data;
            loop {
                unrolled!(pair in 0, 1, 2, 3 => {
                    let line = line.add(pair * unit_bytes(S) / PAIRS);
                    let weights: [_; P] =
                        core::array::from_fn(|p| two_steps::<S>(line.add(p * stride), 0));
                    for i in 0..2 {
                        for t in 0..T {
                            let x = inputs.values(t, step + 2 * pair + i);
                            for (sums, weights) in sums.iter_mut().zip(&weights) {
                                sums[t] = _mm512_dpbusd_epi32(sums[t], weights[i], x);
                            }
                        }
                    }
                    // Or the compiler loads all weights first, for which there are no registers.
                    compiler_fence(Ordering::SeqCst);
                });
                line = line.add(unit_bytes(S));
                step += PAIRS * 2;
                if step >= end {
                    break;
                }
            }
            let scales: [_; P] = core::array::from_fn(|p| {
                let scales = _mm256_loadu_si256(row_scales.add(p * scale_stride).cast());
                _mm512_mul_ps(_mm512_cvtph_ps(scales), row_factor)
            });
            for t in 0..T {
                let token_scale = _mm512_set1_ps(*token_scales.add(t * inputs.groups));
                for ((acc, sums), &scales) in acc.iter_mut().zip(&sums).zip(&scales) {
                    let scale = _mm512_mul_ps(scales, token_scale);
                    add_product(&mut acc[t], _mm512_cvtepi32_ps(sums[t]), scale);
                }
            }
            for _ in 0..prefetch.lines {
                match prefetch.nearest {
                    true => _mm_prefetch::<_MM_HINT_T0>(next.cast()),
                    false => _mm_prefetch::<_MM_HINT_T1>(next.cast()),
                }
                next = next.wrapping_add(TILE_ALIGN);
            }
            data = data.wrapping_add(group_bytes);
            row_scales = row_scales.add(2 * PANEL_ROWS);
            token_scales = token_scales.add(1);
            corrections = corrections.add(1 + usize::from(inputs.two_blocks));
        }
        let Some(end) = end else {
            for (p, acc) in acc.iter().enumerate() {
                for (t, &acc) in acc.iter().enumerate() {
                    *out.add(p * TILE + t) = acc;
                }
            }
            return;
        };
        for (p, acc) in acc.iter().enumerate() {
            let bias = _mm512_loadu_ps(end.bias.add(p * PANEL_ROWS));
            for (t, &acc) in acc.iter().enumerate() {
                let cells = end.cells.add(t * end.stride + p * PANEL_ROWS);
                let mut y = _mm512_add_ps(acc, bias);
                match end.residual {
                    Residual::None => {}
                    Residual::Added => y = _mm512_add_ps(y, _mm512_loadu_ps(cells)),
                    Residual::AddedScaled(factor) => {
                        let scaled = _mm512_mul_ps(y, _mm512_set1_ps(factor));
                        y = _mm512_add_ps(scaled, _mm512_loadu_ps(cells));
                    }
                }
                _mm512_storeu_ps(cells, y);
            }
        }
    }
}

/// `acc = fma(x, y, acc)`, in the register where it is: the compiler would put it into that of `x`, and
/// back with a move, once for each of a tile.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_product(acc: &mut __m512, x: __m512, y: __m512) {
    // SAFETY: the processor has the instruction, which does nothing else.
    unsafe {
        asm!(
            "vfmadd231ps {acc}, {x}, {y}",
            acc = inout(zmm_reg) *acc,
            x = in(zmm_reg) x,
            y = in(zmm_reg) y,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
}

/// Schemes as parameters.
const INT8: u8 = Scheme::Int8 as u8;
const INT4: u8 = Scheme::Int4 as u8;
const NL4: u8 = Scheme::Nl4 as u8;
const TC3: u8 = Scheme::Tc3 as u8;
const TC2: u8 = Scheme::Tc2 as u8;

const fn is_levels(scheme: u8) -> bool {
    matches!(scheme, NL4 | TC3 | TC2)
}

/// Bytes of [`PAIRS`] pairs of steps.
const fn unit_bytes(scheme: u8) -> usize {
    TILE_ALIGN
        * match scheme {
            INT8 => Scheme::Int8.bits(),
            INT4 | NL4 => Scheme::Int4.bits(),
            TC3 => Scheme::Tc3.bits(),
            _ => Scheme::Tc2.bits(),
        }
}

/// The weights of a pair of steps of scheme `S`. Of levels, `pair` says which of a unit; of integers, it is 0, and
/// they lie at `data`.
///
/// # Safety
/// `data` is valid for reads of that pair, of levels of a unit.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn two_steps<const S: u8>(data: *const u8, pair: usize) -> [__m512i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let line = match S {
            INT8 => return [load_line(data, 0), load_line(data, 1)],
            TC3 | TC2 => along_path::<S>(data, pair),
            _ => load_line(data, pair),
        };
        let nibble = _mm512_set1_epi8(15);
        let high = _mm512_srli_epi16::<4>(line);
        let nibbles = [line, high].map(|nibbles| _mm512_and_si512(nibbles, nibble));
        match level_table::<S>() {
            Some(table) => {
                let table = _mm_loadu_si128(table.as_ptr().cast());
                let table = _mm512_broadcast_i32x4(table);
                nibbles.map(|indices| _mm512_shuffle_epi8(table, indices))
            }
            None => nibbles,
        }
    }
}

/// The indices of a pair of steps of levels along a path: in each nibble the level's own bits and, from bit 2 on, its
/// quarter.
///
/// # Safety
/// That of [`two_steps`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn along_path<const S: u8>(data: *const u8, pair: usize) -> __m512i {
    // SAFETY: the caller's promise.
    let own = unsafe {
        match (S, pair) {
            (TC3, 0 | 2) => load_line(data, pair / 2),
            (TC3, _) => _mm512_srli_epi16::<2>(load_line(data, pair / 2)),
            (_, 0) => load_line(data, 0),
            (_, 1) => _mm512_srli_epi16::<1>(load_line(data, 0)),
            (_, 2) => _mm512_srli_epi16::<2>(load_line(data, 0)),
            (_, _) => _mm512_srli_epi16::<3>(load_line(data, 0)),
        }
    };
    // SAFETY: the same; the path's line comes last.
    let [low, high] = quarters(unsafe { load_line(data, if S == TC3 { 2 } else { 1 }) });
    let (low, high) = match pair {
        0 => (_mm512_slli_epi16::<2>(low), _mm512_slli_epi16::<3>(high)),
        1 => (_mm512_slli_epi16::<1>(low), _mm512_slli_epi16::<2>(high)),
        2 => (low, _mm512_slli_epi16::<1>(high)),
        _ => (_mm512_srli_epi16::<1>(low), high),
    };
    // Of the third operand's bits, those of the second, else of the first.
    let index = _mm512_ternarylogic_epi32::<0xd8>(own, low, _mm512_set1_epi8(0x44));
    _mm512_ternarylogic_epi32::<0xd8>(index, high, _mm512_set1_epi8(0x88_u8 as i8))
}

/// See [`trellis::quarters`](crate::quant::quarters).
#[inline]
#[target_feature(enable = "avx512f")]
fn quarters(path: __m512i) -> [__m512i; 2] {
    let one_before = |path| {
        let last = _mm512_srli_epi32::<23>(path);
        // The first, or the second under the third.
        _mm512_ternarylogic_epi32::<0xf8>(
            _mm512_slli_epi32::<8>(path),
            last,
            _mm512_set1_epi32(0xfe),
        )
    };
    let before = one_before(path);
    [before, _mm512_xor_si512(path, one_before(before))]
}

const fn level_table<const S: u8>() -> Option<&'static LevelTable> {
    match S {
        NL4 => Scheme::Nl4.level_table(),
        TC3 => Scheme::Tc3.level_table(),
        TC2 => Scheme::Tc2.level_table(),
        _ => None,
    }
}

/// What the sums of some blocks of a token begin with.
///
/// # Safety
/// `from` is valid for reads of `count` corrections, at most [`CORRECTIONS`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn multiply_corrections(
    job: &Matmul,
    from: *const Correction,
    count: usize,
    to: &mut [MaybeUninit<i32>; CORRECTIONS],
) {
    let offset = _mm512_set1_epi16(correction_factor(job.weights.tiles.scheme()));
    let (to, _) = to.as_chunks_mut::<16>();
    for (i, to) in to.iter_mut().enumerate() {
        let first = i * 16;
        if first < count {
            let lanes = first_lanes((count - first).min(16));
            // SAFETY: the caller's promise; a correction is two 16-bit integers; other lanes are not read.
            unsafe {
                let pairs = _mm512_maskz_loadu_epi32(lanes, from.add(first).cast());
                _mm512_storeu_si512(to.as_mut_ptr().cast(), _mm512_madd_epi16(pairs, offset));
            }
        }
    }
}

/// The 64 bytes of a line.
///
/// # Safety
/// `data` is valid for reads up to the end of that line.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_line(data: *const u8, line: usize) -> __m512i {
    // SAFETY: the caller's promise; the load may be unaligned.
    unsafe { _mm512_loadu_si512(data.cast::<__m512i>().add(line)) }
}

/// One group's inputs of consecutive tokens: where those of the first lie, and how far apart they are.
struct Inputs {
    /// Steps of 4 values.
    values: *const i32,
    /// From one token's values to the next one's.
    stride: usize,
    /// [`Correction`]s.
    corrections: *const i32,
    blocks: usize,
    scales: *const f32,
    groups: usize,
    /// Steps of the group.
    steps: usize,
    /// Whether it has two blocks.
    two_blocks: bool,
    /// The offset of the weights is so many times that of int4.
    offset: i16,
}

impl Inputs {
    /// The group's inputs of the tokens from `first` on.
    ///
    /// # Safety
    /// The input has this group and this token.
    #[inline]
    unsafe fn new(job: &Matmul, group: usize, first: usize) -> Self {
        let (input, tiles) = (&job.input, &job.weights.tiles);
        let two_blocks = tiles.group_size() > BLOCK_INPUTS;
        // SAFETY: `Kernels::matmul` has checked the lengths of the slices.
        unsafe {
            let values = input.values.as_ptr().add(first * input.padded_cols);
            let corrections = input.corrections.as_ptr().add(first * input.blocks);
            let scales = input.scales.as_ptr().add(first * input.groups);
            Self {
                values: values.add(group * tiles.group_size()).cast(),
                stride: input.padded_cols / STEP_INPUTS,
                corrections: corrections.add(if two_blocks { 2 * group } else { group }).cast(),
                blocks: input.blocks,
                scales: scales.add(group),
                groups: input.groups,
                steps: tiles.group_size() / STEP_INPUTS,
                two_blocks,
                offset: correction_factor(tiles.scheme()),
            }
        }
    }

    /// What the sums of `T` tokens begin with.
    ///
    /// # Safety
    /// There are `T` tokens.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn corrections<const T: usize>(&self) -> [__m512i; T] {
        let offset = _mm512_set1_epi16(self.offset);
        let mut corrections = [_mm512_setzero_si512(); T];
        for (t, sum) in corrections.iter_mut().enumerate() {
            // SAFETY: the caller's promise; a correction is two 16-bit integers.
            unsafe {
                let correction = self.corrections.add(t * self.blocks);
                let pair = _mm512_set1_epi32(correction.read_unaligned());
                *sum = _mm512_dpwssd_epi32(*sum, pair, offset);
                if self.two_blocks {
                    let pair = _mm512_set1_epi32(correction.add(1).read_unaligned());
                    *sum = _mm512_dpwssd_epi32(*sum, pair, offset);
                }
            }
        }
        corrections
    }

    /// Prefetches the values of the group after the next one: long rows of values do not stay in the first
    /// level cache while weights stream through it.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn prefetch_values<const T: usize>(&self) {
        const STEPS_PER_LINE: usize = TILE_ALIGN / STEP_INPUTS;
        for t in 0..T {
            for step in (0..self.steps).step_by(STEPS_PER_LINE) {
                let ahead = self.values.wrapping_add(t * self.stride + 2 * self.steps + step);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
        }
    }

    /// A step of token `t`'s values in every lane.
    ///
    /// # Safety
    /// There are this token and this step.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn values(&self, t: usize, step: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi32(self.values.add(t * self.stride + step).read_unaligned()) }
    }
}
