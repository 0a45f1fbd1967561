//! Messages for C programs, in buffers of fixed size, because writing a message must not fail.

use core::ffi::c_char;
use core::fmt::{self, Write};

/// Bytes of a message, the zero at its end included.
const CAPACITY: usize = 512;

/// A text that ends with a zero byte. A text that is too long is cut between two characters.
#[derive(Clone)]
pub(super) struct Message {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl Message {
    pub fn empty() -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }
    }

    pub fn new(text: impl fmt::Display) -> Self {
        let mut message = Self::empty();
        // Writing stops where the buffer ends.
        let _ = write!(message, "{text}");
        message
    }

    pub fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    /// The text without its zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text was cut between two characters, so it is valid.
        f.write_str(core::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = CAPACITY - 1 - self.length;
        let fits = text.floor_char_boundary(room);
        // A zero inside would end the text early for C.
        for (to, from) in self.bytes[self.length..].iter_mut().zip(text[..fits].bytes()) {
            *to = if from == 0 { b'?' } else { from };
        }
        self.length += fits;
        self.bytes[self.length] = 0;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Writes as much of `text` as fits into the caller's buffer, and a zero after it.
///
/// # Safety
/// `buffer` is null or valid for writing `size` bytes.
pub(super) unsafe fn copy_to_buffer(text: &[u8], buffer: *mut c_char, size: usize) {
    let Some(room) = size.checked_sub(1).filter(|_| !buffer.is_null()) else { return };
    let mut length = text.len().min(room);
    // Not in the middle of a character.
    while length < text.len() && length > 0 && text[length] & 0xC0 == 0x80 {
        length -= 1;
    }
    // SAFETY: the caller's contract; `length + 1 <= size`.
    unsafe {
        core::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), length);
        buffer.add(length).write(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let message = Message::new("\u{20ac}".repeat(400));
        assert_eq!(message.as_bytes().len(), 510);
        assert!(std::str::from_utf8(message.as_bytes()).is_ok());
        assert_eq!(message.bytes[510..], [0, 0]);
        assert_eq!(Message::new("a\0b").as_bytes(), b"a?b");
    }

    #[test]
    fn buffers_always_end_with_zero() {
        let mut buffer = [b'x'; 4];
        let cases: [(&str, usize, [u8; 4]); 4] = [
            ("abcdef", 4, *b"abc\0"),
            ("a\u{20ac}", 4, *b"a\0c\0"),
            ("", 1, *b"\0\0c\0"),
            ("abc", 0, *b"\0\0c\0"),
        ];
        for (text, size, expected) in cases {
            // SAFETY: the buffer has at least `size` bytes.
            unsafe { copy_to_buffer(text.as_bytes(), buffer.as_mut_ptr().cast(), size) };
            assert_eq!(buffer, expected, "{text:?}");
        }
    }
}
