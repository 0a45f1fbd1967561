//! Attention over the cache (`docs/numbers.md` section 7): segments of 256 positions, each softmaxed
//! on its own and merged in order (as in Milakov & Gimelshein, 2018, and FlashAttention).

use super::quantize::{quantize_one, scale_of};
use super::{LANES, f16_to_f32, f32_to_f16_saturating, fold16};
use crate::kernels::{
    Attention, AttentionScratch, CellWriter, HeadCache, HeadCacheMut, KEY_PANEL, KEY_STEP, SEGMENT,
};
use crate::math;

/// Puts the key and value of one position into the cache.
#[inline(always)]
pub(super) fn store(head: &mut HeadCacheMut, position: usize, key: &[f32], value: &[f32]) {
    let (panel, lane) = (position / KEY_PANEL, position % KEY_PANEL);
    let size = key.len();
    match head {
        HeadCacheMut::F16 { keys, values } => {
            let keys = &mut keys[panel * size * KEY_PANEL..][..size * KEY_PANEL];
            let values = &mut values[position * size..][..size];
            for d in 0..size {
                keys[d * KEY_PANEL + lane] = f32_to_f16_saturating(key[d]);
                values[d] = f32_to_f16_saturating(value[d]);
            }
        }
        HeadCacheMut::Int8 { keys, key_scales, values, value_scales } => {
            let panel_size = size.next_multiple_of(KEY_STEP) * KEY_PANEL;
            let keys = &mut keys[panel * panel_size..][..panel_size];
            let values = &mut values[position * size..][..size];
            let ((ks, kr), (vs, vr)) = (scale_of(key), scale_of(value));
            key_scales[position] = ks;
            value_scales[position] = vs;
            for d in 0..size {
                let at = (d / KEY_STEP * KEY_PANEL + lane) * KEY_STEP + d % KEY_STEP;
                keys[at] = quantize_one(key[d], kr);
                values[d] = quantize_one(value[d], vr);
            }
        }
    }
}

/// Attention of every query of the job.
#[inline(always)]
pub(super) fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
    for token in job.tokens.clone() {
        // SAFETY: the caller of this kernel owns these cells (`Kernels::attend`).
        let cells = unsafe { out.cells(token, job.columns.clone()) };
        attend_one(job, token, scratch, cells);
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
    /// The last position it sees.
    position: usize,
}

/// Attention of one query over every position up to its own.
#[inline(always)]
fn attend_one(job: &Attention, token: usize, scratch: &mut AttentionScratch, out: &mut [f32]) {
    let AttentionScratch { queries, queries_i8, scores, part, .. } = scratch;
    let query = &prepare(job, token, &mut queries[..out.len()], &mut queries_i8[..out.len()]);
    let part = &mut part[..out.len()];
    let (mut max, mut sum) = segment(job, query, 0, scores, out);
    for start in (SEGMENT..=query.position).step_by(SEGMENT) {
        let (m2, l2) = segment(job, query, start, scores, part);
        let top = if m2 > max { m2 } else { max };
        let (a1, a2) = (math::exp2(max - top), math::exp2(m2 - top));
        sum = l2.mul_add(a2, sum * a1);
        for (out, &o2) in out.iter_mut().zip(&*part) {
            *out = o2.mul_add(a2, *out * a1);
        }
        max = top;
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
    values: &'a mut [f32],
    quantized: &'a mut [i8],
) -> Query<'a> {
    for (scaled, &q) in values.iter_mut().zip(job.query(token)) {
        *scaled = q * job.scale;
    }
    let mut scale = 0.0;
    if matches!(job.cache, HeadCache::Int8 { .. }) {
        let (s, r) = scale_of(values);
        scale = s;
        for (q8, &q) in quantized.iter_mut().zip(&*values) {
            *q8 = quantize_one(q, r);
        }
    }
    Query { values, quantized, scale, position: job.position + token }
}

/// One segment: returns its maximum and the sum of its weights, leaves the weighted values in `out`.
#[inline(always)]
fn segment(
    job: &Attention,
    query: &Query,
    start: usize,
    scores: &mut [f32],
    out: &mut [f32],
) -> (f32, f32) {
    let positions = start..(query.position + 1).min(start + SEGMENT);
    let weights = &mut scores[..positions.len()];
    for (i, weights) in weights.chunks_mut(KEY_PANEL).enumerate() {
        let lanes = panel_scores(&job.cache, query, start / KEY_PANEL + i);
        weights.copy_from_slice(&lanes[..weights.len()]);
    }
    if let Some(bias) = job.bias {
        let slope = bias.slope_at(query.position);
        for (distance, weight) in (0..=query.position - start).rev().zip(&mut *weights) {
            *weight = slope.mul_add(distance as f32, *weight);
        }
    }
    let max = weights.iter().fold(f32::NEG_INFINITY, |m, &s| if s > m { s } else { m });
    let mut lanes = [0.0; LANES];
    for chunk in weights.chunks_mut(LANES) {
        for (lane, weight) in lanes.iter_mut().zip(chunk) {
            *weight = math::exp2(*weight - max);
            *lane += *weight;
        }
    }
    weigh_values(&job.cache, start, weights, out);
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
                for (lane, &key) in lanes.iter_mut().zip(row) {
                    *lane = q.mul_add(f16_to_f32(key), *lane);
                }
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

/// Sum of values times weights, positions ascending: a lane is a dimension.
#[inline(always)]
fn weigh_values(cache: &HeadCache, start: usize, weights: &[f32], out: &mut [f32]) {
    let size = out.len();
    out.fill(0.0);
    for (position, &weight) in (start..).zip(weights) {
        match cache {
            HeadCache::F16 { values, .. } => {
                let values = &values[position * size..][..size];
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = weight.mul_add(f16_to_f32(value), *out);
                }
            }
            HeadCache::Int8 { values, value_scales, .. } => {
                let weight = weight * value_scales[position];
                let values = &values[position * size..][..size];
                for (out, &value) in out.iter_mut().zip(values) {
                    *out = weight.mul_add(f32::from(value), *out);
                }
            }
        }
    }
}
