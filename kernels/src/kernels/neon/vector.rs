//! 16 lanes in four registers: 0..4, 4..8, 8..12 and 12..16.

use core::arch::aarch64::{
    float32x4_t, int8x16_t, int16x8_t, vld1_s8, vld1_u8, vld1q_f32, vld1q_s8, vld1q_u16, vld1q_u32,
    vst1q_f32, vst1q_s8, vst1q_u16,
};
use core::array::from_fn;
use core::marker::PhantomData;

use super::dot::Level;
use super::instructions::*;
use super::registers::{F32x16, I32x16};
use crate::kernels::types::Correction;
use crate::kernels::vector::{KeyDot, LANES, Vector};

/// NEON, which every 64-bit Arm processor has.
#[derive(Clone, Copy)]
pub(super) struct Lanes(());

impl Lanes {
    /// NEON is part of the target, as `instructions` asserts.
    pub(super) const HERE: Self = Self(());
}

/// The levels of the transform within 4 lanes, of two registers: even lanes, then odd ones, of both beside each
/// other; their sums and differences are two registers again, of which the same makes the second level.
#[inline(always)]
fn levels(a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
    let (even, odd) = (vuzp1q_f32(a, b), vuzp2q_f32(a, b));
    let (sum, difference) = (vaddq_f32(even, odd), vsubq_f32(even, odd));
    let (low, high) = (vuzp1q_f32(sum, difference), vuzp2q_f32(sum, difference));
    let (sum, difference) = (vaddq_f32(low, high), vsubq_f32(low, high));
    (vuzp1q_f32(sum, difference), vuzp2q_f32(sum, difference))
}

impl Vector for Lanes {
    type F32 = F32x16;
    type I32 = I32x16;
    type Bytes = [int8x16_t; 2];
    type Pairs = int16x8_t;

    // 24 registers of sums at most, of 32.
    const SCORE_PANELS: [usize; 6] = [4, 3, 2, 1, 1, 1];
    const VALUE_VECTORS: [usize; 6] = [5, 2, 2, 1, 1, 1];
    const SOFTMAX_QUERIES: usize = 2;

    #[inline(always)]
    unsafe fn new() -> Self {
        Self::HERE
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F32x16 {
        [vdupq_n_f32(x); 4]
    }

    #[inline(always)]
    fn splat_i32(self, n: i32) -> I32x16 {
        [vdupq_n_s32(n); 4]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F32x16 {
        // SAFETY: 16 floats.
        from_fn(|i| unsafe { vld1q_f32(from.as_ptr().add(4 * i)) })
    }

    #[inline(always)]
    fn store(self, x: F32x16, to: &mut [f32; LANES]) {
        for (to, x) in to.as_chunks_mut::<4>().0.iter_mut().zip(x) {
            // SAFETY: 4 floats.
            unsafe { vst1q_f32(to.as_mut_ptr(), x) };
        }
    }

    #[inline(always)]
    fn keep_first(self, n: usize, x: F32x16) -> F32x16 {
        let masks: [u32; LANES] = from_fn(|lane| if lane < n { u32::MAX } else { 0 });
        from_fn(|i| {
            // SAFETY: 4 of the 16 masks.
            let mask = unsafe { vld1q_u32(masks.as_ptr().add(4 * i)) };
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x[i]), mask))
        })
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> F32x16 {
        // SAFETY: 16 float16.
        let bits = unsafe { [vld1q_u16(from.as_ptr()), vld1q_u16(from.as_ptr().add(8))] };
        let [[a, b], [c, d]] = [f16_to_f32x8(bits[0]), f16_to_f32x8(bits[1])];
        [a, b, c, d]
    }

    #[inline(always)]
    fn to_f16(self, x: F32x16) -> [u16; LANES] {
        let mut to = [0; LANES];
        // SAFETY: 16 float16.
        unsafe {
            vst1q_u16(to.as_mut_ptr(), f32x8_to_f16(x[0], x[1]));
            vst1q_u16(to.as_mut_ptr().add(8), f32x8_to_f16(x[2], x[3]));
        }
        to
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> F32x16 {
        // SAFETY: 16 bytes.
        let bytes = unsafe { [vld1_s8(from.as_ptr()), vld1_s8(from.as_ptr().add(8))] };
        let words = [vmovl_s8(bytes[0]), vmovl_s8(bytes[1])];
        let [low, high] = [words[0], words[1]]
            .map(|w| [vmovl_s16(vget_low_s16(w)), vmovl_high_s16(w)].map(vcvtq_f32_s32));
        [low[0], low[1], high[0], high[1]]
    }

    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> I32x16 {
        // SAFETY: 16 bytes.
        let bytes = unsafe { [vld1_u8(from.as_ptr()), vld1_u8(from.as_ptr().add(8))] };
        let words = [vmovl_u8(bytes[0]), vmovl_u8(bytes[1])];
        let [low, high] = words
            .map(|w| [vmovl_u16(vget_low_u16(w)), vmovl_high_u16(w)].map(vreinterpretq_s32_u32));
        [low[0], low[1], high[0], high[1]]
    }

    #[inline(always)]
    fn add(self, a: F32x16, b: F32x16) -> F32x16 {
        from_fn(|i| vaddq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: F32x16, b: F32x16) -> F32x16 {
        from_fn(|i| vsubq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: F32x16, b: F32x16) -> F32x16 {
        from_fn(|i| vmulq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn div(self, a: F32x16, b: F32x16) -> F32x16 {
        from_fn(|i| vdivq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn fma(self, a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
        from_fn(|i| vfmaq_f32(c[i], a[i], b[i]))
    }

    #[inline(always)]
    fn neg(self, x: F32x16) -> F32x16 {
        x.map(vnegq_f32)
    }

    #[inline(always)]
    fn abs(self, x: F32x16) -> F32x16 {
        x.map(vabsq_f32)
    }

    // `vminq_f32` and `vmaxq_f32` hand a NaN on, whichever operand it is.
    #[inline(always)]
    fn at_most(self, x: F32x16, limit: F32x16) -> F32x16 {
        from_fn(|i| vminq_f32(x[i], limit[i]))
    }

    #[inline(always)]
    fn at_least(self, x: F32x16, limit: F32x16) -> F32x16 {
        from_fn(|i| vmaxq_f32(x[i], limit[i]))
    }

    // `vmaxq_f32` would make +0 of -0.
    #[inline(always)]
    fn relu(self, x: F32x16) -> F32x16 {
        self.zero_below(0.0, x, x)
    }

    #[inline(always)]
    fn larger(self, x: F32x16, max: F32x16) -> F32x16 {
        from_fn(|i| vbslq_f32(vcgtq_f32(x[i], max[i]), x[i], max[i]))
    }

    #[inline(always)]
    fn zero_below(self, limit: f32, x: F32x16, y: F32x16) -> F32x16 {
        let limit = vdupq_n_f32(limit);
        from_fn(|i| {
            let kept = vbicq_u32(vreinterpretq_u32_f32(y[i]), vcltq_f32(x[i], limit));
            vreinterpretq_f32_u32(kept)
        })
    }

    #[inline(always)]
    fn butterflies(self, x: F32x16) -> F32x16 {
        let ((a, b), (c, d)) = (levels(x[0], x[1]), levels(x[2], x[3]));
        let (a, b, c, d) = (vaddq_f32(a, b), vsubq_f32(a, b), vaddq_f32(c, d), vsubq_f32(c, d));
        [vaddq_f32(a, c), vaddq_f32(b, d), vsubq_f32(a, c), vsubq_f32(b, d)]
    }

    #[inline(always)]
    fn fold(self, lanes: F32x16) -> f32 {
        let a = vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
        vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)))
    }

    #[inline(always)]
    fn highest(self, lanes: F32x16) -> f32 {
        // None is a NaN, and of two zeros either will do: a score less one is the same.
        let [a, b, c, d] = lanes;
        vmaxvq_f32(vmaxq_f32(vmaxq_f32(a, b), vmaxq_f32(c, d)))
    }

    #[inline(always)]
    fn add_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        from_fn(|i| vaddq_s32(a[i], b[i]))
    }

    #[inline(always)]
    fn max_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        from_fn(|i| vmaxq_s32(a[i], b[i]))
    }

    #[inline(always)]
    fn highest_i32(self, lanes: I32x16) -> i32 {
        let [a, b, c, d] = lanes;
        vmaxvq_s32(vmaxq_s32(vmaxq_s32(a, b), vmaxq_s32(c, d)))
    }

    #[inline(always)]
    fn shift_to_exponent(self, x: F32x16) -> I32x16 {
        x.map(|x| vshlq_n_s32::<23>(vreinterpretq_s32_f32(x)))
    }

    #[inline(always)]
    fn bits(self, x: F32x16) -> I32x16 {
        x.map(vreinterpretq_s32_f32)
    }

    #[inline(always)]
    fn with_bits(self, bits: I32x16) -> F32x16 {
        bits.map(vreinterpretq_f32_s32)
    }

    #[inline(always)]
    fn to_f32(self, n: I32x16) -> F32x16 {
        n.map(vcvtq_f32_s32)
    }

    #[inline(always)]
    fn round(self, x: F32x16) -> I32x16 {
        x.map(vcvtnq_s32_f32)
    }

    #[inline(always)]
    fn to_bytes(self, n: [I32x16; 2]) -> [int8x16_t; 2] {
        n.map(|n| {
            let low = vmovn_s16(vcombine_s16(vmovn_s32(n[0]), vmovn_s32(n[1])));
            let high = vmovn_s16(vcombine_s16(vmovn_s32(n[2]), vmovn_s32(n[3])));
            vcombine_s8(low, high)
        })
    }

    #[inline(always)]
    fn store_bytes(self, bytes: [int8x16_t; 2], to: &mut [i8; 2 * LANES]) {
        // SAFETY: 32 bytes.
        unsafe {
            vst1q_s8(to.as_mut_ptr(), bytes[0]);
            vst1q_s8(to.as_mut_ptr().add(LANES), bytes[1]);
        }
    }

    #[inline(always)]
    fn no_pairs(self) -> int16x8_t {
        vdupq_n_s16(0)
    }

    #[inline(always)]
    fn add_pairs(self, sums: int16x8_t, bytes: [int8x16_t; 2]) -> int16x8_t {
        vpadalq_s8(vpadalq_s8(sums, bytes[0]), bytes[1])
    }

    #[inline(always)]
    fn correction_of(self, sums: int16x8_t) -> Correction {
        let a = vadd_s16(vget_low_s16(sums), vget_high_s16(sums));
        // Two lanes 2 apart are left to add.
        let sum = |a: i16, b: i16| -8 * (a + b);
        [
            sum(vget_lane_s16::<0>(a), vget_lane_s16::<2>(a)),
            sum(vget_lane_s16::<1>(a), vget_lane_s16::<3>(a)),
        ]
    }
}

/// The dot products of a level, which the processor supports where one exists.
pub(super) struct Dots<L>(PhantomData<L>);

impl<L> Dots<L> {
    /// The proof that this processor supports `L`.
    ///
    /// # Safety
    /// It does.
    #[inline(always)]
    pub(super) unsafe fn new() -> Self {
        Self(PhantomData)
    }
}

impl<L> Clone for Dots<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for Dots<L> {}

impl<L: Level> KeyDot for Dots<L> {
    type Vector = Lanes;
    type Keys = [int8x16_t; 4];

    // 24 registers of sums at most, 4 of keys and the query's values.
    const PANELS: usize = 1;
    const QUERIES: usize = 6;

    #[inline(always)]
    fn vector(self) -> Lanes {
        Lanes::HERE
    }

    #[inline(always)]
    fn keys(self, step: &[i8; 4 * LANES]) -> [int8x16_t; 4] {
        // SAFETY: 64 bytes.
        from_fn(|i| unsafe { vld1q_s8(step.as_ptr().add(16 * i)) })
    }

    #[inline(always)]
    fn correction(self, _: i32) -> i32 {
        0
    }

    #[inline(always)]
    fn dot(self, mut sums: I32x16, keys: [int8x16_t; 4], query: i32) -> I32x16 {
        let query = vreinterpretq_s8_s32(vdupq_n_s32(query));
        // SAFETY: a `Dots` exists.
        unsafe { L::dot(&mut sums, keys, query) };
        sums
    }
}
