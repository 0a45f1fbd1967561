//! One segment of the cache: scores, weights and weighted values of some queries.

use std::array::from_ref;

use super::outlined::Outlined;
use super::queries::Queries;
use super::scores::{F16Scores, Int8Scores, Next, Scores, add_distances, scores_f16};
use super::softmax::{Seen, softmax};
use super::values::{Rows, Value};
use crate::kernels::types::{AttentionScratch, HeadCache, KEY_PANEL, KEY_STEP, SEGMENT};

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
