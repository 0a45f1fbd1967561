//! The tile order: where weight `[row, input]` lies in a matrix's bytes.

use half::f16;

use super::{GROUP_SIZES, Scheme};

/// Output rows in a panel: one lane each.
pub const PANEL_ROWS: usize = 16;
/// Inputs that lie together per row: one 32-bit lane of a dot-product instruction.
pub const STEP_INPUTS: usize = 4;
/// The most inputs whose products of int4 weights a kernel may sum in 16 bits: see [`block_size`].
pub const BLOCK_INPUTS: usize = 64;
/// Panels begin on this boundary: a cache line.
pub const TILE_ALIGN: usize = 64;

/// Inputs in a block: a group, or half of one of 128.
///
/// A lane that takes two of every four inputs sums at most `64 / 2 * 8 * 127 = 32512` in magnitude
/// over a block of int4 weights, so that wrapping 16-bit additions give it exactly.
pub const fn block_size(group_size: usize) -> usize {
    if group_size < BLOCK_INPUTS { group_size } else { BLOCK_INPUTS }
}

const _: () = assert!(BLOCK_INPUTS / 2 * 8 * 127 <= i16::MAX as usize);

const SCALE_BYTES: usize = size_of::<f16>() * PANEL_ROWS;

// A step of int8 fills a cache line, and so do two steps of int4.
const _: () = assert!(PANEL_ROWS * STEP_INPUTS == TILE_ALIGN);

/// Shape and scheme of a matrix, and from them the place of everything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TileLayout {
    rows: usize,
    cols: usize,
    scheme: Scheme,
    group_size: usize,
}

impl TileLayout {
    /// Layout of a matrix `[rows, cols]`; `None` if a dimension is zero, the group size is not one
    /// of [`GROUP_SIZES`], or the size in bytes overflows.
    pub fn new(rows: usize, cols: usize, scheme: Scheme, group_size: usize) -> Option<Self> {
        let layout = Self { rows, cols, scheme, group_size };
        let sound = rows > 0 && cols > 0 && GROUP_SIZES.contains(&group_size);
        // Bounds every intermediate of the methods below.
        let bound = rows
            .checked_add(PANEL_ROWS)?
            .checked_mul(cols.checked_add(group_size)?.checked_mul(2)?)?
            .checked_mul(2)?;
        (sound && isize::try_from(bound).is_ok()).then_some(layout)
    }

    /// Output rows of the declared shape.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of the declared shape.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How a weight is stored.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Inputs that share a scale.
    pub fn group_size(&self) -> usize {
        self.group_size
    }

    /// Groups in a row, the last one padded.
    pub fn groups(&self) -> usize {
        self.cols.div_ceil(self.group_size)
    }

    /// Inputs with the padding of the last group.
    pub fn padded_cols(&self) -> usize {
        self.groups() * self.group_size
    }

    /// Blocks in a row: see [`block_size`].
    pub fn blocks(&self) -> usize {
        self.padded_cols() / block_size(self.group_size)
    }

    /// Panels, the last one padded.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// Bytes of one group of one panel.
    pub fn group_bytes(&self) -> usize {
        PANEL_ROWS * self.group_size * self.scheme.bits() / 8
    }

    /// Where the scales begin in a panel.
    pub fn scales_offset(&self) -> usize {
        self.groups() * self.group_bytes()
    }

    /// Bytes of one panel, a multiple of [`TILE_ALIGN`].
    pub fn panel_bytes(&self) -> usize {
        (self.scales_offset() + self.groups() * SCALE_BYTES).next_multiple_of(TILE_ALIGN)
    }

    /// Bytes of the whole matrix.
    pub fn bytes(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Place of the scale of `row` (0..16) and `group` in its panel.
    pub fn scale_offset(&self, row: usize, group: usize) -> usize {
        self.scales_offset() + group * SCALE_BYTES + row * size_of::<f16>()
    }

    /// Place of the weight of `row` (0..16) and input `col` in its panel: the byte, and the shift
    /// of the value within it.
    pub fn weight_place(&self, row: usize, col: usize) -> (usize, u32) {
        let (group, within) = (col / self.group_size, col % self.group_size);
        let (step, lane) = (within / STEP_INPUTS, row * STEP_INPUTS + within % STEP_INPUTS);
        let start = group * self.group_bytes();
        match self.scheme {
            Scheme::Int8 => (start + step * TILE_ALIGN + lane, 0),
            Scheme::Int4 => (start + step / 2 * TILE_ALIGN + lane, 4 * (step % 2) as u32),
        }
    }

    /// The weight of `row` (0..16) and input `col`, read out of its panel.
    pub fn weight(&self, panel: &[u8], row: usize, col: usize) -> i32 {
        let (byte, shift) = self.weight_place(row, col);
        let mask = (1 << self.scheme.bits()) - 1;
        (i32::from(panel[byte]) >> shift & mask) - self.scheme.offset()
    }

    /// The scale of `row` (0..16) and `group`, read out of its panel.
    pub fn scale(&self, panel: &[u8], row: usize, group: usize) -> f16 {
        let at = self.scale_offset(row, group);
        f16::from_le_bytes([panel[at], panel[at + 1]])
    }
}

/// Writes one panel in the tile order.
pub struct Packer<'a> {
    layout: TileLayout,
    panel: &'a mut [u8],
}

impl<'a> Packer<'a> {
    /// Starts a panel as all zero weights with zero scales.
    ///
    /// Panics unless `panel` has [`TileLayout::panel_bytes`] bytes.
    pub fn new(layout: TileLayout, panel: &'a mut [u8]) -> Self {
        assert_eq!(panel.len(), layout.panel_bytes(), "panel buffer has the wrong size");
        let zero = match layout.scheme {
            Scheme::Int8 => 0x80,
            Scheme::Int4 => 0x88,
        };
        let (weights, scales) = panel.split_at_mut(layout.scales_offset());
        weights.fill(zero);
        scales.fill(0);
        Self { layout, panel }
    }

    /// Stores one group of `row` (0..16): its scale and up to `group_size` weights, each within the
    /// scheme's range.
    pub fn put_group(&mut self, row: usize, group: usize, scale: f16, weights: &[i8]) {
        debug_assert!(weights.len() <= self.layout.group_size);
        let at = self.layout.scale_offset(row, group);
        self.panel[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        let mask = (1i32 << self.layout.scheme.bits()) - 1;
        for (i, &w) in weights.iter().enumerate() {
            let (byte, shift) = self.layout.weight_place(row, group * self.layout.group_size + i);
            let stored = i32::from(w) + self.layout.scheme.offset();
            debug_assert_eq!(stored & mask, stored, "weight {w} out of range");
            let cleared = i32::from(self.panel[byte]) & !(mask << shift);
            self.panel[byte] = (cleared | (stored & mask) << shift) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_follow_the_specification() {
        let int8 = TileLayout::new(33, 130, Scheme::Int8, 128).unwrap();
        assert_eq!((int8.groups(), int8.panels()), (2, 3));
        assert_eq!(int8.panel_bytes(), 2 * 16 * 128 + 2 * 32);
        assert_eq!(int8.weight_place(5, 129), (2048 + 5 * 4 + 1, 0));
        let int4 = TileLayout::new(16, 64, Scheme::Int4, 64).unwrap();
        assert_eq!(int4.panel_bytes(), 512 + 64);
        assert_eq!(int4.weight_place(3, 4), (3 * 4, 4));
        assert_eq!(int4.weight_place(3, 9), (64 + 3 * 4 + 1, 0));
    }

    #[test]
    fn places_are_a_bijection() {
        for (scheme, group) in [(Scheme::Int8, 32), (Scheme::Int4, 64), (Scheme::Int4, 128)] {
            let layout = TileLayout::new(16, 2 * group, scheme, group).unwrap();
            let mut seen = std::collections::HashSet::new();
            for row in 0..PANEL_ROWS {
                for col in 0..layout.padded_cols() {
                    let place = layout.weight_place(row, col);
                    assert!(place.0 < layout.scales_offset());
                    assert!(seen.insert(place), "{place:?} twice");
                }
            }
            assert_eq!(seen.len() * scheme.bits(), layout.scales_offset() * 8);
        }
    }

    #[test]
    fn what_is_packed_is_read_back() {
        for (scheme, group) in [(Scheme::Int8, 128), (Scheme::Int4, 32)] {
            let layout = TileLayout::new(20, 70, scheme, group).unwrap();
            let mut panel = vec![0xff; layout.panel_bytes()];
            let value = |row: usize, col: usize| {
                ((row * 31 + col * 7) as i32 % (2 * scheme.offset()) + scheme.min()) as i8
            };
            let mut packer = Packer::new(layout, &mut panel);
            for row in 0..4 {
                for g in 0..layout.groups() {
                    let end = (g * group + group).min(70);
                    let w: Vec<i8> = (g * group..end).map(|c| value(row, c)).collect();
                    packer.put_group(row, g, f16::from_f32(row as f32 - g as f32), &w);
                }
            }
            for row in 0..PANEL_ROWS {
                for col in 0..layout.padded_cols() {
                    let inside = row < 4 && col < 70;
                    let want = if inside { i32::from(value(row, col)) } else { 0 };
                    assert_eq!(layout.weight(&panel, row, col), want);
                }
            }
            assert_eq!(layout.scale(&panel, 3, 0), f16::from_f32(3.0));
            assert_eq!(layout.scale(&panel, 9, 0), f16::ZERO);
        }
    }

    #[test]
    fn absurd_shapes_are_refused() {
        assert!(TileLayout::new(0, 4, Scheme::Int8, 32).is_none());
        assert!(TileLayout::new(4, 4, Scheme::Int8, 48).is_none());
        assert!(TileLayout::new(usize::MAX, 4, Scheme::Int8, 32).is_none());
        assert!(TileLayout::new(usize::MAX / 4, 4, Scheme::Int4, 32).is_none());
    }
}
