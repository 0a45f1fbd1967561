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

mod outlined;
mod queries;
mod scores;
mod segment;
mod softmax;
mod store;
mod values;

pub(in crate::kernels) use self::outlined::Outlined;
use self::queries::Queries;
pub(in crate::kernels) use self::scores::{
    F16Scores, Int8Scores, ScoresInt8, scores_f16, scores_int8,
};
use self::segment::segment;
pub(in crate::kernels) use self::store::store;
pub(in crate::kernels) use self::values::{
    Rows, Value, Values, weighted_sum_tail, weighted_sums_over,
};
use crate::kernels::types::{Attention, AttentionScratch, CellWriter, QUERY_BLOCK, SEGMENT, slot};

impl Attention<'_> {
    /// Token and member of a query, counted from the first one.
    #[inline(always)]
    fn pair(&self, query: usize) -> (usize, usize) {
        // A division takes as long as some tens of scores.
        let (token, member) = match self.group {
            1 => (query, 0),
            group => (query / group, query % group),
        };
        (self.tokens.start + token, member)
    }

    /// Those of the next query.
    #[inline(always)]
    fn pair_after(&self, (token, member): (usize, usize)) -> (usize, usize) {
        if member + 1 < self.group { (token, member + 1) } else { (token + 1, 0) }
    }
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
    let segments = match job.segment {
        Some(segment) => segment * SEGMENT..(segment + 1) * SEGMENT,
        None => first_segment..positions.end,
    };
    for start in segments.step_by(SEGMENT) {
        // The first tokens may lie before the segment, the windows of the last ones begin after it.
        let before = start.saturating_sub(positions.start);
        let window_end = start.saturating_add(job.window.unwrap_or(usize::MAX) - 1);
        let last = positions.end.min(window_end.saturating_add(SEGMENT)) - positions.start;
        let (skipped, end) = (before * job.group, last * job.group);
        queries.segment = start;
        queries.slot = slot(start, capacity);
        let mut first = skipped;
        while first < end {
            queries.is_first_block = first == skipped;
            // 5 are 3 and 2: groups of 5 are those of models with 14 G weights, which attention hardly slows down,
            // and a function for them is a twelfth of all code here.
            let count = match end - first {
                5 => 3,
                left => left.min(QUERY_BLOCK),
            };
            // SAFETY: so many queries are left, all of which see a position of the segment.
            unsafe { segment(v, &mut queries, scratch, first, count) };
            first += count;
        }
    }
    let mut pair = job.pair(0);
    for q in 0..queries.count {
        let sums = &scratch.sums[q * queries.padded..][..queries.size];
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(segment) = job.segment {
                let cells = out.cells(segment, job.part_columns(pair.1));
                let (values, ends) = cells.split_at_mut(queries.size);
                values.copy_from_slice(sums);
                ends.copy_from_slice(&[queries.maxima[q], queries.sums[q]]);
            } else {
                let inverse = 1.0 / queries.sums[q];
                let cells = out.cells(pair.0, job.columns_of(pair.1));
                for (cell, &sum) in cells.iter_mut().zip(sums) {
                    *cell = sum * inverse;
                }
            }
        }
        pair = job.pair_after(pair);
    }
}
