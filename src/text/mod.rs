//! Text in and out: the tokenizer inside the model file, streaming decoding and stop strings.
//!
//! Turning ids into text is always possible and needs no other crate: [`TokenTable`] reads token
//! bytes in place from the tables, [`Utf8Stream`] makes whole characters of them,
//! [`StopMatcher`] ends the text at a stop string. Turning text into ids needs the feature `text`; [`Encoder`]
//! reads the same table in place, and its files need no more of the standard library than `core` and `alloc`.

#[cfg(feature = "text")]
mod added;
pub mod byte_level;
#[cfg(feature = "text")]
mod encoder;
mod error;
#[cfg(feature = "text")]
mod merge;
#[cfg(feature = "text")]
mod nfc;
mod plain;
#[cfg(feature = "text")]
mod room;
mod stop;
mod table;
#[cfg(feature = "text")]
mod unicode;
mod utf8_stream;
#[cfg(feature = "text")]
mod words;

#[cfg(feature = "text")]
pub use encoder::{EncodeOptions, Encoder};
pub use error::TextError;
pub use plain::plain_text;
#[cfg(feature = "text")]
pub(crate) use room::Room;
pub use stop::StopMatcher;
pub use table::{AddedToken, TokenTable, layout};
pub use utf8_stream::Utf8Stream;

#[cfg(feature = "text")]
use alloc::vec::Vec;
#[cfg(feature = "text")]
use core::ops::ControlFlow;

/// The most memory that a call takes, and gives back at its end, to read a text of so many bytes, or the parts of one;
/// in the C interface each call with texts asks for it first.
pub const fn text_bytes(bytes: usize) -> usize {
    bytes.saturating_mul(64).saturating_add(16 << 10)
}

/// A model's tokenizer: the table, and encoding from it in place.
///
/// Can be shared between threads. Opening costs only the table's validation.
#[derive(Debug)]
pub struct Tokenizer<B> {
    table: TokenTable<B>,
}

impl<B: AsRef<[u8]>> Tokenizer<B> {
    /// Checks the table in `blob`, as [`TokenTable::parse`] does.
    ///
    /// # Errors
    /// Those of [`TokenTable::parse`].
    pub fn parse(blob: B) -> Result<Self, TextError> {
        Ok(TokenTable::parse(blob)?.into())
    }

    /// The table: token bytes, special tokens.
    pub fn table(&self) -> &TokenTable<B> {
        &self.table
    }

    /// Token ids of `text`; see [`Encoder::encode`].
    ///
    /// # Errors
    /// Those of [`Encoder::encode`].
    #[cfg(feature = "text")]
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        self.encoder().encode(text, options)
    }

    /// Appends the tokens of a text that stands behind a control token of a longer text: a tokenizer that puts a
    /// space before a text puts none there.
    #[cfg(feature = "text")]
    pub(crate) fn encode_behind_control(
        &self,
        text: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TextError> {
        self.encoder().encode_behind_control(text, tokens)
    }

    /// As [`encode`](Self::encode), of a text that is of use only if a context of so many positions can hold
    /// it. One that is far too long is refused without encoding all of it, and takes no memory.
    ///
    /// For a text that is to come into a session, see [`Session::encode`](crate::Session::encode).
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode); [`Error::TextTooLong`](crate::Error::TextTooLong) if the text has more
    /// tokens, as far as that is found out early: the tokens of a text that was encoded to its end are
    /// returned, whether they fit or not.
    #[cfg(feature = "text")]
    pub fn encode_within(
        &self,
        text: &str,
        options: EncodeOptions,
        context: usize,
    ) -> crate::Result<Vec<u32>> {
        self.encode_in(text, options, &Room::in_context(context, Default::default()))
    }

    /// As [`encode_within`](Self::encode_within). If the room's flag is set meanwhile, this fails with
    /// [`Error::Cancelled`](crate::Error::Cancelled), and leaves the flag to the end of the call.
    #[cfg(feature = "text")]
    pub(crate) fn encode_in(
        &self,
        text: &str,
        options: EncodeOptions,
        room: &Room,
    ) -> crate::Result<Vec<u32>> {
        let encoder = self.encoder();
        room.check(text, encoder.least_tokens(text.len(), options))?;
        let (mut tokens, mut checked) = (Vec::new(), Ok(()));
        encoder.encode_into(text, options, &mut tokens, &mut |tokens, rest| {
            checked = match tokens {
                Some(tokens) if rest > 0 => {
                    encoder::make_room(tokens, text.len(), rest);
                    room.check(text, tokens.len() + encoder.least_tokens(rest, options))
                }
                _ => room.check_cancel(),
            };
            if checked.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        checked.map(|()| tokens)
    }

    /// Whether a text surely has more tokens than a context has positions, by its length.
    #[cfg(feature = "text")]
    pub(crate) fn is_surely_too_long(&self, text: &str, context: usize) -> crate::Result<bool> {
        Ok(self.encoder().least_tokens(text.len(), EncodeOptions::default()) > context)
    }

    #[cfg(feature = "text")]
    fn encoder(&self) -> Encoder<'_> {
        Encoder::new(&self.table)
    }
}

impl<B> From<TokenTable<B>> for Tokenizer<B> {
    fn from(table: TokenTable<B>) -> Self {
        Self { table }
    }
}
