//! Writes the tokenizer table, `docs/tokenizer-format.md`.

use cerebellum::text::layout;

/// An added token, and the text by which it is looked for if that is not its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Added {
    /// Its id.
    pub id: u32,
    /// Flags of `cerebellum::text::layout`.
    pub flags: u8,
    /// The text that is looked for; `None` if it is the token's bytes.
    pub text: Option<Vec<u8>>,
}

/// Everything the table holds.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Kind of tokenizer, of `cerebellum::text::layout`.
    pub kind: u8,
    /// Split rule, of `cerebellum::text::layout`.
    pub rule: u8,
    /// Header flags of `cerebellum::text::layout`.
    pub flags: u32,
    /// The token before a text.
    pub bos: Option<u32>,
    /// The character behind which a space begins no word.
    pub glue: Option<char>,
    /// Bytes of each token, by id; empty where an id has no token.
    pub tokens: Vec<Vec<u8>>,
    /// Tokens of single bytes, by byte. Those that are missing have none.
    pub bytes: Vec<Option<u32>>,
    /// Added tokens by ascending id.
    pub added: Vec<Added>,
    /// Tokens that are found by their bytes: characters, or words that merges do not make.
    pub index: Vec<u32>,
    /// Pairs of token ids, and what they become, in the order they apply. Of equal pairs the last counts.
    pub merges: Vec<(u32, u32, u32)>,
}

/// The table's bytes; `None` if a count or the text does not fit 32 bits, or an id the bits of a merge.
pub fn write(parts: &Parts) -> Option<Vec<u8>> {
    let text_of = |added: &Added| match &added.text {
        Some(text) => text.clone(),
        None => parts.tokens[added.id as usize].clone(),
    };
    let more: Vec<&Vec<u8>> = parts.added.iter().filter_map(|token| token.text.as_ref()).collect();
    let text_bytes: usize = parts.tokens.iter().chain(more.iter().copied()).map(Vec::len).sum();
    let is_normalized = |added: &&Added| added.flags & layout::NORMALIZED != 0;
    let index = index_slots(parts)?;
    let merges = merge_slots(parts)?;

    let mut blob = layout::MAGIC.to_vec();
    blob.extend(layout::VERSION.to_le_bytes());
    blob.extend([parts.kind, parts.rule]);
    blob.extend(parts.flags.to_le_bytes());
    let normalized = parts.added.iter().filter(is_normalized).count();
    let counts = [parts.tokens.len(), more.len(), parts.added.len(), normalized, text_bytes];
    for count in counts.into_iter().chain([index.len(), merges.len()]) {
        blob.extend(u32::try_from(count).ok()?.to_le_bytes());
    }
    blob.extend(parts.bos.unwrap_or(layout::NONE).to_le_bytes());
    blob.extend(parts.glue.map_or(0, u32::from).to_le_bytes());
    for byte in 0..256 {
        let id = parts.bytes.get(byte).copied().flatten();
        blob.extend(id.unwrap_or(layout::NONE).to_le_bytes());
    }

    let mut next_text = u32::try_from(parts.tokens.len()).ok()?;
    for token in &parts.added {
        let text = if token.text.is_some() { next_text } else { token.id };
        next_text += u32::from(token.text.is_some());
        for field in [token.id, text, token.flags.into()] {
            blob.extend(field.to_le_bytes());
        }
    }
    let mut order: Vec<u32> = (0..).take(parts.added.len()).collect();
    order.sort_by_cached_key(|&number| {
        let token = &parts.added[number as usize];
        (is_normalized(&token), text_of(token))
    });
    blob.extend(order.into_iter().flat_map(u32::to_le_bytes));

    let mut offset = 0_u32;
    blob.extend(offset.to_le_bytes());
    for text in parts.tokens.iter().chain(more.iter().copied()) {
        offset += text.len() as u32;
        blob.extend(offset.to_le_bytes());
    }
    blob.extend(parts.tokens.iter().chain(more).flatten());
    blob.extend(index.into_iter().flat_map(u32::to_le_bytes));
    for (pair, rank) in merges {
        blob.extend(pair.to_le_bytes());
        blob.extend(rank.to_le_bytes());
    }
    Some(blob)
}

/// The index by bytes: each id in the first free slot from where it belongs on, half of the slots free.
fn index_slots(parts: &Parts) -> Option<Vec<u32>> {
    let mut keys: Vec<(u32, u32)> = Vec::with_capacity(parts.index.len());
    for &id in &parts.index {
        keys.push((layout::bytes_order(parts.tokens.get(id as usize)?), id));
    }
    keys.sort_unstable();
    place(&keys, 2, 1, layout::NONE)
}

/// The merges: by ascending order, each in the first free slot from where it belongs on, a fifth free.
fn merge_slots(parts: &Parts) -> Option<Vec<(u64, u32)>> {
    let mut keys = Vec::with_capacity(parts.merges.len());
    for (rank, &(left, right, result)) in (0..).zip(&parts.merges) {
        if [left, right, result].iter().any(|&id| id >= layout::MAX_TOKENS) {
            return None;
        }
        let pair = layout::pair(left, right);
        let merge = pair | u64::from(result) << (2 * layout::ID_BITS);
        keys.push((layout::merge_order(pair), pair, std::cmp::Reverse::<u32>(rank), merge));
    }
    keys.sort_unstable();
    keys.dedup_by_key(|&mut (_, pair, ..)| pair);
    let keys: Vec<_> =
        keys.into_iter().map(|(order, _, rank, merge)| (order, (merge, rank.0))).collect();
    place(&keys, 5, 4, (0, layout::NONE))
}

/// Places keys, sorted by their order, in slots: `slots` for each `keys_in` of them, or more if one would lie
/// too far from where it belongs.
fn place<T: Copy>(keys: &[(u32, T)], slots: usize, keys_in: usize, free: T) -> Option<Vec<T>> {
    if keys.is_empty() {
        return Some(Vec::new());
    }
    let mut homes = keys.len().checked_mul(slots)?.div_ceil(keys_in);
    loop {
        let count = u32::try_from(homes + layout::MAX_PROBES).ok()?;
        let mut placed = vec![free; count as usize];
        let mut next = 0;
        let fits = keys.iter().all(|&(order, key)| {
            let home = layout::home(order, homes as u32) as usize;
            let at = next.max(home);
            next = at + 1;
            let near = at < home + layout::MAX_PROBES;
            if near {
                placed[at] = key;
            }
            near
        });
        if fits {
            return Some(placed);
        }
        homes += homes / 8 + 1;
        // Keys of the same order stay together, however many slots there are.
        if homes / 64 > keys.len() {
            return None;
        }
    }
}
