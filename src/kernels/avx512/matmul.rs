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
//! 1. Tokens and panels run innermost, in tiles of 12 tokens x 2 panels: their 24 registers of sums, 2
//!    of weights and one of values leave 5 of the 32 free. A step's weights are loaded once for 12
//!    tokens and a token's values once for 2 panels, so that a product takes 14/24 of a load.
//! 2. A group is unpacked into a buffer in the first level cache, a step per register, once for the
//!    [`TOKEN_BLOCK`] tokens that use it. Int8 is only copied, and so shares the tiles.
//! 3. The weights' offset is where the sums start; a token's [`Start`](crate::kernels::Start) is one
//!    `vpdpwssd`, which also multiplies it for int8.
//! 4. A group's scales are multiplied by the matrix's power of two instead of the tokens' scales. Both
//!    products are exact, so what follows is the same.
//! 5. Few tokens leave the memory waiting if they unpack into a buffer: they unpack on the way, a panel
//!    at a time, the two steps of a line into sums of their own, so that fewer products wait for each
//!    other.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use super::math::activate;
use super::{first as first_lanes, load_part};
use crate::kernels::{CellWriter, Epilogue, Matmul};
use crate::quant::{BLOCK_INPUTS, PANEL_ROWS, STEP_INPUTS, Scheme, TILE_ALIGN};

/// Tokens that share an unpacked group.
const TOKEN_BLOCK: usize = 96;
/// Steps in a round of the innermost loop.
const UNROLL: usize = 4;
/// How far ahead of the group that is unpacked its successors are fetched.
const PREFETCH_BYTES: usize = 2048;
/// Steps of the largest group.
const MAX_STEPS: usize = 128 / STEP_INPUTS;

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
            1 => few_tokens::<1>(job, panels, out),
            2 => few_tokens::<2>(job, panels, out),
            3 => few_tokens::<3>(job, panels, out),
            4 => few_tokens::<4>(job, panels, out),
            _ => many_tokens(job, panels, out),
        }
    }
}

/// Streams the panels once, unpacking on the way.
///
/// # Safety
/// That of [`matmul`]; there are `T` tokens.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn few_tokens<const T: usize>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    for panel in panels {
        let mut acc = [[_mm512_setzero_ps(); 1]; T];
        for g in 0..job.input.groups {
            // SAFETY: as many tokens as there are, and groups as the panel has.
            unsafe {
                let inputs = Inputs::new(job, g, 0);
                let data = job.weights.panel(panel).as_ptr();
                let data = data.add(g * job.weights.tiles.group_bytes());
                let sums = match job.weights.tiles.scheme() {
                    Scheme::Int4 => line_sums::<T, 2>(data, &inputs),
                    Scheme::Int8 => line_sums::<T, 1>(data, &inputs),
                };
                inputs.scale_and_add(sums, [row_scales(job, panel, g)], &mut acc);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { finish(job, panel, 0, &acc, 0, out) };
    }
}

/// The exact sums of a group that is unpacked on the way, `S` steps a line: int4 if 2.
///
/// # Safety
/// `data` is valid for reads of a group, and there are `T` tokens at `inputs`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn line_sums<const T: usize, const S: usize>(
    data: *const u8,
    inputs: &Inputs,
) -> [[__m512i; 1]; T] {
    let nibble = _mm512_set1_epi8(15);
    // SAFETY: the caller's promise; every group has an even number of lines.
    unsafe {
        // Of even steps, and of odd ones.
        let mut sums = [[[_mm512_setzero_si512(); 1]; T]; 2];
        sums[0] = inputs.starts::<1, T>();
        for pair in 0..inputs.steps / 2 {
            let weights = if S == 2 {
                let line = load_line(data, pair);
                let high = _mm512_srli_epi16::<4>(line);
                [_mm512_and_si512(line, nibble), _mm512_and_si512(high, nibble)]
            } else {
                [load_line(data, 2 * pair), load_line(data, 2 * pair + 1)]
            };
            for (i, (sums, weights)) in sums.iter_mut().zip(weights).enumerate() {
                for (t, [sum]) in sums.iter_mut().enumerate() {
                    *sum = _mm512_dpbusd_epi32(*sum, weights, inputs.values(t, 2 * pair + i));
                }
            }
        }
        let [mut sums, odd] = sums;
        for ([sum], [odd]) in sums.iter_mut().zip(odd) {
            *sum = _mm512_add_epi32(*sum, odd);
        }
        sums
    }
}

/// Unpacks each group once for a block of tokens.
///
/// # Safety
/// That of [`matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn many_tokens(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    for first in (0..job.tokens()).step_by(TOKEN_BLOCK) {
        let tokens = (job.tokens() - first).min(TOKEN_BLOCK);
        let odd = panels.len() % 2;
        // SAFETY: the caller's promise.
        unsafe {
            for panel in (panels.start..panels.end - odd).step_by(2) {
                token_block::<2>(job, panel, first, tokens, out);
            }
            if odd == 1 {
                token_block::<1>(job, panels.end - 1, first, tokens, out);
            }
        }
    }
}

/// The outputs of `P` panels from `panel` on for a block of tokens.
///
/// # Safety
/// That of [`matmul`]; the panels and tokens exist, at most [`TOKEN_BLOCK`] of these.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn token_block<const P: usize>(
    job: &Matmul,
    panel: usize,
    first: usize,
    tokens: usize,
    out: &CellWriter,
) {
    let mut steps = [const { MaybeUninit::<[__m512i; P]>::uninit() }; MAX_STEPS];
    let mut acc = [[_mm512_setzero_ps(); P]; TOKEN_BLOCK];
    let acc = &mut acc[..tokens];
    for g in 0..job.input.groups {
        for p in 0..P {
            unpack(job, panel + p, g, p, &mut steps);
        }
        let mut scales = [_mm512_setzero_ps(); P];
        for (p, scales) in scales.iter_mut().enumerate() {
            *scales = row_scales(job, panel + p, g);
        }
        // SAFETY: the tokens lie within the input, and `steps` holds what was unpacked.
        unsafe {
            let mut inputs = Inputs::new(job, g, first);
            let steps = steps.as_ptr().cast();
            let rest = tiles::<P, 12>(steps, &mut inputs, scales, acc);
            let rest = tiles::<P, 8>(steps, &mut inputs, scales, rest);
            let rest = tiles::<P, 6>(steps, &mut inputs, scales, rest);
            let rest = tiles::<P, 4>(steps, &mut inputs, scales, rest);
            let rest = tiles::<P, 2>(steps, &mut inputs, scales, rest);
            tiles::<P, 1>(steps, &mut inputs, scales, rest);
        }
    }
    for p in 0..P {
        // SAFETY: the caller's promise.
        unsafe { finish(job, panel + p, first, acc, p, out) };
    }
}

/// Adds a group's products with the tokens of `acc` to it, as many whole tiles of `T` as there are;
/// returns the others. Not inlined, so that the compiler gives the registers to one tile alone.
///
/// # Safety
/// There are as many tokens at `inputs`, and `steps` is valid for reads of the group's steps.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tiles<'a, const P: usize, const T: usize>(
    steps: *const [__m512i; P],
    inputs: &mut Inputs,
    scales: [__m512; P],
    acc: &'a mut [[__m512; P]],
) -> &'a mut [[__m512; P]] {
    let (tiles, rest) = acc.as_chunks_mut::<T>();
    for acc in tiles {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = inputs.starts::<P, T>();
            for round in (0..inputs.steps).step_by(UNROLL) {
                for step in round..round + UNROLL {
                    let weights = *steps.add(step);
                    for (t, sums) in sums.iter_mut().enumerate() {
                        let x = inputs.values(t, step);
                        for (sum, weights) in sums.iter_mut().zip(weights) {
                            *sum = _mm512_dpbusd_epi32(*sum, weights, x);
                        }
                    }
                }
            }
            inputs.scale_and_add(sums, scales, acc);
        }
        inputs.advance(T);
    }
    rest
}

/// Puts the steps of a group of a panel into the buffer's column `p`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn unpack<const P: usize>(
    job: &Matmul,
    panel: usize,
    group: usize,
    p: usize,
    steps: &mut [MaybeUninit<[__m512i; P]>; MAX_STEPS],
) {
    let tiles = &job.weights.tiles;
    let data = &job.weights.panel(panel)[group * tiles.group_bytes()..][..tiles.group_bytes()];
    let nibble = _mm512_set1_epi8(15);
    let mut put = |step: usize, weights: __m512i| {
        let to = steps[step].as_mut_ptr().cast::<__m512i>();
        // SAFETY: a step has `P` columns.
        unsafe { to.add(p).write(weights) };
    };
    for (i, line) in data.chunks_exact(TILE_ALIGN).enumerate() {
        // SAFETY: a prefetch never faults; a line is 64 bytes.
        let line = unsafe {
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(PREFETCH_BYTES).cast());
            load_line(line.as_ptr(), 0)
        };
        match tiles.scheme() {
            Scheme::Int4 => {
                put(2 * i, _mm512_and_si512(line, nibble));
                put(2 * i + 1, _mm512_and_si512(_mm512_srli_epi16::<4>(line), nibble));
            }
            Scheme::Int8 => put(i, line),
        }
    }
}

/// The scales of a group's 16 rows times the matrix's power of two.
#[inline]
#[target_feature(enable = "avx512f")]
fn row_scales(job: &Matmul, panel: usize, group: usize) -> __m512 {
    let at = job.weights.tiles.scale_offset(0, group);
    let scales = &job.weights.panel(panel)[at..][..2 * PANEL_ROWS];
    // SAFETY: a row's scale takes 2 bytes; the load may be unaligned.
    let scales = unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) };
    _mm512_mul_ps(_mm512_cvtph_ps(scales), _mm512_set1_ps(job.weights.scale))
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
    /// [`Start`](crate::kernels::Start)s.
    starts: *const i32,
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
            let starts = input.starts.as_ptr().add(first * input.blocks);
            let scales = input.scales.as_ptr().add(first * input.groups);
            Self {
                values: values.add(group * tiles.group_size()).cast(),
                stride: input.padded_cols / STEP_INPUTS,
                starts: starts.add(if two_blocks { 2 * group } else { group }).cast(),
                blocks: input.blocks,
                scales: scales.add(group),
                groups: input.groups,
                steps: tiles.group_size() / STEP_INPUTS,
                two_blocks,
                offset: (tiles.scheme().offset() / Scheme::Int4.offset()) as i16,
            }
        }
    }

    fn advance(&mut self, tokens: usize) {
        self.values = self.values.wrapping_add(tokens * self.stride);
        self.starts = self.starts.wrapping_add(tokens * self.blocks);
        self.scales = self.scales.wrapping_add(tokens * self.groups);
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

    /// Where the sums of `T` tokens start, for each of `P` panels.
    ///
    /// # Safety
    /// There are `T` tokens.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn starts<const P: usize, const T: usize>(&self) -> [[__m512i; P]; T] {
        let offset = _mm512_set1_epi16(self.offset);
        let mut starts = [[_mm512_setzero_si512(); P]; T];
        for (t, starts) in starts.iter_mut().enumerate() {
            // SAFETY: the caller's promise; a start is two 16-bit integers.
            unsafe {
                let start = self.starts.add(t * self.blocks);
                let pair = _mm512_set1_epi32(start.read_unaligned());
                let mut sum = _mm512_dpwssd_epi32(_mm512_setzero_si512(), pair, offset);
                if self.two_blocks {
                    let pair = _mm512_set1_epi32(start.add(1).read_unaligned());
                    sum = _mm512_dpwssd_epi32(sum, pair, offset);
                }
                *starts = [sum; P];
            }
        }
        starts
    }

    /// Adds a group's sums, times the scales of rows and tokens, to the accumulators.
    ///
    /// # Safety
    /// There are `T` tokens.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scale_and_add<const P: usize, const T: usize>(
        &self,
        sums: [[__m512i; P]; T],
        scales: [__m512; P],
        acc: &mut [[__m512; P]; T],
    ) {
        for (t, (sums, acc)) in sums.into_iter().zip(acc).enumerate() {
            // SAFETY: the caller's promise.
            let token_scale = _mm512_set1_ps(unsafe { *self.scales.add(t * self.groups) });
            for ((sum, scales), acc) in sums.into_iter().zip(scales).zip(acc) {
                let scale = _mm512_mul_ps(scales, token_scale);
                *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, *acc);
            }
        }
    }
}

/// Bias, then residual or activation, into the cells of `panel`, whose outputs are column `p` of `acc`,
/// and the tokens from `first` on.
///
/// # Safety
/// Nobody else uses these cells, which exist.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
unsafe fn finish<const P: usize>(
    job: &Matmul,
    panel: usize,
    first: usize,
    acc: &[[__m512; P]],
    p: usize,
    out: &CellWriter,
) {
    let first_row = panel * PANEL_ROWS;
    let rows = first_row..job.weights.tiles.rows().min(first_row + PANEL_ROWS);
    let lanes = first_lanes(rows.len());
    // -0 is what changes nothing when it is added.
    let bias = job.bias.map_or(_mm512_set1_ps(-0.0), |bias| load_part(&bias[rows.clone()]));
    for (t, acc) in acc.iter().enumerate() {
        let y = _mm512_add_ps(acc[p], bias);
        // SAFETY: the caller's promise; lanes beyond the cells are neither read nor written.
        unsafe {
            let cells = out.cells(first + t, rows.clone()).as_mut_ptr();
            let y = apply(job.epilogue, y, _mm512_maskz_loadu_ps(lanes, cells));
            _mm512_mask_storeu_ps(cells, lanes, y);
        }
    }
}

/// The epilogue on 16 outputs, given what the cells hold.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn apply(epilogue: Epilogue, y: __m512, cells: __m512) -> __m512 {
    match epilogue {
        Epilogue::Store => y,
        Epilogue::AddTo => _mm512_add_ps(y, cells),
        Epilogue::MultiplyTo => _mm512_mul_ps(y, cells),
        Epilogue::Scale(factor) => _mm512_mul_ps(y, _mm512_set1_ps(factor)),
        Epilogue::Activate(activation) => activate(activation, y),
    }
}
