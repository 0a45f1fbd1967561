//! Activation quantization (`docs/numbers.md` section 3).

use std::arch::aarch64::{float32x4_t, int8x16_t, int16x8_t, int32x4_t, uint32x4_t, vst1q_s8};

use super::instructions::*;
use super::load16;
use crate::kernels::scalar::scale_for;
use crate::kernels::{QuantizedRowMut, Start};
use crate::quant::block_size;

/// Values that are quantized together: as bytes they fill a register.
const CHUNK: usize = 16;

/// Quantizes one token's row by groups, the last one padded with zeros.
pub(super) fn quantize(x: &[f32], group_size: usize, out: QuantizedRowMut) {
    match group_size {
        32 => by_group::<32>(x, out),
        64 => by_group::<64>(x, out),
        _ => by_group::<128>(x, out),
    }
}

#[inline]
fn by_group<const G: usize>(x: &[f32], out: QuantizedRowMut) {
    let (groups, tail) = x.as_chunks::<G>();
    let (values, _) = out.values.as_chunks_mut::<G>();
    let starts = out.starts.chunks_exact_mut(G / block_size(G));
    let mut out = values.iter_mut().zip(out.scales).zip(starts);
    for x in groups {
        let ((values, scale), starts) = out.next().expect("as many groups");
        *scale = quantize_group(x, values, starts);
    }
    if let Some(((values, scale), starts)) = out.next() {
        let mut padded = [0.0; G];
        padded[..tail.len()].copy_from_slice(tail);
        *scale = quantize_group(&padded, values, starts);
    }
}

/// Fills values and starts, returns the scale.
#[inline(always)]
fn quantize_group<const G: usize>(x: &[f32; G], values: &mut [i8; G], starts: &mut [Start]) -> f32 {
    let (chunks, _) = x.as_chunks::<CHUNK>();
    let mut max = [vdupq_n_u32(0); 4];
    for x in chunks {
        for (max, x) in max.iter_mut().zip(load16(x)) {
            *max = vmaxq_u32(*max, magnitude_bits(x));
        }
    }
    let max = vmaxq_u32(vmaxq_u32(max[0], max[1]), vmaxq_u32(max[2], max[3]));
    let (scale, r) = scale_for(vmaxvq_u32(max));

    let (blocks, _) = values.as_chunks_mut::<CHUNK>();
    let per_block = block_size(G) / CHUNK;
    let blocks = blocks.chunks_exact_mut(per_block).zip(chunks.chunks_exact(per_block));
    for ((values, x), start) in blocks.zip(starts) {
        let mut sums = vdupq_n_s16(0);
        for (values, x) in values.iter_mut().zip(x) {
            let q = pack(load16(x).map(|x| round(x, r)));
            // SAFETY: 16 bytes.
            unsafe { vst1q_s8(values.as_mut_ptr(), q) };
            sums = vpadalq_s8(sums, q);
        }
        *start = start_of(sums);
    }
    scale
}

/// The start of a block, given the sums of its neighbours in 4 x 2 lanes.
#[inline(always)]
fn start_of(sums: int16x8_t) -> Start {
    let a = vadd_s16(vget_low_s16(sums), vget_high_s16(sums));
    // Two lanes 2 apart are left to add.
    let sum = |a: i16, b: i16| -8 * (a + b);
    [
        sum(vget_lane_s16::<0>(a), vget_lane_s16::<2>(a)),
        sum(vget_lane_s16::<1>(a), vget_lane_s16::<3>(a)),
    ]
}

/// The bits of |x|.
#[inline(always)]
pub(super) fn magnitude_bits(x: float32x4_t) -> uint32x4_t {
    vreinterpretq_u32_f32(vabsq_f32(x))
}

/// `round_half_even(x * r)`, and 0 if r is 0, also where x is not finite.
#[inline(always)]
pub(super) fn round(x: float32x4_t, r: f32) -> int32x4_t {
    let some = vdupq_n_s32(if r == 0.0 { 0 } else { -1 });
    vandq_s32(vcvtnq_s32_f32(vmulq_n_f32(x, r)), some)
}

/// 16 integers that fit into bytes.
#[inline(always)]
pub(super) fn pack(q: [int32x4_t; 4]) -> int8x16_t {
    let halves = [[q[0], q[1]], [q[2], q[3]]]
        .map(|[a, b]| vmovn_s16(vcombine_s16(vmovn_s32(a), vmovn_s32(b))));
    vcombine_s8(halves[0], halves[1])
}
