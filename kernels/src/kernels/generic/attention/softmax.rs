//! The weights of the positions that queries see.

use core::ops::Range;

use super::scores::Scores;
use crate::kernels::generic::math::exp2;
use crate::kernels::types::{KEY_PANEL, QUERY_BLOCK};
use crate::kernels::vector::Vector;

/// The positions of a segment that the queries of a block see, counted from its first one. Neither decreases
/// from query to query.
pub(super) struct Seen {
    pub(super) from: [usize; QUERY_BLOCK],
    pub(super) to: [usize; QUERY_BLOCK],
}

impl Seen {
    /// The panels that have a position which any of some queries sees.
    #[inline(always)]
    pub(super) fn panels(&self, queries: Range<usize>) -> Range<usize> {
        self.from[queries.start] / KEY_PANEL..self.to[queries.end - 1].div_ceil(KEY_PANEL)
    }
}

/// Turns the scores that each query sees into weights, those that fill up the panels of any into 0;
/// returns the largest score of each and the sum of its weights.
#[inline(always)]
pub(super) fn softmax<V: Vector>(
    v: V,
    scores: &mut [Scores],
    seen: &Seen,
) -> ([f32; QUERY_BLOCK], [f32; QUERY_BLOCK]) {
    let (mut maxima, mut sums) = ([0.0; QUERY_BLOCK], [0.0; QUERY_BLOCK]);
    let mut done = 0;
    while done < scores.len() {
        // Few numbers, of which each has a function: 3 are 2 and 1.
        let together = match (scores.len() - done).min(V::SOFTMAX_QUERIES) {
            3 => 2,
            count => count,
        };
        let last = done + together;
        let panels = seen.panels(done..last);
        for q in done..last {
            scores[q][panels.start * KEY_PANEL..seen.from[q]].fill(f32::NEG_INFINITY);
            scores[q][seen.to[q]..panels.end * KEY_PANEL].fill(f32::NEG_INFINITY);
        }
        let to = (&mut maxima[done..last], &mut sums[done..last]);
        let scores = &mut scores[done..last];
        match together {
            1 => softmax_together::<V, 1>(v, scores, panels, to),
            2 => softmax_together::<V, 2>(v, scores, panels, to),
            4 if V::SOFTMAX_QUERIES >= 4 => softmax_together::<V, 4>(v, scores, panels, to),
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
