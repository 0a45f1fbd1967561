//! One segment of the cache: scores, weights and weighted values of some queries.

use core::array::from_ref;
use core::ops::Range;

use super::outlined::{Outlined, for_queries};
use super::queries::Queries;
use super::scores::{F16Scores, Int8Scores, Next, Scores, add_distances};
use super::softmax::{Seen, softmax};
use super::values::{Rows, Value, Values};
use crate::kernels::ahead::Ahead;
use crate::kernels::types::{
    AttentionScratch, HeadCache, KEY_PANEL, KEY_STEP, QUERY_BLOCK, SEGMENT,
};

/// Takes `count` queries from number `first` on through the segment that they are at.
///
/// # Safety
/// There are that many queries, at most [`QUERY_BLOCK`], all of which see a position of the segment; the buffers are those of
/// [`Kernels::attend`](crate::kernels::Kernels::attend).
#[inline(always)]
pub(super) unsafe fn segment<V: Outlined>(
    v: V,
    queries: &mut Queries,
    scratch: &mut AttentionScratch,
    first: usize,
    count: usize,
) {
    let Queries { job, size, padded, segment, slot, .. } = *queries;
    let rows = first * padded..(first + count) * padded;
    let (scores, _) = scratch.scores.as_chunks_mut::<SEGMENT>();
    let scores = &mut scores[..count];
    let mut pairs = [job.pair(first); QUERY_BLOCK];
    for q in 1..count {
        pairs[q] = job.pair_after(pairs[q - 1]);
    }
    let pairs = &pairs[..count];
    let mut seen = Seen { from: [0; QUERY_BLOCK], to: [0; QUERY_BLOCK] };
    // How many queries have been in segments before.
    let mut begun = 0;
    for (q, &(token, _)) in pairs.iter().enumerate() {
        let visible = job.visible(job.position + token);
        begun += usize::from(visible.start < segment && job.segment.is_none());
        seen.from[q] = visible.start.saturating_sub(segment);
        seen.to[q] = (visible.end - segment).min(SEGMENT);
    }
    let panels = seen.panels(0..count);
    let is_narrow = count > 1 && V::VALUE_VECTORS[count - 1] <= 2;
    let prefetches = is_narrow && queries.is_first_block;
    let ahead = if queries.is_first_block { v.ahead() } else { Ahead::NOTHING };
    match job.cache {
        HeadCache::F16 { keys, values, .. } => {
            let f16 = F16Scores {
                keys: &keys[slot * size..][..panels.end * KEY_PANEL * size],
                first_panel: panels.start,
                queries: &scratch.queries[rows.clone()],
                size,
                next: Next::new(&values[slot * size..], size, prefetches),
            };
            // SAFETY: a `V` exists.
            unsafe { for_queries!(count, v.scores_f16::<_>(&f16, scores)) }
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
                scales: &queries.scales[first..first + count],
                byte_sums: &queries.byte_sums[first..first + count],
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
        _ => &mut scratch.part[..count * padded],
    };
    let to = Rows { start: to.as_mut_ptr(), size, padded, begun: false };
    // SAFETY: `to` has a padded row for each query, and `Kernels::attend` has checked that the cache
    // holds every position that is seen.
    unsafe {
        match job.cache {
            HeadCache::F16 { values, .. } => {
                let values = Values { rows: &values[slot * size..], ahead };
                weighted_sums(v, values, scores, &seen, to);
            }
            HeadCache::Int8 { values, value_scales, .. } => {
                for (q, weights) in scores.iter_mut().enumerate() {
                    let (from, to) = (seen.from[q], seen.to[q]);
                    let scales = &value_scales[slot + from..];
                    for (weight, scale) in weights[from..to].iter_mut().zip(scales) {
                        *weight *= scale;
                    }
                }
                let values = Values { rows: &values[slot * size..], ahead };
                weighted_sums(v, values, scores, &seen, to);
            }
        }
    }
    if begun == 0 {
        queries.maxima[first..first + count].copy_from_slice(&maxima[..count]);
        queries.sums[first..first + count].copy_from_slice(&sums[..count]);
        return;
    }
    let parts = scratch.part.chunks_exact(padded);
    for ((q, part), (max, sum)) in (0..count).zip(parts).zip(maxima.into_iter().zip(sums)) {
        let to = &mut scratch.sums[(first + q) * padded..][..padded];
        if q < begun {
            queries.merge(v, first + q, (max, sum), part, to);
        } else {
            (queries.maxima[first + q], queries.sums[first + q]) = (max, sum);
            to.copy_from_slice(part);
        }
    }
}

/// Sums the values of the positions that each query sees, times their weights, into the rows at `to`.
///
/// # Safety
/// `to` has a padded row per query, which nobody else uses.
#[inline(always)]
unsafe fn weighted_sums<V: Outlined, T: Value>(
    v: V,
    values: Values<T>,
    weights: &[Scores],
    seen: &Seen,
    mut to: Rows,
) {
    let last = weights.len() - 1;
    let common = seen.from[last]..seen.to[0];
    assert!(values.rows.len() >= seen.to[last] * to.size);
    // SAFETY: the caller's promise, and the assertion: no query sees more than the last one.
    unsafe {
        if !common.is_empty() {
            // Those before the common ones, in the order of positions; then the common ones.
            if seen.from[0] < common.start {
                weighted_sums_alone(v, values, weights, seen, 0..common.start, to);
                to.begun = true;
            }
            let positions = common.clone();
            for_queries!(
                weights.len(),
                v.weighted_sums_over::<T, _>(values, weights, positions, to)
            );
            to.begun = true;
        }
        if common.is_empty() || seen.to[last] > common.end {
            let from = if common.is_empty() { 0 } else { common.end };
            weighted_sums_alone(v, values, weights, seen, from..SEGMENT, to);
        }
    }
}

/// The same for the positions within a range, for one query after the other.
///
/// # Safety
/// That of [`weighted_sums`].
#[inline(always)]
unsafe fn weighted_sums_alone<V: Outlined, T: Value>(
    v: V,
    values: Values<T>,
    weights: &[Scores],
    seen: &Seen,
    within: Range<usize>,
    to: Rows,
) {
    for (q, weights) in weights.iter().enumerate() {
        let positions = seen.from[q].max(within.start)..seen.to[q].min(within.end);
        // A row that is not begun is written, if only with zeros.
        if !positions.is_empty() || !to.begun {
            // SAFETY: the caller's promise.
            unsafe {
                v.weighted_sums_over::<T, 1>(values, from_ref(weights), positions, to.from(q));
            }
        }
    }
}
