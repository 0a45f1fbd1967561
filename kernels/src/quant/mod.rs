//! What the stored integers mean (`docs/numbers.md` sections 2 to 4) and where they lie
//! (`docs/format.md`, "the tile order").

mod hadamard;
mod tile;

pub use hadamard::{HADAMARD_BLOCK, hadamard};
pub use tile::{BLOCK_INPUTS, PANEL_ROWS, Packer, STEP_INPUTS, TILE_ALIGN, TileLayout, block_size};

use serde::{Deserialize, Serialize};

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// One byte, offset 128.
    Int8,
    /// One nibble, offset 8.
    Int4,
}

impl Scheme {
    /// Bits of one stored weight, without its share of the scale.
    pub const fn bits(self) -> usize {
        match self {
            Self::Int8 => 8,
            Self::Int4 => 4,
        }
    }

    /// What is added to a weight before it is stored.
    pub const fn offset(self) -> i32 {
        1 << (self.bits() - 1)
    }

    /// The smallest weight; the largest is `-min - 1`.
    pub const fn min(self) -> i32 {
        -self.offset()
    }

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

/// The group sizes a matrix may have.
pub const GROUP_SIZES: [usize; 3] = [32, 64, 128];

/// The largest of them, of whole blocks of the Hadamard transform.
pub const MAX_GROUP_SIZE: usize = 128;

const _: () = assert!(MAX_GROUP_SIZE.is_multiple_of(HADAMARD_BLOCK));

/// The per-matrix exponents that keep every product of scales exact up to one rounding.
pub const EXPONENTS: core::ops::RangeInclusive<i32> = -18..=6;

/// `2^exponent` as a float, exactly.
///
/// Panics if `exponent` is outside [`EXPONENTS`], which opening a file has checked.
pub fn power_of_two(exponent: i32) -> f32 {
    assert!(EXPONENTS.contains(&exponent), "exponent {exponent} out of range");
    f32::from_bits(((127 + exponent) as u32) << 23)
}
