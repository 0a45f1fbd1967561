//! The tokenizer as it lies in the model file: token bytes, added tokens, merges.
//!
//! `docs/tokenizer-format.md` gives the layout byte by byte. [`TokenTable::parse`] checks it once;
//! afterwards every accessor reads the table in place, allocates nothing and cannot panic, not
//! even if the mapped file is changed underneath: each access is bounds-checked again.

use super::TextError;

/// The layout's constants, shared by this reader and the converter's writer.
pub mod layout {
    /// First four bytes of a table.
    pub const MAGIC: [u8; 4] = *b"CBTK";
    /// Version of the layout, the next two bytes.
    pub const VERSION: u16 = 1;
    /// Kind 1: byte-level BPE with GPT-2's pre-tokenizer.
    pub const BYTE_LEVEL_BPE: u8 = 1;
    /// Bytes before the added tokens.
    pub const HEADER_BYTES: usize = 24;
    /// Bytes of an added token: its id (u32) and its flags (u8).
    pub const ADDED_TOKEN_BYTES: usize = 5;
    /// Bytes of a token's offset.
    pub const OFFSET_BYTES: usize = 4;
    /// Bytes of a merge: two token ids (u32).
    pub const MERGE_BYTES: usize = 8;

    /// Header flag: a text that does not begin with a space is encoded as if it did.
    pub const ADD_PREFIX_SPACE: u8 = 1;
    /// Header flag: the text is split by GPT-2's regular expression before merging.
    pub const USE_REGEX: u8 = 1 << 1;
    /// All header flags with a meaning.
    pub const HEADER_FLAGS: u8 = ADD_PREFIX_SPACE | USE_REGEX;

    /// Added token flag: a control token such as `<|endoftext|>`, not text.
    pub const SPECIAL: u8 = 1;
    /// Added token flag: swallows the white space before it.
    pub const LSTRIP: u8 = 1 << 1;
    /// Added token flag: swallows the white space after it.
    pub const RSTRIP: u8 = 1 << 2;
    /// Added token flag: matches only where no word character touches it.
    pub const SINGLE_WORD: u8 = 1 << 3;
    /// Added token flag: is looked for after the tokens without this flag.
    pub const NORMALIZED: u8 = 1 << 4;
    /// Added token flag: merges may make this token too.
    pub const IN_VOCABULARY: u8 = 1 << 5;
    /// All added token flags with a meaning.
    pub const ADDED_TOKEN_FLAGS: u8 =
        SPECIAL | LSTRIP | RSTRIP | SINGLE_WORD | NORMALIZED | IN_VOCABULARY;
}

/// A token that is looked for in the text as a whole, before merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedToken {
    /// The token's id.
    pub id: u32,
    /// Flags of [`layout`], such as [`layout::SPECIAL`].
    pub flags: u8,
}

impl AddedToken {
    /// Whether all bits of `flag` are set.
    pub fn has(self, flag: u8) -> bool {
        self.flags & flag == flag
    }
}

/// A validated tokenizer table over bytes that it borrows (`&[u8]`) or owns (`Vec<u8>`, a handle
/// to a mapping). Turns token ids into bytes without any other crate.
#[derive(Debug, Clone)]
pub struct TokenTable<B> {
    blob: B,
    sections: Sections,
}

/// The header, and where each section begins in the blob.
#[derive(Debug, Clone, Copy)]
struct Sections {
    flags: u8,
    tokens: u32,
    offsets_at: usize,
    text_at: usize,
    merges_at: usize,
}

impl<B: AsRef<[u8]>> TokenTable<B> {
    /// Reads and checks a whole table. The blob needs no alignment. Allocates nothing.
    ///
    /// # Errors
    /// [`TextError`] naming what is wrong: an unknown magic number, version, kind or flag, a length
    /// that differs from the header's, offsets out of order, added tokens or merges that name a
    /// missing token.
    pub fn parse(blob: B) -> Result<Self, TextError> {
        let sections = Sections::read(blob.as_ref())?;
        let table = Self { blob, sections };
        table.check_offsets()?;
        table.check_added_tokens()?;
        table.check_merges()?;
        Ok(table)
    }

    /// Number of token ids: one more than the largest. Ids without a token are counted.
    pub fn len(&self) -> usize {
        self.sections.tokens as usize
    }

    /// Whether there are no tokens at all.
    pub fn is_empty(&self) -> bool {
        self.sections.tokens == 0
    }

    /// The bytes that token `id` stands for, often not whole UTF-8 characters; `None` for an id
    /// without a token. A model's vocabulary may be padded beyond the tokenizer's, so `None` is no
    /// error: the id stands for no text.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        let text = self.text();
        let start = self.offset(id)?;
        let end = self.offset(id.checked_add(1)?)?;
        text.get(start..end).filter(|bytes| !bytes.is_empty())
    }

    /// Length of the longest token in bytes.
    pub fn longest_token(&self) -> usize {
        let (offsets, _) = self.offset_section().as_chunks::<{ layout::OFFSET_BYTES }>();
        let pairs = offsets.iter().zip(offsets.iter().skip(1));
        let length = |(&start, &end)| {
            u32::from_le_bytes(end).saturating_sub(u32::from_le_bytes(start)) as usize
        };
        pairs.map(length).max().unwrap_or(0).min(self.text().len())
    }

    /// Appends the bytes of `ids` to `out`. Ids without a token add nothing.
    pub fn decode_into(&self, ids: &[u32], out: &mut Vec<u8>) {
        for &id in ids {
            out.extend_from_slice(self.token_bytes(id).unwrap_or_default());
        }
    }

    /// Whether `id` is a control token such as `<|endoftext|>`, which is not shown as text.
    pub fn is_special(&self, id: u32) -> bool {
        self.added_token(id).is_some_and(|token| token.has(layout::SPECIAL))
    }

    /// The added token with this id, if it is one.
    pub fn added_token(&self, id: u32) -> Option<AddedToken> {
        let (entries, _) = self.added_section().as_chunks::<{ layout::ADDED_TOKEN_BYTES }>();
        let index = entries.binary_search_by_key(&id, |entry| read_added(entry).id).ok()?;
        Some(read_added(&entries[index]))
    }

    /// All added tokens, by ascending id.
    pub fn added_tokens(&self) -> impl ExactSizeIterator<Item = AddedToken> + '_ {
        let (entries, _) = self.added_section().as_chunks::<{ layout::ADDED_TOKEN_BYTES }>();
        entries.iter().map(read_added)
    }

    /// The id of the added token written `text`, for example `<|endoftext|>`.
    pub fn added_token_id(&self, text: &str) -> Option<u32> {
        let written = |id: u32| self.token_bytes(id) == Some(text.as_bytes());
        self.added_tokens().map(|token| token.id).find(|&id| written(id))
    }

    /// The merges `(left, right)` in the order they apply.
    pub fn merges(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        let bytes = self.blob.as_ref().get(self.sections.merges_at..).unwrap_or_default();
        let (pairs, _) = bytes.as_chunks::<{ layout::MERGE_BYTES }>();
        pairs.iter().map(|&[a, b, c, d, e, f, g, h]| {
            (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
        })
    }

    /// Whether a text that does not begin with a space is encoded as if it did.
    pub fn add_prefix_space(&self) -> bool {
        self.sections.flags & layout::ADD_PREFIX_SPACE != 0
    }

    /// Whether the text is split by GPT-2's regular expression before merging.
    pub fn use_regex(&self) -> bool {
        self.sections.flags & layout::USE_REGEX != 0
    }

    /// Length of the whole table in bytes.
    pub fn byte_len(&self) -> usize {
        self.blob.as_ref().len()
    }

    /// Where token `id` begins in the text; `id` may be one past the last, where the text ends.
    fn offset(&self, id: u32) -> Option<usize> {
        let (offsets, _) = self.offset_section().as_chunks::<{ layout::OFFSET_BYTES }>();
        let offset = offsets.get(id as usize)?;
        Some(u32::from_le_bytes(*offset) as usize)
    }

    fn added_section(&self) -> &[u8] {
        let range = layout::HEADER_BYTES..self.sections.offsets_at;
        self.blob.as_ref().get(range).unwrap_or_default()
    }

    fn offset_section(&self) -> &[u8] {
        let range = self.sections.offsets_at..self.sections.text_at;
        self.blob.as_ref().get(range).unwrap_or_default()
    }

    fn text(&self) -> &[u8] {
        let range = self.sections.text_at..self.sections.merges_at;
        self.blob.as_ref().get(range).unwrap_or_default()
    }

    /// Offsets start at 0, never decrease, and end where the text ends.
    fn check_offsets(&self) -> Result<(), TextError> {
        let mut previous = 0;
        let (offsets, _) = self.offset_section().as_chunks::<{ layout::OFFSET_BYTES }>();
        for (id, offset) in (0..).zip(offsets) {
            let offset = u32::from_le_bytes(*offset);
            if offset < previous || (id == 0 && offset != 0) {
                return Err(TextError::Offset { id });
            }
            previous = offset;
        }
        match previous as usize == self.text().len() {
            true => Ok(()),
            false => Err(TextError::Offset { id: self.sections.tokens.into() }),
        }
    }

    /// Added tokens are ascending, have text, and set known flags only.
    fn check_added_tokens(&self) -> Result<(), TextError> {
        let mut next_id = Some(0);
        for (index, token) in (0..).zip(self.added_tokens()) {
            let ascending = next_id.is_some_and(|next| token.id >= next);
            let known = token.flags & !layout::ADDED_TOKEN_FLAGS == 0;
            if !ascending || !known || self.token_bytes(token.id).is_none() {
                return Err(TextError::AddedToken { index });
            }
            next_id = token.id.checked_add(1);
        }
        Ok(())
    }

    /// Both sides of a merge are tokens. That their concatenation is one too is left to the
    /// encoder, which needs an index of the vocabulary for it.
    fn check_merges(&self) -> Result<(), TextError> {
        let exists = |id| self.token_bytes(id).is_some();
        match self.merges().position(|(left, right)| !exists(left) || !exists(right)) {
            Some(rank) => Err(TextError::Merge { rank: rank as u32 }),
            None => Ok(()),
        }
    }
}

impl Sections {
    /// Reads the header and checks that the sections fill the blob exactly.
    fn read(blob: &[u8]) -> Result<Self, TextError> {
        let found = blob.len() as u64;
        let Some(header) = blob.first_chunk::<{ layout::HEADER_BYTES }>() else {
            return Err(TextError::Length { expected: layout::HEADER_BYTES as u64, found });
        };
        let flags = check_format(header)?;
        let [tokens, added_tokens, merges, text_bytes] =
            [8, 12, 16, 20].map(|at| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i])));

        // In u64 the sum of these products of 32-bit counts cannot overflow. Once it equals the
        // blob's length, every section is backed by bytes and its position fits a usize.
        let offsets_at = layout::HEADER_BYTES as u64
            + u64::from(added_tokens) * layout::ADDED_TOKEN_BYTES as u64;
        let text_at = offsets_at + (u64::from(tokens) + 1) * layout::OFFSET_BYTES as u64;
        let merges_at = text_at + u64::from(text_bytes);
        let expected = merges_at + u64::from(merges) * layout::MERGE_BYTES as u64;
        if expected != found {
            return Err(TextError::Length { expected, found });
        }
        let [offsets_at, text_at, merges_at] =
            [offsets_at, text_at, merges_at].map(|at| at as usize);
        Ok(Self { flags, tokens, offsets_at, text_at, merges_at })
    }
}

/// Checks magic number, version and kind; returns the flags.
fn check_format(header: &[u8; layout::HEADER_BYTES]) -> Result<u8, TextError> {
    let [m0, m1, m2, m3, v0, v1, kind, flags, ..] = *header;
    if [m0, m1, m2, m3] != layout::MAGIC {
        return Err(TextError::Magic);
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != layout::VERSION {
        return Err(TextError::Version { found: version, supported: layout::VERSION });
    }
    if kind != layout::BYTE_LEVEL_BPE {
        return Err(TextError::Kind { found: kind });
    }
    if flags & !layout::HEADER_FLAGS != 0 {
        return Err(TextError::Flags { found: flags });
    }
    Ok(flags)
}

fn read_added(entry: &[u8; layout::ADDED_TOKEN_BYTES]) -> AddedToken {
    let [a, b, c, d, flags] = *entry;
    AddedToken { id: u32::from_le_bytes([a, b, c, d]), flags }
}
