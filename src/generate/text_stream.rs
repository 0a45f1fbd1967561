//! Turning tokens into text.

use alloc::string::String;
use core::ops::ControlFlow;

use super::outcome::StopReason;
use crate::error::{Error, Result};
use crate::text::{StopMatcher, TokenTable, Utf8Stream};

/// Turns tokens into text, as soon as the text is certain: whole characters, and nothing that may be
/// the beginning of a stop string. Allocates only when it is made.
pub struct TextStream<'a, B> {
    table: &'a TokenTable<B>,
    buffer: TextBuffer,
}

impl<'a, B: AsRef<[u8]>> TextStream<'a, B> {
    /// A stream that ends before any of the stop strings.
    ///
    /// # Errors
    /// [`Error::Text`] if a stop string is empty; [`Error::OutOfMemory`].
    pub fn new(table: &'a TokenTable<B>, stop: &[String]) -> Result<Self> {
        Ok(Self { table, buffer: TextBuffer::new(table, stop)? })
    }

    /// Passes on the text that has become certain with a token. Breaks if there is a stop string, or if
    /// `on_text` breaks.
    pub fn push(
        &mut self,
        token: u32,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<StopReason> {
        let stopped = self.buffer.push(self.table, token);
        match self.buffer.text() {
            "" => {}
            text if on_text(text).is_break() => return ControlFlow::Break(StopReason::Cancelled),
            _ => {}
        }
        match stopped {
            true => ControlFlow::Break(StopReason::StopString),
            false => ControlFlow::Continue(()),
        }
    }

    /// Passes on the text that was held back, if it belongs to the text.
    pub fn finish(
        &mut self,
        reason: StopReason,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) {
        self.buffer.finish(reason);
        if !self.buffer.text().is_empty() {
            // This is the last piece, so its answer does not matter.
            let _ = on_text(self.buffer.text());
        }
    }
}

/// The text that a [`TextStream`] holds back and passes on.
pub(crate) struct TextBuffer {
    characters: Utf8Stream,
    stops: StopMatcher,
    decoded: String,
    certain: String,
}

impl TextBuffer {
    /// See [`TextStream::new`].
    pub fn new<B: AsRef<[u8]>>(table: &TokenTable<B>, stop: &[String]) -> Result<Self> {
        let mut stops = StopMatcher::new(stop)?;
        // Room for any piece, so that no token allocates. Each byte may become a U+FFFD, which has
        // three bytes.
        let piece = 3 * (table.longest_token() + MAX_CHAR_BYTES);
        stops.reserve(piece).map_err(|_| Error::OutOfMemory { bytes: piece })?;
        let room = piece + stop.iter().map(String::len).max().unwrap_or(0);
        let (decoded, certain) = (string_with_room(room)?, string_with_room(room)?);
        Ok(Self { characters: Utf8Stream::new(), stops, decoded, certain })
    }

    /// The text that has become certain with the last token, or at the end.
    pub fn text(&self) -> &str {
        &self.certain
    }

    /// Takes a token. Returns whether there is a stop string.
    pub fn push<B: AsRef<[u8]>>(&mut self, table: &TokenTable<B>, token: u32) -> bool {
        self.decoded.clear();
        self.certain.clear();
        let bytes = table.token_bytes(token).unwrap_or_default();
        self.characters.push(bytes, &mut self.decoded);
        self.stops.push(&self.decoded, &mut self.certain).is_some()
    }

    /// Takes the end of the text.
    pub fn finish(&mut self, reason: StopReason) {
        self.decoded.clear();
        self.certain.clear();
        if matches!(reason, StopReason::StopString | StopReason::Cancelled) {
            return;
        }
        self.characters.finish(&mut self.decoded);
        self.stops.push(&self.decoded, &mut self.certain);
        self.stops.finish(&mut self.certain);
    }
}

/// Bytes of the longest UTF-8 character.
const MAX_CHAR_BYTES: usize = 4;

fn string_with_room(bytes: usize) -> Result<String> {
    let mut string = String::new();
    string.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    Ok(string)
}
