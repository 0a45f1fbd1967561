//! Unicode's normalization form C (UAX #15), which Qwen's tokenizers apply first.

use alloc::string::String;
use alloc::vec::Vec;

use super::TextError;
use super::unicode::{combining_class, composition, decomposition, is_unstable};
use crate::heap;

// Hangul is composed and decomposed by arithmetic (The Unicode Standard, section 3.12).
const SYLLABLES: u32 = 0xAC00;
const LEADING: u32 = 0x1100;
const VOWELS: u32 = 0x1161;
/// One before the first: an index of 0 means none.
const TRAILING: u32 = 0x11A7;
const VOWEL_COUNT: u32 = 21;
const TRAILING_COUNT: u32 = 28;
const SYLLABLE_COUNT: u32 = 19 * VOWEL_COUNT * TRAILING_COUNT;

/// Bits of a code point.
const POINT: u64 = (1 << 21) - 1;

/// No text becomes shorter than one of so many parts of its length.
pub(super) const SHRINKS: usize = 3;

/// Whether a text is surely normalized.
pub(super) fn is_normalized(text: &str) -> bool {
    text.is_ascii() || !text.chars().any(is_unstable)
}

/// Appends the text in normalization form C.
pub(super) fn normalize_into(text: &str, out: &mut String) -> Result<(), TextError> {
    let mut cluster = Cluster { marks: Vec::new(), starter: None };
    for c in text.chars() {
        if c.is_ascii() {
            cluster.put_starter(c as u32, out)?;
        } else {
            decompose(c as u32, &mut |part| cluster.put(part, out))?;
        }
    }
    cluster.end(out)
}

/// A character with combining class 0, and those of other classes behind it.
struct Cluster {
    starter: Option<u32>,
    /// Class (from bit 56), number (from bit 21) and code point, so that they sort as they have to stand.
    marks: Vec<u64>,
}

impl Cluster {
    fn put(&mut self, point: u32, out: &mut String) -> Result<(), TextError> {
        match combining_class(point) {
            0 => self.put_starter(point, out),
            class => {
                let bytes = 16 * (self.marks.len() + 4);
                self.marks.try_reserve(1).map_err(|_| TextError::OutOfMemory { bytes })?;
                let number = self.marks.len() as u64 & 0x7_FFFF_FFFF;
                self.marks.push(u64::from(class) << 56 | number << 21 | u64::from(point));
                Ok(())
            }
        }
    }

    fn put_starter(&mut self, point: u32, out: &mut String) -> Result<(), TextError> {
        self.join_marks();
        let joined = self.starter.filter(|_| self.marks.is_empty());
        if let Some(both) = joined.and_then(|starter| compose(starter, point)) {
            self.starter = Some(both);
            return Ok(());
        }
        self.end(out)?;
        self.starter = Some(point);
        Ok(())
    }

    /// Sorts the marks, and joins those that compose with the starter.
    fn join_marks(&mut self) {
        heap::sort(&mut self.marks, |a, b| a < b);
        let Some(mut starter) = self.starter else { return };
        let mut blocked = 0;
        self.marks.retain(|mark| {
            let class = mark >> 56;
            match compose(starter, (mark & POINT) as u32).filter(|_| blocked < class) {
                Some(both) => {
                    starter = both;
                    false
                }
                None => {
                    blocked = class;
                    true
                }
            }
        });
        self.starter = Some(starter);
    }

    /// Writes the cluster, and begins the next.
    fn end(&mut self, out: &mut String) -> Result<(), TextError> {
        self.join_marks();
        let bytes = 4 * (1 + self.marks.len());
        out.try_reserve(bytes).map_err(|_| TextError::OutOfMemory { bytes: out.len() + bytes })?;
        let marks = self.marks.drain(..).map(|mark| (mark & POINT) as u32);
        out.extend(self.starter.take().into_iter().chain(marks).filter_map(char::from_u32));
        Ok(())
    }
}

/// Hands on the full canonical decomposition.
fn decompose(
    point: u32,
    put: &mut dyn FnMut(u32) -> Result<(), TextError>,
) -> Result<(), TextError> {
    if let Some(syllable) = point.checked_sub(SYLLABLES).filter(|&index| index < SYLLABLE_COUNT) {
        put(LEADING + syllable / (VOWEL_COUNT * TRAILING_COUNT))?;
        put(VOWELS + syllable / TRAILING_COUNT % VOWEL_COUNT)?;
        return match syllable % TRAILING_COUNT {
            0 => Ok(()),
            trailing => put(TRAILING + trailing),
        };
    }
    let Some([first, second]) = decomposition(point) else { return put(point) };
    // Three steps at most.
    decompose(first, put)?;
    if second == 0 { Ok(()) } else { decompose(second, put) }
}

fn compose(first: u32, second: u32) -> Option<u32> {
    if let Some(leading) = first.checked_sub(LEADING).filter(|&index| index < 19) {
        let vowel = second.checked_sub(VOWELS).filter(|&index| index < VOWEL_COUNT)?;
        return Some(SYLLABLES + (leading * VOWEL_COUNT + vowel) * TRAILING_COUNT);
    }
    if let Some(syllable) = first.checked_sub(SYLLABLES).filter(|&index| index < SYLLABLE_COUNT) {
        let trailing = second.checked_sub(TRAILING)?;
        let fits = syllable % TRAILING_COUNT == 0 && (1..TRAILING_COUNT).contains(&trailing);
        return fits.then_some(first + trailing);
    }
    composition([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_normalization_alignments::UnicodeNormalization;

    fn ours(text: &str) -> String {
        let mut out = String::new();
        normalize_into(text, &mut out).unwrap();
        out
    }

    fn theirs(text: &str) -> String {
        text.nfc().map(|(c, _)| c).collect()
    }

    fn check(text: &str) {
        let (ours, theirs) = (ours(text), theirs(text));
        assert_eq!(ours, theirs, "{:x?}", text.chars().map(u32::from).collect::<Vec<_>>());
        assert!(!is_normalized(text) || theirs == text, "{text:?}");
        assert!(theirs.len() * SHRINKS >= text.len(), "{text:?}");
    }

    fn chars() -> impl Iterator<Item = char> {
        (0..0x11_0000).filter_map(char::from_u32)
    }

    #[test]
    fn every_character_alone_and_decomposed() {
        for c in chars() {
            check(c.encode_utf8(&mut [0; 4]));
            let parts: String = c.to_string().nfd().map(|(c, _)| c).collect();
            check(&parts);
        }
    }

    #[test]
    fn every_pair_that_may_change() {
        let unstable: Vec<char> = chars().filter(|&c| is_unstable(c)).collect();
        let some =
            ['a', 'A', 'e', '\u{3b1}', '\u{1100}', '\u{ac00}', '\u{ac01}', '\u{9c7}', '\u{344}'];
        for &first in unstable.iter().step_by(7).chain(&some) {
            for &second in &unstable {
                check(&String::from_iter([first, second]));
                check(&String::from_iter([first, second, '\u{301}', second]));
            }
        }
    }

    #[test]
    fn composed_characters_with_further_marks() {
        for c in (0..0x11_0000).filter(|&c| decomposition(c).is_some()) {
            let c = char::from_u32(c).unwrap();
            for marks in [
                "\u{301}",
                "\u{323}",
                "\u{323}\u{301}",
                "\u{327}\u{345}",
                "\u{31b}",
                "\u{5b0}",
                "\u{3099}",
            ] {
                check(&(c.to_string() + marks));
            }
        }
    }

    #[test]
    fn runs_of_marks() {
        let marks = "\u{301}\u{323}\u{345}".repeat(100_000);
        check(&marks);
        check(&("a".to_owned() + &marks));
        check(&"\u{1100}\u{1161}\u{11a8}".repeat(100));
    }
}
