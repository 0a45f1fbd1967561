//! How a weight is stored, and what it then stands for (`docs/numbers.md` section 2).

use serde::{Serialize, Serializer};

use super::trellis::QUARTERS;

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// An integer in one byte, offset 128.
    Int8,
    /// An integer in one nibble, offset 8.
    Int4,
    /// The index of one of 16 levels.
    Nl4,
    /// One of 16 levels along a path, in three bits.
    Tc3,
    /// One of 8 levels along a path, in two bits.
    Tc2,
}

/// What is added to a level: then all levels are within 0..64, and two products of them with int8 values,
/// four with their neighbours', lie within 16 bits.
const LEVEL_OFFSET: i32 = 32;

/// The levels of [`Scheme::Nl4`], in the order of their indices. Weights of a group are nearly Gaussian after
/// the Hadamard transform; these have the least squared error of all levels in -32..=31 for groups of 64
/// Gaussian weights, whose scale has the better of two signs.
const NL4: [i8; 16] = [-31, -23, -18, -14, -11, -8, -5, -2, 1, 4, 7, 10, 13, 17, 22, 28];
/// Those of [`Scheme::Tc3`]: the same along a path.
const TC3: [i8; 16] = [-31, -21, -16, -12, -9, -6, -4, -1, 1, 4, 6, 9, 12, 15, 20, 27];
/// Those of [`Scheme::Tc2`].
const TC2: [i8; 8] = [-24, -14, -8, -2, 3, 9, 16, 29];

/// Levels with their offset, by four bits: those of an index; or of a level along a path the bits that are its own
/// from bit 0 on, and its quarter from bit 2 on. What is between them does not matter.
pub type LevelTable = [u8; 16];

static NL4_TABLE: LevelTable = table(Scheme::Nl4);
static TC3_TABLE: LevelTable = table(Scheme::Tc3);
static TC2_TABLE: LevelTable = table(Scheme::Tc2);

const fn table(scheme: Scheme) -> LevelTable {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        let index = match scheme.is_path() {
            true => i % (1 << (scheme.bits() - 1)) * QUARTERS + i / QUARTERS,
            false => i,
        };
        let stored = scheme.weight(index as u8) as i32 + LEVEL_OFFSET;
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
    pub const ALL: [Self; 5] = [Self::Tc2, Self::Tc3, Self::Nl4, Self::Int4, Self::Int8];

    /// Bits of one stored weight, without its share of the scale.
    pub const fn bits(self) -> usize {
        match self {
            Self::Int8 => 8,
            Self::Int4 | Self::Nl4 => 4,
            Self::Tc3 => 3,
            Self::Tc2 => 2,
        }
    }

    /// What is added to a weight before it is multiplied, so that it is not negative.
    pub const fn offset(self) -> i32 {
        match self {
            Self::Int8 => 128,
            Self::Int4 => 8,
            Self::Nl4 | Self::Tc3 | Self::Tc2 => LEVEL_OFFSET,
        }
    }

    /// The weights of this scheme if they are not all integers of so many bits, in ascending order.
    pub const fn levels(self) -> Option<&'static [i8]> {
        match self {
            Self::Int8 | Self::Int4 => None,
            Self::Nl4 => Some(&NL4),
            Self::Tc3 => Some(&TC3),
            Self::Tc2 => Some(&TC2),
        }
    }

    /// The levels with their offset.
    pub const fn level_table(self) -> Option<&'static LevelTable> {
        match self {
            Self::Int8 | Self::Int4 => None,
            Self::Nl4 => Some(&NL4_TABLE),
            Self::Tc3 => Some(&TC3_TABLE),
            Self::Tc2 => Some(&TC2_TABLE),
        }
    }

    /// Whether its levels are chosen along paths: twice as many as the bits of a weight alone can name.
    pub const fn is_path(self) -> bool {
        matches!(self, Self::Tc3 | Self::Tc2)
    }

    /// How many weights there are.
    pub const fn count(self) -> usize {
        1 << (self.bits() + self.is_path() as usize)
    }

    /// The weight number `index` of [`count`](Self::count), in ascending order.
    pub const fn weight(self, index: u8) -> i8 {
        match self.levels() {
            Some(levels) => levels[index as usize],
            None => (index as i32 - self.offset()) as i8,
        }
    }

    /// The least and the largest weight.
    pub const fn range(self) -> (i8, i8) {
        (self.weight(0), self.weight((self.count() - 1) as u8))
    }

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Nl4 => "nl4",
            Self::Tc3 => "tc3",
            Self::Tc2 => "tc2",
        }
    }
}
