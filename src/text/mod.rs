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
#[cfg(feature = "text")]
mod splitter;
mod stop;
mod table;
mod utf8_stream;

#[cfg(feature = "text")]
pub use encoder::{EncodeOptions, Encoder};
pub use error::TextError;
pub use stop::StopMatcher;
pub use table::{AddedToken, TokenTable, layout};
pub use utf8_stream::Utf8Stream;

#[cfg(feature = "text")]
use std::sync::OnceLock;

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
    /// Those of [`Encoder::new`] and [`Encoder::encode`].
    #[cfg(feature = "text")]
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        let encoder = self.encoder.get_or_init(|| Encoder::new(&self.table));
        encoder.as_ref().map_err(Clone::clone)?.encode(text, options)
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
