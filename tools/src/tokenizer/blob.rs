//! Writes the tokenizer table, `docs/tokenizer-format.md`.

use cerebellum::text::{AddedToken, layout};

/// Everything the table holds.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Bytes of each token, by id; empty where an id has no token.
    pub tokens: Vec<Vec<u8>>,
    /// Added tokens by ascending id.
    pub added: Vec<AddedToken>,
    /// Pairs of token ids in the order they apply.
    pub merges: Vec<(u32, u32)>,
    /// Flags of `cerebellum::text::layout`.
    pub flags: u8,
}

/// The table's bytes; `None` if a count or the text does not fit 32 bits.
pub fn write(parts: &Parts) -> Option<Vec<u8>> {
    let text_bytes: usize = parts.tokens.iter().map(Vec::len).sum();
    let mut blob = layout::MAGIC.to_vec();
    blob.extend(layout::VERSION.to_le_bytes());
    blob.extend([layout::BYTE_LEVEL_BPE, parts.flags]);
    for count in [parts.tokens.len(), parts.added.len(), parts.merges.len(), text_bytes] {
        blob.extend(u32::try_from(count).ok()?.to_le_bytes());
    }
    for token in &parts.added {
        blob.extend(token.id.to_le_bytes());
        blob.push(token.flags);
    }
    let mut offset = 0_u32;
    blob.extend(offset.to_le_bytes());
    for token in &parts.tokens {
        offset += token.len() as u32;
        blob.extend(offset.to_le_bytes());
    }
    blob.extend(parts.tokens.iter().flatten());
    for (left, right) in &parts.merges {
        blob.extend(left.to_le_bytes());
        blob.extend(right.to_le_bytes());
    }
    Some(blob)
}
