//! What the encoder must know of characters.

mod data;

/// What split rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `\p{L}`.
    Letter,
    /// `\p{N}`.
    Number,
    /// `\s`.
    Space,
    /// All others.
    Other,
}

impl Class {
    pub fn of(c: char) -> Self {
        match found::properties(c) & 3 {
            1 => Self::Letter,
            2 => Self::Number,
            3 => Self::Space,
            _ => Self::Other,
        }
    }
}

/// Whether `\w` matches a character.
pub(super) fn is_word(c: char) -> bool {
    found::properties(c) & 4 != 0
}

/// Whether NFC may change a character, or what is before it.
pub(super) fn is_unstable(c: char) -> bool {
    found::properties(c) & 8 != 0
}

/// Bytes of the white space at a text's beginning.
pub(super) fn leading_space(text: &str) -> usize {
    let end = text.char_indices().find(|&(_, c)| Class::of(c) != Class::Space);
    end.map_or(text.len(), |(at, _)| at)
}

/// Where the white space at a text's end begins.
pub(super) fn trailing_space(text: &str) -> usize {
    let last = text.char_indices().rev().find(|&(_, c)| Class::of(c) != Class::Space);
    last.map_or(0, |(at, c)| at + c.len_utf8())
}

/// What a character decomposes into in one step, but for Hangul: a first part, and a second or 0.
pub(super) fn decomposition(point: u32) -> Option<[u32; 2]> {
    let after = data::DECOMPOSED.partition_point(|run| run >> 12 <= point);
    let (start, first) = run_of(after.checked_sub(1)?);
    let end = data::DECOMPOSED.get(after).map_or(data::PARTS.len(), |run| (run & 0xFFF) as usize);
    let at = first + (point - start) as usize;
    (at < end).then(|| parts(at, point))
}

/// The first character of a run of those that decompose, and where the run's parts begin.
fn run_of(at: usize) -> (u32, usize) {
    let run = data::DECOMPOSED[at];
    (run >> 12, (run & 0xFFF) as usize)
}

/// The parts at a place, of a character.
fn parts(at: usize, point: u32) -> [u32; 2] {
    let first = u32::from(data::PARTS[at]);
    match data::PART_SECONDS[at] {
        0x7F => [first, 0],
        0xFF => [0x2_0000 | first, 0],
        second => [point & !0xFFFF | first, data::SECONDS[usize::from(second & 0x7F)]],
    }
}

/// By tables that need one step.
#[cfg(feature = "tables")]
mod looked_up {
    use super::data;

    pub fn properties(c: char) -> u8 {
        let (block, at) = (c as usize >> 8, c as usize & 0xFF);
        let last = data::BLOCKS.len() - 1;
        let index = usize::from(data::BLOCKS[block.min(last)]);
        let pair = data::PROPERTIES[index << 7 | at >> 1];
        if at % 2 == 0 { pair & 15 } else { pair >> 4 }
    }

    pub fn combining_class(point: u32) -> u8 {
        let behind = data::COMBINING.partition_point(|run| run >> 8 <= point);
        behind.checked_sub(1).map_or(0, |at| data::COMBINING[at] as u8)
    }

    /// The character that decomposes into these two in one step, and is composed of them again.
    pub fn composition([first, second]: [u32; 2]) -> Option<u32> {
        let both = u64::from(first) << 21 | u64::from(second);
        let at = data::COMPOSITIONS.binary_search_by_key(&both, |composed| composed >> 21).ok()?;
        Some(data::COMPOSITIONS[at] as u32 & 0x1F_FFFF)
    }
}

/// The same in a fifth of the memory, by searching.
#[cfg(any(test, not(feature = "tables")))]
mod searched {
    use super::{data, run_of};

    /// The value of a character, of so many bits, in groups of runs.
    fn in_runs(firsts: &[u32], runs: &[u8], bits: u32, point: u32) -> u8 {
        let group = firsts.partition_point(|first| *first <= point) - 1;
        let mut next = firsts[group];
        let mut bytes = runs[64 * group..].iter();
        // The runs end with the last character.
        while let Some(run) = bytes.next() {
            let mut length = u32::from(run & 0xFF >> bits);
            if length == 0 {
                for (seven, byte) in bytes.by_ref().enumerate() {
                    length |= u32::from(byte & 0x7F) << (7 * seven);
                    if *byte < 0x80 {
                        break;
                    }
                }
            }
            next += length;
            if point < next {
                return run >> (8 - bits);
            }
        }
        0
    }

    pub fn properties(c: char) -> u8 {
        match data::LATIN.get(c as usize >> 1) {
            Some(pair) => pair >> (4 * (c as u32 % 2)) & 15,
            None => in_runs(&data::PROPERTY_FIRSTS, &data::PROPERTY_RUNS, 4, c as u32),
        }
    }

    pub fn combining_class(point: u32) -> u8 {
        data::CLASSES[usize::from(in_runs(&data::CLASS_FIRSTS, &data::CLASS_RUNS, 6, point))]
    }

    pub fn composition([first, second]: [u32; 2]) -> Option<u32> {
        let second = data::SECONDS.binary_search(&second).ok()? as u8;
        let mut places = data::PARTS.iter().zip(&data::PART_SECONDS);
        let whole = decomposed_at(places.position(|both| both == (&(first as u16), &second))?);
        // Both are of the same plane.
        (whole >> 16 == first >> 16).then_some(whole)
    }

    /// The character that decomposes into the parts at a place.
    fn decomposed_at(at: usize) -> u32 {
        let after = data::DECOMPOSED.partition_point(|run| (run & 0xFFF) as usize <= at);
        let (start, first) = run_of(after - 1);
        start + (at - first) as u32
    }
}

#[cfg(feature = "tables")]
use looked_up as found;
#[cfg(not(feature = "tables"))]
use searched as found;

pub(super) use found::{combining_class, composition};

#[cfg(all(test, feature = "tables"))]
mod tests {
    use super::*;

    #[test]
    fn what_is_searched_is_what_is_looked_up() {
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            let point = c as u32;
            assert_eq!(searched::properties(c), looked_up::properties(c), "{c:?}");
            assert_eq!(searched::combining_class(point), looked_up::combining_class(point));
        }
        for point in 0..0x11_0000 {
            let Some([first, second]) = decomposition(point) else { continue };
            for both in
                [[first, second], [first ^ 0x1_0000, second], [first, 0x62], [second, first]]
            {
                assert_eq!(searched::composition(both), looked_up::composition(both), "{both:x?}");
            }
        }
    }
}
