//! Turns a stream of token bytes into whole characters.

use alloc::string::String;

/// Longest UTF-8 character in bytes.
const MAX_CHAR_BYTES: usize = 4;

/// Collects bytes and passes on complete UTF-8 only: a character whose bytes are spread over
/// several tokens appears when its last byte does.
///
/// Bytes that cannot be UTF-8 become U+FFFD exactly as in [`String::from_utf8_lossy`], one for
/// each maximal subpart (The Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal
/// Subparts"), wherever the stream is cut.
///
/// Holds at most three bytes and never allocates; text is appended to a `String` of the caller's,
/// which allocates only until its capacity suffices.
#[derive(Debug, Clone, Default)]
pub struct Utf8Stream {
    /// The beginning of a character: a valid but incomplete sequence.
    pending: [u8; MAX_CHAR_BYTES],
    pending_len: usize,
}

impl Utf8Stream {
    /// A stream at its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends to `out` all text that is now certain.
    pub fn push(&mut self, bytes: &[u8], out: &mut String) {
        let mut rest = bytes;
        while self.pending_len > 0 {
            let Some((&byte, tail)) = rest.split_first() else { return };
            if self.continue_pending(byte, out) {
                rest = tail;
            }
        }
        self.push_from_boundary(rest, out);
    }

    /// Ends the stream: an unfinished character becomes U+FFFD. The stream can then be reused.
    pub fn finish(&mut self, out: &mut String) {
        if self.pending_len > 0 {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending_len = 0;
        }
    }

    /// Number of bytes waiting for the rest of their character.
    pub fn pending(&self) -> usize {
        self.pending_len
    }

    /// Tries to add `byte` to the pending character. Returns whether the byte was used; if not,
    /// the pending bytes were no character and nothing is pending any more.
    fn continue_pending(&mut self, byte: u8, out: &mut String) -> bool {
        self.pending[self.pending_len] = byte;
        let candidate = &self.pending[..=self.pending_len];
        match core::str::from_utf8(candidate) {
            Ok(character) => {
                out.push_str(character);
                self.pending_len = 0;
                true
            }
            Err(error) if error.error_len().is_none() => {
                self.pending_len += 1;
                true
            }
            // Without `byte` the sequence was a valid beginning, so it is the maximal subpart.
            Err(_) => {
                out.push(char::REPLACEMENT_CHARACTER);
                self.pending_len = 0;
                false
            }
        }
    }

    /// Decodes `bytes`, which begin at a character, and keeps an incomplete last character.
    fn push_from_boundary(&mut self, bytes: &[u8], out: &mut String) {
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && is_incomplete(invalid) {
                self.pending[..invalid.len()].copy_from_slice(invalid);
                self.pending_len = invalid.len();
            } else if !invalid.is_empty() {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
}

/// Whether more bytes could still make `bytes` a character.
fn is_incomplete(bytes: &[u8]) -> bool {
    core::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let (mut stream, mut out) = (Utf8Stream::new(), String::new());
        for piece in pieces {
            stream.push(piece, &mut out);
        }
        stream.finish(&mut out);
        out
    }

    #[test]
    fn never_shows_half_a_character() {
        let (mut stream, mut out) = (Utf8Stream::new(), String::new());
        for &byte in &"🦀".as_bytes()[..3] {
            stream.push(&[byte], &mut out);
            assert_eq!(out, "");
        }
        assert_eq!(stream.pending(), 3);
        stream.push(&"🦀".as_bytes()[3..], &mut out);
        assert_eq!((out.as_str(), stream.pending()), ("🦀", 0));
    }

    #[test]
    fn all_sequences_of_boundary_bytes_agree_with_from_utf8_lossy() {
        // One byte from each class of the UTF-8 table, and both edges of the special classes.
        const CLASSES: [u8; 18] = [
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xE0, 0xED, 0xEF,
            0xF0, 0xF4, 0xF5, 0xFF,
        ];
        for code in 0..CLASSES.len().pow(4) {
            let bytes = [1, 18, 18 * 18, 18 * 18 * 18].map(|d| CLASSES[code / d % 18]);
            let expected = String::from_utf8_lossy(&bytes);
            assert_eq!(decode(bytes.chunks(1)), expected, "{bytes:x?} byte by byte");
            assert_eq!(decode(bytes.chunks(3)), expected, "{bytes:x?} cut after three");
        }
    }

    /// Bytes that are UTF-8 with some damage, so that all paths are taken.
    fn damaged_text() -> impl Strategy<Value = Vec<u8>> {
        let damage = proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6);
        (any::<String>(), damage).prop_map(|(text, damage)| {
            let mut bytes = text.into_bytes();
            for (at, byte) in damage {
                let at = at % (bytes.len() + 1);
                bytes.insert(at, byte);
                bytes.swap_remove(byte as usize % bytes.len());
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn any_split_agrees_with_from_utf8_lossy(
            bytes in damaged_text(),
            cuts in proptest::collection::vec(1usize..6, 1..64),
        ) {
            let mut pieces = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(decode(pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
