//! Merging: byte pair encoding of one word.
//!
//! By definition, of all neighbours that a merge joins, those of the lowest rank are joined first, and of
//! several the leftmost; until no merge is left.
//!
//! A short word is done that way, on the stack. For a long one this would take time quadratic in its length,
//! so a heap holds the merges that are possible, which takes 40 bytes a symbol.
//! So that memory does not grow with the word, it is done in windows. That rests on a property of the
//! definition: a sequence of tokens is the encoding of its text if each two neighbours are the encoding of
//! theirs. (Look at the first merge that joins across the border of two tokens. Until then, all merges were
//! inside of tokens, so in the two tokens' own encoding the same came before, and this would come next there,
//! too.) Inside a window neighbours fit together; where two windows meet, the two tokens are encoded
//! once more. If they do not fit, the end of a window has changed tokens too far away from it, and a window of
//! twice the size is taken. In the end that is the whole word.

use core::cmp::Reverse;

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;

use super::table::View;
use super::{TextError, layout};

/// Most symbols of a word that is done on the stack.
const SHORT: usize = 64;

/// Symbols of the first window.
const WINDOW: usize = 1024;

/// What merging begins with: an id, and the bytes of the text it stands for.
#[derive(Debug, Clone, Copy, Default)]
struct Symbol {
    id: u32,
    bytes: u32,
}

/// U+2581, which SentencePiece writes for a space.
const METASPACE: &[u8] = "\u{2581}".as_bytes();

/// Hands on the symbols at a place of a text: of the character there, or of the byte. Returns its bytes.
fn symbols(
    view: View<'_>,
    text: &[u8],
    at: usize,
    mut put: impl FnMut(Symbol),
) -> Result<usize, TextError> {
    let byte_token = |byte: u8| view.byte_token(byte).ok_or(TextError::NoTokenForByte { byte });
    let Some(&first) = text.get(at) else { return Ok(1) };
    let length = match first {
        _ if view.sections.kind == layout::BYTE_LEVEL_BPE => 1,
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        0xF0.. => 4,
        // ASCII; or inside of a character, where a window begins after the token of a byte.
        _ => 1,
    };
    let bytes = text.get(at..at + length).unwrap_or(&text[at..]);
    if view.sections.kind == layout::SENTENCEPIECE_BPE && !matches!(first, 0x80..0xC0) {
        if let Some(id) = view.by_bytes(if bytes == METASPACE { b" " } else { bytes }) {
            put(Symbol { id, bytes: length as u32 });
            return Ok(length);
        }
        if first == b' ' {
            // Its bytes stand for one byte of the text together.
            for (number, &byte) in METASPACE.iter().enumerate() {
                put(Symbol { id: byte_token(byte)?, bytes: u32::from(number == 2) });
            }
            return Ok(length);
        }
    }
    for &byte in bytes {
        put(Symbol { id: byte_token(byte)?, bytes: 1 });
    }
    Ok(length)
}

/// Merges words, with memory that is taken once the first long one comes.
pub(super) struct Merger<'t> {
    view: View<'t>,
    window: Window,
    boundaries: Vec<Boundary>,
}

/// Where a window ended.
#[derive(Debug, Clone, Copy)]
struct Boundary {
    /// Bytes of the word before it.
    at: usize,
    /// Tokens before it, with those of earlier words.
    tokens: usize,
    /// Where the last token before it begins.
    last_token: usize,
}

impl<'t> Merger<'t> {
    pub fn new(view: View<'t>) -> Self {
        Self { view, window: Window::default(), boundaries: Vec::new() }
    }

    /// Appends the tokens of a word; `go_on` is asked after each window whether to.
    pub fn encode(
        &mut self,
        word: &[u8],
        out: &mut Vec<u32>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), TextError> {
        if self.view.sections.flags & layout::WHOLE_WORDS != 0
            && word.len() <= self.view.longest()
            && let Some(id) = self.view.by_bytes(word)
        {
            return append(out, &[id]);
        }
        let mut ids = [0; SHORT + 4];
        let (at, count) = short(self.view, word, &mut ids)?;
        if at == word.len() {
            let count = merge_short(self.view, &mut ids[..count]);
            return append(out, &ids[..count]);
        }
        self.encode_long(word, out, go_on)
    }

    fn encode_long(
        &mut self,
        word: &[u8],
        out: &mut Vec<u32>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), TextError> {
        self.boundaries.clear();
        let mut size = WINDOW;
        let mut from = Boundary { at: 0, tokens: out.len(), last_token: 0 };
        while go_on() {
            let all = self.window.fill(self.view, word, from.at, size)?;
            let tokens = self.window.merge(self.view);
            let first = tokens.first().map_or(0, |token| token.bytes as usize);
            if from.at > 0 && !fits(self.view, word, from, first)? {
                // It was too early to end the window before this one there.
                from = self.boundaries.pop().unwrap_or(from);
                out.truncate(from.tokens);
                size = size.saturating_mul(2);
                continue;
            }
            let kept = if all { tokens.len() } else { sure(tokens) };
            if kept == 0 {
                size = size.saturating_mul(2);
                continue;
            }
            let bytes: usize = tokens[..kept].iter().map(|token| token.bytes as usize).sum();
            reserve(out, kept, word.len() - from.at, bytes)?;
            let (mut at, mut last_token) = (from.at, from.at);
            for token in &tokens[..kept] {
                out.push(token.id);
                last_token = at;
                at += token.bytes as usize;
            }
            if all {
                return Ok(());
            }
            let bytes = size_of_val(&self.boundaries[..]) * 2;
            self.boundaries.try_reserve(1).map_err(|_| TextError::OutOfMemory { bytes })?;
            self.boundaries.push(from);
            from = Boundary { at, tokens: out.len(), last_token };
        }
        Ok(())
    }
}

/// How many tokens of a window are kept: the most of them, up to the end of a character that is several tokens of
/// less than a byte.
fn sure(tokens: &[Symbol]) -> usize {
    let most = tokens.len() - tokens.len().div_ceil(8);
    tokens[..most].iter().rposition(|token| token.bytes > 0).map_or(0, |last| last + 1)
}

/// Whether the last token before a boundary, and the first behind it, of so many bytes, are the encoding of
/// their text.
fn fits(view: View<'_>, word: &[u8], boundary: Boundary, first: usize) -> Result<bool, TextError> {
    let Some(text) = word.get(boundary.last_token..boundary.at + first) else { return Ok(false) };
    let mut ids = [0; SHORT + 4];
    let (at, count) = short(view, text, &mut ids)?;
    if at == text.len() {
        // Of two tokens, those that were kept: no merge before them joined what lies on both sides.
        return Ok(merge_short(view, &mut ids[..count]) == 2);
    }
    let mut window = Window::default();
    window.fill(view, text, 0, usize::MAX)?;
    Ok(window.merge(view).len() == 2)
}

/// Puts the symbols of a text, or of its beginning if it is no short one. Returns how far they reach, and how
/// many they are.
fn short(
    view: View<'_>,
    text: &[u8],
    ids: &mut [u32; SHORT + 4],
) -> Result<(usize, usize), TextError> {
    let (mut at, mut count) = (0, 0);
    while at < text.len() && count < SHORT {
        at += symbols(view, text, at, |symbol| {
            ids[count] = symbol.id;
            count += 1;
        })?;
    }
    Ok((at, count))
}

/// Appends tokens; what grows takes memory for half as many again.
pub(super) fn append(tokens: &mut Vec<u32>, more: &[u32]) -> Result<(), TextError> {
    if tokens.capacity() - tokens.len() < more.len() {
        let bytes = 4 * (tokens.len() + more.len());
        tokens.try_reserve(more.len()).map_err(|_| TextError::OutOfMemory { bytes })?;
    }
    tokens.extend_from_slice(more);
    Ok(())
}

/// Makes room for so many tokens of a word, and then for as many as its `left` bytes will have if they are like
/// its first ones.
fn reserve(tokens: &mut Vec<u32>, more: usize, left: usize, bytes: usize) -> Result<(), TextError> {
    if tokens.capacity() - tokens.len() >= more {
        return Ok(());
    }
    let alike = more as u64 * left as u64 / bytes.max(1) as u64;
    let all = (alike as usize).saturating_add(alike as usize / 64).clamp(more, left.max(more));
    let reserved = tokens.try_reserve_exact(all).or_else(|_| tokens.try_reserve_exact(more));
    reserved.map_err(|_| TextError::OutOfMemory { bytes: 4 * (tokens.len() + more) })
}

/// Merges a short word in place. Returns the number of its tokens.
fn merge_short(view: View<'_>, ids: &mut [u32]) -> usize {
    let mut left = ids.len();
    let mut ranks = [layout::NONE; SHORT + 4];
    let mut results = [0; SHORT + 4];
    for at in 1..left {
        (ranks[at - 1], results[at - 1]) = rank(view, ids[at - 1], ids[at]);
    }
    loop {
        let pairs = &ranks[..left.saturating_sub(1)];
        let (mut at, mut lowest) = (0, layout::NONE);
        for (place, &rank) in pairs.iter().enumerate() {
            if rank < lowest {
                (at, lowest) = (place, rank);
            }
        }
        if lowest == layout::NONE {
            return left;
        }
        ids[at] = results[at];
        ids.copy_within(at + 2..left, at + 1);
        ranks.copy_within(at + 1..left, at);
        results.copy_within(at + 1..left, at);
        left -= 1;
        if at + 1 < left {
            (ranks[at], results[at]) = rank(view, ids[at], ids[at + 1]);
        }
        if at > 0 {
            (ranks[at - 1], results[at - 1]) = rank(view, ids[at - 1], ids[at]);
        }
    }
}

/// Rank and result of a merge; the rank is [`layout::NONE`] if there is none.
fn rank(view: View<'_>, left: u32, right: u32) -> (u32, u32) {
    view.merge(left, right).unwrap_or((layout::NONE, 0))
}

/// No symbol.
const END: u32 = u32::MAX;

/// The symbols of a part of a word, and the merges that are possible.
#[derive(Debug, Default)]
struct Window {
    symbols: Vec<Symbol>,
    /// The symbols before and behind each.
    links: Vec<[u32; 2]>,
    /// Rank (from bit 32) and place of the left symbol.
    merges: BinaryHeap<Reverse<u64>>,
}

impl Window {
    /// Takes so many symbols of the word, or somewhat more. Returns whether they reach its end.
    fn fill(
        &mut self,
        view: View<'_>,
        word: &[u8],
        from: usize,
        size: usize,
    ) -> Result<bool, TextError> {
        // A space without a token is three symbols; the last character may be more than there is room for.
        let most = match view.sections.kind {
            layout::BYTE_LEVEL_BPE => word.len() - from,
            _ => (word.len() - from).saturating_mul(3),
        };
        let size = size.min(most);
        let count = size.saturating_add(4);
        let memory = |_| TextError::OutOfMemory { bytes: 40 * count };
        self.symbols.clear();
        self.links.clear();
        self.merges.clear();
        self.symbols.try_reserve_exact(count).map_err(memory)?;
        self.links.try_reserve_exact(count).map_err(memory)?;
        // One for each two neighbours, and two more for each merge.
        self.merges.try_reserve_exact(3 * count).map_err(memory)?;
        let mut at = from;
        while at < word.len() && self.symbols.len() < size {
            at += symbols(view, word, at, |symbol| self.symbols.push(symbol))?;
        }
        Ok(at >= word.len())
    }

    /// Merges the symbols; they are the tokens then.
    fn merge(&mut self, view: View<'_>) -> &[Symbol] {
        let count = self.symbols.len() as u32;
        let link = |at: u32| [at.wrapping_sub(1), if at + 1 < count { at + 1 } else { END }];
        self.links.extend((0..count).map(link));
        for at in 1..self.symbols.len() {
            self.push(view, at - 1, at);
        }
        while let Some(Reverse(merge)) = self.merges.pop() {
            let (place, rank) = (merge as u32, (merge >> 32) as u32);
            let at = place as usize;
            let [before, next] = self.links[at];
            // The left symbol may be gone, or either may have become another.
            if next == END || self.symbols[at].id == END {
                continue;
            }
            let right = next as usize;
            let joined = view.merge(self.symbols[at].id, self.symbols[right].id);
            let Some((_, id)) = joined.filter(|&(found, _)| found == rank) else { continue };
            self.symbols[at] =
                Symbol { id, bytes: self.symbols[at].bytes + self.symbols[right].bytes };
            self.symbols[right].id = END;
            let behind = self.links[right][1];
            self.links[at][1] = behind;
            if behind != END {
                self.links[behind as usize][0] = place;
                self.push(view, at, behind as usize);
            }
            if before != END {
                self.push(view, before as usize, at);
            }
        }
        self.symbols.retain(|symbol| symbol.id != END);
        &self.symbols
    }

    fn push(&mut self, view: View<'_>, left: usize, right: usize) {
        if let Some((rank, _)) = view.merge(self.symbols[left].id, self.symbols[right].id) {
            self.merges.push(Reverse(u64::from(rank) << 32 | left as u64));
        }
    }
}
