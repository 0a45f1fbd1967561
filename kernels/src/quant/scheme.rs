//! How a weight is stored, and what it then stands for (`docs/numbers.md` section 2).

use serde::{Serialize, Serializer};

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// An integer in one byte, offset 128.
    Int8,
    /// An integer in one nibble, offset 8.
    Int4,
    /// The index of one of 16 levels.
    Nl4,
    /// The index of one of 8 levels.
    Nl3,
    /// The index of one of 4 levels.
    Nl2,
}

/// What is added to a level: then all levels are within 0..64, and two products of them with int8 values,
/// four with their neighbours', lie within 16 bits.
const LEVEL_OFFSET: i32 = 32;

/// The levels of [`Scheme::Nl4`], in the order of their indices. Weights of a group are nearly Gaussian after
/// the Hadamard transform; these have the least squared error of all levels in -32..=31 for groups of 64
/// Gaussian weights, whose scale has the better of two signs.
const NL4: [i8; 16] = [-31, -23, -18, -14, -11, -8, -5, -2, 1, 4, 7, 10, 13, 17, 22, 28];
/// Those of [`Scheme::Nl3`].
const NL3: [i8; 8] = [-31, -19, -11, -4, 2, 8, 15, 25];
/// Those of [`Scheme::Nl2`].
const NL2: [i8; 4] = [-29, -10, 5, 22];

/// What weights are stored as, by the low four bits in which an index lies: whatever is in those above it.
pub type LevelTable = [u8; 16];

static NL4_TABLE: LevelTable = table(&NL4);
static NL3_TABLE: LevelTable = table(&NL3);
static NL2_TABLE: LevelTable = table(&NL2);

const fn table(levels: &[i8]) -> LevelTable {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        let stored = levels[i % levels.len()] as i32 + LEVEL_OFFSET;
        assert!(stored >= 0 && stored < 2 * LEVEL_OFFSET);
        table[i] = stored as u8;
        i += 1;
    }
    table
}

impl Serialize for Scheme {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Scheme {
    /// All schemes, from the smallest on.
    pub const ALL: [Self; 5] = [Self::Nl2, Self::Nl3, Self::Nl4, Self::Int4, Self::Int8];

    /// Bits of one stored weight, without its share of the scale.
    pub const fn bits(self) -> usize {
        match self {
            Self::Int8 => 8,
            Self::Int4 | Self::Nl4 => 4,
            Self::Nl3 => 3,
            Self::Nl2 => 2,
        }
    }

    /// What is added to a weight before it is multiplied, so that it is not negative.
    pub const fn offset(self) -> i32 {
        match self {
            Self::Int8 => 128,
            Self::Int4 => 8,
            Self::Nl4 | Self::Nl3 | Self::Nl2 => LEVEL_OFFSET,
        }
    }

    /// The weights of this scheme if they are not all integers of so many bits, in ascending order.
    pub const fn levels(self) -> Option<&'static [i8]> {
        match self {
            Self::Int8 | Self::Int4 => None,
            Self::Nl4 => Some(&NL4),
            Self::Nl3 => Some(&NL3),
            Self::Nl2 => Some(&NL2),
        }
    }

    /// The levels with their offset.
    pub const fn level_table(self) -> Option<&'static LevelTable> {
        match self {
            Self::Int8 | Self::Int4 => None,
            Self::Nl4 => Some(&NL4_TABLE),
            Self::Nl3 => Some(&NL3_TABLE),
            Self::Nl2 => Some(&NL2_TABLE),
        }
    }

    /// The weight that a number of [`bits`](Self::bits) bits stands for.
    pub const fn weight(self, index: u8) -> i8 {
        match self.levels() {
            Some(levels) => levels[index as usize],
            None => (index as i32 - self.offset()) as i8,
        }
    }

    /// The least and the largest weight.
    pub const fn range(self) -> (i8, i8) {
        (self.weight(0), self.weight(((1 << self.bits()) - 1) as u8))
    }

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Nl4 => "nl4",
            Self::Nl3 => "nl3",
            Self::Nl2 => "nl2",
        }
    }
}
