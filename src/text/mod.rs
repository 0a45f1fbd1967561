//! Text in and out: the tokenizer inside the model file, streaming decoding and stop strings.
//!
//! Turning ids into text is always possible and needs no other crate: [`TokenTable`] reads token
//! bytes in place from the tables, [`Utf8Stream`] makes whole characters of them,
//! [`StopMatcher`] ends the text at a stop string. Turning text into ids needs the feature `text`;
//! the encoder is built from the same table when it is first used, see [`Tokenizer`].

pub mod byte_level;
#[cfg(feature = "text")]
mod encoder;
mod error;
mod plain;
#[cfg(feature = "text")]
mod room;
#[cfg(feature = "text")]
mod splitter;
mod stop;
mod table;
mod utf8_stream;

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
use std::ops::ControlFlow;
#[cfg(feature = "text")]
use std::sync::OnceLock;

#[cfg(feature = "text")]
use crate::memory;

/// The `tokenizers` library ends the process if it gets no memory. So what it takes at most is asked for
/// before: for an encoder so many bytes for each of the table (22 were measured).
#[cfg(feature = "text")]
const ENCODER_MEMORY: usize = 32;

/// A model's tokenizer: the table, and the encoder once somebody has encoded something.
///
/// Can be shared between threads. Opening costs only the table's validation; the encoder costs
/// tens of milliseconds and several times the table's size in memory, and a program that works on
/// token ids never pays for it.
#[derive(Debug)]
pub struct Tokenizer<B> {
    table: TokenTable<B>,
    #[cfg(feature = "text")]
    encoder: OnceLock<Result<Encoder, TextError>>,
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

    /// Token ids of `text`; see [`Encoder::encode`]. The first call builds the encoder.
    ///
    /// # Errors
    /// Those of [`Encoder::new`] and [`Encoder::encode`]; [`TextError::OutOfMemory`].
    #[cfg(feature = "text")]
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        self.encoder()?.encode(text, options)
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
        let encoder = self.encoder()?;
        room.check(text, encoder.least_tokens(text.len(), options))?;
        let (mut tokens, mut checked) = (Vec::new(), Ok(()));
        encoder.encode_in_pieces(text, options, &mut |piece, rest| {
            checked =
                encoder::append(&mut tokens, piece).map_err(Into::into).and_then(|()| match rest {
                    0 => room.check_cancel(),
                    _ => room.check(text, tokens.len() + encoder.least_tokens(rest, options)),
                });
            if checked.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        checked.map(|()| tokens)
    }

    /// Whether a text surely has more tokens than a context has positions, by its length.
    #[cfg(feature = "text")]
    pub(crate) fn is_surely_too_long(&self, text: &str, context: usize) -> crate::Result<bool> {
        Ok(self.encoder()?.least_tokens(text.len(), EncodeOptions::default()) > context)
    }

    #[cfg(feature = "text")]
    fn encoder(&self) -> Result<&Encoder, TextError> {
        if self.encoder.get().is_none() {
            let bytes = self.table.byte_len().saturating_mul(ENCODER_MEMORY);
            memory::probe(bytes).map_err(|_| TextError::OutOfMemory { bytes })?;
        }
        let encoder = self.encoder.get_or_init(|| Encoder::new(&self.table));
        encoder.as_ref().map_err(Clone::clone)
    }
}

impl<B> From<TokenTable<B>> for Tokenizer<B> {
    fn from(table: TokenTable<B>) -> Self {
        Self {
            table,
            #[cfg(feature = "text")]
            encoder: OnceLock::new(),
        }
    }
}
