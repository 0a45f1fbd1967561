//! The narrow trait between what a kernel does and the instructions it does it with.
//!
//! Everything but the matrix products is written once, in [`generic`](super::generic), over a
//! [`Vector`]: 16 lanes, because `docs/numbers.md` sums rows in 16 lanes and a panel has 16 rows or
//! keys. An instruction set says here how it loads, computes and stores those lanes: one register of
//! AVX-512, two of AVX2, four of NEON. (The idea is that of `memchr`, whose `src/vector.rs` is such a
//! trait.)
//!
//! Every lane computes what the scalar definition computes for one number, so a body over this trait
//! gives the same bits for every implementation. An instruction set without a fused multiply-add can
//! implement [`Vector::fma`] too, as long as the result is exact: [`Portable`](super::portable) does.

use super::ahead::Ahead;
use super::types::Correction;

/// Lanes of every vector.
pub(super) const LANES: usize = 16;

/// 16 lanes of one instruction set.
///
/// A value of an implementing type is the proof that the processor supports the instruction set, as
/// [`Vector::new`] demands; so the methods that take no pointer are safe. All are `#[inline(always)]`
/// and enable nothing themselves: they become part of functions that do (`generic::instantiate`).
pub(super) trait Vector: Copy {
    /// 16 lanes of binary32.
    type F32: Copy;
    /// 16 lanes of 32-bit integers.
    type I32: Copy;
    /// 32 bytes: two vectors of integers that fit into bytes.
    type Bytes: Copy;
    /// Sums of neighbouring bytes in 16 bits, the first two and the last two of every 4 apart.
    type Pairs: Copy;

    /// Panels of float16 keys whose scores with 1, 2, ... 6 queries, never 5, are summed at once: sums, keys and
    /// a query's value stay in registers.
    const SCORE_PANELS: [usize; 6];
    /// Vectors of dimensions whose weighted values of 1, 2, ... 6 queries are summed at once.
    const VALUE_VECTORS: [usize; 6];
    /// Queries that take turns in the innermost loop of the softmax, so that none waits for its own
    /// chain of sums, as far as there are registers.
    const SOFTMAX_QUERIES: usize;

    /// How far ahead attention fetches the values that it reads from memory.
    #[inline(always)]
    fn ahead(self) -> Ahead {
        Ahead::NOTHING
    }

    /// The proof that this processor supports the instruction set.
    ///
    /// # Safety
    /// It does.
    unsafe fn new() -> Self;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F32;
    /// `n` in every lane.
    fn splat_i32(self, n: i32) -> Self::I32;

    /// 16 floats.
    fn load(self, from: &[f32; LANES]) -> Self::F32;
    /// 16 floats.
    fn store(self, x: Self::F32, to: &mut [f32; LANES]);
    /// The floats of a slice of at most 16, the other lanes 0.
    #[inline(always)]
    fn load_part(self, from: &[f32]) -> Self::F32 {
        let mut padded = [0.0; LANES];
        padded[..from.len()].copy_from_slice(from);
        self.load(&padded)
    }
    /// The first lanes into a slice of at most 16.
    #[inline(always)]
    fn store_part(self, x: Self::F32, to: &mut [f32]) {
        let mut padded = [0.0; LANES];
        self.store(x, &mut padded);
        to.copy_from_slice(&padded[..to.len()]);
    }
    /// The first `n` lanes, the others 0.
    fn keep_first(self, n: usize, x: Self::F32) -> Self::F32;

    /// The exact values of 16 float16.
    fn load_f16(self, from: &[u16; LANES]) -> Self::F32;
    /// The nearest float16, ties to even; a NaN stays one.
    fn to_f16(self, x: Self::F32) -> [u16; LANES];
    /// 16 signed bytes.
    fn load_i8(self, from: &[i8; LANES]) -> Self::F32;
    /// 16 unsigned bytes.
    fn load_u8(self, from: &[u8; LANES]) -> Self::I32;

    /// `a + b`.
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a - b`.
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b`.
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a / b`.
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `-x`.
    fn neg(self, x: Self::F32) -> Self::F32;
    /// `|x|`.
    fn abs(self, x: Self::F32) -> Self::F32;
    /// `if x > limit { limit } else { x }`: a NaN stays one.
    fn at_most(self, x: Self::F32, limit: Self::F32) -> Self::F32;
    /// `if x < limit { limit } else { x }` for a `limit` that is not 0: a NaN stays one.
    fn at_least(self, x: Self::F32, limit: Self::F32) -> Self::F32;
    /// `if x < 0 { 0 } else { x }`: -0 and a NaN stay.
    fn relu(self, x: Self::F32) -> Self::F32;
    /// `if x > max { x } else { max }`: a NaN in `x` is passed over.
    fn larger(self, x: Self::F32, max: Self::F32) -> Self::F32;
    /// `if x < limit { 0 } else { y }`.
    fn zero_below(self, limit: f32, x: Self::F32, y: Self::F32) -> Self::F32;
    /// The first four levels of the Hadamard transform (`docs/numbers.md` section 3): of lanes 1 apart, then 2,
    /// 4, 8, the lower one becomes their sum and the upper one their difference.
    fn butterflies(self, x: Self::F32) -> Self::F32;
    /// The fixed tree of `docs/numbers.md` section 1: 8 apart, then 4, 2, 1.
    fn fold(self, lanes: Self::F32) -> f32;
    /// The largest lane; none is a NaN.
    fn highest(self, lanes: Self::F32) -> f32;

    /// `a + b`, wrapping around.
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The larger of two signed integers.
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The largest lane.
    fn highest_i32(self, lanes: Self::I32) -> i32;
    /// Moves the bits of a float into its exponent: `bits << 23`.
    fn shift_to_exponent(self, x: Self::F32) -> Self::I32;
    /// The same bits.
    fn bits(self, x: Self::F32) -> Self::I32;
    /// The same bits.
    fn with_bits(self, bits: Self::I32) -> Self::F32;
    /// The float of an integer.
    fn to_f32(self, n: Self::I32) -> Self::F32;
    /// The nearest integer, ties to even, of |x| < 2^22.
    fn round(self, x: Self::F32) -> Self::I32;

    /// Integers that fit into signed bytes, as such.
    fn to_bytes(self, n: [Self::I32; 2]) -> Self::Bytes;
    /// 32 bytes.
    fn store_bytes(self, bytes: Self::Bytes, to: &mut [i8; 2 * LANES]);
    /// Sums of nothing.
    fn no_pairs(self) -> Self::Pairs;
    /// Adds the sums of neighbours.
    fn add_pairs(self, sums: Self::Pairs, bytes: Self::Bytes) -> Self::Pairs;
    /// The zero-point correction of a block, given the sums of its neighbours: see [`Correction`].
    fn correction_of(self, sums: Self::Pairs) -> Correction;
}

/// The dot products of bytes between int8 queries and panels of int8 keys. A value is the proof that the
/// processor supports them.
pub(super) trait KeyDot: Copy {
    /// The lanes of the sums.
    type Vector: Vector;
    /// 16 keys x 4 dimensions, ready to be multiplied.
    type Keys: Copy;

    /// Panels of keys that are multiplied at once, 1 or 4, if there are so many.
    const PANELS: usize;
    /// Queries that are multiplied at once.
    const QUERIES: usize;

    /// The lanes of the sums.
    fn vector(self) -> Self::Vector;
    /// 64 bytes: a step of a panel.
    fn keys(self, step: &[i8; 4 * LANES]) -> Self::Keys;
    /// The zero-point correction of the keys, with which a sum begins, given the sum of the query's bytes.
    fn correction(self, query_sum: i32) -> i32;
    /// Adds the products of each key's 4 bytes with the query's 4 bytes, exactly.
    fn dot(
        self,
        sums: <Self::Vector as Vector>::I32,
        keys: Self::Keys,
        query: i32,
    ) -> <Self::Vector as Vector>::I32;
}
