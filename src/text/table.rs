//! The tokenizer as it lies in the model file: token bytes, added tokens, merges.
//!
//! `docs/tokenizer-format.md` gives the layout byte by byte. [`TokenTable::parse`] checks what leads from one
//! part to another; afterwards every accessor reads the table in place, allocates nothing and cannot panic,
//! not even if the mapped file is changed underneath: each access is bounds-checked again.

use alloc::vec::Vec;

use super::TextError;

/// The layout's constants and hashes, shared by this reader and the converter's writer.
pub mod layout {
    /// First four bytes of a table.
    pub const MAGIC: [u8; 4] = *b"CBTK";
    /// Version of the layout, the next two bytes.
    pub const VERSION: u16 = 2;

    /// Kind 1: byte-level BPE. Merging begins with the bytes of a word.
    pub const BYTE_LEVEL_BPE: u8 = 1;
    /// Kind 2: SentencePiece's BPE. Merging begins with the characters of a word, and the bytes of those that
    /// have no token.
    pub const SENTENCEPIECE_BPE: u8 = 2;

    /// Split rule 0: what is between two added tokens is one word.
    pub const SPLIT_NONE: u8 = 0;
    /// Split rule 1: GPT-2's.
    pub const SPLIT_GPT2: u8 = 1;
    /// Split rule 2: GPT-2's, and each number is a word (SmolLM).
    pub const SPLIT_GPT2_DIGITS: u8 = 2;
    /// Split rule 3: Llama 3's.
    pub const SPLIT_LLAMA3: u8 = 3;
    /// Split rule 4: Qwen 2's and 3's: Llama 3's, and each number is a word.
    pub const SPLIT_QWEN2: u8 = 4;
    /// Split rule 5: a word begins at each space behind another character.
    pub const SPLIT_SPACES: u8 = 5;
    /// Split rule 6: a word begins at each space.
    pub const SPLIT_EACH_SPACE: u8 = 6;

    /// Bytes before the tokens of single bytes.
    pub const HEADER_BYTES: usize = 48;
    /// Bytes of the tokens of all 256 bytes: ids (u32).
    pub const BYTE_TOKENS_BYTES: usize = 4 * 256;
    /// Bytes of an added token: its id (u32), the number of the text that is looked for (u32), its flags (u32).
    pub const ADDED_TOKEN_BYTES: usize = 12;
    /// Bytes of a place in the order of the added tokens' texts (u32).
    pub const ORDER_BYTES: usize = 4;
    /// Bytes of a text's offset (u32).
    pub const OFFSET_BYTES: usize = 4;
    /// Bytes of a slot of the index by bytes: an id (u32).
    pub const INDEX_BYTES: usize = 4;
    /// Bytes of a slot of the merges.
    pub const MERGE_BYTES: usize = 12;

    /// Where there is no id, and the rank of an empty slot.
    pub const NONE: u32 = u32::MAX;
    /// Bits of an id in a merge.
    pub const ID_BITS: u32 = 20;
    /// Ids are less than this.
    pub const MAX_TOKENS: u32 = 1 << ID_BITS;
    /// So many slots are looked at, from where a key belongs.
    pub const MAX_PROBES: usize = 128;

    /// Header flag: each piece of text between added tokens is encoded as if a space stood before it, if none does.
    pub const ADD_PREFIX_SPACE: u32 = 1;
    /// Header flag, with [`ADD_PREFIX_SPACE`]: even if a space stands there; and normalized added tokens are
    /// looked for behind that.
    pub const ALWAYS_PREFIX_SPACE: u32 = 1 << 1;
    /// Header flag, with [`ADD_PREFIX_SPACE`]: only at the beginning of a text.
    pub const FIRST_PREFIX_SPACE: u32 = 1 << 2;
    /// Header flag: texts are brought into normalization form C.
    pub const NFC: u32 = 1 << 3;
    /// Header flag: the model wants the token `begin of text` before a text.
    pub const ADD_BOS: u32 = 1 << 4;
    /// Header flag: a word that is a token is that token, whatever merges make of it.
    pub const WHOLE_WORDS: u32 = 1 << 5;
    /// All header flags with a meaning.
    pub const HEADER_FLAGS: u32 = (1 << 6) - 1;

    /// Added token flag: a control token such as `<|endoftext|>`, not text.
    pub const SPECIAL: u8 = 1;
    /// Added token flag: swallows the white space before it.
    pub const LSTRIP: u8 = 1 << 1;
    /// Added token flag: swallows the white space after it.
    pub const RSTRIP: u8 = 1 << 2;
    /// Added token flag: matches only where no word character touches it.
    pub const SINGLE_WORD: u8 = 1 << 3;
    /// Added token flag: is looked for after the tokens without this flag, and in normalized text.
    pub const NORMALIZED: u8 = 1 << 4;
    /// Added token flag: merges may make this token too.
    pub const IN_VOCABULARY: u8 = 1 << 5;
    /// All added token flags with a meaning.
    pub const ADDED_TOKEN_FLAGS: u8 = (1 << 6) - 1;

    /// A merge's place in the order of the slots: slots are filled by ascending order.
    pub const fn merge_order(pair: u64) -> u32 {
        (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
    }

    /// The pair of two ids, the lower bits of a merge's first eight bytes.
    pub const fn pair(left: u32, right: u32) -> u64 {
        let mask = MAX_TOKENS - 1;
        (left & mask) as u64 | ((right & mask) as u64) << ID_BITS
    }

    /// A text's place in the order of the index by bytes (FNV-1a, and one multiplication for its upper bits).
    pub fn bytes_order(bytes: &[u8]) -> u32 {
        let step = |hash: u32, &byte: &u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        bytes.iter().fold(0x811C_9DC5, step).wrapping_mul(0x9E37_79B1)
    }

    /// The slot where a key of this order belongs.
    pub const fn home(order: u32, slots: u32) -> u32 {
        ((order as u64 * slots as u64) >> 32) as u32
    }
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

/// A table in place, whoever owns its bytes.
#[derive(Clone, Copy)]
pub(super) struct View<'t> {
    blob: &'t [u8],
    pub sections: &'t Sections,
}

/// The header, where each section begins in the blob, and what a pass over all texts tells.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(feature = "text"), allow(dead_code, reason = "some of it only the encoder reads"))]
pub(super) struct Sections {
    pub kind: u8,
    pub rule: u8,
    pub flags: u32,
    /// The character behind which a space begins no word.
    pub glue: u32,
    tokens: u32,
    added: u32,
    /// Added tokens with the flag `NORMALIZED`, the last ones in the order of texts.
    pub normalized: u32,
    index_slots: u32,
    merge_slots: u32,
    bos: u32,
    added_at: usize,
    order_at: usize,
    offsets_at: usize,
    text_at: usize,
    index_at: usize,
    merges_at: usize,
    /// Bytes of the longest token.
    longest: usize,
    /// Flags that any added token has, of those that are not special and of all.
    pub any_added: [u8; 2],
    /// First bytes of the texts of added tokens, of those without and with the flag `NORMALIZED`.
    pub first_bytes: [[u32; 8]; 2],
}

impl<B: AsRef<[u8]>> TokenTable<B> {
    /// Reads a whole table, and checks all of it but the merges and the index by bytes. The blob needs no
    /// alignment. Allocates nothing.
    ///
    /// # Errors
    /// [`TextError`] naming what is wrong: an unknown magic number, version, kind, rule or flag, a length
    /// that differs from the header's, offsets out of order, added tokens without text.
    pub fn parse(blob: B) -> Result<Self, TextError> {
        let mut sections = Sections::read(blob.as_ref())?;
        let view = View { blob: blob.as_ref(), sections: &sections };
        let longest = view.check_offsets()?;
        let (any_added, first_bytes) = view.check_added_tokens()?;
        (sections.longest, sections.any_added, sections.first_bytes) =
            (longest, any_added, first_bytes);
        Ok(Self { blob, sections })
    }

    pub(super) fn view(&self) -> View<'_> {
        View { blob: self.blob.as_ref(), sections: &self.sections }
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
        self.view().token_bytes(id)
    }

    /// Length of the longest token in bytes.
    pub fn longest_token(&self) -> usize {
        self.sections.longest
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
        let view = self.view();
        let entries = view.added_entries();
        let index = entries.binary_search_by_key(&id, |entry| read_added(entry).0.id).ok()?;
        Some(read_added(&entries[index]).0)
    }

    /// All added tokens, by ascending id.
    pub fn added_tokens(&self) -> impl ExactSizeIterator<Item = AddedToken> + '_ {
        self.view().added_entries().iter().map(|entry| read_added(entry).0)
    }

    /// The id of the added token written `text`, for example `<|endoftext|>`.
    pub fn added_token_id(&self, text: &str) -> Option<u32> {
        let written = |id: u32| self.token_bytes(id) == Some(text.as_bytes());
        self.added_tokens().map(|token| token.id).find(|&id| written(id))
    }

    /// The number of the rule by which texts are cut into words, one of [`layout`]'s.
    pub fn split_rule(&self) -> u8 {
        self.sections.rule
    }

    /// Whether a text that does not begin with a space is encoded as if it did. The first token of a text that
    /// is made of such ids then has a space in front that the text has not: see
    /// [`without_prefix_space`](Self::without_prefix_space).
    pub fn add_prefix_space(&self) -> bool {
        self.sections.flags & layout::ADD_PREFIX_SPACE != 0
    }

    /// What the bytes of all tokens of a text, from its beginning, mean: without the space that encoding put
    /// before it.
    pub fn without_prefix_space<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        // Byte-level tokenizers keep it when they decode.
        let strips = self.add_prefix_space() && self.sections.kind == layout::SENTENCEPIECE_BPE;
        bytes.strip_prefix(b" ").filter(|_| strips).unwrap_or(bytes)
    }

    /// The token that begins every text that the model was trained on, if it wants one. Encoding puts it there
    /// if the text is said to begin what the model reads (`EncodeOptions::begin_of_text`).
    pub fn begin_of_text(&self) -> Option<u32> {
        self.view().begin_of_text()
    }

    /// Length of the whole table in bytes.
    pub fn byte_len(&self) -> usize {
        self.blob.as_ref().len()
    }
}

impl<'t> View<'t> {
    /// See [`TokenTable::begin_of_text`].
    pub fn begin_of_text(self) -> Option<u32> {
        let bos = self.sections.bos;
        let wanted = self.sections.flags & layout::ADD_BOS != 0 && bos < self.sections.tokens;
        wanted.then_some(bos)
    }

    /// See [`TokenTable::token_bytes`].
    pub fn token_bytes(self, id: u32) -> Option<&'t [u8]> {
        self.text_bytes(id).filter(|bytes| !bytes.is_empty() && id < self.sections.tokens)
    }

    /// A token's bytes, or a text that only an added token is looked for by.
    pub fn text_bytes(self, number: u32) -> Option<&'t [u8]> {
        let text = self.section(self.sections.text_at, self.sections.index_at);
        let start = self.offset(number)?;
        let end = self.offset(number.checked_add(1)?)?;
        text.get(start..end)
    }

    /// Bytes of the longest token.
    #[cfg(feature = "text")]
    pub fn longest(self) -> usize {
        self.sections.longest.max(1)
    }

    /// The token of a single byte.
    #[cfg(feature = "text")]
    pub fn byte_token(self, byte: u8) -> Option<u32> {
        let at = layout::HEADER_BYTES + 4 * usize::from(byte);
        let id = u32::from_le_bytes(*self.blob.get(at..)?.first_chunk()?);
        (id < self.sections.tokens).then_some(id)
    }

    /// The token with these bytes, of those that the index holds.
    #[cfg(feature = "text")]
    pub fn by_bytes(self, bytes: &[u8]) -> Option<u32> {
        let (slots, _) = self
            .section(self.sections.index_at, self.sections.merges_at)
            .as_chunks::<{ layout::INDEX_BYTES }>();
        let home = layout::home(layout::bytes_order(bytes), self.sections.index_slots) as usize;
        for slot in slots.get(home..)?.iter().take(layout::MAX_PROBES) {
            let id = u32::from_le_bytes(*slot);
            if id >= self.sections.tokens {
                return None;
            }
            if self.text_bytes(id) == Some(bytes) {
                return Some(id);
            }
        }
        None
    }

    /// Rank and result of the merge of two tokens.
    #[cfg(feature = "text")]
    #[inline]
    pub fn merge(self, left: u32, right: u32) -> Option<(u32, u32)> {
        const PAIR: u64 = (1 << (2 * layout::ID_BITS)) - 1;
        let (slots, _) = self
            .section(self.sections.merges_at, self.blob.len())
            .as_chunks::<{ layout::MERGE_BYTES }>();
        let pair = layout::pair(left, right);
        let order = layout::merge_order(pair);
        let home = layout::home(order, self.sections.merge_slots) as usize;
        for &[a, b, c, d, e, f, g, h, i, j, k, l] in
            slots.get(home..)?.iter().take(layout::MAX_PROBES)
        {
            let (merge, rank) =
                (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l]));
            if rank == layout::NONE {
                return None;
            }
            if merge & PAIR == pair {
                let id = (merge >> (2 * layout::ID_BITS)) as u32;
                return (id < self.sections.tokens).then_some((rank, id));
            }
            if layout::merge_order(merge & PAIR) > order {
                return None;
            }
        }
        None
    }

    /// Numbers of the added tokens, by their texts: those without the flag `NORMALIZED`, or those with it.
    #[cfg(feature = "text")]
    pub fn added_order(self, normalized: bool) -> &'t [[u8; layout::ORDER_BYTES]] {
        let (order, _) = self.section(self.sections.order_at, self.sections.offsets_at).as_chunks();
        let first = (self.sections.added - self.sections.normalized) as usize;
        let (plain, behind) = order.split_at(first.min(order.len()));
        if normalized { behind } else { plain }
    }

    /// An added token, and the number of its text.
    #[cfg(feature = "text")]
    pub fn added(self, number: u32) -> Option<(AddedToken, u32)> {
        self.added_entries().get(number as usize).map(read_added)
    }

    /// Where a text begins; the number may be one past the last, where the texts end.
    fn offset(self, number: u32) -> Option<usize> {
        let (offsets, _) = self.offsets();
        let offset = offsets.get(number as usize)?;
        Some(u32::from_le_bytes(*offset) as usize)
    }

    fn offsets(self) -> (&'t [[u8; layout::OFFSET_BYTES]], &'t [u8]) {
        self.section(self.sections.offsets_at, self.sections.text_at).as_chunks()
    }

    fn added_entries(self) -> &'t [[u8; layout::ADDED_TOKEN_BYTES]] {
        self.section(self.sections.added_at, self.sections.order_at).as_chunks().0
    }

    fn section(self, from: usize, to: usize) -> &'t [u8] {
        self.blob.get(from..to).unwrap_or_default()
    }

    /// Offsets start at 0, never decrease, and end where the text ends. Returns the longest token's bytes.
    fn check_offsets(self) -> Result<usize, TextError> {
        let (mut previous, mut longest) = (0, 0);
        for (id, offset) in (0..).zip(self.offsets().0) {
            let offset = u32::from_le_bytes(*offset);
            if offset < previous || (id == 0 && offset != 0) {
                return Err(TextError::Offset { id });
            }
            if id <= u64::from(self.sections.tokens) {
                longest = longest.max(offset - previous);
            }
            previous = offset;
        }
        let end = self.sections.index_at - self.sections.text_at;
        match previous as usize == end {
            true => Ok(longest as usize),
            false => Err(TextError::Offset { id: self.sections.tokens.into() }),
        }
    }

    /// Added tokens are ascending, have texts, and set known flags only.
    fn check_added_tokens(self) -> Result<([u8; 2], [[u32; 8]; 2]), TextError> {
        let (mut any, mut first_bytes, mut next_id) = ([0; 2], [[0; 8]; 2], Some(0));
        for (index, entry) in (0..).zip(self.added_entries()) {
            let (token, text) = read_added(entry);
            let ascending = next_id.is_some_and(|next| token.id >= next);
            let known = has_known_flags(entry);
            let first = self.text_bytes(text).and_then(|text| text.first());
            let Some(&first) =
                first.filter(|_| ascending && known && self.token_bytes(token.id).is_some())
            else {
                return Err(TextError::AddedToken { index });
            };
            if !token.has(layout::SPECIAL) {
                any[0] |= token.flags;
            }
            any[1] |= token.flags;
            let of_kind = &mut first_bytes[usize::from(token.has(layout::NORMALIZED))];
            of_kind[usize::from(first / 32)] |= 1 << (first % 32);
            next_id = token.id.checked_add(1);
        }
        Ok((any, first_bytes))
    }
}

impl Sections {
    /// Reads the header and checks that the sections fill the blob exactly.
    fn read(blob: &[u8]) -> Result<Self, TextError> {
        let found = blob.len() as u64;
        let Some(header) = blob.first_chunk::<{ layout::HEADER_BYTES }>() else {
            return Err(TextError::Length { expected: layout::HEADER_BYTES as u64, found });
        };
        let [kind, rule] = check_format(header)?;
        let field = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| header[at + i]));
        let [flags, tokens, more_texts, added, normalized, text, index_slots, merge_slots, bos] =
            [8, 12, 16, 20, 24, 28, 32, 36, 40].map(field);
        if flags & !layout::HEADER_FLAGS != 0 {
            return Err(TextError::Flags { found: flags });
        }
        if normalized > added {
            return Err(TextError::AddedToken { index: added });
        }

        // In u64 the sum of these products of 32-bit counts cannot overflow. Once it equals the
        // blob's length, every section is backed by bytes and its position fits a usize.
        let behind = |at: u64, count: u64, size: usize| at + count * size as u64;
        let added_at = (layout::HEADER_BYTES + layout::BYTE_TOKENS_BYTES) as u64;
        let order_at = behind(added_at, added.into(), layout::ADDED_TOKEN_BYTES);
        let offsets_at = behind(order_at, added.into(), layout::ORDER_BYTES);
        let texts = u64::from(tokens) + u64::from(more_texts) + 1;
        let text_at = behind(offsets_at, texts, layout::OFFSET_BYTES);
        let index_at = behind(text_at, text.into(), 1);
        let merges_at = behind(index_at, index_slots.into(), layout::INDEX_BYTES);
        let expected = behind(merges_at, merge_slots.into(), layout::MERGE_BYTES);
        if expected != found {
            return Err(TextError::Length { expected, found });
        }
        let [added_at, order_at, offsets_at, text_at, index_at, merges_at] =
            [added_at, order_at, offsets_at, text_at, index_at, merges_at].map(|at| at as usize);
        // What keys belong to lies before the slots that the last ones may flow over to.
        let homes = |slots: u32| slots.saturating_sub(layout::MAX_PROBES as u32);
        Ok(Self {
            kind,
            rule,
            flags,
            glue: field(44),
            tokens,
            added,
            normalized,
            index_slots: homes(index_slots),
            merge_slots: homes(merge_slots),
            bos,
            added_at,
            order_at,
            offsets_at,
            text_at,
            index_at,
            merges_at,
            ..Self::default()
        })
    }
}

/// Checks magic number, version, kind and rule.
fn check_format(header: &[u8; layout::HEADER_BYTES]) -> Result<[u8; 2], TextError> {
    let [m0, m1, m2, m3, v0, v1, kind, rule, ..] = *header;
    if [m0, m1, m2, m3] != layout::MAGIC {
        return Err(TextError::Magic);
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version < layout::VERSION {
        return Err(TextError::OldVersion { found: version, supported: layout::VERSION });
    }
    if version > layout::VERSION {
        return Err(TextError::Version { found: version, supported: layout::VERSION });
    }
    if !matches!(kind, layout::BYTE_LEVEL_BPE | layout::SENTENCEPIECE_BPE) {
        return Err(TextError::Kind { found: kind });
    }
    if rule > layout::SPLIT_EACH_SPACE {
        return Err(TextError::Rule { found: rule });
    }
    Ok([kind, rule])
}

/// An added token, and the number of the text that is looked for.
fn read_added(entry: &[u8; layout::ADDED_TOKEN_BYTES]) -> (AddedToken, u32) {
    let [a, b, c, d, e, f, g, h, flags, ..] = *entry;
    (AddedToken { id: u32::from_le_bytes([a, b, c, d]), flags }, u32::from_le_bytes([e, f, g, h]))
}

fn has_known_flags(entry: &[u8; layout::ADDED_TOKEN_BYTES]) -> bool {
    let [.., flags, x, y, z] = *entry;
    flags & !layout::ADDED_TOKEN_FLAGS == 0 && [x, y, z] == [0; 3]
}
