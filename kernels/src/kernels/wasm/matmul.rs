//! The matrix product (`docs/numbers.md` section 4).
//!
//! The plain algorithm, for a panel of 16 rows:
//!
//! ```text
//! for token:  for group:  for step:  sums[16] += weights[16][4] . values[4]
//!                         acc[16] = fma(f32(sums), scales[16] * token scale, acc)
//! ```
//!
//! and how this departs from it:
//!
//! 1. Tokens run innermost, a tile of [`TILE`]: their sums stay in registers, and a weight is loaded once
//!    for all of them. Two take 8 vectors of sums, of the 15 that an engine for x86 has.
//! 2. A group is unpacked into a buffer in the first level cache, once for the [`TOKEN_BLOCK`] tokens that
//!    use it. A single token unpacks it on the way.
//! 3. A group's scales are multiplied by the matrix's power of two instead of the tokens' scales. Both
//!    products are exact, so what follows is the same.

use core::arch::wasm32::v128;
use core::array::{from_fn, from_mut};
use core::mem::MaybeUninit;
use core::ops::Range;

use super::bodies::finish;
use super::dot::{Bytes, Dot, Levels, PAIR_INPUTS, Words};
use super::vector::{Lanes, X16};
use crate::kernels::types::{CellWriter, Correction, Matmul};
use crate::kernels::vector::Vector;
use crate::quant::{MAX_GROUP_SIZE, PANEL_ROWS, Scheme, block_size};

#[cfg(not(target_feature = "relaxed-simd"))]
type Int4 = Words<super::dot::Nibbles>;
#[cfg(target_feature = "relaxed-simd")]
type Int4 = super::dot::RelaxedNibbles;
type Int8 = Words<Bytes>;

/// Tokens whose sums stay in registers.
const TILE: usize = 2;
/// Tokens that share an unpacked group.
const TOKEN_BLOCK: usize = 64;
/// The most pieces of a group.
const MAX_PIECES: usize = MAX_GROUP_SIZE / PAIR_INPUTS * 4;

const _: () = assert!(TOKEN_BLOCK.is_multiple_of(TILE));

/// Computes the outputs of `panels` for every token.
///
/// # Safety
/// That of [`Kernels::matmul`](crate::kernels::Kernels::matmul), which has checked all lengths.
pub(super) unsafe fn matmul(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.weights.tiles.scheme() {
            Scheme::Int8 => by_tokens::<Int8>(job, panels, out),
            Scheme::Int4 => by_tokens::<Int4>(job, panels, out),
            Scheme::Nl4 => by_tokens::<Words<Levels<4>>>(job, panels, out),
            Scheme::Tc3 => by_tokens::<Words<Levels<3>>>(job, panels, out),
            Scheme::Tc2 => by_tokens::<Words<Levels<2>>>(job, panels, out),
        }
    }
}

#[inline(always)]
unsafe fn by_tokens<D: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    // SAFETY: the caller's promise.
    unsafe {
        match job.tokens() {
            0 => {}
            1 => one_token::<D>(job, panels, out),
            _ => many_tokens::<D>(job, panels, out),
        }
    }
}

/// Streams the panels once, unpacking on the way.
#[inline(never)]
unsafe fn one_token<D: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    for panel in panels {
        let mut acc = [Lanes.splat(0.0)];
        for g in 0..job.input.groups {
            let group = Group::new(job, panel, g);
            // SAFETY: there is one token.
            unsafe { group.one::<D>(&mut acc[0]) };
        }
        // SAFETY: the caller's promise.
        unsafe { finish(job, panel, 0, &acc, out) };
    }
}

/// Unpacks each group once for a block of tokens.
#[inline(never)]
unsafe fn many_tokens<D: Dot>(job: &Matmul, panels: Range<usize>, out: &CellWriter) {
    let mut pieces = Pieces([const { MaybeUninit::uninit() }; MAX_PIECES]);
    let mut acc = [Lanes.splat(0.0); TOKEN_BLOCK];
    for first in (0..job.tokens()).step_by(TOKEN_BLOCK) {
        for panel in panels.clone() {
            let acc = &mut acc[..(job.tokens() - first).min(TOKEN_BLOCK)];
            acc.fill(Lanes.splat(0.0));
            for g in 0..job.input.groups {
                let group = Group::new(job, panel, g);
                group.unpack::<D>(&mut pieces);
                let (tiles, rest) = acc.as_chunks_mut::<TILE>();
                let mut token = first;
                // SAFETY: the tokens lie within the input, and the group's pieces were written.
                unsafe {
                    for acc in tiles {
                        group.tile::<D, TILE>(&pieces, token, acc);
                        token += TILE;
                    }
                    for acc in rest {
                        group.tile::<D, 1>(&pieces, token, from_mut(acc));
                        token += 1;
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { finish(job, panel, first, acc, out) };
        }
    }
}

/// The unpacked pieces of a group, 16 rows each.
struct Pieces([MaybeUninit<X16>; MAX_PIECES]);

/// One group of one panel.
struct Group<'a> {
    job: &'a Matmul<'a>,
    index: usize,
    /// Its weights.
    data: &'a [u8],
    /// Its rows' scales times the matrix's power of two.
    scales: X16,
    /// Blocks of a group, one or two.
    blocks: usize,
    /// Pairs of steps of a block.
    pairs: usize,
}

impl<'a> Group<'a> {
    #[inline(always)]
    fn new(job: &'a Matmul<'a>, panel: usize, index: usize) -> Self {
        let tiles = &job.weights.tiles;
        let panel = job.weights.panel(panel);
        let data = &panel[index * tiles.group_bytes()..][..tiles.group_bytes()];
        let scales = &panel[tiles.scale_offset(0, index)..][..2 * PANEL_ROWS];
        // SAFETY: a row's scale takes 2 bytes.
        let scales = unsafe { scales.as_ptr().cast::<[u16; PANEL_ROWS]>().read_unaligned() };
        let scales = Lanes.mul(Lanes.load_f16(&scales), Lanes.splat(job.weights.scale));
        let block = block_size(tiles.group_size());
        let (blocks, pairs) = (tiles.group_size() / block, block / PAIR_INPUTS);
        Self { job, index, data, scales, blocks, pairs }
    }

    /// Fills the buffer with the pieces of the group.
    #[inline(always)]
    fn unpack<D: Dot>(&self, pieces: &mut Pieces) {
        let pairs = self.blocks * self.pairs;
        let pieces = pieces.0.chunks_exact_mut(D::PIECES);
        for (pair, pieces) in pieces.take(pairs).enumerate() {
            // SAFETY: the group has this pair of steps.
            let quarters = from_fn(|r| unsafe { D::load(self.data.as_ptr(), pair, r) });
            pieces[0].write(quarters.map(D::piece::<0>));
            pieces[1].write(quarters.map(D::piece::<1>));
            if D::PIECES == 4 {
                pieces[2].write(quarters.map(D::piece::<2>));
                pieces[3].write(quarters.map(D::piece::<3>));
            }
        }
    }

    /// Adds the group's products with the only token.
    ///
    /// # Safety
    /// There is one.
    #[inline(always)]
    unsafe fn one<D: Dot>(&self, acc: &mut X16) {
        let (mut values, mut pair) = (self.values(0), 0);
        let mut total = Lanes.splat_i32(0);
        for &correction in self.corrections(0) {
            let mut sums = [D::start(correction); 4];
            for _ in 0..self.pairs {
                // SAFETY: the pair is one of the group's.
                unsafe {
                    let x = D::values(values);
                    for (quarter, sum) in sums.iter_mut().enumerate() {
                        let weights = D::load(self.data.as_ptr(), pair, quarter);
                        *sum = D::dot(*sum, D::piece::<0>(weights), D::value::<0>(x));
                        *sum = D::dot(*sum, D::piece::<1>(weights), D::value::<1>(x));
                        if D::PIECES == 4 {
                            *sum = D::dot(*sum, D::piece::<2>(weights), D::value::<2>(x));
                            *sum = D::dot(*sum, D::piece::<3>(weights), D::value::<3>(x));
                        }
                    }
                    (values, pair) = (values.add(PAIR_INPUTS), pair + 1);
                }
            }
            total = Lanes.add_i32(total, sums.map(D::total));
        }
        self.add_scaled(0, total, acc);
    }

    /// Adds the group's products with `T` tokens from `token` on.
    ///
    /// # Safety
    /// The input has these tokens, and the pieces are this group's.
    #[inline(always)]
    unsafe fn tile<D: Dot, const T: usize>(
        &self,
        pieces: &Pieces,
        token: usize,
        acc: &mut [X16; T],
    ) {
        let mut pieces = pieces.0.as_ptr().cast::<X16>();
        let mut values: [*const i8; T] = from_fn(|t| self.values(token + t));
        let mut totals = [Lanes.splat_i32(0); T];
        for block in 0..self.blocks {
            let mut sums: [X16; T] = from_fn(|t| [D::start(self.corrections(token + t)[block]); 4]);
            for _ in 0..self.pairs {
                // SAFETY: the pair is one of the group's, and the tokens are the input's.
                unsafe {
                    let x = values.map(|values| D::values(values));
                    multiply(&mut sums, &*pieces, x.map(|x| D::value::<0>(x)), D::dot);
                    multiply(&mut sums, &*pieces.add(1), x.map(|x| D::value::<1>(x)), D::dot);
                    if D::PIECES == 4 {
                        multiply(&mut sums, &*pieces.add(2), x.map(|x| D::value::<2>(x)), D::dot);
                        multiply(&mut sums, &*pieces.add(3), x.map(|x| D::value::<3>(x)), D::dot);
                    }
                    pieces = pieces.add(D::PIECES);
                    values = values.map(|values| values.add(PAIR_INPUTS));
                }
            }
            totals = from_fn(|t| Lanes.add_i32(totals[t], sums[t].map(D::total)));
        }
        for (t, acc) in acc.iter_mut().enumerate() {
            self.add_scaled(token + t, totals[t], acc);
        }
    }

    /// Adds sums times the rows' and the token's scales to accumulators.
    #[inline(always)]
    fn add_scaled(&self, token: usize, sums: X16, acc: &mut X16) {
        let scale = self.job.input.scales[token * self.job.input.groups + self.index];
        let scales = Lanes.mul(self.scales, Lanes.splat(scale));
        *acc = Lanes.fma(Lanes.to_f32(sums), scales, *acc);
    }

    /// A token's values of the group.
    #[inline(always)]
    fn values(&self, token: usize) -> *const i8 {
        let input = &self.job.input;
        let size = self.blocks * self.pairs * PAIR_INPUTS;
        input.values[token * input.padded_cols + self.index * size..][..size].as_ptr()
    }

    /// A token's corrections of the group, one for each block.
    #[inline(always)]
    fn corrections(&self, token: usize) -> &[Correction] {
        let input = &self.job.input;
        &input.corrections[token * input.blocks + self.index * self.blocks..][..self.blocks]
    }
}

/// Adds the products of 16 rows with values of `T` tokens.
#[inline(always)]
fn multiply<const T: usize>(
    sums: &mut [X16; T],
    weights: &X16,
    values: [v128; T],
    dot: impl Fn(v128, v128, v128) -> v128,
) {
    for (quarter, &weights) in weights.iter().enumerate() {
        for (sums, &values) in sums.iter_mut().zip(&values) {
            sums[quarter] = dot(sums[quarter], weights, values);
        }
    }
}
