//! The cache of keys and values, and the queries that attend to it.

use core::f32::consts::LOG2_E;
use core::ops::Range;

/// Positions in a panel of cached keys: one lane each.
pub const KEY_PANEL: usize = 16;
/// Dimensions that lie together in a panel of int8 keys.
pub const KEY_STEP: usize = 4;
/// Positions that are softmaxed together before segments merge.
pub const SEGMENT: usize = 256;
/// Queries that kernels take through a segment together.
pub const QUERY_BLOCK: usize = 6;
/// The most queries of one call to [`Kernels::attend`](crate::kernels::Kernels::attend): those of a prompt's chunk, so that each segment is
/// read from memory once for all of them.
pub const MOST_QUERIES: usize = 11 * QUERY_BLOCK;

/// The cached keys and values of one head (layouts: `docs/numbers.md` section 7).
#[derive(Clone, Copy)]
pub enum HeadCache<'a> {
    /// Float16, as bits.
    F16 {
        /// `[panels][head size][16]`.
        keys: &'a [u16],
        /// `[positions][head size]`.
        values: &'a [u16],
    },
    /// Int8 with a scale per position.
    Int8 {
        /// `[panels][ceil(head size / 4)][16][4]`.
        keys: &'a [i8],
        /// `[positions]`.
        key_scales: &'a [f32],
        /// `[positions][head size]`.
        values: &'a [i8],
        /// `[positions]`.
        value_scales: &'a [f32],
    },
}

impl HeadCache<'_> {
    /// How many positions there is room for: position `p` lies in slot `p % capacity`.
    #[inline(always)]
    pub fn capacity(&self, head_size: usize) -> usize {
        match self {
            Self::F16 { values, .. } => values.len() / head_size,
            Self::Int8 { values, .. } => values.len() / head_size,
        }
    }

    /// Whether the other slices have room for so many positions, in whole panels.
    pub(in crate::kernels) fn has_room(&self, head_size: usize, capacity: usize) -> bool {
        let positions = capacity.next_multiple_of(KEY_PANEL);
        match self {
            Self::F16 { keys, .. } => keys.len() >= positions * head_size,
            Self::Int8 { keys, key_scales, value_scales, .. } => {
                keys.len() >= positions * head_size.next_multiple_of(KEY_STEP)
                    && key_scales.len() >= positions
                    && value_scales.len() >= capacity
            }
        }
    }
}

/// [`HeadCache`] for writing.
pub enum HeadCacheMut<'a> {
    /// Float16, as bits.
    F16 {
        /// `[panels][head size][16]`.
        keys: &'a mut [u16],
        /// `[positions][head size]`.
        values: &'a mut [u16],
    },
    /// Int8 with a scale per position.
    Int8 {
        /// `[panels][ceil(head size / 4)][16][4]`.
        keys: &'a mut [i8],
        /// `[positions]`.
        key_scales: &'a mut [f32],
        /// `[positions][head size]`.
        values: &'a mut [i8],
        /// `[positions]`.
        value_scales: &'a mut [f32],
    },
}

impl HeadCacheMut<'_> {
    /// How many positions there is room for: position `p` lies in slot `p % capacity`.
    #[inline(always)]
    pub fn capacity(&self, head_size: usize) -> usize {
        match self {
            Self::F16 { values, .. } => values.len() / head_size,
            Self::Int8 { values, .. } => values.len() / head_size,
        }
    }
}

/// Whether a cache may hold some of the positions before `end`: it has room for all, or is a ring.
#[inline(always)]
pub(in crate::kernels) fn is_within(end: usize, capacity: usize) -> bool {
    end <= capacity || capacity > 0 && capacity.is_multiple_of(SEGMENT)
}

/// Where a position lies in a cache of so many. One that positions have gone beyond is a ring, of whole
/// segments, so that the positions of a segment lie side by side.
#[inline(always)]
pub(in crate::kernels) fn slot(position: usize, capacity: usize) -> usize {
    if position < capacity {
        return position;
    }
    debug_assert!(capacity.is_multiple_of(SEGMENT));
    position % capacity
}

/// The queries that a call attends to, those of all query heads that share a head of keys and values, and
/// the cache of that head.
///
/// Several at once, because a key or value that was loaded serves all of them. A query is a pair of a
/// token and a member of the group; they are counted token by token.
pub struct Attention<'a> {
    /// Keys and values of the head. Those that a query sees are there; a slot of any other position
    /// may hold anything.
    pub cache: HeadCache<'a>,
    /// `[tokens][stride]`, unscaled.
    pub queries: &'a [f32],
    /// Floats from one token's queries to the next one's.
    pub stride: usize,
    /// The first query head's part of a token's row, in `queries` and in the output: `[head size]`. The
    /// other members' parts follow.
    pub columns: Range<usize>,
    /// How many query heads share the cache, at least one.
    pub group: usize,
    /// The rows whose queries these are, at least one; their queries are at most [`MOST_QUERIES`].
    pub tokens: Range<usize>,
    /// The position of row 0.
    pub position: usize,
    /// How many positions a query sees, up to its own; `None` if it sees all of them. At least one. What
    /// the queries see together must fit into the cache.
    pub window: Option<usize>,
    /// What a query is multiplied by: the attention scale times log2(e).
    pub scale: f32,
    /// ALiBi's bias on the scores, if the model has it.
    pub bias: Option<Alibi<'a>>,
    /// If so, one token attends to this segment alone, counted from position 0, of which it sees a position.
    /// What it gathers there goes to the row of that number, as [`part_width`] describes.
    pub segment: Option<usize>,
}

/// What ALiBi (Press et al., 2022) adds to the scores of a group's heads.
#[derive(Clone, Copy, Debug)]
pub struct Alibi<'a> {
    /// `[group]`: what a key's distance is multiplied by and added to its score.
    pub slopes: &'a [f32],
    /// The length from which on slopes shrink, so that a query's most distant key gets no larger a bias
    /// than in a text of this length; `None` if they never do.
    pub train_len: Option<usize>,
}

impl Alibi<'_> {
    /// The slope for a member's query at `position`, which `position + 1` keys have been before or at
    /// (`docs/numbers.md` section 7).
    #[inline(always)]
    pub fn slope_at(&self, member: usize, position: usize) -> f32 {
        // As scores, in base 2.
        let slope = self.slopes[member] * LOG2_E;
        match self.train_len {
            Some(length) if position >= length => slope * (length as f32 / (position + 1) as f32),
            _ => slope,
        }
    }
}

impl Attention<'_> {
    /// A member's part of a token's row.
    #[inline(always)]
    pub fn columns_of(&self, member: usize) -> Range<usize> {
        let shift = member * self.columns.len();
        self.columns.start + shift..self.columns.end + shift
    }

    /// A member's part of a row of parts.
    #[inline(always)]
    pub(in crate::kernels) fn part_columns(&self, member: usize) -> Range<usize> {
        let (size, width) = (self.columns.len(), part_width(self.columns.len()));
        let head = self.columns.start / size + member;
        head * width..(head + 1) * width
    }

    /// The query of a token and member `[head size]`.
    #[inline(always)]
    pub fn query(&self, token: usize, member: usize) -> &[f32] {
        &self.queries[token * self.stride..][self.columns_of(member)]
    }

    /// The positions that a query at `position` sees.
    #[inline(always)]
    pub fn visible(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        self.window.map_or(0, |window| end.saturating_sub(window))..end
    }
}

/// Buffers of one worker for [`Kernels::attend`](crate::kernels::Kernels::attend).
pub struct AttentionScratch<'a> {
    /// `[MOST_QUERIES][padded head size]`: the scaled queries.
    pub queries: &'a mut [f32],
    /// `[MOST_QUERIES][padded head size]`: the quantized queries.
    pub queries_i8: &'a mut [i8],
    /// `[QUERY_BLOCK][SEGMENT]`.
    pub scores: &'a mut [f32],
    /// `[MOST_QUERIES][padded head size]`: the weighted values so far.
    pub sums: &'a mut [f32],
    /// `[QUERY_BLOCK][padded head size]`: those of one segment.
    pub part: &'a mut [f32],
}

/// A head's dimensions with the padding that buffers of [`AttentionScratch`] have.
pub const fn padded_head_size(head_size: usize) -> usize {
    head_size.next_multiple_of(16)
}

/// Floats of what a query of a head of this size gathers in one segment: `[head size]` weighted values, then the
/// greatest score and the sum of the weights. Those of all query heads lie side by side, a row for each segment.
///
/// Segments merge in their order, so workers may compute them in any.
pub const fn part_width(head_size: usize) -> usize {
    head_size + 2
}
