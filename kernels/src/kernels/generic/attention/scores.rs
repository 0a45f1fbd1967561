//! Scores of queries with a segment's keys.

use core::ops::Range;

use crate::kernels::prefetch::prefetch;
use crate::kernels::types::{KEY_PANEL, KEY_STEP, QUERY_BLOCK, SEGMENT, padded_head_size};
use crate::kernels::vector::{KeyDot, LANES, Vector};

/// A panel's scores are a vector.
const _: () = assert!(KEY_PANEL == LANES);

/// The scores of a segment with one query.
pub(super) type Scores = [f32; SEGMENT];

/// Values that are read next, from memory. Narrow tiles of several queries take few dimensions of all
/// positions before the next ones, which is no stream that the processor would read ahead: prefetching
/// makes 4 queries on AVX2 faster by 14 to 34 %. Wide ones read whole lines, and would be slower by up to
/// a quarter.
#[derive(Clone, Copy)]
pub(super) struct Next {
    from: *const u8,
    /// Of a panel's positions; 0 if nothing is to be prefetched.
    panel_bytes: usize,
}

impl Next {
    #[inline(always)]
    pub(super) fn new<T>(values: &[T], size: usize, prefetches: bool) -> Self {
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
pub(in crate::kernels) struct F16Scores<'a> {
    /// `[panels][head size][16]`.
    pub(super) keys: &'a [u16],
    /// The first panel whose scores are wanted.
    pub(super) first_panel: usize,
    /// `[queries][padded]`.
    pub(super) queries: &'a [f32],
    pub(super) size: usize,
    pub(super) next: Next,
}

/// Scores of `Q` queries with whole panels of float16 keys.
#[inline(always)]
pub(in crate::kernels) fn scores_f16<V: Vector, const Q: usize>(
    v: V,
    job: &F16Scores,
    scores: &mut [Scores],
) {
    let scores = scores.first_chunk_mut::<Q>().expect("scores of a block");
    let F16Scores { queries, size, .. } = *job;
    let most = V::SCORE_PANELS[Q - 1];
    let panels = job.keys.len() / (size * KEY_PANEL);
    let mut done = job.first_panel;
    while done < panels {
        let keys = &job.keys[done * KEY_PANEL * size..];
        job.next.prefetch(done..panels.min(done + most));
        done += match (panels - done).min(most) {
            // Three at once only where there are never more: a rest of three may be two and one.
            3 if most == 3 => score_tile::<V, Q, 3>(v, keys, size, queries, done, scores),
            2..4 => score_tile::<V, Q, 2>(v, keys, size, queries, done, scores),
            ..2 => score_tile::<V, Q, 1>(v, keys, size, queries, done, scores),
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
    pub(super) keys: &'a [[i8; KEY_PANEL * KEY_STEP]],
    /// `[panels]`.
    pub(super) key_scales: &'a [[f32; KEY_PANEL]],
    /// The first panel whose scores are wanted.
    pub(super) first_panel: usize,
    /// `[queries][padded]`.
    pub(super) queries: &'a [i8],
    pub(super) padded: usize,
    /// `[queries]`, at most [`QUERY_BLOCK`].
    pub(super) scales: &'a [f32],
    /// `[queries]`: the sums of their bytes.
    pub(super) byte_sums: &'a [i32],
    pub(super) next: Next,
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
pub(super) fn add_distances<V: Vector>(v: V, scores: &mut Scores, slope: f32, distance: usize) {
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
