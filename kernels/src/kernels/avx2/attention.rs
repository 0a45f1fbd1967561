//! Attention over the cache (`docs/numbers.md` section 7).
//!
//! The plain algorithm, for one query, is the scalar one. How this departs from it:
//!
//! 1. Up to [`QUERY_BLOCK`] queries go through a segment together, so that a key or value is loaded
//!    and converted once for all of them. A tile of queries x keys, or queries x dimensions, keeps its
//!    sums in registers; the order of additions within a sum is the definition's.
//! 2. A single query takes several panels of keys or many dimensions at once instead, because the
//!    additions of one sum wait for each other: 8 sums hide the latency of a fused multiply-add.
//! 3. Scores are computed for whole panels. Those of positions that a query does not see are replaced
//!    by -infinity, whose weight is +0, and their values are never touched.

use std::arch::x86_64::*;
use std::ops::Range;

use super::dot::{Dot, Int8, SignedWeights};
use super::math::exp2;
use super::quantize::{largest, magnitude_bits, round};
use super::{add16, fma16, fold16, load16, mul16, splat16, store16, sub16};
use crate::kernels::scalar::{f16_to_f32, scale_for};
use crate::kernels::{
    Attention, AttentionScratch, CellWriter, HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP,
    QUERY_BLOCK, SEGMENT, padded_head_size,
};
use crate::math;

/// Lanes of a register.
const LANES: usize = 8;

/// Puts the key and value of one position into the cache.
#[target_feature(enable = "avx2,fma,f16c")]
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

/// Attention of the job's queries.
///
/// # Safety
/// That of [`Kernels::attend`](crate::kernels::Kernels::attend), which has checked all lengths.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
    for job in job.blocks() {
        // SAFETY: the caller's promise.
        unsafe { attend_block(&job, scratch, out) };
    }
}

/// The same for at most [`QUERY_BLOCK`] queries.
///
/// # Safety
/// That of [`attend`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn attend_block(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
    let mut block = Block::new(job, scratch);
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
    #[target_feature(enable = "avx2,fma")]
    fn new(job: &'a Attention, scratch: &mut AttentionScratch) -> Self {
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
    #[target_feature(enable = "avx2,fma,f16c")]
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
                    self.scores_int8(keys, key_scales, start, (queries, scales), scores);
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
    #[target_feature(enable = "avx2,fma")]
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
    #[target_feature(enable = "avx2,fma,f16c")]
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
    #[target_feature(enable = "avx2,fma,f16c")]
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
                    *k = [u16::load(row), u16::load(row.add(LANES))];
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

    /// Scores of queries `(rows, scales)` with the int8 keys from position `start` on, as many as there
    /// are scales.
    ///
    /// # Safety
    /// The processor supports this table.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn scores_int8(
        &self,
        keys: &[i8],
        key_scales: &[f32],
        start: usize,
        (queries, query_scales): (&[i8], &[f32]),
        scores: &mut [[f32; SEGMENT]],
    ) {
        // 6 registers of sums, 4 of keys, the query's values, a product and the ones.
        const TILE: usize = 3;
        let size = self.size.next_multiple_of(KEY_STEP);
        let keys = keys[start * size..].chunks_exact(size * KEY_PANEL);
        let (key_scales, _) = key_scales.as_chunks::<KEY_PANEL>();
        for (panel, (keys, key_scales)) in keys.zip(key_scales).enumerate() {
            let queries = queries.chunks(TILE * self.padded);
            let tiles = queries.zip(query_scales.chunks(TILE)).zip(scores.chunks_mut(TILE));
            for ((queries, query_scales), scores) in tiles {
                // SAFETY: the caller's promise.
                let dots = unsafe {
                    match query_scales.len() {
                        1 => self.dots::<1, TILE>(keys, queries),
                        2 => self.dots::<2, TILE>(keys, queries),
                        _ => self.dots::<3, TILE>(keys, queries),
                    }
                };
                for ((dot, &scale), scores) in dots.iter().zip(query_scales).zip(scores) {
                    let dot = [_mm256_cvtepi32_ps(dot[0]), _mm256_cvtepi32_ps(dot[1])];
                    let scale = mul16(splat16(scale), load16(key_scales));
                    let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
                    store16(mul16(dot, scale), &mut panels[panel]);
                }
            }
        }
    }

    /// Exact dot products of `Q` queries with a panel of keys, the first of `N`.
    ///
    /// # Safety
    /// The processor supports this table.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn dots<const Q: usize, const N: usize>(
        &self,
        keys: &[i8],
        queries: &[i8],
    ) -> [[__m256i; 2]; N] {
        let mut sums = [[_mm256_setzero_si256(); 2]; N];
        for (step, keys) in keys.chunks_exact(KEY_PANEL * KEY_STEP).enumerate() {
            let keys = keys.as_ptr().cast::<__m256i>();
            // SAFETY: a step of a panel is 64 bytes, and the padded query has every step.
            unsafe {
                let keys = [
                    SignedWeights::new(_mm256_loadu_si256(keys)),
                    SignedWeights::new(_mm256_loadu_si256(keys.add(1))),
                ];
                for (q, sums) in sums[..Q].iter_mut().enumerate() {
                    let x = queries.as_ptr().add(q * self.padded).cast::<i32>().add(step);
                    Int8::dot(sums, keys, _mm256_set1_epi32(x.read_unaligned()));
                }
            }
        }
        sums
    }

    /// Adds the values of `seen[q]` positions, times their weights, to the rows at `to`.
    ///
    /// # Safety
    /// The processor supports this table; `values` has the positions, `to` a padded row per query.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
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
    #[target_feature(enable = "avx2,fma,f16c")]
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
        let registers = self.size / LANES;
        let mut done = 0;
        while done < registers {
            let (d, positions) = (done * LANES, positions.clone());
            // SAFETY: the caller's promise; so many registers lie within a row.
            unsafe {
                done += match (registers - done).min(most) {
                    1 => self.weigh_tile::<V, Q, 1>(values, weights, positions, d, to),
                    2 | 3 => self.weigh_tile::<V, Q, 2>(values, weights, positions, d, to),
                    4..8 => self.weigh_tile::<V, Q, 4>(values, weights, positions, d, to),
                    8 | 9 => self.weigh_tile::<V, Q, 8>(values, weights, positions, d, to),
                    _ => self.weigh_tile::<V, Q, 10>(values, weights, positions, d, to),
                };
            }
        }
        if done * LANES < self.size {
            // SAFETY: the caller's promise.
            unsafe { self.weigh_rest(values, weights, positions, done * LANES, to) };
        }
    }

    /// The same for the dimensions from `first` on, one by one.
    ///
    /// # Safety
    /// That of [`weigh`](Self::weigh); fewer than a register are left of a row.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weigh_rest<V: Value>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]],
        positions: Range<usize>,
        first: usize,
        to: *mut f32,
    ) {
        for j in positions {
            for d in first..self.size {
                let value = values[j * self.size + d].get();
                for (q, weights) in weights.iter().enumerate() {
                    // SAFETY: the caller's promise.
                    let sum = unsafe { &mut *to.add(q * self.padded + d) };
                    *sum = weights[j].mul_add(value, *sum);
                }
            }
        }
    }

    /// The same for `R` registers of dimensions from `d` on; returns `R`.
    ///
    /// # Safety
    /// That of [`weigh`](Self::weigh); the values have these dimensions.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn weigh_tile<V: Value, const Q: usize, const R: usize>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]],
        positions: Range<usize>,
        d: usize,
        to: *mut f32,
    ) -> usize {
        let mut sums = [[_mm256_setzero_ps(); R]; Q];
        // SAFETY: the caller's promise.
        unsafe {
            for (q, sums) in sums.iter_mut().enumerate() {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(to.add(q * self.padded + d + r * LANES));
                }
            }
            for j in positions {
                let row = values.as_ptr().add(j * self.size + d);
                let mut value = [_mm256_setzero_ps(); R];
                for (r, value) in value.iter_mut().enumerate() {
                    *value = V::load(row.add(r * LANES));
                }
                for (q, sums) in sums.iter_mut().enumerate() {
                    let weight = _mm256_set1_ps(*weights.get_unchecked(q).get_unchecked(j));
                    for (sum, &value) in sums.iter_mut().zip(&value) {
                        *sum = _mm256_fmadd_ps(weight, value, *sum);
                    }
                }
            }
            for (q, sums) in sums.iter().enumerate() {
                for (r, &sum) in sums.iter().enumerate() {
                    _mm256_storeu_ps(to.add(q * self.padded + d + r * LANES), sum);
                }
            }
        }
        R
    }
}

/// How keys or values are cached.
trait Value: Copy {
    /// 8 of them.
    ///
    /// # Safety
    /// The processor supports this table, and `from` is valid for reads of 8.
    unsafe fn load(from: *const Self) -> __m256;

    /// One of them.
    fn get(self) -> f32;
}

impl Value for u16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    fn get(self) -> f32 {
        f16_to_f32(self)
    }
}

impl Value for i8 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) }
    }

    #[inline(always)]
    fn get(self) -> f32 {
        f32::from(self)
    }
}

/// Adds `slope` times the distance to every score, the first one's being `distance`.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
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
#[target_feature(enable = "avx2,fma")]
fn softmax(scores: &mut [f32; SEGMENT], seen: usize) -> (f32, f32) {
    let padded = seen.next_multiple_of(KEY_PANEL);
    scores[seen..padded].fill(f32::NEG_INFINITY);
    let (panels, _) = scores[..padded].as_chunks_mut::<KEY_PANEL>();

    let lowest = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut max = [lowest; 2];
    for scores in &*panels {
        let scores = load16(scores);
        // `if s > m { s } else { m }`: a NaN is passed over.
        max = [_mm256_max_ps(scores[0], max[0]), _mm256_max_ps(scores[1], max[1])];
    }
    let max = highest(_mm256_max_ps(max[0], max[1]));

    let mut sums = splat16(0.0);
    for scores in panels {
        let differences = sub16(load16(scores), splat16(max));
        let weights = [exp2(differences[0]), exp2(differences[1])];
        store16(weights, scores);
        sums = add16(sums, weights);
    }
    (max, fold16(sums))
}

/// The largest of 8 floats, none of which is a NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn highest(x: __m256) -> f32 {
    let a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
}

/// Up to 8 floats, the other lanes 0.
#[inline]
#[target_feature(enable = "avx2")]
fn load_part(x: &[f32]) -> __m256 {
    let mut padded = [0.0; LANES];
    let x = <&[f32; LANES]>::try_from(x).unwrap_or_else(|_| {
        padded[..x.len()].copy_from_slice(x);
        &padded
    });
    // SAFETY: 8 floats; the load may be unaligned.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// `f32_to_f16_saturating` of up to 8 floats.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn to_f16(x: &[f32]) -> [u16; LANES] {
    const MAX: f32 = 65504.0;
    // A NaN is the second operand, and so what comes out.
    let x = _mm256_min_ps(_mm256_set1_ps(MAX), load_part(x));
    let x = _mm256_max_ps(_mm256_set1_ps(-MAX), x);
    let bits = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
    let mut to = [0; LANES];
    // SAFETY: 8 float16; the store may be unaligned.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bits) };
    to
}

/// Up to 8 floats quantized.
#[inline]
#[target_feature(enable = "avx2")]
fn to_i8(x: &[f32], r: f32) -> [i8; LANES] {
    let q = round(load_part(x), r);
    let words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q));
    let bytes = _mm_cvtsi128_si64(_mm_packs_epi16(words, words)).to_le_bytes();
    bytes.map(|byte| byte as i8)
}

/// Scale and reciprocal of a vector that is quantized as one group.
#[inline]
#[target_feature(enable = "avx2")]
fn scale_of(x: &[f32]) -> (f32, f32) {
    let mut max = _mm256_setzero_si256();
    for x in x.chunks(LANES) {
        max = _mm256_max_epu32(max, magnitude_bits(load_part(x)));
    }
    scale_for(largest(max))
}
