//! What the encoder must know of characters.

mod data;

pub(super) use data::COMBINING;

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
        match properties(c) & 3 {
            1 => Self::Letter,
            2 => Self::Number,
            3 => Self::Space,
            _ => Self::Other,
        }
    }
}

/// Whether `\w` matches a character.
pub(super) fn is_word(c: char) -> bool {
    properties(c) & 4 != 0
}

/// Whether NFC may change a character, or what is before it.
pub(super) fn is_unstable(c: char) -> bool {
    properties(c) & 8 != 0
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
    (at < end).then(|| parts(at))
}

/// The character that decomposes into these two in one step, and is composed of them again.
pub(super) fn composition(both: [u32; 2]) -> Option<u32> {
    let at = data::COMPOSITIONS.binary_search_by_key(&both, |&at| parts(usize::from(at))).ok()?;
    let at = usize::from(data::COMPOSITIONS[at]);
    let after = data::DECOMPOSED.partition_point(|run| (run & 0xFFF) as usize <= at);
    let (start, first) = run_of(after - 1);
    Some(start + (at - first) as u32)
}

/// The first character of a run of those that decompose, and where the run's parts begin.
fn run_of(at: usize) -> (u32, usize) {
    let run = data::DECOMPOSED[at];
    (run >> 12, (run & 0xFFF) as usize)
}

fn parts(at: usize) -> [u32; 2] {
    let parts = data::PARTS[at];
    [parts & 0x3_FFFF, data::SECONDS[(parts >> 18) as usize]]
}

fn properties(c: char) -> u8 {
    let (block, at) = (c as usize >> 8, c as usize & 0xFF);
    let last = data::BLOCKS.len() - 1;
    let index = usize::from(data::BLOCKS[block.min(last)]);
    let pair = data::PROPERTIES[index << 7 | at >> 1];
    if at % 2 == 0 { pair & 15 } else { pair >> 4 }
}
