//! The table of an instruction set's functions, and what must be true of their arguments.

use core::ops::Range;

use super::isa::Isa;
use super::types::{
    Attention, AttentionScratch, CellWriter, EmbeddingRow, HeadCacheMut, LayerNorm, MOST_QUERIES,
    Matmul, QUERY_BLOCK, QuantizedRowMut, RmsNorm, SEGMENT, is_within, padded_head_size,
    part_width, slot,
};
use crate::float::fma;
use crate::math;
use crate::quant::{GROUP_SIZES, block_size};

type EmbedFn = unsafe fn(&EmbeddingRow, &mut [f32]);
type QuantizeFn = unsafe fn(&[f32], usize, QuantizedRowMut);
type LayerNormFn = unsafe fn(&[f32], &LayerNorm, &mut [f32]);
type AnglesFn = unsafe fn(u32, &[f64], f64, (&mut [f32], &mut [f32]));
type RotateFn = unsafe fn(&mut [f32], &[f32], &[f32]);
type RmsNormFn = unsafe fn(&[f32], &RmsNorm, &mut [f32]);
type MatmulFn = unsafe fn(&Matmul, Range<usize>, &CellWriter);
type StoreFn = unsafe fn(&mut HeadCacheMut, usize, &[f32], &[f32]);
type AttendFn = unsafe fn(&Attention, &mut AttentionScratch, &CellWriter);

/// Work for [`Kernels::run`]: arithmetic of scalars whose fused multiply-adds are worth an instruction. As
/// a call each of them takes ten times as long, and weighing a large vocabulary as long as evaluating a small
/// model.
pub trait Work {
    /// What it results in.
    type Output;

    /// Does it. To be marked `#[inline(always)]`, as all that it calls, so that it is compiled for the
    /// instruction set of whoever calls it.
    fn run(self) -> Self::Output;
}

/// # Safety
/// The processor supports AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_with_avx2<W: Work>(work: W) -> W::Output {
    work.run()
}

/// # Safety
/// The processor supports FMA.
#[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
#[target_feature(enable = "fma")]
unsafe fn run_with_fma<W: Work>(work: W) -> W::Output {
    work.run()
}

/// [`Kernels::add`]: the compiler makes vectors of it.
struct Add<'a> {
    out: &'a mut [f32],
    x: &'a [f32],
}

impl Work for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            *out += x;
        }
    }
}

/// [`Kernels::merge`], as work (`docs/numbers.md` section 7).
struct Merge<'a> {
    rows: &'a [f32],
    stride: usize,
    columns: Range<usize>,
    out: &'a mut [f32],
}

impl Work for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let size = self.out.len();
        let mut so_far = (f32::NEG_INFINITY, 0.0);
        for (index, row) in self.rows.chunks_exact(self.stride).enumerate() {
            let part = &row[self.columns.clone()];
            let (m2, l2) = (part[size], part[size + 1]);
            if index == 0 {
                self.out.copy_from_slice(&part[..size]);
                so_far = (m2, l2);
                continue;
            }
            let (m1, l1) = so_far;
            let max = if m2 > m1 { m2 } else { m1 };
            let (a1, a2) = (math::exp2(m1 - max), math::exp2(m2 - max));
            so_far = (max, fma(l2, a2, l1 * a1));
            for (out, &part) in self.out.iter_mut().zip(part) {
                *out = fma(part, a2, *out * a1);
            }
        }
        let inverse = 1.0 / so_far.1;
        self.out.iter_mut().for_each(|out| *out *= inverse);
    }
}

/// Asserts that what a kernel is given fits together. One message for all: the place tells them apart, and the texts
/// of the conditions would be 2 KB of a small library.
macro_rules! fits {
    ($condition:expr) => {
        assert!($condition, "what a kernel is given does not fit together")
    };
}

/// The kernels of one instruction set, which this processor supports.
///
/// The methods check shapes, then call the table's function. Every such function is unsafe for one
/// reason only, that the processor must support its instructions, except `matmul` and `attend`.
pub struct Kernels {
    pub(super) isa: Isa,
    pub(super) embed: EmbedFn,
    pub(super) quantize: QuantizeFn,
    pub(super) layer_norm: LayerNormFn,
    pub(super) rms_norm: RmsNormFn,
    pub(super) angles: AnglesFn,
    pub(super) rotate: RotateFn,
    pub(super) matmul: MatmulFn,
    pub(super) store: StoreFn,
    pub(super) attend: AttendFn,
}

impl Kernels {
    /// Which instruction set they use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Does work that has one source for all instruction sets, compiled for this one.
    #[allow(clippy::match_single_binding, reason = "processors other than x86 have one way")]
    pub fn run<W: Work>(&self, work: W) -> W::Output {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => {
                // SAFETY: `self` exists only if the processor supports its instruction set, each of which
                // includes AVX2 and FMA (`avx2::is_supported`).
                unsafe { run_with_avx2(work) }
            }
            #[cfg(any(target_arch = "x86", all(target_arch = "x86_64", feature = "scalar-fma")))]
            // SAFETY: `self` exists only if the processor supports FMA.
            Isa::ScalarFma => unsafe { run_with_fma(work) },
            // 64-bit Arm always has it; for any other processor it is a call.
            _ => work.run(),
        }
    }

    /// `out = (embedding row + position) * scale`, each `[n_embd]`; the row is transformed back first.
    pub fn embed(&self, row: &EmbeddingRow, out: &mut [f32]) {
        assert_eq!(out.len(), row.weights.tiles.cols());
        fits!(row.position.is_none_or(|position| position.len() == out.len()));
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.embed)(row, out) }
    }

    /// Quantizes one token's row in groups of `group_size`, after its Hadamard transform.
    pub fn quantize(&self, x: &[f32], group_size: usize, out: QuantizedRowMut) {
        fits!(GROUP_SIZES.contains(&group_size));
        let groups = x.len().div_ceil(group_size);
        assert_eq!(out.values.len(), groups * group_size);
        assert_eq!(out.scales.len(), groups);
        assert_eq!(out.corrections.len(), out.values.len() / block_size(group_size));
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.quantize)(x, group_size, out) }
    }

    /// Layer norm of one token's row.
    pub fn layer_norm(&self, x: &[f32], norm: &LayerNorm, out: &mut [f32]) {
        let n = x.len();
        fits!(norm.weight.len() == n && norm.bias.len() == n && out.len() == n);
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.layer_norm)(x, norm, out) }
    }

    /// RMS norm of one token's row.
    pub fn rms_norm(&self, x: &[f32], norm: &RmsNorm, out: &mut [f32]) {
        fits!(norm.weight.len() == x.len() && out.len() == x.len());
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.rms_norm)(x, norm, out) }
    }

    /// `out = out + x`: a branch that was normed joins the residual.
    pub fn add(&self, out: &mut [f32], x: &[f32]) {
        assert_eq!(out.len(), x.len());
        self.run(Add { out, x });
    }

    /// Cosines and sines of the angles `position * inverse_frequencies[i]` in radians, times a factor,
    /// into `cos` and `sin`, `[pairs of a head]` each. Positions are at most 2^20 and frequencies at
    /// most 1, or the angles are at most [`MAX_ANGLE`](crate::math::angle::MAX_ANGLE) otherwise.
    pub fn angles(
        &self,
        position: u32,
        inverse_frequencies: &[f64],
        factor: f64,
        (cos, sin): (&mut [f32], &mut [f32]),
    ) {
        fits!(cos.len() == inverse_frequencies.len() && sin.len() == cos.len());
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.angles)(position, inverse_frequencies, factor, (cos, sin)) }
    }

    /// Rotates the pairs `(i, i + n)` of a head `[head size]` in place, `n` the number of angles: at
    /// most half the head size; the dimensions after them stay.
    pub fn rotate(&self, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        fits!(cos.len() == sin.len() && 2 * cos.len() <= head.len());
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.rotate)(head, cos, sin) }
    }

    /// The outputs of `panels` (16 rows each) for every token, into `out` `[tokens][rows]`.
    ///
    /// # Safety
    /// Nobody else reads or writes the cells of these panels' rows in `out` during the call.
    pub unsafe fn matmul(&self, job: &Matmul, panels: Range<usize>, out: &CellWriter) {
        let (tiles, input) = (&job.weights.tiles, &job.input);
        fits!(panels.end <= tiles.panels());
        fits!(input.padded_cols == tiles.padded_cols());
        fits!(input.groups == tiles.groups() && input.blocks == tiles.blocks());
        let tokens = job.tokens();
        assert_eq!(input.values.len(), tokens * input.padded_cols);
        assert_eq!(input.scales.len(), tokens * input.groups);
        assert_eq!(input.corrections.len(), tokens * input.blocks);
        fits!(job.bias.is_none_or(|bias| bias.len() == tiles.rows()));
        fits!(out.tokens >= tokens && out.stride >= tiles.rows());
        // SAFETY: `self` exists only if the processor supports it; the cells are the caller's promise.
        unsafe { (self.matmul)(job, panels, out) }
    }

    /// Puts the key and value `[head size]` of `position` into a head's cache: into slot
    /// `position % capacity`.
    pub fn store(&self, head: &mut HeadCacheMut, position: usize, key: &[f32], value: &[f32]) {
        let size = key.len();
        fits!(size > 0 && size == value.len());
        let capacity = head.capacity(size);
        assert!(is_within(position + 1, capacity), "position {position} of capacity {capacity}");
        // SAFETY: `self` exists only if the processor supports it.
        unsafe { (self.store)(head, slot(position, capacity), key, value) }
    }

    /// Attention of the queries that share a head of the cache, into their cells of `out`
    /// `[tokens][query heads * head size]`.
    ///
    /// # Safety
    /// Nobody else reads or writes the cells `job.columns_of(member)` of `job.tokens` in `out` during the
    /// call, for any member of the group; with `job.segment`, those of the group's heads in the row of that
    /// number.
    pub unsafe fn attend(&self, job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
        let (size, group, tokens) = (job.columns.len(), job.group, &job.tokens);
        fits!(size > 0 && group > 0 && !tokens.is_empty());
        fits!(tokens.len() <= MOST_QUERIES && group <= MOST_QUERIES);
        fits!(tokens.len() * group <= MOST_QUERIES);
        fits!(job.columns_of(group - 1).end <= job.stride);
        fits!(tokens.end * job.stride <= job.queries.len());
        fits!(job.bias.is_none_or(|bias| bias.slopes.len() == group) && job.window != Some(0));
        let capacity = job.cache.capacity(size);
        let first = job.visible(job.position + tokens.start).start;
        let end = job.position + tokens.end;
        let fits = end - first <= capacity && is_within(end, capacity);
        assert!(fits, "positions {first} to {end} in a cache of capacity {capacity}");
        fits!(job.cache.has_room(size, capacity));
        fits!(job.segment.is_none_or(|segment| {
            let positions = segment * SEGMENT..(segment + 1) * SEGMENT;
            let sees = positions.start < end && first < positions.end;
            sees && tokens.len() == 1 && job.columns.start.is_multiple_of(size)
        }));
        let [block, padded] = [QUERY_BLOCK, MOST_QUERIES].map(|n| n * padded_head_size(size));
        fits!(scratch.queries.len() == padded && scratch.queries_i8.len() == padded);
        fits!(scratch.sums.len() == padded && scratch.part.len() == block);
        assert_eq!(scratch.scores.len(), QUERY_BLOCK * SEGMENT);
        // SAFETY: `self` exists only if the processor supports it; the cells are the caller's promise.
        unsafe { (self.attend)(job, scratch, out) }
    }

    /// Merges what a query gathered in consecutive segments, its columns of their rows of `stride` floats, from
    /// the first one that it sees on. [`part_width`] describes them; `out` is `[head size]`.
    pub fn merge(&self, rows: &[f32], stride: usize, columns: Range<usize>, out: &mut [f32]) {
        fits!(columns.len() == part_width(out.len()) && columns.end <= stride);
        fits!(!rows.is_empty() && rows.len().is_multiple_of(stride));
        self.run(Merge { rows, stride, columns, out });
    }
}
