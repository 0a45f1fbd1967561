//! The numbers of the format: what both reading and writing know of it.

/// How every file begins.
pub const MAGIC: &[u8; 4] = b"GGUF";
/// Version 2 counts in 64 bits, version 3 only adds files of big-endian machines.
pub const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Where nothing else is said, tensors begin at multiples of this many bytes.
pub const DEFAULT_ALIGNMENT: usize = 32;

/// The type of a metadata value, by the number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    pub fn from_number(number: u32) -> Option<Self> {
        use ValueType::*;
        let all = [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64];
        all.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Bytes of a value; `None` for those whose length varies.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}
