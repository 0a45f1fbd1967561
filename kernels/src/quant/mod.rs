//! What the stored integers mean (`docs/numbers.md` sections 2 to 4) and where they lie
//! (`docs/format.md`, "the tile order").

mod hadamard;
mod scheme;
mod tile;
mod trellis;

pub use hadamard::{HADAMARD_BLOCK, hadamard};
pub use scheme::{LevelTable, Scheme};
pub use tile::{BLOCK_INPUTS, PANEL_ROWS, Packer, STEP_INPUTS, TILE_ALIGN, TileLayout, block_size};
pub use trellis::{PATH_INPUTS, PathState, QUARTERS, input_at, place_in_path};

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
