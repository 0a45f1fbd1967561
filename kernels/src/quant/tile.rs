//! The tile order: where weight `[row, input]` lies in a matrix's bytes.

use half::f16;

use super::trellis::{PATH_INPUTS, PathState, QUARTERS, input_at, quarters};
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

/// Steps whose bits lie in lines of their own: as many as fill every kind of line.
const UNIT_STEPS: usize = 8;

const _: () = assert!((UNIT_STEPS * STEP_INPUTS).is_multiple_of(GROUP_SIZES[0]));

/// Some bits of a weight in a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The byte.
    pub byte: usize,
    /// Which of the byte's bits is the first.
    pub shift: usize,
    /// How many they are.
    pub bits: usize,
}

const fn place_mask(bits: usize) -> u8 {
    u8::MAX >> (8 - bits)
}

/// How many bits of a weight each kind of line has, the lowest first.
const fn planes(scheme: Scheme) -> &'static [usize] {
    match scheme {
        Scheme::Int8 => &[8],
        Scheme::Int4 | Scheme::Nl4 => &[4],
        Scheme::Tc3 => &[2, 1],
        Scheme::Tc2 => &[1, 1],
    }
}

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

    /// Where the bits of the weight of `row` (0..16) and input `col` are in its panel, the lowest first.
    pub fn weight_places(&self, row: usize, col: usize) -> impl Iterator<Item = Place> + use<> {
        let (group, within) = (col / self.group_size, col % self.group_size);
        let (step, lane) = (within / STEP_INPUTS, row * STEP_INPUTS + within % STEP_INPUTS);
        let bits = self.scheme.bits();
        let (unit, step) = (step / UNIT_STEPS, step % UNIT_STEPS);
        let mut line = group * self.group_bytes() / TILE_ALIGN + unit * bits;
        planes(self.scheme).iter().map(move |&bits| {
            let steps = 8 / bits;
            let within = step % steps;
            let byte = (line + step / steps) * TILE_ALIGN + lane;
            line += UNIT_STEPS / steps;
            Place { byte, shift: 4 * (within % 2) + bits * (within / 2), bits }
        })
    }

    /// The weight of `row` (0..16) and input `col`, read out of its panel.
    pub fn weight(&self, panel: &[u8], row: usize, col: usize) -> i8 {
        let mut weight = [0];
        self.column_from(panel, row, col, &mut weight);
        weight[0]
    }

    /// The weights of a panel's rows for input `col`.
    #[inline(never)] // the definition's products, which ask for them, are compiled for several tables
    pub fn column(&self, panel: &[u8], col: usize) -> [i8; PANEL_ROWS] {
        let mut column = [0; PANEL_ROWS];
        self.column_from(panel, 0, col, &mut column);
        column
    }

    /// The weights of some of a panel's rows, from `first` on, for input `col`.
    #[inline(always)]
    fn column_from(&self, panel: &[u8], first: usize, col: usize, weights: &mut [i8]) {
        let (mut places, is_path) = (self.weight_places(first, col), self.scheme.is_path());
        let own = places.next().expect("every weight has bits of its own");
        let path = places.next();
        for (row, weight) in weights.iter_mut().enumerate() {
            let mut index = panel[own.byte + STEP_INPUTS * row] >> own.shift & place_mask(own.bits);
            if let (true, Some(path)) = (is_path, path) {
                let word = (path.byte + STEP_INPUTS * row) & !(STEP_INPUTS - 1);
                let word = panel[word..].first_chunk().expect("four inputs of a step lie together");
                let at = 8 * (path.byte % STEP_INPUTS) + path.shift;
                let [low, high] =
                    quarters(u32::from_le_bytes(*word)).map(|bits| (bits >> at & 1) as u8);
                index = index << 2 | high << 1 | low;
            }
            *weight = self.scheme.weight(index);
        }
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
    /// Starts a panel in which all scales are zero, and all weights the offset or the first level.
    ///
    /// Panics unless `panel` has [`TileLayout::panel_bytes`] bytes.
    pub fn new(layout: TileLayout, panel: &'a mut [u8]) -> Self {
        assert_eq!(panel.len(), layout.panel_bytes(), "panel buffer has the wrong size");
        let padding = match layout.scheme {
            Scheme::Int8 => 0x80,
            Scheme::Int4 => 0x88,
            Scheme::Nl4 | Scheme::Tc3 | Scheme::Tc2 => 0,
        };
        let (weights, scales) = panel.split_at_mut(layout.scales_offset());
        weights.fill(padding);
        scales.fill(0);
        Self { layout, panel }
    }

    /// Stores one group of `row` (0..16): its scale and up to `group_size` weights, each of them one that the
    /// scheme has.
    ///
    /// # Panics
    /// If there is no such weight, or along its path not there.
    pub fn put_group(&mut self, row: usize, group: usize, scale: f16, weights: &[i8]) {
        debug_assert!(weights.len() <= self.layout.group_size);
        let at = self.layout.scale_offset(row, group);
        self.panel[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        let mut stored = [0; PATH_INPUTS];
        for (path, weights) in weights.chunks(PATH_INPUTS).enumerate() {
            let stored = &mut stored[..weights.len()];
            self.layout.scheme.store(weights, stored);
            let first = group * self.layout.group_size + path * PATH_INPUTS;
            for (i, &stored) in stored.iter().enumerate() {
                self.put(row, first + i, stored);
            }
        }
    }

    /// Stores the bits of a weight.
    fn put(&mut self, row: usize, col: usize, mut stored: u8) {
        for Place { byte, shift, bits } in self.layout.weight_places(row, col) {
            let mask = place_mask(bits) << shift;
            self.panel[byte] = self.panel[byte] & !mask | stored << shift & mask;
            stored >>= bits.min(7);
        }
    }
}

impl Scheme {
    /// The bits of up to 32 weights, the first of them where a path begins.
    fn store(self, weights: &[i8], stored: &mut [u8]) {
        let index = |weight: i8| match self.levels() {
            Some(levels) => levels.binary_search(&weight).ok().map(|index| index as u8),
            None => u8::try_from(i32::from(weight) + self.offset()).ok(),
        };
        let index =
            |weight: i8| match index(weight).filter(|&index| usize::from(index) < self.count()) {
                Some(index) => index,
                None => panic!("{} has no weight {weight}", self.name()),
            };
        for (stored, &weight) in stored.iter_mut().zip(weights) {
            *stored = index(weight);
        }
        if !self.is_path() {
            return;
        }
        let mut state = PathState::START;
        for place in 0..PATH_INPUTS {
            let mut bit = 0;
            if let Some(stored) = stored.get_mut(input_at(place)) {
                let quarter = *stored % QUARTERS as u8;
                bit = u8::from(quarter != state.quarter(0));
                assert!(quarter == state.quarter(bit), "{} has no such path", self.name());
                *stored = (*stored / QUARTERS as u8) | (bit << (self.bits() - 1));
            }
            state = state.next(bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(layout: TileLayout, row: usize, col: usize) -> Vec<(usize, usize, usize)> {
        layout.weight_places(row, col).map(|at| (at.byte, at.shift, at.bits)).collect()
    }

    #[test]
    fn places_follow_the_specification() {
        let int8 = TileLayout::new(33, 130, Scheme::Int8, 128).unwrap();
        assert_eq!((int8.groups(), int8.panels()), (2, 3));
        assert_eq!(int8.panel_bytes(), 2 * 16 * 128 + 2 * 32);
        assert_eq!(places(int8, 5, 129), [(2048 + 5 * 4 + 1, 0, 8)]);
        for scheme in [Scheme::Int4, Scheme::Nl4] {
            let four = TileLayout::new(16, 64, scheme, 64).unwrap();
            assert_eq!(four.panel_bytes(), 512 + 64);
            assert_eq!(places(four, 3, 4), [(3 * 4, 4, 4)]);
            assert_eq!(places(four, 3, 9), [(64 + 3 * 4 + 1, 0, 4)]);
        }
        let tc3 = TileLayout::new(16, 128, Scheme::Tc3, 64).unwrap();
        assert_eq!(tc3.panel_bytes(), 2 * (384 + 32));
        assert_eq!(places(tc3, 3, 9), [(3 * 4 + 1, 2, 2), (128 + 3 * 4 + 1, 1, 1)]);
        assert_eq!(places(tc3, 3, 30), [(64 + 3 * 4 + 2, 6, 2), (128 + 3 * 4 + 2, 7, 1)]);
        assert_eq!(places(tc3, 0, 96), [(384 + 192, 0, 2), (384 + 320, 0, 1)]);
        let tc2 = TileLayout::new(16, 64, Scheme::Tc2, 32).unwrap();
        assert_eq!(tc2.panel_bytes(), 256 + 64);
        assert_eq!(places(tc2, 15, 63), [(128 + 15 * 4 + 3, 7, 1), (192 + 15 * 4 + 3, 7, 1)]);
    }

    /// Inputs of a row that ends within a path.
    const COLS: usize = 70;

    /// Some weight at each place that a scheme may have there.
    fn weight(scheme: Scheme, row: usize, col: usize) -> i8 {
        let stored = |col: usize| row * 31 + col * 7 + (col / 5) % 2;
        if !scheme.is_path() {
            return scheme.weight((stored(col) % scheme.count()) as u8);
        }
        let input = |place: usize| col / PATH_INPUTS * PATH_INPUTS + input_at(place);
        let bit = |col: usize| if col < COLS { (stored(col) / 2 % 2) as u8 } else { 0 };
        let place = super::super::place_in_path(col);
        let state = |state: PathState, place: usize| state.next(bit(input(place)));
        let quarter = (0..place).fold(PathState::START, state).quarter(bit(col));
        let own = stored(col) / 4 % (1 << (scheme.bits() - 1));
        scheme.weight((own * QUARTERS) as u8 + quarter)
    }

    #[test]
    #[should_panic(expected = "no such path")]
    fn weights_that_are_no_path_are_refused() {
        let layout = TileLayout::new(1, 32, Scheme::Tc3, 32).unwrap();
        let mut panel = vec![0; layout.panel_bytes()];
        let weights = [Scheme::Tc3.weight(1); 32];
        Packer::new(layout, &mut panel).put_group(0, 0, f16::ONE, &weights);
    }

    #[test]
    fn places_are_a_bijection() {
        for scheme in Scheme::ALL {
            for group in GROUP_SIZES {
                let layout = TileLayout::new(16, 2 * group, scheme, group).unwrap();
                let mut seen = std::collections::HashSet::new();
                for row in 0..PANEL_ROWS {
                    for col in 0..layout.padded_cols() {
                        for place in layout.weight_places(row, col) {
                            assert!(place.byte < layout.scales_offset());
                            for bit in place.shift..place.shift + place.bits {
                                assert!(bit < 8 && seen.insert((place.byte, bit)), "{place:?}");
                            }
                        }
                    }
                }
                assert_eq!(seen.len(), layout.scales_offset() * 8);
            }
        }
    }

    #[test]
    fn what_is_packed_is_read_back() {
        for (scheme, group) in [32, 128].iter().flat_map(|&g| Scheme::ALL.map(|s| (s, g))) {
            let layout = TileLayout::new(20, COLS, scheme, group).unwrap();
            let mut panel = vec![0xff; layout.panel_bytes()];
            let value = |row: usize, col: usize| weight(scheme, row, col);
            let mut packer = Packer::new(layout, &mut panel);
            for row in 0..4 {
                for g in 0..layout.groups() {
                    let end = (g * group + group).min(COLS);
                    let w: Vec<i8> = (g * group..end).map(|c| value(row, c)).collect();
                    packer.put_group(row, g, f16::from_f32(row as f32 - g as f32), &w);
                }
            }
            let padding = if scheme.levels().is_some() { scheme.weight(0) } else { 0 };
            for col in 0..layout.padded_cols() {
                let column = layout.column(&panel, col);
                for (row, found) in column.into_iter().enumerate() {
                    assert_eq!(layout.weight(&panel, row, col), found, "{scheme:?} {row} {col}");
                    // Behind the end of a row its last path may go on otherwise.
                    if row < 4 && col < COLS {
                        assert_eq!(found, value(row, col), "{scheme:?} {row} {col}");
                    } else if row >= 4 || !scheme.is_path() {
                        assert_eq!(found, padding, "{scheme:?} {row} {col}");
                    }
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
