//! Numbers in JSON that end.
//!
//! A grammar lets digits follow one another for ever, and a small model takes it up on that. So of the tokens
//! that a grammar allows those go that would make a number too long, unless none is left then.

use llguidance::toktrie::{SimpleVob, TokTrie};

use super::Mark;

/// The most digits before a number's point, and as many after it: with so many, every integer and every
/// decimal fraction keeps its value in a binary64.
const MOST_DIGITS: u8 = 15;
/// The most digits of its exponent, with which no number overflows.
const MOST_EXPONENT_DIGITS: u8 = 2;

/// Where in a JSON text we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Neither in a string nor in a number.
    #[default]
    Between,
    String,
    /// In a string after a backslash.
    Escape,
    /// Before a number's point, after it, in its exponent.
    Whole,
    Fraction,
    Exponent,
}

/// Follows a text up to where its JSON begins, and the JSON from there on.
#[derive(Debug)]
pub(super) enum JsonText {
    /// Before the mark behind which it begins, with the text so far that may be of the mark.
    Before(Mark, Vec<u8>),
    /// Within it.
    Within(Numbers),
    /// The text has none.
    Never,
}

impl JsonText {
    /// JSON behind a mark, or from the beginning on.
    pub fn behind(mark: Option<&Mark>) -> Self {
        let before = |mark: &Mark| Self::Before(mark.clone(), Vec::new());
        mark.map_or_else(|| Self::Within(Numbers::default()), before)
    }

    /// Takes a token.
    pub fn follow(&mut self, token: u32, bytes: &[u8]) {
        let next = match self {
            Self::Within(numbers) => {
                numbers.follow(bytes);
                return;
            }
            Self::Never => return,
            Self::Before(Mark::Token(mark), _) => {
                (*mark == token).then(|| Self::Within(Numbers::default()))
            }
            Self::Before(Mark::Beginning(mark), text) => {
                text.extend_from_slice(bytes);
                let mark = mark.as_bytes();
                match text.strip_prefix(mark) {
                    Some(rest) => Some(Self::within(rest)),
                    None => (!mark.starts_with(text)).then_some(Self::Never),
                }
            }
            Self::Before(Mark::Text(mark), text) => {
                text.extend_from_slice(bytes);
                let mark = mark.as_bytes();
                let at = text.windows(mark.len()).position(|part| part == mark);
                let next = at.map(|at| Self::within(&text[at + mark.len()..]));
                // What the end of the mark may still follow.
                text.drain(..text.len().saturating_sub(mark.len() - 1));
                next
            }
        };
        if let Some(next) = next {
            *self = next;
        }
    }

    fn within(bytes: &[u8]) -> Self {
        let mut numbers = Numbers::default();
        numbers.follow(bytes);
        Self::Within(numbers)
    }

    /// How far its numbers are.
    pub fn numbers(&self) -> Option<Numbers> {
        match self {
            Self::Within(numbers) => Some(*numbers),
            Self::Before(..) | Self::Never => None,
        }
    }
}

/// Follows a JSON text, byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    place: Place,
    /// Digits at this place of a number so far.
    digits: u8,
}

impl Numbers {
    /// Takes the bytes of a token. Whether all numbers are short so far.
    pub fn follow(&mut self, bytes: &[u8]) -> bool {
        // What begins so is no text but the name of a special token.
        let bytes = if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) { &[] } else { bytes };
        let mut all_short = true;
        for &byte in bytes {
            all_short &= self.take(byte);
        }
        all_short
    }

    fn take(&mut self, byte: u8) -> bool {
        use Place::*;
        let place = match (self.place, byte) {
            (String, b'\\') => Escape,
            (String, b'"') => Between,
            (String | Escape, _) => String,
            (_, b'"') => String,
            (Between, b'0'..=b'9') => Whole,
            (Whole | Fraction | Exponent, b'0'..=b'9') => self.place,
            (Whole, b'.') => Fraction,
            (Whole | Fraction, b'e' | b'E') | (Exponent, b'+' | b'-') => Exponent,
            _ => Between,
        };
        if place != self.place {
            *self = Self { place, digits: 0 };
        }
        let most = match place {
            Whole | Fraction => MOST_DIGITS,
            Exponent => MOST_EXPONENT_DIGITS,
            Between | String | Escape => return true,
        };
        self.digits = self.digits.saturating_add(byte.is_ascii_digit().into());
        self.digits <= most
    }

    /// Takes away the tokens that make a number too long, if others are left.
    pub fn keep_short(self, allowed: &mut SimpleVob, trie: &TokTrie) {
        // No token of a string begins outside of it, and there are many.
        if matches!(self.place, Place::String | Place::Escape) {
            return;
        }
        let mut short = allowed.clone();
        allowed.iter_set_entries(|token| {
            let mut after = self;
            if !after.follow(trie.token(token as u32)) {
                short.disallow_token(token as u32);
            }
        });
        if !short.is_zero() {
            *allowed = short;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_counted_where_numbers_are() {
        let short = |text: &str| Numbers::default().follow(text.as_bytes());
        let (most, more) = ("1".repeat(15), "1".repeat(16));
        for text in [
            &most,
            &format!("-{most}.{most}e-99"),
            &format!("[{most}, {most}]"),
            &format!("{{\"{more}\": \"\\\"{more}\", \"a\": true}}"),
            "false",
        ] {
            assert!(short(text), "{text}");
        }
        for text in [&more, &format!("1.{more}"), "1E100", &format!("\"\\\\\", {more}")] {
            assert!(!short(text), "{text}");
        }
        // However the text is cut.
        let mut numbers = Numbers::default();
        assert!(numbers.follow(b"-1") && numbers.follow(&[b'2'; 14]) && !numbers.follow(b"3"));
        assert!(numbers.follow(b"\xff<|endoftext|>0000000000000000"));
    }

    #[test]
    fn json_begins_behind_its_mark() {
        let is_string = Numbers { place: Place::String, digits: 0 };
        let follow = |mark: Mark, tokens: &[&str]| {
            let mut text = JsonText::behind(Some(&mark));
            for (i, token) in tokens.iter().enumerate() {
                text.follow(i as u32, token.as_bytes());
            }
            text.numbers()
        };
        let text = || Mark::Text("<c>".to_owned());
        assert_eq!(follow(text(), &["a \"1 <", "c", ">{\"", "b"]), Some(is_string));
        assert_eq!(follow(text(), &["<c", "<c>\""]), Some(is_string));
        assert_eq!(follow(text(), &["<c", "\"c>"]), None);
        let beginning = || Mark::Beginning("{\"name\": \"".to_owned());
        assert_eq!(follow(beginning(), &["{\"", "name\": \"get"]), Some(Numbers::default()));
        assert_eq!(follow(beginning(), &["a", "{\"name\": \"", "\""]), None);
        assert_eq!(follow(Mark::Token(1), &["\"1", "<c>", "\""]), Some(is_string));
        assert_eq!(follow(Mark::Token(5), &["\"1", "<c>"]), None);
    }
}
