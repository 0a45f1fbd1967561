//! GPT-2's byte-level alphabet: one printable character for each of the 256 bytes.
//!
//! GPT-2 writes its vocabulary as text, so every byte needs a visible stand-in. Printable Latin-1
//! characters stand for themselves; the others, in ascending order, for U+0100 onwards (a space is
//! `Ġ`, U+0120). Source: `bytes_to_unicode` in `encoder.py` of openai/gpt-2.

use alloc::string::String;
use alloc::vec::Vec;

/// The character that stands for `byte`.
pub const fn byte_to_char(byte: u8) -> char {
    let code = match byte {
        0x00..=0x20 => 0x100 + byte as u32,
        0x7F..=0xA0 => 0x121 + (byte as u32 - 0x7F),
        0xAD => 0x143,
        _ => byte as u32,
    };
    match char::from_u32(code) {
        Some(c) => c,
        None => unreachable!(),
    }
}

/// The byte that `c` stands for, or `None` if `c` is not in the alphabet.
pub const fn char_to_byte(c: char) -> Option<u8> {
    match c as u32 {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => Some(code as u8),
        code @ 0x100..=0x120 => Some((code - 0x100) as u8),
        code @ 0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

/// `bytes` written in the alphabet.
pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| byte_to_char(byte)).collect()
}

/// The bytes that `text` spells, or `None` if a character is not in the alphabet.
pub fn unspell(text: &str) -> Option<Vec<u8>> {
    text.chars().map(char_to_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_round_trip() {
        for byte in 0..=255 {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte));
        }
        assert_eq!(unspell("Ġthe"), Some(b" the".to_vec()));
        assert_eq!(unspell("日"), None);
        assert_eq!(unspell(" "), None);
    }

    #[cfg(feature = "text")]
    #[test]
    fn the_alphabet_is_the_library_s() {
        let ours: std::collections::BTreeSet<char> = (0..=255).map(byte_to_char).collect();
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert_eq!(ours, theirs.into_iter().collect());
    }
}
