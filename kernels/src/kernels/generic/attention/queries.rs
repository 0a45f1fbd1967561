//! The queries of a job, and what they have gathered so far.

use super::scores::ScoresInt8;
use crate::kernels::generic::hadamard::hadamard;
use crate::kernels::generic::math::exp2;
use crate::kernels::generic::quantize::{scale_of, to_i8};
use crate::kernels::types::{
    Attention, AttentionScratch, HeadCache, MOST_QUERIES, padded_head_size,
};
use crate::kernels::vector::{LANES, Vector};

/// The queries of a job on their way through the segments.
pub(in crate::kernels) struct Queries<'a> {
    pub(super) job: &'a Attention<'a>,
    pub(super) scores_int8: ScoresInt8,
    /// Head size, and with padding: the distance of rows in the buffers.
    pub(super) size: usize,
    pub(super) padded: usize,
    pub(super) count: usize,
    /// Whether no others were at this segment before.
    pub(super) is_first_block: bool,
    /// The first position of the segment that they are at, and its slot.
    pub(super) segment: usize,
    pub(super) slot: usize,
    /// Scales of quantized queries.
    pub(super) scales: [f32; MOST_QUERIES],
    /// Sums of their bytes.
    pub(super) byte_sums: [i32; MOST_QUERIES],
    /// Maximum of the scores so far.
    pub(super) maxima: [f32; MOST_QUERIES],
    /// Sum of the weights so far.
    pub(super) sums: [f32; MOST_QUERIES],
}

impl<'a> Queries<'a> {
    /// Scales the queries, and for an int8 cache transforms and quantizes them.
    #[inline(always)]
    pub(super) fn new<V: Vector>(
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
                for block in row[..size].as_chunks_mut().0 {
                    hadamard(v, block);
                }
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

    /// Adds a segment's part of a query to what there is; both are padded.
    #[inline(always)]
    pub(super) fn merge<V: Vector>(
        &mut self,
        v: V,
        q: usize,
        (m2, l2): (f32, f32),
        part: &[f32],
        sums: &mut [f32],
    ) {
        let (m1, l1) = (self.maxima[q], self.sums[q]);
        let max = if m2 > m1 { m2 } else { m1 };
        let a1 = exp2(v, v.splat(m1 - max));
        let a2 = exp2(v, v.splat(m2 - max));
        let (parts, sums) = (part.as_chunks::<LANES>().0, sums.as_chunks_mut::<LANES>().0);
        for (sum, part) in sums.iter_mut().zip(parts) {
            v.store(v.fma(v.load(part), a2, v.mul(v.load(sum), a1)), sum);
        }
        let mut total = [0.0; LANES];
        v.store(v.fma(v.splat(l2), a2, v.mul(v.splat(l1), a1)), &mut total);
        (self.maxima[q], self.sums[q]) = (max, total[0]);
    }
}
