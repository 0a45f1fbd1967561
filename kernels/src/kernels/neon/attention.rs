//! Attention over the cache (`docs/numbers.md` section 7).
//!
//! The plain algorithm, for one query, is the scalar one. How this departs from it:
//!
//! 1. Up to [`QUERY_BLOCK`] queries go through a segment together, so that a key or value is loaded
//!    and converted once for all of them. A tile of queries x keys, or queries x dimensions, keeps its
//!    sums in registers; the order of additions within a sum is the definition's.
//! 2. A single query takes several panels of keys or many dimensions at once instead, because the
//!    additions of one sum wait for each other: 16 sums hide the latency of a fused multiply-add.
//! 3. Scores are computed for whole panels. Those of positions that a query does not see are replaced
//!    by -infinity, whose weight is +0, and their values are never touched.

use std::arch::aarch64::{
    float32x4_t, vld1_s8, vld1q_f32, vld1q_s8, vld1q_u16, vst1_s8, vst1q_f32, vst1q_u16,
};
use std::array::from_fn;
use std::ops::Range;

use super::dot::{I32x16, Level};
use super::instructions::*;
use super::math::exp2;
use super::quantize::{magnitude_bits, pack, round};
use super::{F32x8, add16, fma16, fold16, load16, mul16, splat16};
use super::{store16, sub16};
use crate::kernels::scalar::{f16_to_f32, scale_for};
use crate::kernels::{
    Attention, AttentionScratch, CellWriter, HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP,
    QUERY_BLOCK, SEGMENT, padded_head_size,
};
use crate::math;

/// Values that are converted together: two registers of floats.
const LANES: usize = 8;

/// Puts the key and value of one position into the cache.
pub(super) fn store(head: &mut HeadCacheMut, position: usize, key: &[f32], value: &[f32]) {
    let (panel, lane) = (position / KEY_PANEL, position % KEY_PANEL);
    let size = key.len();
    match head {
        HeadCacheMut::F16 { keys, values } => {
            let keys = &mut keys[panel * size * KEY_PANEL..][..size * KEY_PANEL];
            let values = &mut values[position * size..][..size];
            for (key, keys) in key.chunks(LANES).zip(keys.chunks_mut(LANES * KEY_PANEL)) {
                let key = to_f16(key);
                for (key, keys) in key.into_iter().zip(keys.chunks_exact_mut(KEY_PANEL)) {
                    keys[lane] = key;
                }
            }
            for (value, values) in value.chunks(LANES).zip(values.chunks_mut(LANES)) {
                values.copy_from_slice(&to_f16(value)[..values.len()]);
            }
        }
        HeadCacheMut::Int8 { keys, key_scales, values, value_scales } => {
            let panel_size = size.next_multiple_of(KEY_STEP) * KEY_PANEL;
            let keys = &mut keys[panel * panel_size..][..panel_size];
            let values = &mut values[position * size..][..size];
            let ((ks, kr), (vs, vr)) = (scale_of(key), scale_of(value));
            key_scales[position] = ks;
            value_scales[position] = vs;
            let steps = keys.chunks_exact_mut(KEY_PANEL * KEY_STEP);
            for (i, step) in steps.enumerate() {
                let key = &key[i * KEY_STEP..];
                let bytes = to_i8(&key[..key.len().min(KEY_STEP)], kr);
                step[lane * KEY_STEP..][..KEY_STEP].copy_from_slice(&bytes[..KEY_STEP]);
            }
            for (value, values) in value.chunks(LANES).zip(values.chunks_mut(LANES)) {
                values.copy_from_slice(&to_i8(value, vr)[..values.len()]);
            }
        }
    }
}

/// Scores of quantized queries: see [`scores_int8`].
type ScoresInt8 = unsafe fn(
    size: usize,
    keys: &[i8],
    key_scales: &[f32],
    start: usize,
    queries: (&[i8], &[f32]),
    scores: &mut [[f32; SEGMENT]],
);

/// Attention of the job's queries.
///
/// # Safety
/// That of [`Kernels::attend`](crate::kernels::Kernels::attend), which has checked all lengths.
pub(super) unsafe fn attend<L: Level>(
    job: &Attention,
    scratch: &mut AttentionScratch,
    out: &CellWriter,
) {
    for job in job.blocks() {
        // All that differs goes through a pointer, so that the rest is there once.
        // SAFETY: the caller's promise.
        unsafe { attend_with(scores_int8::<L>, &job, scratch, out) }
    }
}

/// Attention of at most [`QUERY_BLOCK`] queries.
///
/// # Safety
/// That of [`attend`], whose `scores_int8` this is.
unsafe fn attend_with(
    scores_int8: ScoresInt8,
    job: &Attention,
    scratch: &mut AttentionScratch,
    out: &CellWriter,
) {
    let mut block = Block::new(scores_int8, job, scratch);
    let last = block.first_position + block.count - 1;
    for start in (0..=last).step_by(SEGMENT) {
        // The first queries may lie before the segment.
        let skipped = start.saturating_sub(block.first_position);
        // SAFETY: as many queries as are left.
        unsafe {
            match block.count - skipped {
                1 => block.segment::<1>(scratch, start, skipped),
                2 => block.segment::<2>(scratch, start, skipped),
                3 => block.segment::<3>(scratch, start, skipped),
                4 => block.segment::<4>(scratch, start, skipped),
                5 => block.segment::<5>(scratch, start, skipped),
                _ => block.segment::<QUERY_BLOCK>(scratch, start, skipped),
            }
        }
    }
    for (q, token) in job.tokens.clone().enumerate() {
        // SAFETY: the caller's promise.
        let cells = unsafe { out.cells(token, job.columns.clone()) };
        let inverse = 1.0 / block.sums[q];
        for (cell, &sum) in cells.iter_mut().zip(&scratch.sums[q * block.padded..]) {
            *cell = sum * inverse;
        }
    }
}

/// The queries of a job on their way through the segments.
struct Block<'a> {
    /// Callable where [`attend_with`] is.
    scores_int8: ScoresInt8,
    job: &'a Attention<'a>,
    /// Head size, and with padding: the distance of rows in the buffers.
    size: usize,
    padded: usize,
    count: usize,
    first_position: usize,
    /// Scales of quantized queries.
    scales: [f32; QUERY_BLOCK],
    /// Maximum of the scores so far.
    maxima: [f32; QUERY_BLOCK],
    /// Sum of the weights so far.
    sums: [f32; QUERY_BLOCK],
}

impl<'a> Block<'a> {
    /// Scales the queries, and quantizes them for an int8 cache.
    #[inline]
    fn new(scores_int8: ScoresInt8, job: &'a Attention, scratch: &mut AttentionScratch) -> Self {
        let size = job.columns.len();
        let padded = padded_head_size(size);
        let mut scales = [0.0; QUERY_BLOCK];
        let rows = scratch.queries.chunks_exact_mut(padded);
        let rows = rows.zip(scratch.queries_i8.chunks_exact_mut(padded));
        for ((token, (row, row_i8)), scale) in job.tokens.clone().zip(rows).zip(&mut scales) {
            for (scaled, &q) in row.iter_mut().zip(job.query(token)) {
                *scaled = q * job.scale;
            }
            row[size..].fill(0.0);
            if let HeadCache::Int8 { .. } = job.cache {
                let (s, r) = scale_of(row);
                *scale = s;
                for (x, q) in row.chunks_exact(LANES).zip(row_i8.chunks_exact_mut(LANES)) {
                    q.copy_from_slice(&to_i8(x, r));
                }
            }
        }
        Self {
            scores_int8,
            job,
            size,
            padded,
            count: job.tokens.len(),
            first_position: job.position + job.tokens.start,
            scales,
            maxima: [0.0; QUERY_BLOCK],
            sums: [0.0; QUERY_BLOCK],
        }
    }

    /// Takes the last `Q` queries, those after the `skipped`, through the segment from `start` on.
    ///
    /// # Safety
    /// The processor supports this table, and there are that many queries, all of which see `start`.
    unsafe fn segment<const Q: usize>(
        &mut self,
        scratch: &mut AttentionScratch,
        start: usize,
        skipped: usize,
    ) {
        let rows = skipped * self.padded..self.count * self.padded;
        let (scores, _) = scratch.scores.as_chunks_mut::<SEGMENT>();
        let scores = &mut scores[skipped..self.count];
        let position = |q: usize| self.first_position + skipped + q;
        let mut seen = [0; Q];
        for (q, seen) in seen.iter_mut().enumerate() {
            *seen = (position(q) + 1 - start).min(SEGMENT);
        }
        // SAFETY: `Kernels::attend` has checked that the cache holds every position that is seen, and
        // that the buffers hold the queries.
        unsafe {
            let panels = seen[Q - 1].div_ceil(KEY_PANEL);
            match self.job.cache {
                HeadCache::F16 { keys, .. } => {
                    let queries = scratch.queries[rows.clone()].as_ptr();
                    self.scores_f16::<Q>(keys, start, panels, queries, scores);
                }
                HeadCache::Int8 { keys, key_scales, .. } => {
                    let queries = &scratch.queries_i8[rows.clone()];
                    let scales = &self.scales[skipped..self.count];
                    let key_scales = &key_scales[start..][..panels * KEY_PANEL];
                    (self.scores_int8)(
                        self.size,
                        keys,
                        key_scales,
                        start,
                        (queries, scales),
                        scores,
                    );
                }
            }
        }
        let (mut maxima, mut sums) = ([0.0; Q], [0.0; Q]);
        for (q, scores) in scores.iter_mut().enumerate() {
            if let Some(bias) = self.job.bias {
                add_distances(scores, bias.slope_at(position(q)), position(q) - start);
            }
            (maxima[q], sums[q]) = softmax(scores, seen[q]);
        }
        let to = if start == 0 { &mut *scratch.sums } else { &mut *scratch.part };
        to[rows.clone()].fill(0.0);
        let to = to[rows].as_mut_ptr();
        let first = start * self.size;
        // SAFETY: as above.
        unsafe {
            match self.job.cache {
                HeadCache::F16 { values, .. } => self.weigh(&values[first..], scores, &seen, to),
                HeadCache::Int8 { values, value_scales, .. } => {
                    for (weights, &seen) in scores.iter_mut().zip(&seen) {
                        for (weight, scale) in
                            weights[..seen].iter_mut().zip(&value_scales[start..])
                        {
                            *weight *= scale;
                        }
                    }
                    self.weigh(&values[first..], scores, &seen, to);
                }
            }
        }
        for q in 0..Q {
            if start == 0 {
                (self.maxima[skipped + q], self.sums[skipped + q]) = (maxima[q], sums[q]);
            } else {
                self.merge(skipped + q, maxima[q], sums[q], scratch);
            }
        }
    }

    /// Adds a segment's part of a query to what there is.
    #[inline(never)]
    fn merge(&mut self, q: usize, m2: f32, l2: f32, scratch: &mut AttentionScratch) {
        let (m1, l1) = (self.maxima[q], self.sums[q]);
        let max = if m2 > m1 { m2 } else { m1 };
        let (a1, a2) = (math::exp2(m1 - max), math::exp2(m2 - max));
        (self.maxima[q], self.sums[q]) = (max, l2.mul_add(a2, l1 * a1));
        let row = q * self.padded..(q + 1) * self.padded;
        for (sum, &part) in scratch.sums[row.clone()].iter_mut().zip(&scratch.part[row]) {
            *sum = part.mul_add(a2, *sum * a1);
        }
    }

    /// Scores of `Q` queries with the float16 keys of `panels` panels from position `start` on.
    ///
    /// # Safety
    /// The processor supports this table; there are that many panels, and queries at `queries`.
    #[inline]
    unsafe fn scores_f16<const Q: usize>(
        &self,
        keys: &[u16],
        start: usize,
        panels: usize,
        queries: *const f32,
        scores: &mut [[f32; SEGMENT]],
    ) {
        let at_once = match Q {
            1 => 4,
            2 => 3,
            3 => 2,
            _ => 1,
        };
        for first in (0..panels).step_by(at_once) {
            let keys = &keys[(start + first * KEY_PANEL) * self.size..];
            // SAFETY: the caller's promise.
            unsafe {
                match (panels - first).min(at_once) {
                    1 => self.score_tile::<Q, 1>(keys, queries, first, scores),
                    2 => self.score_tile::<Q, 2>(keys, queries, first, scores),
                    3 => self.score_tile::<Q, 3>(keys, queries, first, scores),
                    _ => self.score_tile::<Q, 4>(keys, queries, first, scores),
                }
            }
        }
    }

    /// Scores of `Q` queries with `P` panels: a lane is a key.
    ///
    /// # Safety
    /// That of [`scores_f16`](Self::scores_f16).
    #[inline]
    unsafe fn score_tile<const Q: usize, const P: usize>(
        &self,
        keys: &[u16],
        queries: *const f32,
        first_panel: usize,
        scores: &mut [[f32; SEGMENT]],
    ) {
        let panel_size = self.size * KEY_PANEL;
        let keys = keys[..P * panel_size].as_ptr();
        let mut sums = [[splat16(0.0); P]; Q];
        for d in 0..self.size {
            let mut k = [splat16(0.0); P];
            for (p, k) in k.iter_mut().enumerate() {
                // SAFETY: the keys are `P` panels.
                unsafe {
                    let row = keys.add(p * panel_size + d * KEY_PANEL);
                    let [low, high] = [u16::load(row), u16::load(row.add(LANES))];
                    *k = [low[0], low[1], high[0], high[1]];
                }
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let x = splat16(unsafe { *queries.add(q * self.padded + d) });
                for (sum, &k) in sums.iter_mut().zip(&k) {
                    *sum = fma16(x, k, *sum);
                }
            }
        }
        for (sums, scores) in sums.iter().zip(scores) {
            let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
            for (&sum, scores) in sums.iter().zip(&mut panels[first_panel..]) {
                store16(sum, scores);
            }
        }
    }

    /// Adds the values of `seen[q]` positions, times their weights, to the rows at `to`.
    ///
    /// # Safety
    /// The processor supports this table; `values` has the positions, `to` a padded row per query.
    #[inline]
    unsafe fn weigh<V: Value, const Q: usize>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]],
        seen: &[usize; Q],
        to: *mut f32,
    ) {
        // All queries share the positions that the first one sees; the few others follow alone.
        let common = seen[0];
        assert!(weights.len() == Q && values.len() >= seen[Q - 1] * self.size);
        // SAFETY: the caller's promise.
        unsafe {
            self.weigh_positions::<V, Q>(values, weights, 0..common, to);
            for q in 1..Q {
                let (weights, to) = (&weights[q..q + 1], to.add(q * self.padded));
                self.weigh_positions::<V, 1>(values, weights, common..seen[q], to);
            }
        }
    }

    /// The same for positions that all `Q` queries see.
    ///
    /// # Safety
    /// That of [`weigh`](Self::weigh).
    #[inline(never)]
    unsafe fn weigh_positions<V: Value, const Q: usize>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]],
        positions: Range<usize>,
        to: *mut f32,
    ) {
        let most = match Q {
            1 => 10,
            2 | 3 => 4,
            _ => 2,
        };
        let pairs = self.size / LANES;
        let mut done = 0;
        while done < pairs {
            let (d, positions) = (done * LANES, positions.clone());
            // SAFETY: the caller's promise; so many pairs of registers lie within a row.
            unsafe {
                done += match (pairs - done).min(most) {
                    1 => self.weigh_tile::<V, Q, 1>(values, weights, positions, d, to),
                    2 | 3 => self.weigh_tile::<V, Q, 2>(values, weights, positions, d, to),
                    4..8 => self.weigh_tile::<V, Q, 4>(values, weights, positions, d, to),
                    8 | 9 => self.weigh_tile::<V, Q, 8>(values, weights, positions, d, to),
                    _ => self.weigh_tile::<V, Q, 10>(values, weights, positions, d, to),
                };
            }
        }
        for j in positions {
            for d in pairs * LANES..self.size {
                let value = values[j * self.size + d].get();
                for (q, weights) in weights.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    let sum = unsafe { &mut *to.add(q * self.padded + d) };
                    *sum = weights[j].mul_add(value, *sum);
                }
            }
        }
    }

    /// The same for `R` pairs of registers of dimensions from `d` on; returns `R`.
    ///
    /// # Safety
    /// That of [`weigh`](Self::weigh); the values have these dimensions.
    #[inline]
    unsafe fn weigh_tile<V: Value, const Q: usize, const R: usize>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]],
        positions: Range<usize>,
        d: usize,
        to: *mut f32,
    ) -> usize {
        let mut sums = [[[vdupq_n_f32(0.0); 2]; R]; Q];
        // SAFETY: the caller's promise.
        unsafe {
            let at = |q: usize, r: usize, half: usize| {
                to.add(q * self.padded + d + r * LANES + half * LANES / 2)
            };
            for (q, sums) in sums.iter_mut().enumerate() {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = [vld1q_f32(at(q, r, 0)), vld1q_f32(at(q, r, 1))];
                }
            }
            for j in positions {
                let row = values.as_ptr().add(j * self.size + d);
                for r in 0..R {
                    let value = V::load(row.add(r * LANES));
                    for (q, sums) in sums.iter_mut().enumerate() {
                        let weight = *weights.get_unchecked(q).get_unchecked(j);
                        let weight = vdupq_n_f32(weight);
                        sums[r] = from_fn(|half| vfmaq_f32(sums[r][half], weight, value[half]));
                    }
                }
            }
            for (q, sums) in sums.iter().enumerate() {
                for (r, &sum) in sums.iter().enumerate() {
                    vst1q_f32(at(q, r, 0), sum[0]);
                    vst1q_f32(at(q, r, 1), sum[1]);
                }
            }
        }
        R
    }
}

/// Scores of queries `(rows, scales)` of `size` with the int8 keys from position `start` on, as many as there
/// are scales.
///
/// # Safety
/// The processor supports `L`.
unsafe fn scores_int8<L: Level>(
    size: usize,
    keys: &[i8],
    key_scales: &[f32],
    start: usize,
    (queries, query_scales): (&[i8], &[f32]),
    scores: &mut [[f32; SEGMENT]],
) {
    let padded = padded_head_size(size);
    let size = size.next_multiple_of(KEY_STEP);
    let keys = keys[start * size..].chunks_exact(size * KEY_PANEL);
    let (key_scales, _) = key_scales.as_chunks::<KEY_PANEL>();
    for (panel, (keys, key_scales)) in keys.zip(key_scales).enumerate() {
        // SAFETY: the caller's promise.
        let dots = unsafe {
            match query_scales.len() {
                1 => dots::<L, 1>(padded, keys, queries),
                2 => dots::<L, 2>(padded, keys, queries),
                3 => dots::<L, 3>(padded, keys, queries),
                4 => dots::<L, 4>(padded, keys, queries),
                5 => dots::<L, 5>(padded, keys, queries),
                _ => dots::<L, QUERY_BLOCK>(padded, keys, queries),
            }
        };
        for ((dot, &scale), scores) in dots.iter().zip(query_scales).zip(&mut *scores) {
            let dot = dot.map(vcvtq_f32_s32);
            let scale = mul16(splat16(scale), load16(key_scales));
            let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
            store16(mul16(dot, scale), &mut panels[panel]);
        }
    }
}

/// Exact dot products of `Q` queries with a panel of keys: 24 registers of sums at most, 4 of keys
/// and the query's values.
///
/// # Safety
/// The processor supports `L`.
#[inline]
unsafe fn dots<L: Level, const Q: usize>(
    padded: usize,
    keys: &[i8],
    queries: &[i8],
) -> [I32x16; QUERY_BLOCK] {
    let mut sums = [[vdupq_n_s32(0); 4]; QUERY_BLOCK];
    for (step, keys) in keys.chunks_exact(KEY_PANEL * KEY_STEP).enumerate() {
        // SAFETY: a step of a panel is 64 bytes, and the padded query has every step.
        unsafe {
            let keys = from_fn(|i| vld1q_s8(keys.as_ptr().add(16 * i)));
            for (q, sums) in sums[..Q].iter_mut().enumerate() {
                let x = queries.as_ptr().add(q * padded).cast::<i32>().add(step);
                let x = vreinterpretq_s8_s32(vdupq_n_s32(x.read_unaligned()));
                L::dot(sums, keys, x);
            }
        }
    }
    sums
}

/// How keys or values are cached.
trait Value: Copy {
    /// 8 of them.
    ///
    /// # Safety
    /// `from` is valid for reads of 8.
    unsafe fn load(from: *const Self) -> F32x8;

    /// One of them.
    fn get(self) -> f32;
}

impl Value for u16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> F32x8 {
        // SAFETY: the caller's promise.
        unsafe { f16_to_f32x8(vld1q_u16(from)) }
    }

    #[inline(always)]
    fn get(self) -> f32 {
        f16_to_f32(self)
    }
}

impl Value for i8 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> F32x8 {
        // SAFETY: the caller's promise.
        let words = vmovl_s8(unsafe { vld1_s8(from) });
        [vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words)].map(vcvtq_f32_s32)
    }

    #[inline(always)]
    fn get(self) -> f32 {
        f32::from(self)
    }
}

/// Adds `slope` times the distance to every score, the first one's being `distance`.
#[inline(never)]
fn add_distances(scores: &mut [f32; SEGMENT], slope: f32, distance: usize) {
    let slope = splat16(slope);
    let distance = splat16(distance as f32);
    let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
    let mut lane = load16(&std::array::from_fn(|i| i as f32));
    for scores in panels {
        store16(fma16(slope, sub16(distance, lane), load16(scores)), scores);
        lane = add16(lane, splat16(KEY_PANEL as f32));
    }
}

/// Turns the first `seen` scores into weights, those that fill up the last panel into 0; returns the
/// largest score and the sum of the weights.
#[inline(never)]
fn softmax(scores: &mut [f32; SEGMENT], seen: usize) -> (f32, f32) {
    let padded = seen.next_multiple_of(KEY_PANEL);
    scores[seen..padded].fill(f32::NEG_INFINITY);
    let (panels, _) = scores[..padded].as_chunks_mut::<KEY_PANEL>();

    let mut max = splat16(f32::NEG_INFINITY);
    for scores in &*panels {
        let scores = load16(scores);
        max = from_fn(|i| larger(scores[i], max[i]));
    }
    let max = larger(larger(max[0], max[1]), larger(max[2], max[3]));
    // None of them is a NaN.
    let max = vmaxvq_f32(max);

    let mut sums = splat16(0.0);
    for scores in panels {
        let differences = sub16(load16(scores), splat16(max));
        let weights = differences.map(exp2);
        store16(weights, scores);
        sums = add16(sums, weights);
    }
    (max, fold16(sums))
}

/// `if s > m { s } else { m }`: a NaN is passed over.
#[inline(always)]
fn larger(s: float32x4_t, m: float32x4_t) -> float32x4_t {
    vbslq_f32(vcgtq_f32(s, m), s, m)
}

/// Up to 8 floats, the other lanes 0.
#[inline(always)]
fn load_part(x: &[f32]) -> F32x8 {
    let mut padded = [0.0; LANES];
    let x = <&[f32; LANES]>::try_from(x).unwrap_or_else(|_| {
        padded[..x.len()].copy_from_slice(x);
        &padded
    });
    // SAFETY: 8 floats.
    from_fn(|i| unsafe { vld1q_f32(x.as_ptr().add(4 * i)) })
}

/// `f32_to_f16_saturating` of up to 8 floats.
#[inline(always)]
fn to_f16(x: &[f32]) -> [u16; LANES] {
    const MAX: f32 = 65504.0;
    // A NaN stays one.
    let x = load_part(x).map(|x| vmaxq_f32(vminq_f32(x, vdupq_n_f32(MAX)), vdupq_n_f32(-MAX)));
    let mut to = [0; LANES];
    // SAFETY: 8 float16.
    unsafe { vst1q_u16(to.as_mut_ptr(), f32x8_to_f16(x[0], x[1])) };
    to
}

/// Up to 8 floats quantized.
#[inline(always)]
fn to_i8(x: &[f32], r: f32) -> [i8; LANES] {
    let [low, high] = load_part(x).map(|x| round(x, r));
    let mut to = [0; LANES];
    // SAFETY: 8 bytes.
    unsafe { vst1_s8(to.as_mut_ptr(), vget_low_s8(pack([low, high, low, high]))) };
    to
}

/// Scale and reciprocal of a vector that is quantized as one group.
#[inline(always)]
fn scale_of(x: &[f32]) -> (f32, f32) {
    let mut max = vdupq_n_u32(0);
    for x in x.chunks(LANES) {
        let [low, high] = load_part(x);
        max = vmaxq_u32(max, vmaxq_u32(magnitude_bits(low), magnitude_bits(high)));
    }
    scale_for(vmaxvq_u32(max))
}
