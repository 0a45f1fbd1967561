//! Which rows of a pass belong to which sequence.

use core::ops::Range;

use crate::kernels::QUERY_BLOCK;

/// Consecutive tokens of one sequence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Which of the pass's caches is the sequence's.
    pub(super) cache: usize,
    /// Position of the first token.
    pub(crate) position: usize,
    /// Row of the first token.
    pub(super) row: usize,
    /// How many tokens.
    pub(crate) len: usize,
    /// For how many of the last tokens logits are computed.
    pub(super) logits: usize,
    /// Rows with logits before.
    pub(super) logits_row: usize,
    /// Blocks of queries before.
    pub(super) block: usize,
}

impl Span {
    /// The first span of a pass: `len` tokens from `position` on, logits for the last `logits` ones.
    pub fn first(cache: usize, position: usize, len: usize, logits: usize) -> Self {
        debug_assert!(len > 0 && logits <= len);
        Self { cache, position, row: 0, len, logits, logits_row: 0, block: 0 }
    }

    /// The span after this one.
    pub fn next(&self, cache: usize, position: usize, len: usize, logits: usize) -> Self {
        Self {
            row: self.end(),
            logits_row: self.logits_end(),
            block: self.block + self.blocks(),
            ..Self::first(cache, position, len, logits)
        }
    }

    /// The row after its last one.
    pub fn end(&self) -> usize {
        self.row + self.len
    }

    /// Rows with logits up to its end.
    pub fn logits_end(&self) -> usize {
        self.logits_row + self.logits
    }

    pub(super) fn blocks(&self) -> usize {
        self.len.div_ceil(QUERY_BLOCK)
    }

    pub(super) fn rows(&self) -> Range<usize> {
        self.row..self.end()
    }

    /// The tokens of some blocks of queries.
    pub(super) fn block_rows(&self, blocks: Range<usize>) -> Range<usize> {
        blocks.start * QUERY_BLOCK..self.len.min(blocks.end * QUERY_BLOCK)
    }
}
