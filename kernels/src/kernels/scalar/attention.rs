//! Attention over the cache (`docs/numbers.md` section 7): segments of 256 positions, each softmaxed
//! on its own and merged in order (as in Milakov & Gimelshein, 2018, and FlashAttention).

use core::ops::Range;

use super::add::{add_f16, add_i8};
use super::quantize::{quantize_one, scale_of, transform, transformed_scale_of};
use super::{LANES, f32_to_f16_saturating, fold16};
use crate::float::fma;
use crate::kernels::types::{
    Attention, AttentionScratch, CellWriter, HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP, SEGMENT,
    slot,
};
use crate::math;
use crate::quant::{HADAMARD_BLOCK, hadamard};

/// Puts the key and value of one position into a slot of the cache.
#[inline(always)]
pub(super) fn store(head: &mut HeadCacheMut, slot: usize, key: &[f32], value: &[f32]) {
    let (panel, lane) = (slot / KEY_PANEL, slot % KEY_PANEL);
    let size = key.len();
    match head {
        HeadCacheMut::F16 { keys, values } => {
            let keys = &mut keys[panel * size * KEY_PANEL..][..size * KEY_PANEL];
            let values = &mut values[slot * size..][..size];
            for d in 0..size {
                keys[d * KEY_PANEL + lane] = f32_to_f16_saturating(key[d]);
                values[d] = f32_to_f16_saturating(value[d]);
            }
        }
        HeadCacheMut::Int8 { keys, key_scales, values, value_scales } => {
            let panel_size = size.next_multiple_of(KEY_STEP) * KEY_PANEL;
            let keys = &mut keys[panel * panel_size..][..panel_size];
            let values = &mut values[slot * size..][..size];
            let ((ks, kr), (vs, vr)) = (transformed_scale_of(key), scale_of(value));
            key_scales[slot] = ks;
            value_scales[slot] = vs;
            for (index, block) in key.chunks(HADAMARD_BLOCK).enumerate() {
                let mut transformed = [0.0; HADAMARD_BLOCK];
                for (i, &x) in transform(block, &mut transformed).iter().enumerate() {
                    let d = index * HADAMARD_BLOCK + i;
                    let at = (d / KEY_STEP * KEY_PANEL + lane) * KEY_STEP + d % KEY_STEP;
                    keys[at] = quantize_one(x, kr);
                }
            }
            for (to, &value) in values.iter_mut().zip(value) {
                *to = quantize_one(value, vr);
            }
        }
    }
}

/// Attention of every query of the job.
#[inline(always)]
pub(super) fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
    for token in job.tokens.clone() {
        for member in 0..job.group {
            // SAFETY: the caller of this kernel owns these cells (`Kernels::attend`).
            let cells = unsafe {
                match job.segment {
                    Some(segment) => out.cells(segment, job.part_columns(member)),
                    None => out.cells(token, job.columns_of(member)),
                }
            };
            attend_one(job, token, member, scratch, cells);
        }
    }
}

/// A query as the scores need it.
struct Query<'a> {
    /// Scaled, `[head size]`.
    values: &'a [f32],
    /// Quantized, `[head size]`, for an int8 cache.
    quantized: &'a [i8],
    /// Its scale.
    scale: f32,
    /// Its position, the last one it sees.
    position: usize,
    /// What its distance to a key is multiplied by and added to the score, if anything.
    slope: Option<f32>,
}

/// Attention of one query over the positions it sees, segment by segment.
#[inline(always)]
fn attend_one(
    job: &Attention,
    token: usize,
    member: usize,
    scratch: &mut AttentionScratch,
    out: &mut [f32],
) {
    let AttentionScratch { queries, queries_i8, scores, part, .. } = scratch;
    let size = job.columns.len();
    let query = prepare(job, token, member, &mut queries[..size], &mut queries_i8[..size]);
    let mut visible = job.visible(query.position);
    if let Some(number) = job.segment {
        visible.start = visible.start.max(number * SEGMENT);
        visible.end = visible.end.min((number + 1) * SEGMENT);
    }
    let ((out, ends), part) = (out.split_at_mut(size), &mut part[..size]);
    let (mut start, mut max, mut sum) = (visible.start, 0.0, 0.0);
    // One call of what is inlined, for the first segment as for all others.
    loop {
        let (is_first, end) = (start == visible.start, (start / SEGMENT + 1) * SEGMENT);
        let positions = start..visible.end.min(end);
        let values = if is_first { &mut *out } else { &mut *part };
        let (m2, l2) = segment(job, &query, positions, scores, values);
        if is_first {
            (max, sum) = (m2, l2);
        } else {
            let top = if m2 > max { m2 } else { max };
            let (a1, a2) = (math::exp2(max - top), math::exp2(m2 - top));
            sum = fma(l2, a2, sum * a1);
            for (out, &o2) in out.iter_mut().zip(&*part) {
                *out = fma(o2, a2, *out * a1);
            }
            max = top;
        }
        if end >= visible.end {
            break;
        }
        start = end;
    }
    if job.segment.is_some() {
        return ends.copy_from_slice(&[max, sum]);
    }
    let inverse = 1.0 / sum;
    for out in out.iter_mut() {
        *out *= inverse;
    }
}

#[inline(always)]
fn prepare<'a>(
    job: &Attention,
    token: usize,
    member: usize,
    values: &'a mut [f32],
    quantized: &'a mut [i8],
) -> Query<'a> {
    for (scaled, &q) in values.iter_mut().zip(job.query(token, member)) {
        *scaled = q * job.scale;
    }
    let mut scale = 0.0;
    if matches!(job.cache, HeadCache::Int8 { .. }) {
        hadamard(values);
        let (s, r) = scale_of(values);
        scale = s;
        for (q8, &q) in quantized.iter_mut().zip(&*values) {
            *q8 = quantize_one(q, r);
        }
    }
    let position = job.position + token;
    let slope = job.bias.map(|bias| bias.slope_at(member, position));
    Query { values, quantized, scale, position, slope }
}

/// The positions of one segment that a query sees: returns its maximum and the sum of its weights,
/// leaves the weighted sum of the values in `out`.
#[inline(always)]
fn segment(
    job: &Attention,
    query: &Query,
    positions: Range<usize>,
    scores: &mut [f32],
    out: &mut [f32],
) -> (f32, f32) {
    // They lie side by side: a segment does not wrap around.
    let first_slot = slot(positions.start, job.cache.capacity(out.len()));
    let weights = &mut scores[..positions.len()];
    let mut done = 0;
    while done < weights.len() {
        let (panel, lane) = ((first_slot + done) / KEY_PANEL, (first_slot + done) % KEY_PANEL);
        let scores = &panel_scores(&job.cache, query, panel)[lane..];
        let count = scores.len().min(weights.len() - done);
        weights[done..][..count].copy_from_slice(&scores[..count]);
        done += count;
    }
    if let Some(slope) = query.slope {
        for (position, weight) in positions.clone().zip(&mut *weights) {
            *weight = fma(slope, (query.position - position) as f32, *weight);
        }
    }
    let max = weights.iter().fold(f32::NEG_INFINITY, |m, &s| if s > m { s } else { m });
    for weight in &mut *weights {
        *weight = math::exp2(*weight - max);
    }
    let mut lanes = [0.0; LANES];
    for (position, &weight) in positions.zip(&*weights) {
        lanes[position % LANES] += weight;
    }
    weighted_sum(&job.cache, first_slot, weights, out);
    (max, fold16(lanes))
}

/// Scores of the 16 positions of one panel: a lane is a key.
#[inline(always)]
fn panel_scores(cache: &HeadCache, query: &Query, panel: usize) -> [f32; KEY_PANEL] {
    let size = query.values.len();
    let mut lanes = [0.0; KEY_PANEL];
    match cache {
        HeadCache::F16 { keys, .. } => {
            let keys = &keys[panel * size * KEY_PANEL..][..size * KEY_PANEL];
            for (row, &q) in keys.chunks_exact(KEY_PANEL).zip(query.values) {
                add_f16(&mut lanes, q, row);
            }
        }
        HeadCache::Int8 { keys, key_scales, .. } => {
            let panel_size = size.next_multiple_of(KEY_STEP) * KEY_PANEL;
            let keys = &keys[panel * panel_size..][..panel_size];
            let key_scales = &key_scales[panel * KEY_PANEL..][..KEY_PANEL];
            for (lane, score) in lanes.iter_mut().enumerate() {
                let mut dot = 0;
                for (d, &q) in query.quantized.iter().enumerate() {
                    let at = (d / KEY_STEP * KEY_PANEL + lane) * KEY_STEP + d % KEY_STEP;
                    dot += i32::from(q) * i32::from(keys[at]);
                }
                *score = dot as f32 * (query.scale * key_scales[lane]);
            }
        }
    }
    lanes
}

/// Sum of values times weights, slots ascending from the first: a lane is a dimension.
#[inline(always)]
fn weighted_sum(cache: &HeadCache, first_slot: usize, weights: &[f32], out: &mut [f32]) {
    let size = out.len();
    out.fill(0.0);
    for (slot, &weight) in (first_slot..).zip(weights) {
        match cache {
            HeadCache::F16 { values, .. } => {
                add_f16(out, weight, &values[slot * size..][..size]);
            }
            HeadCache::Int8 { values, value_scales, .. } => {
                let weight = weight * value_scales[slot];
                add_i8(out, weight, &values[slot * size..][..size]);
            }
        }
    }
}
