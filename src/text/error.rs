//! What can be wrong with a tokenizer table, a text to encode or a stop string.

/// Why a tokenizer table cannot be used, or a text cannot be encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The bytes do not start with the table's magic number.
    #[error("not a tokenizer table (bad magic number); convert the model again")]
    Magic,
    /// The table was written by an older converter.
    #[error(
        "tokenizer table has version {found}, this library reads {supported}; convert the model again"
    )]
    OldVersion {
        /// Version in the table.
        found: u16,
        /// The version this library reads.
        supported: u16,
    },
    /// The table was written by a newer converter.
    #[error("tokenizer table has version {found}, this library reads {supported}; update it")]
    Version {
        /// Version in the table.
        found: u16,
        /// The version this library reads.
        supported: u16,
    },
    /// The table holds another kind of tokenizer than this library knows.
    #[error("tokenizer table has unknown kind {found}; update this library")]
    Kind {
        /// Kind in the table.
        found: u8,
    },
    /// The table names an unknown rule by which texts are cut into words.
    #[error("tokenizer table has unknown split rule {found}; update this library")]
    Rule {
        /// The rule's number.
        found: u8,
    },
    /// The header sets a flag that has no meaning.
    #[error("tokenizer table sets unknown flags {found:#04x}; update this library")]
    Flags {
        /// The flags in the table.
        found: u32,
    },
    /// The table is shorter or longer than its header says.
    #[error(
        "tokenizer table is {found} bytes long, its header says {expected}; convert the model again"
    )]
    Length {
        /// Bytes that the header describes.
        expected: u64,
        /// Bytes present.
        found: u64,
    },
    /// A token's offsets leave the text or run backwards.
    #[error("tokenizer table is damaged at the offset of token {id}; convert the model again")]
    Offset {
        /// The token.
        id: u64,
    },
    /// An added token has no text, unknown flags, or is out of order.
    #[error("tokenizer table is damaged at added token number {index}; convert the model again")]
    AddedToken {
        /// Position in the list of added tokens.
        index: u32,
    },
    /// There is no memory for encoding a text, or for a stop string.
    #[error(
        "out of memory: this text takes up to {bytes} bytes; free some, or pass a shorter text"
    )]
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// The vocabulary has no token for a byte of the text.
    #[error("the tokenizer has no token for byte {byte:#04x} of the text; remove that character")]
    NoTokenForByte {
        /// The byte.
        byte: u8,
    },
    /// A stop string is empty and would stop before the first token.
    #[error("stop string number {index} is empty; remove it")]
    EmptyStop {
        /// Position in the list of stop strings.
        index: usize,
    },
}
