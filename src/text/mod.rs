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

#[cfg(feature = "text")]
use crate::memory;

/// The `tokenizers` library ends the process if it gets no memory. So what it takes at most is asked for
/// before, in bytes: for an encoder, for each byte of the table (22 were measured); ...
#[cfg(feature = "text")]
const ENCODER_MEMORY: usize = 32;

/// ... for a text, for each of its bytes (268 were measured, of short words) ...
#[cfg(feature = "text")]
const TEXT_MEMORY: usize = 320;

/// ... and for what it keeps after the first text (49 KB).
#[cfg(feature = "text")]
const ANY_TEXT_MEMORY: usize = 128 << 10;

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
        self.probe_memory(text)?;
        self.encode_now(text, options)
    }

    /// As much memory as encoding `text` takes is there, as far as one can know before.
    #[cfg(feature = "text")]
    pub(crate) fn probe_memory(&self, text: &str) -> Result<(), TextError> {
        let table = if self.encoder.get().is_none() { self.table.byte_len() } else { 0 };
        let bytes = table
            .saturating_mul(ENCODER_MEMORY)
            .saturating_add(text.len().saturating_mul(TEXT_MEMORY))
            .saturating_add(ANY_TEXT_MEMORY);
        memory::probe(bytes).map_err(|_| TextError::OutOfMemory { bytes })
    }

    /// [`Self::encode`] without a look at the memory.
    #[cfg(feature = "text")]
    pub(crate) fn encode_now(
        &self,
        text: &str,
        options: EncodeOptions,
    ) -> Result<Vec<u32>, TextError> {
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
