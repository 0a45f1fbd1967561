//! The bodies of [`generic`](super::generic) over plain arrays: what an instruction set without
//! vectors, or without a fused multiply-add, would compute. Only tests use it: it shows that the bodies
//! themselves are right, on every processor and under Miri.

use super::isa::Isa;
use super::scalar;
use super::table::Kernels;
use super::types::Correction;
use super::vector::{KeyDot, LANES, Vector};

/// 16 numbers.
#[derive(Clone, Copy)]
pub(super) struct Portable;

type F32x16 = [f32; LANES];
type I32x16 = [i32; LANES];

fn lanes<T>(f: impl FnMut(usize) -> T) -> [T; LANES] {
    core::array::from_fn(f)
}

impl Vector for Portable {
    type F32 = F32x16;
    type I32 = I32x16;
    type Bytes = [i8; 2 * LANES];
    type Pairs = Correction;

    // Every size of a tile occurs.
    const SCORE_PANELS: [usize; 6] = [8, 4, 3, 2, 1, 1];
    const VALUE_VECTORS: [usize; 6] = [8, 5, 3, 2, 4, 1];
    const SOFTMAX_QUERIES: usize = 4;

    unsafe fn new() -> Self {
        Self
    }

    fn splat(self, x: f32) -> F32x16 {
        [x; LANES]
    }

    fn splat_i32(self, n: i32) -> I32x16 {
        [n; LANES]
    }

    fn load(self, from: &[f32; LANES]) -> F32x16 {
        *from
    }

    fn store(self, x: F32x16, to: &mut [f32; LANES]) {
        *to = x;
    }

    fn keep_first(self, n: usize, x: F32x16) -> F32x16 {
        lanes(|i| if i < n { x[i] } else { 0.0 })
    }

    fn load_f16(self, from: &[u16; LANES]) -> F32x16 {
        from.map(scalar::f16_to_f32)
    }

    fn to_f16(self, x: F32x16) -> [u16; LANES] {
        x.map(|x| half::f16::from_f32(x).to_bits())
    }

    fn load_i8(self, from: &[i8; LANES]) -> F32x16 {
        from.map(f32::from)
    }

    fn load_u8(self, from: &[u8; LANES]) -> I32x16 {
        from.map(i32::from)
    }

    fn add(self, a: F32x16, b: F32x16) -> F32x16 {
        lanes(|i| a[i] + b[i])
    }

    fn sub(self, a: F32x16, b: F32x16) -> F32x16 {
        lanes(|i| a[i] - b[i])
    }

    fn mul(self, a: F32x16, b: F32x16) -> F32x16 {
        lanes(|i| a[i] * b[i])
    }

    fn div(self, a: F32x16, b: F32x16) -> F32x16 {
        lanes(|i| a[i] / b[i])
    }

    fn fma(self, a: F32x16, b: F32x16, c: F32x16) -> F32x16 {
        lanes(|i| a[i].mul_add(b[i], c[i]))
    }

    fn neg(self, x: F32x16) -> F32x16 {
        x.map(|x| -x)
    }

    fn abs(self, x: F32x16) -> F32x16 {
        x.map(f32::abs)
    }

    fn at_most(self, x: F32x16, limit: F32x16) -> F32x16 {
        lanes(|i| if x[i] > limit[i] { limit[i] } else { x[i] })
    }

    fn at_least(self, x: F32x16, limit: F32x16) -> F32x16 {
        lanes(|i| if x[i] < limit[i] { limit[i] } else { x[i] })
    }

    fn relu(self, x: F32x16) -> F32x16 {
        x.map(|x| if x < 0.0 { 0.0 } else { x })
    }

    fn larger(self, x: F32x16, max: F32x16) -> F32x16 {
        lanes(|i| if x[i] > max[i] { x[i] } else { max[i] })
    }

    fn zero_below(self, limit: f32, x: F32x16, y: F32x16) -> F32x16 {
        lanes(|i| if x[i] < limit { 0.0 } else { y[i] })
    }

    fn butterflies(self, mut x: F32x16) -> F32x16 {
        for distance in [1, 2, 4, 8] {
            x = lanes(|i| {
                let other = x[i ^ distance];
                if i & distance == 0 { x[i] + other } else { other - x[i] }
            });
        }
        x
    }

    fn fold(self, lanes: F32x16) -> f32 {
        scalar::fold16(lanes)
    }

    fn highest(self, lanes: F32x16) -> f32 {
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    fn add_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        lanes(|i| a[i].wrapping_add(b[i]))
    }

    fn max_i32(self, a: I32x16, b: I32x16) -> I32x16 {
        lanes(|i| a[i].max(b[i]))
    }

    fn highest_i32(self, lanes: I32x16) -> i32 {
        lanes.into_iter().fold(i32::MIN, i32::max)
    }

    fn shift_to_exponent(self, x: F32x16) -> I32x16 {
        x.map(|x| (x.to_bits() << 23) as i32)
    }

    fn bits(self, x: F32x16) -> I32x16 {
        x.map(|x| x.to_bits() as i32)
    }

    fn with_bits(self, bits: I32x16) -> F32x16 {
        bits.map(|bits| f32::from_bits(bits as u32))
    }

    fn to_f32(self, n: I32x16) -> F32x16 {
        n.map(|n| n as f32)
    }

    fn round(self, x: F32x16) -> I32x16 {
        x.map(|x| x.round_ties_even() as i32)
    }

    fn to_bytes(self, [low, high]: [I32x16; 2]) -> [i8; 2 * LANES] {
        core::array::from_fn(|i| if i < LANES { low[i] as i8 } else { high[i - LANES] as i8 })
    }

    fn store_bytes(self, bytes: [i8; 2 * LANES], to: &mut [i8; 2 * LANES]) {
        *to = bytes;
    }

    fn no_pairs(self) -> Correction {
        [0, 0]
    }

    fn add_pairs(self, mut sums: Correction, bytes: [i8; 2 * LANES]) -> Correction {
        for (i, byte) in bytes.into_iter().enumerate() {
            sums[i / 2 % 2] += i16::from(byte);
        }
        sums
    }

    fn correction_of(self, sums: Correction) -> Correction {
        sums.map(|sum| -8 * sum)
    }
}

impl KeyDot for Portable {
    type Vector = Self;
    type Keys = [i8; 4 * LANES];

    const PANELS: usize = 4;
    const QUERIES: usize = 4;

    fn vector(self) -> Self {
        self
    }

    fn keys(self, step: &[i8; 4 * LANES]) -> [i8; 4 * LANES] {
        *step
    }

    fn correction(self, _: i32) -> i32 {
        0
    }

    fn dot(self, sums: I32x16, keys: [i8; 4 * LANES], query: i32) -> I32x16 {
        let query = query.to_ne_bytes();
        lanes(|i| {
            let products =
                keys[4 * i..].iter().zip(query).map(|(&k, q)| i32::from(k) * i32::from(q as i8));
            sums[i] + products.sum::<i32>()
        })
    }
}

mod bodies {
    use super::Portable;
    use crate::kernels::generic::attention::{Int8Scores, scores_int8};
    use crate::kernels::generic::instantiate;

    instantiate!(Portable);

    unsafe fn scores(job: &Int8Scores, scores: &mut [[f32; SEGMENT]]) {
        scores_int8(Portable, job, scores);
    }

    pub(super) unsafe fn attend(job: &Attention, scratch: &mut AttentionScratch, out: &CellWriter) {
        // SAFETY: the caller's promise.
        unsafe { attend_with(scores, job, scratch, out) }
    }

    /// The definition's sums with the generic epilogue.
    pub(super) unsafe fn matmul(job: &Matmul, panels: core::ops::Range<usize>, out: &CellWriter) {
        for panel in panels {
            for token in 0..job.tokens() {
                let acc = [crate::kernels::scalar::panel_product(job, panel, token)];
                // SAFETY: the caller's promise.
                unsafe { finish(job, panel, token, &acc, out) };
            }
        }
    }
}

/// A table of the bodies.
pub(super) static TABLE: Kernels = Kernels {
    isa: Isa::Scalar,
    embed: bodies::embed,
    quantize: bodies::quantize,
    layer_norm: bodies::layer_norm,
    rms_norm: bodies::rms_norm,
    angles: bodies::angles,
    rotate: bodies::rotate,
    matmul: bodies::matmul,
    store: bodies::store,
    attend: bodies::attend,
};
