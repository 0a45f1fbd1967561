//! Added tokens in a text: the leftmost counts, and of those that begin there the longest.

use super::layout;
use super::table::View;
use super::unicode::{is_word, leading_space, trailing_space};

/// An added token in a text, with the white space that it swallows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub start: usize,
    pub end: usize,
    pub id: u32,
}

/// The added tokens of a table that are looked for.
#[derive(Clone, Copy)]
pub(super) struct Added<'t> {
    pub view: View<'t>,
    /// Those that are looked for in normalized text, or the others.
    pub normalized: bool,
    /// Whether special tokens count; otherwise they are text where they are found.
    pub parse_special: bool,
}

impl Added<'_> {
    /// The next one from `from` on, which is where the one before ended.
    pub fn find(self, text: &str, from: usize) -> Option<Found> {
        let bytes = text.as_bytes();
        let first_bytes = &self.view.sections.first_bytes[usize::from(self.normalized)];
        if *first_bytes == [0; 8] {
            return None;
        }
        let mut at = from;
        loop {
            let begins = |&byte: &u8| first_bytes[usize::from(byte / 32)] & (1 << (byte % 32)) != 0;
            at += bytes.get(at..)?.iter().position(begins)?;
            let longest = self.longest(&bytes[at..]);
            // A damaged table may hold part of a character.
            let Some((number, length)) = longest.filter(|_| text.is_char_boundary(at)) else {
                at += 1;
                continue;
            };
            if let Some(found) = self.judge(text, from, number, at, at + length) {
                return Some(found);
            }
            at += length;
        }
    }

    /// Whether the added token at `start..end` counts, and how far it reaches.
    fn judge(
        self,
        text: &str,
        from: usize,
        number: u32,
        start: usize,
        end: usize,
    ) -> Option<Found> {
        let (token, _) = self.view.added(number)?;
        if token.has(layout::SPECIAL) && !self.parse_special {
            return None;
        }
        let (before, behind) = (text.get(from..start)?, text.get(end..)?);
        if token.has(layout::SINGLE_WORD) {
            let touches = text.get(..start)?.chars().next_back().is_some_and(is_word)
                || behind.chars().next().is_some_and(is_word);
            if touches {
                return None;
            }
        }
        let start = if token.has(layout::LSTRIP) { from + trailing_space(before) } else { start };
        let end = if token.has(layout::RSTRIP) { end + leading_space(behind) } else { end };
        Some(Found { start, end, id: token.id })
    }

    /// Number and bytes of the longest one that the text begins with.
    ///
    /// The order of texts is searched for one byte after the other: those that are left agree with the text
    /// so far.
    fn longest(self, text: &[u8]) -> Option<(u32, usize)> {
        let order = self.view.added_order(self.normalized);
        let number = |place: &[u8; layout::ORDER_BYTES]| u32::from_le_bytes(*place);
        let bytes = |place: &[u8; layout::ORDER_BYTES]| {
            let text = self.view.added(number(place)).map(|(_, text)| text);
            text.and_then(|text| self.view.text_bytes(text)).unwrap_or_default()
        };
        let (mut left, mut depth, mut longest) = (order, 0, None);
        loop {
            if let [one] = left {
                let candidate = bytes(one);
                let matches = !candidate.is_empty() && text.starts_with(candidate);
                return if matches { Some((number(one), candidate.len())) } else { longest };
            }
            let Some(first) = left.first() else { return longest };
            // What ends here stands before what is longer.
            if bytes(first).len() == depth && depth > 0 {
                longest = Some((number(first), depth));
                left = &left[1..];
                continue;
            }
            let Some(&byte) = text.get(depth) else { return longest };
            let at = |place: &[u8; layout::ORDER_BYTES]| bytes(place).get(depth).copied();
            let from = left.partition_point(|place| at(place) < Some(byte));
            let to = from + left[from..].partition_point(|place| at(place) == Some(byte));
            left = &left[from..to];
            depth += 1;
        }
    }
}
