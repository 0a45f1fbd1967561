//! Levels along a path: trellis-coded quantization (`docs/numbers.md` section 2).
//!
//! A weight with `n` bits chooses among `2^n` of `2^(n + 1)` levels; which ones, the choices before it say
//! (Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources", 1990; Ungerboeck's
//! code of four states, 1982). Of its bits, the highest belongs to the path.

use super::STEP_INPUTS;

/// Inputs of a row that a path goes through; the next ones have a path of their own.
pub const PATH_INPUTS: usize = 32;

/// Kinds of levels: number `i` is of kind `i % 4`.
pub const QUARTERS: usize = 4;

/// The place in its path of input `col` of a row. Its bit of the path lies at that place, too, if bit `b` of the
/// byte of input `i` of a step counts as number `4 b + i` (see [`super::TileLayout::weight_places`]).
#[inline]
pub const fn place_in_path(col: usize) -> usize {
    let (step, lane) = (col % PATH_INPUTS / STEP_INPUTS, col % STEP_INPUTS);
    STEP_INPUTS * (4 * (step % 2) + step / 2) + lane
}

/// The input at a place of a path that begins with input 0.
#[inline]
pub const fn input_at(place: usize) -> usize {
    let (bit, lane) = (place / STEP_INPUTS, place % STEP_INPUTS);
    STEP_INPUTS * (2 * (bit % 4) + bit / 4) + lane
}

/// Which quarter of the levels each weight of a path has, as two bits each, the low ones first: level `i` belongs to
/// quarter `i % 4`.
///
/// The path's bit of a weight and those of the two weights before it, `u0`, `u1` and `u2`, give `u1` and `u0 ^ u2`.
/// All are as four bytes have them: the weight of input `i` of a step in byte `i`.
#[inline(always)]
pub const fn quarters(path: u32) -> [u32; 2] {
    let before = one_before(path);
    [before, path ^ one_before(before)]
}

/// At each place what `path` has one place before. The weight before the first of four is the last with the bit below.
#[inline(always)]
const fn one_before(path: u32) -> u32 {
    (path << 8) | ((path >> 23) & 0xfe)
}

/// How a path goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathState(u8);

impl PathState {
    /// Where every path begins.
    pub const START: Self = Self(0);

    /// How many there are.
    pub const COUNT: usize = 4;

    /// After the bits `second` and `last`, each 0 or 1.
    #[inline]
    pub const fn of(last: usize, second: usize) -> Self {
        Self((second << 1 | last) as u8)
    }

    /// The quarter of the levels that comes with the bit `bit`.
    #[inline]
    pub const fn quarter(self, bit: u8) -> u8 {
        2 * (bit ^ self.0 >> 1) + (self.0 & 1)
    }

    /// What follows the bit `bit`.
    #[must_use]
    #[inline]
    pub const fn next(self, bit: u8) -> Self {
        Self(self.0 << 1 & 2 | bit)
    }

    /// The number of this state.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quarters_are_those_along_the_path() {
        for seed in 0..2000u32 {
            let path = seed.wrapping_mul(0x9e37_79b9) ^ seed << 7;
            let [low, high] = quarters(path);
            let mut state = PathState::START;
            for place in 0..PATH_INPUTS {
                let at = 8 * (place % 4) + place / 4;
                let bit = |word: u32| (word >> at & 1) as u8;
                assert_eq!(2 * bit(high) + bit(low), state.quarter(bit(path)), "{path:x} {place}");
                state = state.next(bit(path));
            }
        }
    }

    #[test]
    fn a_path_goes_through_every_input() {
        for place in 0..PATH_INPUTS {
            assert_eq!(place_in_path(PATH_INPUTS + input_at(place)), place);
        }
    }
}
