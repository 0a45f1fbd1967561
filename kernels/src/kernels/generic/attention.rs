//! Attention over the cache (`docs/numbers.md` section 7).
//!
//! The plain algorithm, for one query, is the scalar one. How this departs from it:
//!
//! 1. All queries go through a segment before the next one, so that it comes from memory once; up to
//!    [`QUERY_BLOCK`] go together, so that a key or value is loaded and converted once for all of them.
//!    A tile of queries x panels of keys, or queries x vectors of dimensions, keeps its sums in
//!    registers; the order of additions within a sum is the definition's.
//! 2. Few queries take more panels or dimensions at once instead, because the additions of one sum wait
//!    for each other: 4 sums at least hide the latency of a fused multiply-add.
//! 3. Scores are computed for whole panels. Those of positions that a query does not see are replaced
//!    by -infinity, whose weight is +0, and their values are never touched.
//! 4. The queries of a block may begin with different segments, and see a segment from and up to
//!    different positions: all take part in the sums over the positions that they have in common, and
//!    each alone in those before and after.
//! 5. Tiles prefetch the next one's keys: the processor does not by itself, for panels that are read side
//!    by side are short streams.

use std::array::from_ref;
use std::ops::Range;

use super::math::exp2;
use super::quantize::{scale_of, to_i8};
use crate::kernels::prefetch::prefetch;
use crate::kernels::types::{
    Attention, AttentionScratch, CellWriter, HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP,
    MOST_QUERIES, QUERY_BLOCK, SEGMENT, padded_head_size, slot,
};
use crate::kernels::vector::{KeyDot, LANES, Vector};
use crate::math;

/// A panel's scores are a vector.
const _: () = assert!(KEY_PANEL == LANES);

/// The scores of a segment with one query.
type Scores = [f32; SEGMENT];

/// Bodies that are functions of their own on every instruction set: the compiler then gives the
/// registers to one number of queries alone. `generic::instantiate` implements it.
pub(in crate::kernels) trait Outlined: Vector {
    /// [`segment`].
    ///
    /// # Safety
    /// That of [`segment`].
    unsafe fn segment<const Q: usize>(
        self,
        queries: &mut Queries,
        scratch: &mut AttentionScratch,
        first: usize,
    );

    /// [`weighted_sums_over`].
    ///
    /// # Safety
    /// That of [`weighted_sums_over`].
    unsafe fn weighted_sums_over<T: Value, const Q: usize>(
        self,
        values: &[T],
        weights: &[Scores; Q],
        positions: Range<usize>,
        rows: Rows,
    );
}

/// Puts the key and value of one position into a slot of the cache.
#[inline(always)]
pub(in crate::kernels) fn store<V: Vector>(
    v: V,
    head: &mut HeadCacheMut,
    slot: usize,
    key: &[f32],
    value: &[f32],
) {
    let (panel, lane) = (slot / KEY_PANEL, slot % KEY_PANEL);
    let size = key.len();
    match head {
        HeadCacheMut::F16 { keys, values } => {
            let keys = &mut keys[panel * size * KEY_PANEL..][..size * KEY_PANEL];
            let values = &mut values[slot * size..][..size];
            for (key, keys) in key.chunks(LANES).zip(keys.chunks_mut(LANES * KEY_PANEL)) {
                let key = to_f16(v, key);
                for (key, keys) in key.into_iter().zip(keys.chunks_exact_mut(KEY_PANEL)) {
                    keys[lane] = key;
                }
            }
            for (value, values) in value.chunks(LANES).zip(values.chunks_mut(LANES)) {
                values.copy_from_slice(&to_f16(v, value)[..values.len()]);
            }
        }
        HeadCacheMut::Int8 { keys, key_scales, values, value_scales } => {
            const STEP: usize = KEY_PANEL * KEY_STEP;
            let panel_size = size.next_multiple_of(KEY_STEP) * KEY_PANEL;
            let keys = &mut keys[panel * panel_size..][..panel_size];
            let values = &mut values[slot * size..][..size];
            let ((ks, kr), (vs, vr)) = (scale_of(v, key), scale_of(v, value));
            key_scales[slot] = ks;
            value_scales[slot] = vs;
            let steps = keys.chunks_mut(LANES / KEY_STEP * STEP);
            for (key, steps) in key.chunks(LANES).zip(steps) {
                let key = to_i8(v, key, kr);
                let (key, _) = key.as_chunks::<KEY_STEP>();
                for (key, step) in key.iter().zip(steps.chunks_exact_mut(STEP)) {
                    step[lane * KEY_STEP..][..KEY_STEP].copy_from_slice(key);
                }
            }
            for (value, values) in value.chunks(LANES).zip(values.chunks_mut(LANES)) {
                values.copy_from_slice(&to_i8(v, value, vr)[..values.len()]);
            }
        }
    }
}

/// `f32_to_f16_saturating` of up to 16 floats.
#[inline(always)]
fn to_f16<V: Vector>(v: V, x: &[f32]) -> [u16; LANES] {
    const MAX: f32 = 65504.0;
    let x = v.at_most(v.load_part(x), v.splat(MAX));
    v.to_f16(v.at_least(x, v.splat(-MAX)))
}

/// Attention of the job's queries; `scores_int8` is [`scores_int8`] with the features it needs.
///
/// # Safety
/// That of [`Kernels::attend`](crate::kernels::Kernels::attend), which has checked all lengths, and
/// `scores_int8` may be called on this processor.
#[inline(always)]
pub(in crate::kernels) unsafe fn attend<V: Outlined>(
    v: V,
    scores_int8: ScoresInt8,
    job: &Attention,
    scratch: &mut AttentionScratch,
    out: &CellWriter,
) {
    let mut queries = Queries::new(v, scores_int8, job, scratch);
    // Without a window no position lies in another's slot.
    let capacity = job.window.map_or(usize::MAX, |_| job.cache.capacity(queries.size));
    let positions = job.position + job.tokens.start..job.position + job.tokens.end;
    let first_segment = job.visible(positions.start).start / SEGMENT * SEGMENT;
    for start in (first_segment..positions.end).step_by(SEGMENT) {
        // The first tokens may lie before the segment, the windows of the last ones begin after it.
        let before = start.saturating_sub(positions.start);
        let window_end = start.saturating_add(job.window.unwrap_or(usize::MAX) - 1);
        let last = positions.end.min(window_end.saturating_add(SEGMENT)) - positions.start;
        let (skipped, end) = (before * job.group, last * job.group);
        queries.segment = start;
        queries.slot = slot(start, capacity);
        for first in (skipped..end).step_by(QUERY_BLOCK) {
            let queries = &mut queries;
            queries.is_first_block = first == skipped;
            // SAFETY: as many queries as are left, all of which see a position of the segment.
            unsafe {
                match end - first {
                    1 => v.segment::<1>(queries, scratch, first),
                    2 => v.segment::<2>(queries, scratch, first),
                    3 => v.segment::<3>(queries, scratch, first),
                    4 => v.segment::<4>(queries, scratch, first),
                    5 => v.segment::<5>(queries, scratch, first),
                    _ => v.segment::<QUERY_BLOCK>(queries, scratch, first),
                }
            }
        }
    }
    let mut pair = job.pair(0);
    for q in 0..queries.count {
        // SAFETY: the caller's promise.
        let cells = unsafe { out.cells(pair.0, job.columns_of(pair.1)) };
        let inverse = 1.0 / queries.sums[q];
        for (cell, &sum) in cells.iter_mut().zip(&scratch.sums[q * queries.padded..]) {
            *cell = sum * inverse;
        }
        pair = job.pair_after(pair);
    }
}

/// The queries of a job on their way through the segments.
pub(in crate::kernels) struct Queries<'a> {
    job: &'a Attention<'a>,
    scores_int8: ScoresInt8,
    /// Head size, and with padding: the distance of rows in the buffers.
    size: usize,
    padded: usize,
    count: usize,
    /// Whether no others were at this segment before.
    is_first_block: bool,
    /// The first position of the segment that they are at, and its slot.
    segment: usize,
    slot: usize,
    /// Scales of quantized queries.
    scales: [f32; MOST_QUERIES],
    /// Sums of their bytes.
    byte_sums: [i32; MOST_QUERIES],
    /// Maximum of the scores so far.
    maxima: [f32; MOST_QUERIES],
    /// Sum of the weights so far.
    sums: [f32; MOST_QUERIES],
}

impl<'a> Queries<'a> {
    /// Scales the queries, and quantizes them for an int8 cache.
    #[inline(always)]
    fn new<V: Vector>(
        v: V,
        scores_int8: ScoresInt8,
        job: &'a Attention,
        scratch: &mut AttentionScratch,
    ) -> Self {
        let size = job.columns.len();
        let padded = padded_head_size(size);
        let mut scales = [0.0; MOST_QUERIES];
        let mut byte_sums = [0; MOST_QUERIES];
        let rows = scratch.queries.chunks_exact_mut(padded);
        let rows = rows.zip(scratch.queries_i8.chunks_exact_mut(padded));
        let count = job.tokens.len() * job.group;
        let mut pair = job.pair(0);
        for (i, (row, row_i8)) in rows.take(count).enumerate() {
            for (scaled, &q) in row.iter_mut().zip(job.query(pair.0, pair.1)) {
                *scaled = q * job.scale;
            }
            row[size..].fill(0.0);
            if let HeadCache::Int8 { .. } = job.cache {
                let (s, r) = scale_of(v, row);
                for (x, q) in row.chunks_exact(LANES).zip(row_i8.chunks_exact_mut(LANES)) {
                    q.copy_from_slice(&to_i8(v, x, r));
                }
                scales[i] = s;
                byte_sums[i] = row_i8.iter().map(|&q| i32::from(q)).sum();
            }
            pair = job.pair_after(pair);
        }
        Self {
            job,
            scores_int8,
            size,
            padded,
            count,
            is_first_block: true,
            segment: 0,
            slot: 0,
            scales,
            byte_sums,
            maxima: [0.0; MOST_QUERIES],
            sums: [0.0; MOST_QUERIES],
        }
    }

    /// Adds a segment's part of a query to what there is.
    #[inline(always)]
    fn merge(&mut self, q: usize, m2: f32, l2: f32, part: &[f32], sums: &mut [f32]) {
        let (m1, l1) = (self.maxima[q], self.sums[q]);
        let max = if m2 > m1 { m2 } else { m1 };
        let (a1, a2) = (math::exp2(m1 - max), math::exp2(m2 - max));
        (self.maxima[q], self.sums[q]) = (max, l2.mul_add(a2, l1 * a1));
        for (sum, &part) in sums.iter_mut().zip(part) {
            *sum = part.mul_add(a2, *sum * a1);
        }
    }
}

/// The positions of a segment that `Q` queries see, counted from its first one. Neither decreases from
/// query to query.
struct Seen<const Q: usize> {
    from: [usize; Q],
    to: [usize; Q],
}

impl<const Q: usize> Seen<Q> {
    /// The panels that have a position which any of some queries sees.
    #[inline(always)]
    fn panels(&self, queries: Range<usize>) -> Range<usize> {
        self.from[queries.start] / KEY_PANEL..self.to[queries.end - 1].div_ceil(KEY_PANEL)
    }
}

/// Takes `Q` queries from number `first` on through the segment that they are at.
///
/// # Safety
/// There are that many queries, all of which see a position of the segment; the buffers are those of
/// [`Kernels::attend`](crate::kernels::Kernels::attend).
#[inline(always)]
pub(in crate::kernels) unsafe fn segment<V: Outlined, const Q: usize>(
    v: V,
    queries: &mut Queries,
    scratch: &mut AttentionScratch,
    first: usize,
) {
    let Queries { job, size, padded, segment, slot, .. } = *queries;
    let rows = first * padded..(first + Q) * padded;
    let (scores, _) = scratch.scores.as_chunks_mut::<SEGMENT>();
    let scores = scores.first_chunk_mut::<Q>().expect("scores of a block");
    let mut pairs = [job.pair(first); Q];
    for q in 1..Q {
        pairs[q] = job.pair_after(pairs[q - 1]);
    }
    let mut seen = Seen { from: [0; Q], to: [0; Q] };
    // How many queries have been in segments before.
    let mut begun = 0;
    for (q, &(token, _)) in pairs.iter().enumerate() {
        let visible = job.visible(job.position + token);
        begun += usize::from(visible.start < segment);
        seen.from[q] = visible.start.saturating_sub(segment);
        seen.to[q] = (visible.end - segment).min(SEGMENT);
    }
    let panels = seen.panels(0..Q);
    let is_narrow = Q > 1 && V::VALUE_VECTORS[Q - 1] <= 2;
    let prefetches = is_narrow && queries.is_first_block;
    match job.cache {
        HeadCache::F16 { keys, values, .. } => {
            let f16 = F16Scores {
                keys: &keys[slot * size..][..panels.end * KEY_PANEL * size],
                first_panel: panels.start,
                queries: &scratch.queries[rows.clone()],
                size,
                next: Next::new(&values[slot * size..], size, prefetches),
            };
            scores_f16(v, &f16, scores);
        }
        HeadCache::Int8 { keys, key_scales, values, .. } => {
            let padded_keys = size.next_multiple_of(KEY_STEP);
            let int8 = Int8Scores {
                keys: keys[slot * padded_keys..][..panels.end * KEY_PANEL * padded_keys]
                    .as_chunks()
                    .0,
                key_scales: key_scales[slot..][..panels.end * KEY_PANEL].as_chunks().0,
                first_panel: panels.start,
                queries: &scratch.queries_i8[rows.clone()],
                padded,
                scales: &queries.scales[first..first + Q],
                byte_sums: &queries.byte_sums[first..first + Q],
                next: Next::new(&values[slot * size..], size, prefetches),
            };
            // SAFETY: `attend`'s caller promises that it may be called.
            unsafe { (queries.scores_int8)(&int8, scores) };
        }
    }
    if let Some(bias) = job.bias {
        for (&(token, member), scores) in pairs.iter().zip(&mut *scores) {
            let position = job.position + token;
            add_distances(v, scores, bias.slope_at(member, position), position - segment);
        }
    }
    let (maxima, sums) = softmax(v, scores, &seen);
    let to = match begun {
        0 => &mut scratch.sums[rows],
        _ => &mut scratch.part[..Q * padded],
    };
    let to = Rows { start: to.as_mut_ptr(), size, padded, begun: false };
    // SAFETY: `to` has a padded row for each query, and `Kernels::attend` has checked that the cache
    // holds every position that is seen.
    unsafe {
        match job.cache {
            HeadCache::F16 { values, .. } => {
                weighted_sums(v, &values[slot * size..], scores, &seen, to);
            }
            HeadCache::Int8 { values, value_scales, .. } => {
                for (q, weights) in scores.iter_mut().enumerate() {
                    let (from, to) = (seen.from[q], seen.to[q]);
                    let scales = &value_scales[slot + from..];
                    for (weight, scale) in weights[from..to].iter_mut().zip(scales) {
                        *weight *= scale;
                    }
                }
                weighted_sums(v, &values[slot * size..], scores, &seen, to);
            }
        }
    }
    if begun == 0 {
        queries.maxima[first..first + Q].copy_from_slice(&maxima);
        queries.sums[first..first + Q].copy_from_slice(&sums);
        return;
    }
    let parts = scratch.part.chunks_exact(padded);
    for ((q, part), (max, sum)) in (0..).zip(parts).zip(maxima.into_iter().zip(sums)) {
        let to = &mut scratch.sums[(first + q) * padded..][..padded];
        if q < begun {
            queries.merge(first + q, max, sum, part, to);
        } else {
            (queries.maxima[first + q], queries.sums[first + q]) = (max, sum);
            to.copy_from_slice(part);
        }
    }
}

/// Values that are read next, from memory. Narrow tiles of several queries take few dimensions of all
/// positions before the next ones, which is no stream that the processor would read ahead: prefetching
/// makes 4 queries on AVX2 faster by 14 to 34 %. Wide ones read whole lines, and would be slower by up to
/// a quarter.
#[derive(Clone, Copy)]
struct Next {
    from: *const u8,
    /// Of a panel's positions; 0 if nothing is to be prefetched.
    panel_bytes: usize,
}

impl Next {
    #[inline(always)]
    fn new<T>(values: &[T], size: usize, prefetches: bool) -> Self {
        let panel_bytes = if prefetches { KEY_PANEL * size * size_of::<T>() } else { 0 };
        Self { from: values.as_ptr().cast(), panel_bytes }
    }

    /// Prefetches the values of some panels.
    #[inline(always)]
    fn prefetch(self, panels: Range<usize>) {
        let bytes = panels.len() * self.panel_bytes;
        prefetch_lines(self.from.wrapping_add(panels.start * self.panel_bytes), bytes);
    }
}

/// Queries and keys of a float16 cache.
struct F16Scores<'a> {
    /// `[panels][head size][16]`.
    keys: &'a [u16],
    /// The first panel whose scores are wanted.
    first_panel: usize,
    /// `[queries][padded]`.
    queries: &'a [f32],
    size: usize,
    next: Next,
}

/// Scores of `Q` queries with whole panels of float16 keys.
#[inline(always)]
fn scores_f16<V: Vector, const Q: usize>(v: V, job: &F16Scores, scores: &mut [Scores; Q]) {
    let F16Scores { queries, size, .. } = *job;
    let most = V::SCORE_PANELS[Q - 1];
    let panels = job.keys.len() / (size * KEY_PANEL);
    let mut done = job.first_panel;
    while done < panels {
        let keys = &job.keys[done * KEY_PANEL * size..];
        job.next.prefetch(done..panels.min(done + most));
        done += match (panels - done).min(most) {
            ..2 => score_tile::<V, Q, 1>(v, keys, size, queries, done, scores),
            2 => score_tile::<V, Q, 2>(v, keys, size, queries, done, scores),
            3 => score_tile::<V, Q, 3>(v, keys, size, queries, done, scores),
            4..8 => score_tile::<V, Q, 4>(v, keys, size, queries, done, scores),
            _ => score_tile::<V, Q, 8>(v, keys, size, queries, done, scores),
        };
    }
}

/// Scores of `Q` queries with `P` panels: a lane is a key. Returns `P`.
#[inline(always)]
fn score_tile<V: Vector, const Q: usize, const P: usize>(
    v: V,
    keys: &[u16],
    size: usize,
    queries: &[f32],
    first_panel: usize,
    scores: &mut [Scores; Q],
) -> usize {
    let padded = padded_head_size(size);
    let (keys, _) = keys[..P * size * KEY_PANEL].as_chunks::<KEY_PANEL>();
    let queries = &queries[..Q * padded];
    let mut sums = [[v.splat(0.0); P]; Q];
    for d in 0..size {
        prefetch_lines(keys.as_ptr().wrapping_add(P * size + d * P), P);
        let mut k = [v.splat(0.0); P];
        for (p, k) in k.iter_mut().enumerate() {
            // SAFETY: the keys are `P` panels of `size` dimensions.
            *k = v.load_f16(unsafe { keys.get_unchecked(p * size + d) });
        }
        for (q, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are `Q` padded queries.
            let x = v.splat(unsafe { *queries.get_unchecked(q * padded + d) });
            for (sum, &k) in sums.iter_mut().zip(&k) {
                *sum = v.fma(x, k, *sum);
            }
        }
    }
    for (sums, scores) in sums.iter().zip(scores) {
        for (&sum, scores) in sums.iter().zip(panels_from::<P>(scores, first_panel)) {
            v.store(sum, scores);
        }
    }
    P
}

/// Queries and keys of an int8 cache.
pub(in crate::kernels) struct Int8Scores<'a> {
    /// `[panels][steps]`.
    keys: &'a [[i8; KEY_PANEL * KEY_STEP]],
    /// `[panels]`.
    key_scales: &'a [[f32; KEY_PANEL]],
    /// The first panel whose scores are wanted.
    first_panel: usize,
    /// `[queries][padded]`.
    queries: &'a [i8],
    padded: usize,
    /// `[queries]`, at most [`QUERY_BLOCK`].
    scales: &'a [f32],
    /// `[queries]`: the sums of their bytes.
    byte_sums: &'a [i32],
    next: Next,
}

/// Scores of quantized queries with whole panels of int8 keys. A function for each instruction set
/// that has its own dot product, while all else is shared.
pub(in crate::kernels) type ScoresInt8 = unsafe fn(&Int8Scores, &mut [Scores]);

/// See [`ScoresInt8`].
#[inline(always)]
pub(in crate::kernels) fn scores_int8<D: KeyDot>(d: D, job: &Int8Scores, scores: &mut [Scores]) {
    let panels = job.key_scales.len();
    let mut done = job.first_panel;
    while done < panels {
        let at_once = if panels - done >= D::PANELS { D::PANELS } else { 1 };
        job.next.prefetch(done..done + at_once);
        for first in (0..job.scales.len()).step_by(D::QUERIES) {
            let left = (job.scales.len() - first).min(D::QUERIES);
            if at_once > 1 {
                dot_tiles::<D, 4>(d, job, first, left, done, scores);
            } else {
                dot_tiles::<D, 1>(d, job, first, left, done, scores);
            }
        }
        done += at_once;
    }
}

/// The same for `count` queries from number `first` on, and `P` panels.
#[inline(always)]
fn dot_tiles<D: KeyDot, const P: usize>(
    d: D,
    job: &Int8Scores,
    first: usize,
    count: usize,
    panel: usize,
    scores: &mut [Scores],
) {
    const { assert!(P == 1 || P == D::PANELS || D::PANELS == 1) };
    let scores = &mut scores[first..];
    match count {
        1 => dot_tile::<D, 1, P>(d, job, first, panel, scores),
        2 => dot_tile::<D, 2, P>(d, job, first, panel, scores),
        3 => dot_tile::<D, 3, P>(d, job, first, panel, scores),
        4 => dot_tile::<D, 4, P>(d, job, first, panel, scores),
        5 => dot_tile::<D, 5, P>(d, job, first, panel, scores),
        _ => dot_tile::<D, QUERY_BLOCK, P>(d, job, first, panel, scores),
    }
}

/// The same for `Q` queries.
#[inline(always)]
fn dot_tile<D: KeyDot, const Q: usize, const P: usize>(
    d: D,
    job: &Int8Scores,
    first: usize,
    panel: usize,
    scores: &mut [Scores],
) {
    let v = d.vector();
    let steps = job.keys.len() / job.key_scales.len();
    let keys = &job.keys[panel * steps..][..P * steps];
    let queries = &job.queries[first * job.padded..][..Q * job.padded];
    debug_assert!(steps * KEY_STEP <= job.padded);
    // Arrays, so that the loops over sums are unrolled and the sums stay in registers.
    const COUNTED: &str = "so many queries and panels";
    let scores: &mut [Scores; Q] = scores.first_chunk_mut().expect(COUNTED);
    let scales: &[f32; Q] = job.scales[first..].first_chunk().expect(COUNTED);
    let byte_sums: &[i32; Q] = job.byte_sums[first..].first_chunk().expect(COUNTED);
    let key_scales: &[_; P] = job.key_scales[panel..].first_chunk().expect(COUNTED);
    let mut sums = [[v.splat_i32(0); P]; Q];
    for (sums, &byte_sum) in sums.iter_mut().zip(byte_sums) {
        *sums = [v.splat_i32(d.correction(byte_sum)); P];
    }
    for step in 0..steps {
        prefetch_lines(keys.as_ptr().wrapping_add(P * steps + step * P), P);
        let mut k = [d.keys(&[0; KEY_PANEL * KEY_STEP]); P];
        for (p, k) in k.iter_mut().enumerate() {
            // SAFETY: the keys are `P` panels of so many steps.
            *k = d.keys(unsafe { keys.get_unchecked(p * steps + step) });
        }
        for (q, sums) in sums.iter_mut().enumerate() {
            // SAFETY: there are `Q` padded queries, which have every step.
            let x = unsafe {
                let row = queries.as_ptr().add(q * job.padded).cast::<i32>();
                row.add(step).read_unaligned()
            };
            for (sum, &k) in sums.iter_mut().zip(&k) {
                *sum = d.dot(*sum, k, x);
            }
        }
    }
    for ((sums, &scale), scores) in sums.iter().zip(scales).zip(scores) {
        let panels = panels_from::<P>(scores, panel).iter_mut().zip(key_scales);
        for (&sum, (scores, key_scales)) in sums.iter().zip(panels) {
            let scale = v.mul(v.splat(scale), v.load(key_scales));
            v.store(v.mul(v.to_f32(sum), scale), scores);
        }
    }
}

/// The scores of `P` panels. So many and no fewer, or sums would be copied to them from memory.
#[inline(always)]
fn panels_from<const P: usize>(scores: &mut Scores, first: usize) -> &mut [[f32; KEY_PANEL]; P] {
    let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
    panels[first..].first_chunk_mut().expect("a tile lies within a segment")
}

/// Prefetches `count` blocks of keys, in whole cache lines, into the second level cache: those into the
/// first hold up the processor's own, which read ahead faster.
#[inline(always)]
fn prefetch_lines<T>(from: *const T, count: usize) {
    for line in (0..count * size_of::<T>()).step_by(64) {
        prefetch(from.cast::<u8>().wrapping_add(line));
    }
}

/// Adds `slope` times the distance to every score, the first one's being `distance`.
#[inline(always)]
fn add_distances<V: Vector>(v: V, scores: &mut Scores, slope: f32, distance: usize) {
    let (slope, distance) = (v.splat(slope), v.splat(distance as f32));
    let (panels, _) = scores.as_chunks_mut::<KEY_PANEL>();
    let mut first_lanes = [0.0; LANES];
    for (i, lane) in first_lanes.iter_mut().enumerate() {
        *lane = i as f32;
    }
    let mut lanes = v.load(&first_lanes);
    for scores in panels {
        v.store(v.fma(slope, v.sub(distance, lanes), v.load(scores)), scores);
        lanes = v.add(lanes, v.splat(KEY_PANEL as f32));
    }
}

/// Turns the scores that each query sees into weights, those that fill up the panels of any into 0;
/// returns the largest score of each and the sum of its weights.
#[inline(always)]
fn softmax<V: Vector, const Q: usize>(
    v: V,
    scores: &mut [Scores; Q],
    seen: &Seen<Q>,
) -> ([f32; Q], [f32; Q]) {
    let (mut maxima, mut sums) = ([0.0; Q], [0.0; Q]);
    let mut done = 0;
    while done < Q {
        let last = Q.min(done + V::SOFTMAX_QUERIES);
        let panels = seen.panels(done..last);
        for q in done..last {
            scores[q][panels.start * KEY_PANEL..seen.from[q]].fill(f32::NEG_INFINITY);
            scores[q][seen.to[q]..panels.end * KEY_PANEL].fill(f32::NEG_INFINITY);
        }
        let to = (&mut maxima[done..last], &mut sums[done..last]);
        let scores = &mut scores[done..last];
        match last - done {
            1 => softmax_together::<V, 1>(v, scores, panels, to),
            2 => softmax_together::<V, 2>(v, scores, panels, to),
            3 => softmax_together::<V, 3>(v, scores, panels, to),
            4 => softmax_together::<V, 4>(v, scores, panels, to),
            5 => softmax_together::<V, 5>(v, scores, panels, to),
            _ => softmax_together::<V, QUERY_BLOCK>(v, scores, panels, to),
        }
        done = last;
    }
    (maxima, sums)
}

/// The same for whole panels of `Q` queries.
#[inline(always)]
fn softmax_together<V: Vector, const Q: usize>(
    v: V,
    scores: &mut [Scores],
    panels: Range<usize>,
    (maxima, sums): (&mut [f32], &mut [f32]),
) {
    let scores: &mut [Scores; Q] = scores.try_into().expect("so many queries");
    let mut max = [v.splat(f32::NEG_INFINITY); Q];
    for panel in panels.clone() {
        for (max, scores) in max.iter_mut().zip(&mut *scores) {
            *max = v.larger(v.load(&scores.as_chunks().0[panel]), *max);
        }
    }
    let mut max16 = [v.splat(0.0); Q];
    for q in 0..Q {
        maxima[q] = v.highest(max[q]);
        max16[q] = v.splat(maxima[q]);
    }
    let mut lanes = [v.splat(0.0); Q];
    for panel in panels {
        for q in 0..Q {
            let scores = &mut scores[q].as_chunks_mut().0[panel];
            let weights = exp2(v, v.sub(v.load(scores), max16[q]));
            v.store(weights, scores);
            lanes[q] = v.add(lanes[q], weights);
        }
    }
    for q in 0..Q {
        sums[q] = v.fold(lanes[q]);
    }
}

/// Rows of a buffer `[queries][padded]` that weighted values go to.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Rows {
    start: *mut f32,
    size: usize,
    padded: usize,
    /// Whether sums are there, to go on with.
    begun: bool,
}

impl Rows {
    /// The vector of query `q` from dimension `d` on.
    ///
    /// # Safety
    /// The buffer has this query and vector, and nobody else uses it while the reference lives.
    #[inline(always)]
    unsafe fn vector<'a>(self, q: usize, d: usize) -> &'a mut [f32; LANES] {
        // SAFETY: the caller's promise; an array of floats needs no more than a float's alignment.
        unsafe { &mut *self.start.add(q * self.padded + d).cast() }
    }

    /// The rows from query `q` on.
    ///
    /// # Safety
    /// The buffer has this query.
    #[inline(always)]
    unsafe fn from(self, q: usize) -> Self {
        // SAFETY: the caller's promise.
        Self { start: unsafe { self.start.add(q * self.padded) }, ..self }
    }
}

/// Sums the values of the positions that each query sees, times their weights, into the rows at `to`.
///
/// # Safety
/// `to` has a padded row per query, which nobody else uses.
#[inline(always)]
unsafe fn weighted_sums<V: Outlined, T: Value, const Q: usize>(
    v: V,
    values: &[T],
    weights: &[Scores; Q],
    seen: &Seen<Q>,
    mut to: Rows,
) {
    let common = seen.from[Q - 1]..seen.to[0];
    assert!(values.len() >= seen.to[Q - 1] * to.size);
    // SAFETY: the caller's promise, and the assertion: no query sees more than the last one.
    unsafe {
        if common.is_empty() {
            for (q, weights) in weights.iter().enumerate() {
                let positions = seen.from[q]..seen.to[q];
                v.weighted_sums_over::<T, 1>(values, from_ref(weights), positions, to.from(q));
            }
            return;
        }
        if seen.from[0] < common.start {
            for (q, weights) in weights.iter().enumerate() {
                let positions = seen.from[q]..common.start;
                v.weighted_sums_over::<T, 1>(values, from_ref(weights), positions, to.from(q));
            }
            to.begun = true;
        }
        v.weighted_sums_over::<T, Q>(values, weights, common.clone(), to);
        to.begun = true;
        for (q, weights) in weights.iter().enumerate().skip(1) {
            let positions = common.end..seen.to[q];
            if !positions.is_empty() {
                v.weighted_sums_over::<T, 1>(values, from_ref(weights), positions, to.from(q));
            }
        }
    }
}

/// The same for positions that all `Q` queries see.
///
/// # Safety
/// That of [`weighted_sums`]; the values have these positions, which are at most [`SEGMENT`].
#[inline(always)]
pub(in crate::kernels) unsafe fn weighted_sums_over<V: Vector, T: Value, const Q: usize>(
    v: V,
    values: &[T],
    weights: &[Scores; Q],
    positions: Range<usize>,
    to: Rows,
) {
    let most = V::VALUE_VECTORS[Q - 1];
    let vectors = to.size / LANES;
    let mut done = 0;
    while done < vectors {
        let (d, positions) = (done * LANES, positions.clone());
        // SAFETY: the caller's promise; so many vectors lie within a row.
        unsafe {
            done += match (vectors - done).min(most) {
                ..2 => weighted_sum_tile::<V, T, Q, 1>(v, values, weights, positions, d, to),
                2 => weighted_sum_tile::<V, T, Q, 2>(v, values, weights, positions, d, to),
                3 => weighted_sum_tile::<V, T, Q, 3>(v, values, weights, positions, d, to),
                4 => weighted_sum_tile::<V, T, Q, 4>(v, values, weights, positions, d, to),
                5..8 => weighted_sum_tile::<V, T, Q, 5>(v, values, weights, positions, d, to),
                _ => weighted_sum_tile::<V, T, Q, 8>(v, values, weights, positions, d, to),
            };
        }
    }
    let d = vectors * LANES;
    if d < to.size {
        // SAFETY: the caller's promise; a padded row has a whole vector there.
        unsafe { weighted_sum_tail(v, values, weights, positions, d, to) };
    }
}

/// The same for `R` vectors of dimensions from `d` on; returns `R`.
///
/// # Safety
/// That of [`weighted_sums_over`]; the values have these dimensions.
#[inline(always)]
unsafe fn weighted_sum_tile<V: Vector, T: Value, const Q: usize, const R: usize>(
    v: V,
    values: &[T],
    weights: &[Scores; Q],
    positions: Range<usize>,
    d: usize,
    to: Rows,
) -> usize {
    let mut sums = [[v.splat(0.0); R]; Q];
    // SAFETY: the caller's promise.
    unsafe {
        if to.begun {
            for (q, sums) in sums.iter_mut().enumerate() {
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = v.load(to.vector(q, d + r * LANES));
                }
            }
        }
        for j in positions {
            let row = values.as_ptr().add(j * to.size + d).cast::<[T; LANES]>();
            let mut value = [v.splat(0.0); R];
            for (r, value) in value.iter_mut().enumerate() {
                *value = T::load(v, &*row.add(r));
            }
            for (q, sums) in sums.iter_mut().enumerate() {
                let weight = v.splat(*weights.get_unchecked(q).get_unchecked(j));
                for (sum, &value) in sums.iter_mut().zip(&value) {
                    *sum = v.fma(weight, value, *sum);
                }
            }
        }
        for (q, sums) in sums.iter().enumerate() {
            for (r, &sum) in sums.iter().enumerate() {
                v.store(sum, to.vector(q, d + r * LANES));
            }
        }
    }
    R
}

/// The same for the last dimensions of a head whose size is not whole vectors, from `d` on.
///
/// # Safety
/// That of [`weighted_sums_over`]; fewer than a vector are left of a row.
#[inline(always)]
unsafe fn weighted_sum_tail<V: Vector, T: Value, const Q: usize>(
    v: V,
    values: &[T],
    weights: &[Scores; Q],
    positions: Range<usize>,
    d: usize,
    to: Rows,
) {
    for (q, weights) in weights.iter().enumerate() {
        // SAFETY: the caller's promise.
        let sums = unsafe { to.vector(q, d) };
        let mut sum = if to.begun { v.load(sums) } else { v.splat(0.0) };
        for j in positions.clone() {
            let rest = &values[j * to.size + d..(j + 1) * to.size];
            let mut padded = [T::ZERO; LANES];
            padded[..rest.len()].copy_from_slice(rest);
            sum = v.fma(v.splat(weights[j]), T::load(v, &padded), sum);
        }
        v.store(sum, sums);
    }
}

/// How values are cached.
pub(in crate::kernels) trait Value: Copy {
    /// The value 0.
    const ZERO: Self;

    /// 16 of them as floats.
    fn load<V: Vector>(v: V, from: &[Self; LANES]) -> V::F32;
}

impl Value for u16 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load<V: Vector>(v: V, from: &[Self; LANES]) -> V::F32 {
        v.load_f16(from)
    }
}

impl Value for i8 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn load<V: Vector>(v: V, from: &[Self; LANES]) -> V::F32 {
        v.load_i8(from)
    }
}
