//! Attention over the cache (`docs/numbers.md` section 7).
//!
//! The plain algorithm, for one query, is the scalar one. How this departs from it:
//!
//! 1. All queries go through a segment before the next one, so that it comes from memory once; up to
//!    [`QUERY_BLOCK`] go together, so that a key or value is loaded and converted once for all of them.
//!    A tile of queries x panels of keys, or queries x registers of dimensions, keeps its sums in at most
//!    24 registers; the order of additions within a sum is the definition's.
//! 2. Few queries take more panels or dimensions at once instead, because the additions of one sum wait
//!    for each other: 4 sums at least hide the latency of a fused multiply-add.
//! 3. Scores are computed for whole panels. Those of positions that a query does not see are replaced
//!    by -infinity, whose weight is +0, and their values are never touched.
//! 4. Tiles fetch the next one's keys: the processor does not by itself, for panels that are read side
//!    by side are short streams.
//! 5. `vpdpbusd` takes unsigned by signed bytes: int8 keys get an offset of 128, and a sum starts at
//!    -128 times the sum of the query. Both are exact.

use std::arch::x86_64::*;
use std::ops::Range;

use super::math::exp2;
use super::quantize::{magnitude_bits, round};
use super::{first, fold16, load_part, load16, store16};
use crate::kernels::scalar::scale_for;
use crate::kernels::{
    Attention, AttentionScratch, CellWriter, HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP,
    MOST_QUERIES, QUERY_BLOCK, SEGMENT, padded_head_size,
};
use crate::math;

/// Lanes of a register.
const LANES: usize = 16;

/// Puts the key and value of one position into the cache.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
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
            const STEP: usize = KEY_PANEL * KEY_STEP;
            let steps = keys.chunks_mut(LANES / KEY_STEP * STEP);
            for (key, steps) in key.chunks(LANES).zip(steps) {
                let key = to_i8(key, kr);
                let (key, _) = key.as_chunks::<KEY_STEP>();
                for (key, step) in key.iter().zip(steps.chunks_exact_mut(STEP)) {
                    step[lane * KEY_STEP..][..KEY_STEP].copy_from_slice(key);
                }
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
    let mut queries = Queries::new(job, scratch);
    let count = job.tokens.len();
    let last = queries.first_position + count - 1;
    for start in (0..=last).step_by(SEGMENT) {
        // The first queries may lie before the segment.
        let skipped = start.saturating_sub(queries.first_position);
        for first in (skipped..count).step_by(QUERY_BLOCK) {
            // SAFETY: as many queries as are left.
            unsafe {
                match count - first {
                    1 => queries.segment::<1>(scratch, start, first),
                    2 => queries.segment::<2>(scratch, start, first),
                    3 => queries.segment::<3>(scratch, start, first),
                    4 => queries.segment::<4>(scratch, start, first),
                    5 => queries.segment::<5>(scratch, start, first),
                    _ => queries.segment::<QUERY_BLOCK>(scratch, start, first),
                }
            }
        }
    }
    for (q, token) in job.tokens.clone().enumerate() {
        // SAFETY: the caller's promise.
        let cells = unsafe { out.cells(token, job.columns.clone()) };
        let inverse = 1.0 / queries.sums[q];
        for (cell, &sum) in cells.iter_mut().zip(&scratch.sums[q * queries.padded..]) {
            *cell = sum * inverse;
        }
    }
}

/// The queries of a job on their way through the segments.
struct Queries<'a> {
    job: &'a Attention<'a>,
    /// Head size, and with padding: the distance of rows in the buffers.
    size: usize,
    padded: usize,
    first_position: usize,
    /// Scales of quantized queries.
    scales: [f32; MOST_QUERIES],
    /// Where their dot products start: -128 times their sums.
    starts: [i32; MOST_QUERIES],
    /// Maximum of the scores so far.
    maxima: [f32; MOST_QUERIES],
    /// Sum of the weights so far.
    sums: [f32; MOST_QUERIES],
}

impl<'a> Queries<'a> {
    /// Scales the queries, and quantizes them for an int8 cache.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn new(job: &'a Attention, scratch: &mut AttentionScratch) -> Self {
        let size = job.columns.len();
        let padded = padded_head_size(size);
        let mut scales = [0.0; MOST_QUERIES];
        let mut starts = [0; MOST_QUERIES];
        let rows = scratch.queries.chunks_exact_mut(padded);
        let rows = rows.zip(scratch.queries_i8.chunks_exact_mut(padded));
        for (i, (token, (row, row_i8))) in job.tokens.clone().zip(rows).enumerate() {
            for (scaled, &q) in row.iter_mut().zip(job.query(token)) {
                *scaled = q * job.scale;
            }
            row[size..].fill(0.0);
            if let HeadCache::Int8 { .. } = job.cache {
                let (s, r) = scale_of(row);
                for (x, q) in row.chunks_exact(LANES).zip(row_i8.chunks_exact_mut(LANES)) {
                    q.copy_from_slice(&to_i8(x, r));
                }
                scales[i] = s;
                starts[i] = row_i8.iter().map(|&q| -128 * i32::from(q)).sum();
            }
        }
        Self {
            job,
            size,
            padded,
            first_position: job.position + job.tokens.start,
            scales,
            starts,
            maxima: [0.0; MOST_QUERIES],
            sums: [0.0; MOST_QUERIES],
        }
    }

    /// Takes `Q` queries from number `first` on through the segment from `start` on. Not inlined, so that
    /// the compiler gives the registers to one number of queries alone.
    ///
    /// # Safety
    /// There are that many queries, all of which see `start`.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn segment<const Q: usize>(
        &mut self,
        scratch: &mut AttentionScratch,
        start: usize,
        first: usize,
    ) {
        let rows = first * self.padded..(first + Q) * self.padded;
        let (scores, _) = scratch.scores.as_chunks_mut::<SEGMENT>();
        let scores = scores.first_chunk_mut::<Q>().expect("scores of a block");
        let position = |q: usize| self.first_position + first + q;
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
                    let keys = &keys[start * self.size..][..panels * KEY_PANEL * self.size];
                    let queries = scratch.queries[rows.clone()].as_ptr();
                    self.scores_f16(keys, queries, scores);
                }
                HeadCache::Int8 { keys, key_scales, .. } => {
                    let size = self.size.next_multiple_of(KEY_STEP);
                    let keys = &keys[start * size..][..panels * KEY_PANEL * size];
                    let key_scales = &key_scales[start..][..panels * KEY_PANEL];
                    let queries = scratch.queries_i8[rows.clone()].as_ptr();
                    self.scores_int8(keys, key_scales, queries, first, scores);
                }
            }
        }
        if let Some(bias) = self.job.bias {
            for (q, scores) in scores.iter_mut().enumerate() {
                add_distances(scores, bias.slope_at(position(q)), position(q) - start);
            }
        }
        let (maxima, sums) = softmax(scores, &seen);
        let to = match start {
            0 => &mut scratch.sums[rows],
            _ => &mut scratch.part[..Q * self.padded],
        };
        let to = to.as_mut_ptr();
        let first_value = start * self.size;
        // SAFETY: as above.
        unsafe {
            match self.job.cache {
                HeadCache::F16 { values, .. } => {
                    self.weigh(&values[first_value..], scores, &seen, to);
                }
                HeadCache::Int8 { values, value_scales, .. } => {
                    for (weights, &seen) in scores.iter_mut().zip(&seen) {
                        let scales = &value_scales[start..];
                        for (weight, scale) in weights[..seen].iter_mut().zip(scales) {
                            *weight *= scale;
                        }
                    }
                    self.weigh(&values[first_value..], scores, &seen, to);
                }
            }
        }
        if start == 0 {
            self.maxima[first..first + Q].copy_from_slice(&maxima);
            self.sums[first..first + Q].copy_from_slice(&sums);
        } else {
            let rows = scratch.part.chunks_exact(self.padded);
            for ((q, part), (max, sum)) in (first..).zip(rows).zip(maxima.into_iter().zip(sums)) {
                self.merge(q, max, sum, part, &mut scratch.sums[q * self.padded..][..self.padded]);
            }
        }
    }

    /// Adds a segment's part of a query to what there is.
    #[inline(never)]
    #[target_feature(enable = "avx512f")]
    fn merge(&mut self, q: usize, m2: f32, l2: f32, part: &[f32], sums: &mut [f32]) {
        let (m1, l1) = (self.maxima[q], self.sums[q]);
        let max = if m2 > m1 { m2 } else { m1 };
        let (a1, a2) = (math::exp2(m1 - max), math::exp2(m2 - max));
        (self.maxima[q], self.sums[q]) = (max, l2.mul_add(a2, l1 * a1));
        for (sum, &part) in sums.iter_mut().zip(part) {
            *sum = part.mul_add(a2, *sum * a1);
        }
    }

    /// Scores of `Q` queries with whole panels of float16 keys.
    ///
    /// # Safety
    /// There are `Q` padded queries at `queries`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn scores_f16<const Q: usize>(
        &self,
        keys: &[u16],
        queries: *const f32,
        scores: &mut [[f32; SEGMENT]; Q],
    ) {
        let most = if Q == 2 { 8 } else { 4 };
        let panels = keys.len() / (self.size * KEY_PANEL);
        let mut done = 0;
        while done < panels {
            let keys = &keys[done * KEY_PANEL * self.size..];
            // SAFETY: the caller's promise; so many panels are left.
            unsafe {
                done += match (panels - done).min(most) {
                    ..2 => self.score_tile::<Q, 1>(keys, queries, done, scores),
                    2..4 => self.score_tile::<Q, 2>(keys, queries, done, scores),
                    4..8 => self.score_tile::<Q, 4>(keys, queries, done, scores),
                    _ => self.score_tile::<Q, 8>(keys, queries, done, scores),
                };
            }
        }
    }

    /// Scores of `Q` queries with `P` panels: a lane is a key. Returns `P`.
    ///
    /// # Safety
    /// That of [`scores_f16`](Self::scores_f16).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn score_tile<const Q: usize, const P: usize>(
        &self,
        keys: &[u16],
        queries: *const f32,
        first_panel: usize,
        scores: &mut [[f32; SEGMENT]; Q],
    ) -> usize {
        let panel_size = self.size * KEY_PANEL;
        let keys = keys[..P * panel_size].as_ptr();
        let mut sums = [[_mm512_setzero_ps(); P]; Q];
        for d in 0..self.size {
            fetch(keys.wrapping_add((P * self.size + d * P) * KEY_PANEL), P * KEY_PANEL);
            let mut k = [_mm512_setzero_ps(); P];
            for (p, k) in k.iter_mut().enumerate() {
                // SAFETY: the keys are `P` panels.
                *k = unsafe { u16::load(keys.add(p * panel_size + d * KEY_PANEL)) };
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let x = _mm512_set1_ps(unsafe { *queries.add(q * self.padded + d) });
                for (sum, &k) in sums.iter_mut().zip(&k) {
                    *sum = _mm512_fmadd_ps(x, k, *sum);
                }
            }
        }
        for (sums, scores) in sums.iter().zip(scores) {
            for (&sum, scores) in sums.iter().zip(panels_from::<P>(scores, first_panel)) {
                store16(sum, scores);
            }
        }
        P
    }

    /// Scores of `Q` queries, the first of them number `first`, with whole panels of int8 keys.
    ///
    /// # Safety
    /// There are `Q` padded queries at `queries`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn scores_int8<const Q: usize>(
        &self,
        keys: &[i8],
        key_scales: &[f32],
        queries: *const i8,
        first: usize,
        scores: &mut [[f32; SEGMENT]; Q],
    ) {
        let panel_size = self.size.next_multiple_of(KEY_STEP) * KEY_PANEL;
        let (key_scales, _) = key_scales.as_chunks::<KEY_PANEL>();
        let mut done = 0;
        while done < key_scales.len() {
            let keys = &keys[done * panel_size..];
            let key_scales = &key_scales[done..];
            // SAFETY: the caller's promise; so many panels are left.
            unsafe {
                done += match key_scales.len() {
                    1..4 => self.dot_tile::<Q, 1>(keys, key_scales, queries, first, scores, done),
                    _ => self.dot_tile::<Q, 4>(keys, key_scales, queries, first, scores, done),
                };
            }
        }
    }

    /// The same for `P` panels, the first of them number `first_panel`; returns `P`.
    ///
    /// # Safety
    /// That of [`scores_int8`](Self::scores_int8).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn dot_tile<const Q: usize, const P: usize>(
        &self,
        keys: &[i8],
        key_scales: &[[f32; KEY_PANEL]],
        queries: *const i8,
        first: usize,
        scores: &mut [[f32; SEGMENT]; Q],
        first_panel: usize,
    ) -> usize {
        let steps = self.size.div_ceil(KEY_STEP);
        let panel_size = steps * KEY_STEP * KEY_PANEL;
        let keys = keys[..P * panel_size].as_ptr();
        let key_scales = &key_scales[..P];
        let offset = _mm512_set1_epi8(-128);
        let mut sums = [[_mm512_setzero_si512(); P]; Q];
        for (sums, &start) in sums.iter_mut().zip(&self.starts[first..]) {
            *sums = [_mm512_set1_epi32(start); P];
        }
        for step in 0..steps {
            let size = KEY_STEP * KEY_PANEL;
            fetch(keys.wrapping_add(P * panel_size + step * P * size), P * size);
            let mut k = [_mm512_setzero_si512(); P];
            for (p, k) in k.iter_mut().enumerate() {
                // SAFETY: the keys are `P` panels of so many steps, 64 bytes each.
                *k = unsafe {
                    let keys = keys.add(p * panel_size).cast::<__m512i>().add(step);
                    _mm512_xor_si512(_mm512_loadu_si512(keys), offset)
                };
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the padded query has every step.
                let x = unsafe { queries.add(q * self.padded).cast::<i32>().add(step) };
                // SAFETY: as above.
                let x = _mm512_set1_epi32(unsafe { x.read_unaligned() });
                for (sum, &k) in sums.iter_mut().zip(&k) {
                    *sum = _mm512_dpbusd_epi32(*sum, k, x);
                }
            }
        }
        for ((sums, &scale), scores) in sums.iter().zip(&self.scales[first..]).zip(scores) {
            let panels = panels_from::<P>(scores, first_panel).iter_mut().zip(key_scales);
            for (&sum, (scores, key_scales)) in sums.iter().zip(panels) {
                let scale = _mm512_mul_ps(_mm512_set1_ps(scale), load16(key_scales));
                store16(_mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale), scores);
            }
        }
        P
    }

    /// Sums the values of `seen[q]` positions, times their weights, into the rows at `to`.
    ///
    /// # Safety
    /// `to` has a padded row per query.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn weigh<V: Value, const Q: usize>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]; Q],
        seen: &[usize; Q],
        to: *mut f32,
    ) {
        // All queries share the positions that the first one sees; the few others follow alone.
        let common = seen[0];
        assert!(values.len() >= seen[Q - 1] * self.size);
        // SAFETY: the caller's promise.
        unsafe {
            self.weigh_positions(values, weights, 0..common, to);
            for (q, weights) in weights.iter().enumerate().skip(1) {
                if common < seen[q] {
                    let (weights, to) = (std::array::from_ref(weights), to.add(q * self.padded));
                    self.weigh_positions(values, weights, common..seen[q], to);
                }
            }
        }
    }

    /// The same for positions that all `Q` queries see: the first ones, or those after what `to` has.
    ///
    /// # Safety
    /// That of [`weigh`](Self::weigh); the values have these positions.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn weigh_positions<V: Value, const Q: usize>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]; Q],
        positions: Range<usize>,
        to: *mut f32,
    ) {
        let most = if Q <= 2 { 8 } else { 4 };
        let registers = self.size / LANES;
        let mut done = 0;
        while done < registers {
            let (d, positions) = (done * LANES, positions.clone());
            // SAFETY: the caller's promise; so many registers lie within a row.
            unsafe {
                done += match (registers - done).min(most) {
                    ..2 => self.weigh_tile::<V, Q, 1>(values, weights, positions, d, to),
                    2 => self.weigh_tile::<V, Q, 2>(values, weights, positions, d, to),
                    3 => self.weigh_tile::<V, Q, 3>(values, weights, positions, d, to),
                    4 => self.weigh_tile::<V, Q, 4>(values, weights, positions, d, to),
                    5..8 => self.weigh_tile::<V, Q, 5>(values, weights, positions, d, to),
                    _ => self.weigh_tile::<V, Q, 8>(values, weights, positions, d, to),
                };
            }
        }
        let d = registers * LANES;
        if d < self.size {
            // SAFETY: the caller's promise; the rest of a row is less than a register, and a padded
            // row of `to` has a whole one.
            unsafe { self.weigh_rest(values, weights, positions, d, to) };
        }
    }

    /// The same for `R` registers of dimensions from `d` on; returns `R`.
    ///
    /// # Safety
    /// That of [`weigh_positions`](Self::weigh_positions); the values have these dimensions.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn weigh_tile<V: Value, const Q: usize, const R: usize>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]; Q],
        positions: Range<usize>,
        d: usize,
        to: *mut f32,
    ) -> usize {
        let mut sums = [[_mm512_setzero_ps(); R]; Q];
        // SAFETY: the caller's promise.
        unsafe {
            if positions.start > 0 {
                for (q, sums) in sums.iter_mut().enumerate() {
                    for (r, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_loadu_ps(to.add(q * self.padded + d + r * LANES));
                    }
                }
            }
            for j in positions {
                let row = values.as_ptr().add(j * self.size + d);
                let mut value = [_mm512_setzero_ps(); R];
                for (r, value) in value.iter_mut().enumerate() {
                    *value = V::load(row.add(r * LANES));
                }
                for (q, sums) in sums.iter_mut().enumerate() {
                    let weight = _mm512_set1_ps(*weights.get_unchecked(q).get_unchecked(j));
                    for (sum, &value) in sums.iter_mut().zip(&value) {
                        *sum = _mm512_fmadd_ps(weight, value, *sum);
                    }
                }
            }
            for (q, sums) in sums.iter().enumerate() {
                for (r, &sum) in sums.iter().enumerate() {
                    _mm512_storeu_ps(to.add(q * self.padded + d + r * LANES), sum);
                }
            }
        }
        R
    }

    /// The same for the last dimensions of a head whose size is not whole registers, from `d` on.
    ///
    /// # Safety
    /// That of [`weigh_positions`](Self::weigh_positions); fewer than a register are left of a row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    unsafe fn weigh_rest<V: Value>(
        &self,
        values: &[V],
        weights: &[[f32; SEGMENT]],
        positions: Range<usize>,
        d: usize,
        to: *mut f32,
    ) {
        let lanes = first(self.size - d);
        for (q, weights) in weights.iter().enumerate() {
            // SAFETY: the caller's promise; only the lanes of a value that exist are read.
            unsafe {
                let to = to.add(q * self.padded + d);
                let mut sum = _mm512_setzero_ps();
                if positions.start > 0 {
                    sum = _mm512_loadu_ps(to);
                }
                for j in positions.clone() {
                    let value = V::load_first(lanes, values.as_ptr().add(j * self.size + d));
                    sum = _mm512_fmadd_ps(_mm512_set1_ps(weights[j]), value, sum);
                }
                _mm512_storeu_ps(to, sum);
            }
        }
    }
}

/// The scores of `P` panels. So many and no fewer, or sums would be copied to them from memory.
#[inline(always)]
fn panels_from<const P: usize>(
    scores: &mut [f32; SEGMENT],
    first: usize,
) -> &mut [[f32; KEY_PANEL]; P] {
    let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
    panels[first..].first_chunk_mut().expect("a tile lies within a segment")
}

/// Fetches `count` numbers, in whole cache lines, into the second level cache: fetches into the first
/// hold up the processor's own, which read ahead faster.
#[inline(always)]
fn fetch<V>(from: *const V, count: usize) {
    for line in (0..count * size_of::<V>()).step_by(64) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast::<i8>().wrapping_add(line)) };
    }
}

/// How keys or values are cached.
trait Value: Copy {
    /// 16 of them.
    ///
    /// # Safety
    /// The processor supports this table, and `from` is valid for reads of 16.
    unsafe fn load(from: *const Self) -> __m512;

    /// Those of some lanes, the others 0.
    ///
    /// # Safety
    /// The processor supports this table, and `from` is valid for reads of these.
    unsafe fn load_first(lanes: __mmask16, from: *const Self) -> __m512;
}

impl Value for u16 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_first(lanes: __mmask16, from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, from.cast())) }
    }
}

impl Value for i8 {
    #[inline(always)]
    unsafe fn load(from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_first(lanes: __mmask16, from: *const Self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, from))) }
    }
}

/// Adds `slope` times the distance to every score, the first one's being `distance`.
#[inline(never)]
#[target_feature(enable = "avx512f")]
fn add_distances(scores: &mut [f32; SEGMENT], slope: f32, distance: usize) {
    let slope = _mm512_set1_ps(slope);
    let distance = _mm512_set1_ps(distance as f32);
    let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
    let mut lane = load16(&std::array::from_fn(|i| i as f32));
    for scores in panels {
        store16(_mm512_fmadd_ps(slope, _mm512_sub_ps(distance, lane), load16(scores)), scores);
        lane = _mm512_add_ps(lane, _mm512_set1_ps(KEY_PANEL as f32));
    }
}

/// Turns the first `seen[q]` scores of each query into weights, those that fill up the last panel of any
/// into 0; returns the largest score of each and the sum of its weights.
///
/// Query by query in the innermost loop, so that none waits for its own chain of maxima or sums.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn softmax<const Q: usize>(
    scores: &mut [[f32; SEGMENT]; Q],
    seen: &[usize; Q],
) -> ([f32; Q], [f32; Q]) {
    let panels = seen[Q - 1].div_ceil(KEY_PANEL);
    for (scores, &seen) in scores.iter_mut().zip(seen) {
        scores[seen..panels * KEY_PANEL].fill(f32::NEG_INFINITY);
    }
    let mut scores =
        scores.each_mut().map(|scores| &mut scores.as_chunks_mut::<KEY_PANEL>().0[..panels]);

    let mut maxima = [_mm512_set1_ps(f32::NEG_INFINITY); Q];
    for panel in 0..panels {
        for (max, scores) in maxima.iter_mut().zip(&scores) {
            // `if s > m { s } else { m }`: a NaN is passed over.
            *max = _mm512_max_ps(load16(&scores[panel]), *max);
        }
    }
    let maxima = maxima.map(|max| _mm512_reduce_max_ps(max));

    let mut sums = [_mm512_setzero_ps(); Q];
    for panel in 0..panels {
        for ((sum, max), scores) in sums.iter_mut().zip(maxima).zip(&mut scores) {
            let weights = exp2(_mm512_sub_ps(load16(&scores[panel]), _mm512_set1_ps(max)));
            store16(weights, &mut scores[panel]);
            *sum = _mm512_add_ps(*sum, weights);
        }
    }
    (maxima, sums.map(|sums| fold16(sums)))
}

/// `f32_to_f16_saturating` of up to 16 floats.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_f16(x: &[f32]) -> [u16; LANES] {
    const MAX: f32 = 65504.0;
    // A NaN is the second operand, and so what comes out.
    let x = _mm512_min_ps(_mm512_set1_ps(MAX), load_part(x));
    let x = _mm512_max_ps(_mm512_set1_ps(-MAX), x);
    let bits = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x);
    let mut to = [0; LANES];
    // SAFETY: 16 float16; the store may be unaligned.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bits) };
    to
}

/// Up to 16 floats quantized, the other lanes 0.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_i8(x: &[f32], r: f32) -> [i8; LANES] {
    let bytes = _mm512_cvtepi32_epi8(round(load_part(x), r));
    let mut to = [0; LANES];
    // SAFETY: 16 bytes; the store may be unaligned.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), bytes) };
    to
}

/// Scale and reciprocal of a vector that is quantized as one group.
#[inline]
#[target_feature(enable = "avx512f")]
fn scale_of(x: &[f32]) -> (f32, f32) {
    let mut max = _mm512_setzero_si512();
    for x in x.chunks(LANES) {
        max = _mm512_max_epu32(max, magnitude_bits(load_part(x)));
    }
    scale_for(_mm512_reduce_max_epu32(max))
}
