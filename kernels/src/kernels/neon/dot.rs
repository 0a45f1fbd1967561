//! The dot products of bytes: all in which the tables for Arm differ.
//!
//! The tile order is made for `sdot` and `usdot`: 16 bytes of it are 4 rows x 4 inputs, and the form of
//! these instructions "by element" multiplies them with one of the four steps that lie in a register of a
//! token's values. The other two:
//!
//! - `smmla` multiplies 2 rows x 8 inputs with 8 inputs x 2 tokens. One `zip1` and one `zip2` of the
//!   registers of two steps give two such operands ([`Mmla`]).
//! - `smlal` multiplies lane by lane, 8 products to as many sums of 16 bits ([`Smlal4`], [`Smlal8`]).
//!
//! Weights that serve few tokens keep their offset where the instruction allows it, and sums start where
//! that takes it away. For many tokens it is taken off while they are unpacked, once.
//!
//! All sums start at [`BASE`] besides, which makes them floats for one subtraction.

use core::arch::aarch64::{float32x4_t, int8x16_t, int16x8_t, int32x4_t, uint8x16_t, uint32x4_t};
use core::arch::aarch64::{vld1q_s8, vld1q_u8};
use core::array::from_fn;

use super::instructions::*;
use super::registers::{F32x16, I32x16};
use crate::kernels::types::Correction;
use crate::quant::{BLOCK_INPUTS, Scheme, TILE_ALIGN};

/// 16 rows x 8 inputs, two steps: as a rule rows 0..4, 4..8, 8..12, 12..16 of the first and then of the
/// second.
pub(super) type Weights = [int8x16_t; 8];

/// Inputs of [`Weights`].
pub(super) const PAIR_INPUTS: usize = 8;

/// Which instructions a table uses.
pub(super) trait Level {
    /// Products with int4 weights where each weight is used for few tokens.
    type FewInt4: Dot;
    /// The same with int8 weights.
    type FewInt8: Dot;
    /// Products with int4 weights that were unpacked for many tokens.
    type ManyInt4: Dot;
    /// The same with int8 weights.
    type ManyInt8: Dot;
    /// Products with levels where each is used for few tokens.
    type FewLevels<P: Packing>: Dot;
    /// The same with levels that were unpacked for many tokens.
    type ManyLevels<P: Packing>: Dot;

    /// Adds the products of 16 rows x 4 signed bytes with `x`: 4 of them, repeated. No byte is -128.
    ///
    /// # Safety
    /// The processor supports this level.
    unsafe fn dot(sums: &mut I32x16, rows: [int8x16_t; 4], x: int8x16_t);
}

/// NEON alone.
pub(super) struct Neon;

impl Level for Neon {
    type FewInt4 = Smlal4<Nibbles>;
    type FewInt8 = Smlal8<Signed<Bytes>>;
    type ManyInt4 = Smlal4<Signed<Nibbles>>;
    type ManyInt8 = Smlal8<Signed<Bytes>>;
    type FewLevels<P: Packing> = Smlal8<P>;
    type ManyLevels<P: Packing> = Smlal8<P>;

    #[inline(always)]
    unsafe fn dot(sums: &mut I32x16, rows: [int8x16_t; 4], x: int8x16_t) {
        for (sum, row) in sums.iter_mut().zip(rows) {
            let low = vmull_s8(vget_low_s8(row), vget_low_s8(x));
            // Two products are at most 2 * 127 * 127 = 32258.
            let pairs = vpaddq_s16(low, vmull_high_s8(row, x));
            *sum = vpadalq_s16(*sum, pairs);
        }
    }
}

/// With `sdot`.
pub(super) struct Dotprod;

impl Level for Dotprod {
    type FewInt4 = Rows<Sdot, Nibbles>;
    type FewInt8 = Rows<Sdot, Signed<Bytes>>;
    type ManyInt4 = Rows<Sdot, Signed<Nibbles>>;
    type ManyInt8 = Rows<Sdot, Signed<Bytes>>;
    type FewLevels<P: Packing> = Rows<Sdot, P>;
    type ManyLevels<P: Packing> = Rows<Sdot, P>;

    #[inline(always)]
    unsafe fn dot(sums: &mut I32x16, rows: [int8x16_t; 4], x: int8x16_t) {
        for (sum, row) in sums.iter_mut().zip(rows) {
            // SAFETY: the caller's promise.
            unsafe { *sum = sdot(*sum, row, x) };
        }
    }
}

/// With `usdot` and `smmla`; `sdot` is implied.
pub(super) struct I8mm;

impl Level for I8mm {
    type FewInt4 = Rows<Sdot, Nibbles>;
    type FewInt8 = Rows<Usdot, Bytes>;
    type ManyInt4 = Mmla<Signed<Nibbles>>;
    type ManyInt8 = Mmla<Signed<Bytes>>;
    type FewLevels<P: Packing> = Rows<Sdot, P>;
    type ManyLevels<P: Packing> = Mmla<P>;

    #[inline(always)]
    unsafe fn dot(sums: &mut I32x16, rows: [int8x16_t; 4], x: int8x16_t) {
        // SAFETY: the caller's promise.
        unsafe { Dotprod::dot(sums, rows, x) }
    }
}

/// How weights are stored, and what becomes of their offset.
pub(super) trait Packing {
    const SCHEME: Scheme;

    /// The offset that [`load`](Self::load) leaves.
    const OFFSET: i32 = Self::SCHEME.offset();

    /// Bytes of [`PAIR_INPUTS`] inputs of a panel.
    const PAIR_BYTES: usize = TILE_ALIGN * Self::SCHEME.bits() / 4;

    /// The weights of a pair of steps, a byte each.
    ///
    /// # Safety
    /// `group` is valid for reads of a group that has this pair.
    unsafe fn load(group: *const u8, pair: usize) -> [uint8x16_t; 8];
}

/// Nibbles with an offset of 8. A line holds two steps, the first in its low nibbles.
pub(super) struct Nibbles;

impl Packing for Nibbles {
    const SCHEME: Scheme = Scheme::Int4;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize) -> [uint8x16_t; 8] {
        // SAFETY: the caller's promise.
        nibbles(unsafe { load_line(group, pair) })
    }
}

/// Bytes with an offset of 128. A line holds one step.
pub(super) struct Bytes;

impl Packing for Bytes {
    const SCHEME: Scheme = Scheme::Int8;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize) -> [uint8x16_t; 8] {
        // SAFETY: the caller's promise.
        let lines = unsafe { [load_line(group, 2 * pair), load_line(group, 2 * pair + 1)] };
        from_fn(|i| lines[i / 4][i % 4])
    }
}

/// Indices of levels, `BITS` of them, which become the levels.
pub(super) struct Levels<const BITS: usize>;

impl<const BITS: usize> Packing for Levels<BITS> {
    const SCHEME: Scheme = match BITS {
        4 => Scheme::Nl4,
        3 => Scheme::Tc3,
        _ => Scheme::Tc2,
    };
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize) -> [uint8x16_t; 8] {
        const { assert!(BITS <= 4) }
        // Four pairs of steps are a unit: 4 lines, or those of the levels' own bits and one of the paths'.
        let (unit, within) = (pair / 4 * BITS, pair % 4);
        let shifted = |line: [uint8x16_t; 4], left: isize| {
            line.map(|bytes| vshlq_u8(bytes, vdupq_n_s8(left as i8)))
        };
        // SAFETY: the caller's promise.
        unsafe {
            let indices = match BITS {
                4 => load_line(group, unit + within),
                _ => {
                    let own = within * (BITS - 1);
                    let own = shifted(load_line(group, unit + own / 4), -((own % 4) as isize));
                    let path = load_line(group, unit + BITS - 1).map(quarters);
                    // The pair's bits come to rest at 2 and 6, and at 3 and 7.
                    let low = shifted(path.map(|[low, _]| low), 2 - within as isize);
                    let high = shifted(path.map(|[_, high]| high), 3 - within as isize);
                    from_fn(|r| {
                        let index = vbslq_u8(vdupq_n_u8(0x44), low[r], own[r]);
                        vbslq_u8(vdupq_n_u8(0x88), high[r], index)
                    })
                }
            };
            let table = Self::SCHEME.level_table().expect("a scheme of levels");
            let offset = vdupq_n_u8(Self::SCHEME.offset() as u8);
            let levels = vsubq_u8(vld1q_u8(table.as_ptr()), offset);
            nibbles(indices).map(|index| vqtbl1q_u8(levels, index))
        }
    }
}

/// As [`trellis::quarters`](crate::quant::quarters).
#[inline(always)]
fn quarters(path: uint8x16_t) -> [uint8x16_t; 2] {
    let path = vreinterpretq_u32_u8(path);
    let before = one_before(path);
    let high = veorq_u32(path, one_before(before));
    [vreinterpretq_u8_u32(before), vreinterpretq_u8_u32(high)]
}

/// Each weight's bit of a path one place before.
#[inline(always)]
fn one_before(path: uint32x4_t) -> uint32x4_t {
    let last = vandq_u32(vshrq_n_u32::<23>(path), vdupq_n_u32(0xfe));
    vorrq_u32(vshlq_n_u32::<8>(path), last)
}

/// The 64 bytes of a line.
///
/// # Safety
/// `data` is valid for reads up to the end of that line.
#[inline(always)]
unsafe fn load_line(data: *const u8, line: usize) -> [uint8x16_t; 4] {
    // SAFETY: the caller's promise.
    from_fn(|r| unsafe { vld1q_u8(data.add(TILE_ALIGN * line + 16 * r)) })
}

/// The low nibbles, then the high ones.
#[inline(always)]
fn nibbles(line: [uint8x16_t; 4]) -> [uint8x16_t; 8] {
    from_fn(|i| match i {
        0..4 => vandq_u8(line[i], vdupq_n_u8(15)),
        _ => vshrq_n_u8::<4>(line[i - 4]),
    })
}

/// Those of `P` without their offset: signed.
pub(super) struct Signed<P>(P);

impl<P: Packing> Packing for Signed<P> {
    const SCHEME: Scheme = P::SCHEME;
    const OFFSET: i32 = 0;

    #[inline(always)]
    unsafe fn load(group: *const u8, pair: usize) -> [uint8x16_t; 8] {
        let offset = vdupq_n_u8(P::OFFSET as u8);
        // SAFETY: the caller's promise.
        unsafe { P::load(group, pair) }.map(|bytes| vsubq_u8(bytes, offset))
    }
}

/// Loaded weights for instructions that ask for signed bytes, which as such they may not be.
#[inline(always)]
fn as_operands(bytes: [uint8x16_t; 8]) -> Weights {
    bytes.map(vreinterpretq_s8_u8)
}

/// Where the sums of a group start: 1.5 * 2^23, whose last place counts 1, as bits. With an integer of
/// less than 22 bits added, they are the bits of 1.5 * 2^23 plus that integer.
///
/// A group's sum has at most 128 * 128 * 127 < 2^21, so [`to_floats`] is exact. Cortex-A76
/// and Neoverse N1 do four subtractions in the time of a `scvtf`.
const BASE: i32 = 0x4b40_0000;

/// The sums that were started at [`BASE`].
#[inline(always)]
fn to_floats(sums: int32x4_t) -> float32x4_t {
    let base = vdupq_n_f32(f32::from_bits(BASE as u32));
    vsubq_f32(vreinterpretq_f32_s32(sums), base)
}

/// [`BASE`] and a correction in all lanes of `N` registers.
#[inline(always)]
fn from_base<const N: usize>(correction: i32) -> [int32x4_t; N] {
    [vdupq_n_s32(BASE + correction); N]
}

/// [`BASE`] in all lanes of `N` registers. Loaded: other than a load, a copy takes an instruction from
/// the products.
#[inline(always)]
fn bases<const N: usize>() -> [int32x4_t; N] {
    static BASES: [i32; 4] = [BASE; 4];
    from_fn(|_| load_again(&BASES))
}

/// Where the weights of a group come from.
pub(super) trait Source: Copy {
    /// Those of inputs `8 * pair ..`.
    ///
    /// # Safety
    /// The group has this pair of steps.
    unsafe fn get(self, pair: usize) -> Weights;
}

/// One group's inputs of consecutive tokens: where those of the first lie, and how far apart they are.
#[derive(Clone, Copy)]
pub(super) struct Inputs {
    /// Bytes.
    pub values: *const i8,
    pub stride: usize,
    pub corrections: *const Correction,
    /// Starts from one token to the next.
    pub correction_stride: usize,
    pub scales: *const f32,
    /// Scales from one token to the next.
    pub scale_stride: usize,
    /// Tokens that there are, at least one.
    pub tokens: usize,
    /// Inputs of the group, 32, 64 or 128.
    pub size: usize,
}

impl Inputs {
    /// Those of the tokens after the next `tokens`.
    #[inline(always)]
    pub fn advance(&mut self, tokens: usize) {
        self.values = self.values.wrapping_add(tokens * self.stride);
        self.corrections = self.corrections.wrapping_add(tokens * self.correction_stride);
        self.scales = self.scales.wrapping_add(tokens * self.scale_stride);
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    /// Those of the next group.
    #[inline(always)]
    pub fn next_group(&mut self) {
        self.values = self.values.wrapping_add(self.size);
        self.corrections = self.corrections.wrapping_add(self.size.div_ceil(BLOCK_INPUTS));
        self.scales = self.scales.wrapping_add(1);
    }

    /// Values `16 * round ..` of a token.
    ///
    /// # Safety
    /// Here and below: the token is there, and the group has these values.
    #[inline(always)]
    unsafe fn load(&self, token: usize, round: usize) -> int8x16_t {
        // SAFETY: the caller's promise.
        unsafe { vld1q_s8(self.values.add(token * self.stride + 16 * round)) }
    }

    /// Values `4 * step ..` of a token, repeated.
    #[inline(always)]
    unsafe fn repeat(&self, token: usize, step: usize) -> int8x16_t {
        // SAFETY: the caller's promise.
        unsafe {
            let x = self.values.add(token * self.stride + 4 * step).cast::<i32>();
            vreinterpretq_s8_s32(vdupq_n_s32(x.read_unaligned()))
        }
    }

    /// The correction of a block, repeated.
    #[inline(always)]
    unsafe fn correction(&self, token: usize, block: usize) -> int16x8_t {
        // SAFETY: the caller's promise.
        unsafe {
            let correction =
                self.corrections.add(token * self.correction_stride + block).cast::<i32>();
            vreinterpretq_s16_s32(vdupq_n_s32(correction.read_unaligned()))
        }
    }

    /// -8 times the sum of the group's values.
    #[inline(always)]
    unsafe fn total_correction(&self, token: usize) -> i32 {
        let sum = |[first, second]: Correction| i32::from(first) + i32::from(second);
        // SAFETY: the caller's promise.
        unsafe {
            let corrections = self.corrections.add(token * self.correction_stride);
            let first = sum(*corrections);
            if self.size > BLOCK_INPUTS { first + sum(*corrections.add(1)) } else { first }
        }
    }

    #[inline(always)]
    unsafe fn scale(&self, token: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *self.scales.add(token * self.scale_stride) }
    }
}

/// Multiplies a group of a panel with tiles of tokens.
pub(super) trait Dot {
    type Packing: Packing;

    /// Tokens whose sums of 16 rows stay in registers, beside what a step needs.
    const TILE: usize;
    /// The same if accumulators stay there, too, as group follows group.
    const LONG_TILE: usize = Self::TILE;
    /// Tokens come in multiples of this: their accumulators are shared.
    const TOGETHER: usize = 1;

    /// The scales of a panel's rows, arranged like the accumulators.
    type Scales: Copy;

    fn scales(rows: F32x16) -> Self::Scales;

    /// [`PAIR_INPUTS`] inputs of a panel, ready to be multiplied.
    ///
    /// # Safety
    /// `group` is valid for reads of a group that has this pair of steps.
    unsafe fn unpack(group: *const u8, pair: usize) -> Weights;

    /// Adds a group's products, times the scales, to the accumulators of `T` tokens.
    ///
    /// # Safety
    /// - The processor supports the level that this belongs to.
    /// - `steps` has the group's weights, unpacked by [`unpack`](Self::unpack).
    /// - `inputs` has `inputs.tokens` tokens of the group; rounded up to a multiple of
    ///   [`TOGETHER`](Self::TOGETHER) they are at least `T`, which is such a multiple.
    unsafe fn tile<S: Source, const T: usize>(
        steps: S,
        inputs: &Inputs,
        scales: &Self::Scales,
        acc: &mut [F32x16; T],
    );

    /// Turns accumulators into a row's outputs per lane, a token each.
    fn settle(_acc: &mut [F32x16]) {}
}

/// `acc = fma(f32(sums), row scale * token scale, acc)`, the sums as started at [`BASE`].
///
/// # Safety
/// The inputs have `T` tokens.
#[inline(always)]
unsafe fn add_group<const T: usize>(
    sums: [I32x16; T],
    inputs: &Inputs,
    scales: &F32x16,
    acc: &mut [F32x16; T],
) {
    for (t, (acc, sums)) in acc.iter_mut().zip(sums).enumerate() {
        // SAFETY: the caller's promise.
        let scale = unsafe { inputs.scale(t) };
        for r in 0..4 {
            let scale = vmulq_n_f32(scales[r], scale);
            acc[r] = vfmaq_f32(acc[r], to_floats(sums[r]), scale);
        }
    }
}

/// An instruction that multiplies 4 rows x 4 inputs with 4 inputs.
pub(super) trait Product {
    /// Whether rows are unsigned. Nibbles are the same either way.
    const UNSIGNED: bool;

    /// Adds the products of `rows` with step `LANE` of `x`.
    ///
    /// # Safety
    /// The processor supports the instruction.
    unsafe fn step<const LANE: i32>(sum: int32x4_t, rows: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Signed by signed bytes, Armv8.2 (`FEAT_DotProd`).
pub(super) struct Sdot;

impl Product for Sdot {
    const UNSIGNED: bool = false;

    #[inline(always)]
    unsafe fn step<const LANE: i32>(sum: int32x4_t, rows: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { sdot_step::<LANE>(sum, rows, x) }
    }
}

/// Unsigned by signed bytes, Armv8.6 (`FEAT_I8MM`).
pub(super) struct Usdot;

impl Product for Usdot {
    const UNSIGNED: bool = true;

    #[inline(always)]
    unsafe fn step<const LANE: i32>(sum: int32x4_t, rows: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { usdot_step::<LANE>(sum, rows, x) }
    }
}

/// A lane is a row: 4 registers of sums a token, and one instruction per 16 products.
pub(super) struct Rows<I, P>(I, P);

impl<I: Product, P: Packing> Dot for Rows<I, P> {
    type Packing = P;
    type Scales = F32x16;

    // 16 registers of sums, 4 of values, 8 of weights.
    const TILE: usize = 4;
    // 12 registers of sums, 12 of accumulators, 3 of values, 4 of weights.
    const LONG_TILE: usize = 3;

    fn scales(rows: F32x16) -> F32x16 {
        rows
    }

    #[inline(always)]
    unsafe fn unpack(group: *const u8, pair: usize) -> Weights {
        const { assert!(I::UNSIGNED && P::OFFSET == 128 || !I::UNSIGNED && P::OFFSET < 128) }
        // SAFETY: the caller's promise.
        as_operands(unsafe { P::load(group, pair) })
    }

    #[inline(always)]
    unsafe fn tile<S: Source, const T: usize>(
        steps: S,
        inputs: &Inputs,
        scales: &F32x16,
        acc: &mut [F32x16; T],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums: [I32x16; T] = from_fn(|t| match P::OFFSET / Scheme::Int4.offset() {
                0 => bases(),
                factor => from_base(factor * inputs.total_correction(t)),
            });
            for round in 0..inputs.size / 16 {
                let x: [int8x16_t; T] = from_fn(|t| inputs.load(t, round));
                let weights = steps.get(2 * round);
                self::step::<I, 0, T>(&mut sums, &weights[..4], &x);
                self::step::<I, 1, T>(&mut sums, &weights[4..], &x);
                let weights = steps.get(2 * round + 1);
                self::step::<I, 2, T>(&mut sums, &weights[..4], &x);
                self::step::<I, 3, T>(&mut sums, &weights[4..], &x);
            }
            add_group(sums, inputs, scales, acc);
        }
    }
}

/// Adds the products of a step: lane `LANE` of the tokens' values.
///
/// # Safety
/// The processor supports the instruction.
#[inline(always)]
unsafe fn step<I: Product, const LANE: i32, const T: usize>(
    sums: &mut [I32x16; T],
    weights: &[int8x16_t],
    x: &[int8x16_t; T],
) {
    for (r, &rows) in weights.iter().enumerate() {
        for (sums, &x) in sums.iter_mut().zip(x) {
            // SAFETY: the caller's promise.
            unsafe { sums[r] = I::step::<LANE>(sums[r], rows, x) };
        }
    }
}

/// `smmla`, signed bytes (`FEAT_I8MM`): 32 products an instruction.
///
/// A register of sums belongs to 2 rows x 2 tokens: `[row 0 token 0, row 0 token 1, row 1 token 0,
/// row 1 token 1]`. Accumulators stay like that until a panel is finished: those of the tokens 2p and
/// 2p + 1 are the eight registers of two neighbours, rows 0 and 1 in the first.
pub(super) struct Mmla<P>(P);

/// Pairs of tokens of a tile of [`Mmla`].
const MMLA_PAIRS: usize = 2;

impl<P: Packing> Dot for Mmla<P> {
    type Packing = P;
    type Scales = [float32x4_t; 8];

    // 16 registers of sums, 4 of values, 8 of weights.
    const TILE: usize = 2 * MMLA_PAIRS;
    const LONG_TILE: usize = 2;
    const TOGETHER: usize = 2;

    fn scales(rows: F32x16) -> [float32x4_t; 8] {
        from_fn(|i| match (rows[i / 2], i % 2) {
            (rows, 0) => vzip1q_f32(rows, rows),
            (rows, _) => vzip2q_f32(rows, rows),
        })
    }

    #[inline(always)]
    unsafe fn unpack(group: *const u8, pair: usize) -> Weights {
        const { assert!(P::OFFSET == 0) }
        // SAFETY: the caller's promise.
        let bytes = as_operands(unsafe { P::load(group, pair) });
        from_fn(|i| {
            let step = |s: usize| vreinterpretq_s32_s8(bytes[4 * s + i / 2]);
            vreinterpretq_s8_s32(match i % 2 {
                0 => vzip1q_s32(step(0), step(1)),
                _ => vzip2q_s32(step(0), step(1)),
            })
        })
    }

    #[inline(always)]
    unsafe fn tile<S: Source, const T: usize>(
        steps: S,
        inputs: &Inputs,
        scales: &[float32x4_t; 8],
        acc: &mut [F32x16; T],
    ) {
        const { assert!(T <= 2 * MMLA_PAIRS) }
        let pairs = T / 2;
        // The last token may lack a partner, and is its own then.
        let tokens = |p: usize| (2 * p, (2 * p + 1).min(inputs.tokens - 1));
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[vdupq_n_s32(0); 8]; MMLA_PAIRS];
            sums[..pairs].fill_with(bases);
            for round in 0..inputs.size / 16 {
                let mut x = [[vdupq_n_s8(0); MMLA_PAIRS]; 2];
                let [low, high] = &mut x;
                for (p, (low, high)) in low.iter_mut().zip(high).enumerate().take(pairs) {
                    let (a, b) = tokens(p);
                    let [a, b] = [a, b].map(|t| vreinterpretq_s64_s8(inputs.load(t, round)));
                    *low = vreinterpretq_s8_s64(vzip1q_s64(a, b));
                    *high = vreinterpretq_s8_s64(vzip2q_s64(a, b));
                }
                for (half, x) in x.iter().enumerate() {
                    for (k, rows) in steps.get(2 * round + half).into_iter().enumerate() {
                        for p in 0..pairs {
                            sums[p][k] = smmla(sums[p][k], rows, x[p]);
                        }
                    }
                }
            }
            for (p, sums) in sums.into_iter().enumerate().take(pairs) {
                let (a, b) = tokens(p);
                let [a, b] = [a, b].map(|t| vdupq_n_f32(inputs.scale(t)));
                let scale = vzip1q_f32(a, b);
                for (k, sum) in sums.into_iter().enumerate() {
                    let acc = &mut acc[2 * p + k / 4][k % 4];
                    *acc = vfmaq_f32(*acc, to_floats(sum), vmulq_f32(scales[k], scale));
                }
            }
        }
    }

    fn settle(acc: &mut [F32x16]) {
        for [a, b] in acc.as_chunks_mut::<2>().0 {
            let both = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
            *a = from_fn(|r| vuzp1q_f32(both[2 * r], both[2 * r + 1]));
            *b = from_fn(|r| vuzp2q_f32(both[2 * r], both[2 * r + 1]));
        }
    }
}

/// Int4 weights with NEON alone: sums in 16 bits, one of each input of a step, which over a block wrap
/// around harmlessly.
///
/// Once the sums of neighbours are added, in 16 bits too, and the block's correction, what is left lies within
/// 16 bits ([`block_size`](crate::quant::block_size)), so it is exact. One instruction per 8 products.
pub(super) struct Smlal4<P>(P);

impl<P: Packing> Dot for Smlal4<P> {
    type Packing = P;
    type Scales = F32x16;

    // 24 registers of sums, 4 of weights, one of values.
    const TILE: usize = 3;

    fn scales(rows: F32x16) -> F32x16 {
        rows
    }

    #[inline(always)]
    unsafe fn unpack(group: *const u8, pair: usize) -> Weights {
        // SAFETY: the caller's promise.
        as_operands(unsafe { P::load(group, pair) })
    }

    #[inline(always)]
    unsafe fn tile<S: Source, const T: usize>(
        steps: S,
        inputs: &Inputs,
        scales: &F32x16,
        acc: &mut [F32x16; T],
    ) {
        let block_pairs = inputs.size.min(BLOCK_INPUTS) / PAIR_INPUTS;
        let mut totals: [I32x16; T] = from_fn(|_| from_base(0));
        for block in 0..inputs.size / PAIR_INPUTS / block_pairs {
            let mut sums = [[[vdupq_n_s16(0); 2]; 4]; T];
            for pair in block * block_pairs..(block + 1) * block_pairs {
                // SAFETY: the caller's promise.
                let weights = unsafe { steps.get(pair) };
                for (half, weights) in weights.as_chunks::<4>().0.iter().enumerate() {
                    for (t, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: the caller's promise.
                        let x = unsafe { inputs.repeat(t, 2 * pair + half) };
                        for (sums, &rows) in sums.iter_mut().zip(weights) {
                            smlal(sums, rows, x);
                        }
                    }
                }
            }
            for (t, (totals, sums)) in totals.iter_mut().zip(sums).enumerate() {
                // SAFETY: the caller's promise.
                let correction = unsafe { inputs.correction(t, block) };
                for (total, sums) in totals.iter_mut().zip(sums) {
                    let mut pairs = vpaddq_s16(sums[0], sums[1]);
                    if P::OFFSET != 0 {
                        pairs = vaddq_s16(pairs, correction);
                    }
                    *total = vpadalq_s16(*total, pairs);
                }
            }
        }
        // SAFETY: the caller's promise.
        unsafe { add_group(totals, inputs, scales, acc) };
    }
}

/// Signed bytes with NEON alone: two products at most, 2 * 128 * 127 = 32512, are summed in 16 bits, and
/// then neighbours in 32. Three instructions per 16 products.
pub(super) struct Smlal8<P>(P);

impl<P: Packing> Dot for Smlal8<P> {
    type Packing = P;
    type Scales = F32x16;

    // 16 registers of sums, 8 of weights, 4 of values, 2 of products.
    const TILE: usize = 2;

    fn scales(rows: F32x16) -> F32x16 {
        rows
    }

    #[inline(always)]
    unsafe fn unpack(group: *const u8, pair: usize) -> Weights {
        const { assert!(P::OFFSET == 0) }
        // SAFETY: the caller's promise.
        as_operands(unsafe { P::load(group, pair) })
    }

    #[inline(always)]
    unsafe fn tile<S: Source, const T: usize>(
        steps: S,
        inputs: &Inputs,
        scales: &F32x16,
        acc: &mut [F32x16; T],
    ) {
        let mut sums = [[[vdupq_n_s32(0); 2]; 4]; T];
        for pair in 0..inputs.size / PAIR_INPUTS {
            // SAFETY: the caller's promise.
            let weights = unsafe { steps.get(pair) };
            for (t, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                let x = [0, 1].map(|half| unsafe { inputs.repeat(t, 2 * pair + half) });
                for (r, sums) in sums.iter_mut().enumerate() {
                    let (first, second) = (weights[r], weights[4 + r]);
                    let low = vmull_s8(vget_low_s8(first), vget_low_s8(x[0]));
                    let low = vmlal_s8(low, vget_low_s8(second), vget_low_s8(x[1]));
                    let high = vmlal_high_s8(vmull_high_s8(first, x[0]), second, x[1]);
                    sums[0] = vpadalq_s16(sums[0], low);
                    sums[1] = vpadalq_s16(sums[1], high);
                }
            }
        }
        let [base] = from_base(0);
        let sums = sums.map(|sums| sums.map(|[low, high]| vaddq_s32(vpaddq_s32(low, high), base)));
        // SAFETY: the caller's promise.
        unsafe { add_group(sums, inputs, scales, acc) };
    }
}
