//! The cache of prompts: keys and values of beginnings of texts, in blocks of [`CACHE_BLOCK`] tokens.
//!
//! Blocks are the nodes of a tree: texts that begin alike share what they have in common. The block that was
//! used least recently makes room for a new one; as a text's use is the use of all its blocks, that is always
//! one that no other goes on from.

use std::collections::{BTreeMap, HashMap};

use cerebellum::batch::{Batch, CACHE_BLOCK};

type Tokens = [u32; CACHE_BLOCK];

/// A block's number, which no other block ever has. 0 stands for the beginning of all texts.
pub type BlockId = u64;
/// The beginning of all texts.
pub const BEGINNING: BlockId = 0;

/// Blocks of beginnings of texts.
pub struct Prefixes {
    /// The most blocks.
    most: usize,
    blocks: HashMap<BlockId, Block>,
    /// By the block before, and the tokens.
    by_tokens: HashMap<(BlockId, Tokens), BlockId>,
    /// Blocks that no other goes on from, by when they were used.
    ends: BTreeMap<u64, BlockId>,
    /// Counts uses and blocks.
    clock: u64,
    /// Memory of a block that had to go.
    spare: Option<Box<[u8]>>,
}

struct Block {
    before: BlockId,
    tokens: Tokens,
    bytes: Box<[u8]>,
    used: u64,
    /// How many blocks go on from it.
    children: usize,
}

impl Prefixes {
    /// A cache of at most `most` blocks.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            blocks: HashMap::new(),
            by_tokens: HashMap::new(),
            ends: BTreeMap::new(),
            clock: BEGINNING,
            spare: None,
        }
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The block with these tokens behind a block. Now it is used.
    pub fn find(&mut self, before: BlockId, tokens: &[u32]) -> Option<BlockId> {
        let tokens: Tokens = tokens.try_into().ok()?;
        let id = *self.by_tokens.get(&(before, tokens))?;
        self.clock += 1;
        let block = self.blocks.get_mut(&id).expect("its tokens are known");
        if block.children == 0 {
            self.ends.remove(&block.used);
            self.ends.insert(self.clock, id);
        }
        block.used = self.clock;
        Some(id)
    }

    /// What a block holds.
    pub fn bytes(&self, id: BlockId) -> &[u8] {
        &self.blocks[&id].bytes
    }

    /// Copies the block of a sequence that begins at `start` behind another block. `None` if that one is gone, or
    /// there is no room, or the sequence does not have it.
    pub fn keep(
        &mut self,
        before: BlockId,
        (batch, sequence, start): (&mut Batch, usize, usize),
    ) -> Option<BlockId> {
        if before != BEGINNING && !self.blocks.contains_key(&before) {
            return None;
        }
        if self.blocks.len() >= self.most {
            self.drop_oldest(before)?;
        }
        let mut bytes = match self.spare.take() {
            Some(bytes) => bytes,
            None => zeroed(batch.block_bytes())?,
        };
        if !batch.copy_block(sequence, start, &mut bytes) {
            self.spare = Some(bytes);
            return None;
        }
        let tokens =
            batch.tokens(sequence)[start..start + CACHE_BLOCK].try_into().expect("a block");
        Some(self.insert(before, tokens, bytes))
    }

    fn insert(&mut self, before: BlockId, tokens: Tokens, bytes: Box<[u8]>) -> BlockId {
        self.clock += 1;
        let id = self.clock;
        if let Some(before) = self.blocks.get_mut(&before) {
            self.ends.remove(&before.used);
            before.children += 1;
        }
        self.blocks.insert(id, Block { before, tokens, bytes, used: id, children: 0 });
        self.by_tokens.insert((before, tokens), id);
        self.ends.insert(id, id);
        id
    }

    /// Drops the block that was used least recently, but not `spared`, from which one is to go on.
    fn drop_oldest(&mut self, spared: BlockId) -> Option<()> {
        let (&used, &id) = self.ends.iter().find(|&(_, &id)| id != spared)?;
        self.ends.remove(&used);
        let block = self.blocks.remove(&id).expect("an end is a block");
        self.by_tokens.remove(&(block.before, block.tokens));
        if let Some(before) = self.blocks.get_mut(&block.before) {
            before.children -= 1;
            if before.children == 0 {
                self.ends.insert(before.used, block.before);
            }
        }
        self.spare = Some(block.bytes);
        Some(())
    }
}

/// Zeros, if there is memory for them.
fn zeroed(len: usize) -> Option<Box<[u8]>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).ok()?;
    bytes.resize(len, 0);
    Some(bytes.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(n: u32) -> Tokens {
        [n; CACHE_BLOCK]
    }

    /// Inserts as `keep` does, without a batch.
    fn add(prefixes: &mut Prefixes, before: BlockId, n: u32) -> Option<BlockId> {
        if before != BEGINNING && !prefixes.blocks.contains_key(&before) {
            return None;
        }
        if prefixes.len() >= prefixes.most {
            prefixes.drop_oldest(before)?;
        }
        Some(prefixes.insert(before, tokens(n), vec![n as u8].into()))
    }

    #[test]
    fn texts_share_what_they_begin_with() {
        let mut prefixes = Prefixes::new(9);
        let a = add(&mut prefixes, BEGINNING, 1).unwrap();
        let ab = add(&mut prefixes, a, 2).unwrap();
        let ac = add(&mut prefixes, a, 3).unwrap();
        assert_eq!(prefixes.find(BEGINNING, &tokens(1)), Some(a));
        assert_eq!(
            (prefixes.find(a, &tokens(2)), prefixes.find(a, &tokens(3))),
            (Some(ab), Some(ac))
        );
        assert_eq!(
            (prefixes.find(a, &tokens(1)), prefixes.find(BEGINNING, &tokens(2))),
            (None, None)
        );
        assert_eq!((prefixes.bytes(ac), prefixes.len()), (&[3][..], 3));
        assert_eq!(prefixes.find(BEGINNING, &[1]), None);
    }

    #[test]
    fn the_block_used_least_recently_makes_room() {
        let mut prefixes = Prefixes::new(3);
        let a = add(&mut prefixes, BEGINNING, 1).unwrap();
        let ab = add(&mut prefixes, a, 2).unwrap();
        let c = add(&mut prefixes, BEGINNING, 3).unwrap();
        assert_eq!(prefixes.find(BEGINNING, &tokens(1)), Some(a));
        assert_eq!(prefixes.find(a, &tokens(2)), Some(ab));
        // Not `a`, on which `ab` rests, but `c`.
        let abd = add(&mut prefixes, ab, 4).unwrap();
        assert_eq!(prefixes.find(BEGINNING, &tokens(3)), None);
        assert!(!prefixes.blocks.contains_key(&c));
        // A text longer than the cache keeps its beginning.
        assert_eq!(add(&mut prefixes, abd, 5), None);
        assert_eq!(prefixes.find(ab, &tokens(4)), Some(abd));
        // One that begins in another way takes the place of its end.
        let e = add(&mut prefixes, BEGINNING, 6).unwrap();
        assert_eq!(prefixes.find(ab, &tokens(4)), None);
        assert_eq!(add(&mut prefixes, abd, 7), None, "behind a block that is gone");
        assert_eq!(prefixes.find(BEGINNING, &tokens(6)), Some(e));
        let counts = (prefixes.len(), prefixes.by_tokens.len(), prefixes.ends.len());
        assert_eq!(counts, (3, 3, 2));
    }

    #[test]
    fn a_cache_without_room_keeps_nothing() {
        let mut prefixes = Prefixes::new(0);
        assert_eq!(add(&mut prefixes, BEGINNING, 1), None);
        assert_eq!(prefixes.find(BEGINNING, &tokens(1)), None);
    }
}
