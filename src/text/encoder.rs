//! Text to token ids, from the table as it lies in the file.
//!
//! A text goes through these steps, each of which is a file: added tokens are found in it (`added`); what is
//! between them is normalized, where the tokenizer does that (`nfc`), and cut into words (`words`); and each
//! word is merged into tokens (`merge`). Nothing is built before, and nothing is kept.

use core::ops::ControlFlow;

use alloc::string::String;
use alloc::vec::Vec;

use super::added::{Added, Found};
use super::merge::{Merger, append};
use super::table::View;
use super::words::{Rule, is_space};
use super::{TextError, TokenTable, layout, nfc};

/// A text that has to be copied is copied in pieces of so many bytes or somewhat more; and behind so many bytes
/// the caller is asked whether to go on.
const PIECE_BYTES: usize = 4096;

/// How to read a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Whether special tokens written in the text, such as `<|endoftext|>`, become that token.
    ///
    /// By default they do not and are encoded as the characters they are: text from outside must
    /// not be able to end a document or otherwise speak with the program's voice. Set it for text
    /// that the program wrote itself, such as a prompt template or an evaluation text.
    pub parse_special: bool,
    /// Whether the text begins what the model reads. The token that the model wants before every text
    /// ([`TokenTable::begin_of_text`]) is then put there, unless the text begins with it already.
    ///
    /// [`Session::encode`](crate::Session::encode) and [`Batch::encode`](crate::batch::Batch::encode) know, and
    /// set it themselves. By default nothing is put before a text, which may be any part of a longer one.
    pub begin_of_text: bool,
}

impl EncodeOptions {
    /// For a text that the program wrote: its special tokens are those tokens.
    pub const PARSE_SPECIAL: Self = Self { parse_special: true, begin_of_text: false };

    /// The same, of a text that begins what the model reads.
    pub const fn at_the_beginning(self) -> Self {
        Self { begin_of_text: true, ..self }
    }
}

/// Encodes with a table in place. Making one costs nothing.
#[derive(Clone, Copy)]
pub struct Encoder<'t> {
    view: View<'t>,
}

impl<'t> Encoder<'t> {
    /// The encoder of a table.
    pub fn new<B: AsRef<[u8]>>(table: &'t TokenTable<B>) -> Self {
        Self { view: table.view() }
    }

    /// The token ids of `text`. Nothing is put behind them, and before them only what the options ask for.
    /// Decoding them gives back exactly `text`, but for that, and for a prefix space, stripped spaces or a
    /// normalization that the tokenizer asks for.
    ///
    /// # Errors
    /// [`TextError::NoTokenForByte`] if the vocabulary cannot express the text; [`TextError::OutOfMemory`].
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        let mut tokens = Vec::new();
        self.encode_into(text, options, &mut tokens, &mut |tokens, rest| {
            if let Some(tokens) = tokens {
                make_room(tokens, text.len(), rest);
            }
            ControlFlow::Continue(())
        })?;
        Ok(tokens)
    }

    /// As [`encode`](Self::encode), handing on the tokens of one piece of the text after the other, with a
    /// number of bytes that are left behind it, 0 only at the end; no more after a break. A piece may have no
    /// tokens. Memory is taken for a piece, not for the text. A word, such as a run of letters, is one piece,
    /// however long it is.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_in_pieces(
        &self,
        text: &str,
        options: EncodeOptions,
        on_piece: &mut dyn FnMut(&[u32], usize) -> ControlFlow<()>,
    ) -> Result<(), TextError> {
        let mut tokens = Vec::new();
        self.encode_into(text, options, &mut tokens, &mut |tokens, rest| match tokens {
            Some(tokens) => {
                let flow = on_piece(tokens, rest);
                tokens.clear();
                flow
            }
            None => on_piece(&[], rest),
        })
    }

    /// Appends the tokens of a text to `tokens`; `go_on` is called after each piece as in
    /// [`encode_in_pieces`](Self::encode_in_pieces), and may take the tokens out. Inside of a word it gets none.
    pub(super) fn encode_into(
        &self,
        text: &str,
        options: EncodeOptions,
        tokens: &mut Vec<u32>,
        go_on: &mut GoOn<'_>,
    ) -> Result<(), TextError> {
        let all = Part { text, first: true, begins: true, behind: 0 };
        if let Some(token) = self.first_token(text, options) {
            append(tokens, &[token])?;
        }
        self.encode_part(all, options, tokens, go_on)
    }

    /// The token to put before a text. This is the only place that decides it.
    fn first_token(&self, text: &str, options: EncodeOptions) -> Option<u32> {
        let token = self.view.begin_of_text().filter(|_| options.begin_of_text)?;
        let is_there = [false, true].into_iter().any(|normalized| {
            let added = Added { view: self.view, normalized, parse_special: options.parse_special };
            added.find(text, 0).is_some_and(|found| found.start == 0 && found.id == token)
        });
        (!is_there).then_some(token)
    }

    /// Appends the tokens of a text that stands behind a control token of a longer text.
    pub(super) fn encode_behind_control(
        &self,
        text: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TextError> {
        let part = Part { text, first: false, begins: true, behind: 0 };
        self.encode_part(part, EncodeOptions::default(), tokens, &mut |_, _| {
            ControlFlow::Continue(())
        })
    }

    fn encode_part(
        &self,
        part: Part<'_>,
        options: EncodeOptions,
        tokens: &mut Vec<u32>,
        go_on: &mut GoOn<'_>,
    ) -> Result<(), TextError> {
        let mut run = Run {
            view: self.view,
            rule: Rule::of(self.view.sections.rule, self.view.sections.glue),
            parse_special: options.parse_special,
            merger: Merger::new(self.view),
            tokens,
            go_on,
            unasked: 0,
            rest: part.text.len(),
        };
        match run.between_added(part, false, &mut Run::normalize) {
            Ok(()) => {
                let _ = (run.go_on)(Some(run.tokens), 0);
                Ok(())
            }
            Err(Halt::Broken) => Ok(()),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    /// No text of so many bytes has fewer tokens.
    pub fn least_tokens(&self, bytes: usize, options: EncodeOptions) -> usize {
        let sections = self.view.sections;
        // A token that strips the spaces beside it may stand for any number of bytes.
        if sections.any_added[usize::from(options.parse_special)]
            & (layout::LSTRIP | layout::RSTRIP)
            != 0
        {
            return 0;
        }
        // SentencePiece's character for a space has three bytes, and NFC may shorten a text as much.
        let changes =
            sections.flags & layout::NFC != 0 || sections.kind == layout::SENTENCEPIECE_BPE;
        let longest = self.view.longest();
        bytes.div_ceil(if changes { longest.saturating_mul(nfc::SHRINKS) } else { longest })
    }
}

impl core::fmt::Debug for Encoder<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Encoder").field("sections", self.view.sections).finish_non_exhaustive()
    }
}

/// Is handed the tokens, and the number of bytes left; inside of a word, whose tokens may still change, none.
pub(super) type GoOn<'a> = dyn FnMut(Option<&mut Vec<u32>>, usize) -> ControlFlow<()> + 'a;

/// Makes room for the tokens of the rest of a text, if they are as many for each byte as those before. If there
/// is none, appending says so.
pub(super) fn make_room(tokens: &mut Vec<u32>, bytes: usize, rest: usize) {
    let free = tokens.capacity() - tokens.len();
    if free < rest.min(PIECE_BYTES) {
        let done = bytes.saturating_sub(rest).max(1);
        let alike = tokens.len() as u64 * rest as u64 / done as u64;
        let room = (alike + alike / 16 + 64).min(rest as u64) as usize;
        let _ = tokens.try_reserve_exact(room);
    }
}

/// Why encoding ends early.
enum Halt {
    Broken,
    Failed(TextError),
}

impl From<TextError> for Halt {
    fn from(error: TextError) -> Self {
        Self::Failed(error)
    }
}

/// A text that is being encoded.
struct Run<'t, 'r> {
    view: View<'t>,
    rule: Rule,
    parse_special: bool,
    merger: Merger<'t>,
    tokens: &'r mut Vec<u32>,
    go_on: &'r mut GoOn<'r>,
    /// Bytes since the caller was asked.
    unasked: usize,
    /// Bytes that were left then. Where the text is normalized, what is left of it may be longer than it was.
    rest: usize,
}

/// A part of the text.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    /// Whether it begins the whole text.
    first: bool,
    /// Whether it begins behind an added token, or the whole text.
    begins: bool,
    /// Bytes behind it.
    behind: usize,
}

impl<'a> Part<'a> {
    fn with(self, text: &'a str) -> Self {
        Self { text, ..self }
    }
}

impl Run<'_, '_> {
    fn has(&self, flag: u32) -> bool {
        self.view.sections.flags & flag != 0
    }

    /// Hands on what is between added tokens, and puts those between.
    fn between_added(
        &mut self,
        part: Part<'_>,
        normalized: bool,
        hand_on: &mut dyn FnMut(&mut Self, Part<'_>) -> Result<(), Halt>,
    ) -> Result<(), Halt> {
        let Part { text, first, behind, .. } = part;
        let added = Added { view: self.view, normalized, parse_special: self.parse_special };
        let mut from = 0;
        loop {
            let found = added.find(text, from);
            let end = found.map_or(text.len(), |found| found.start);
            if from < end {
                let (first, begins) = (first && from == 0, part.begins || from > 0);
                let behind = behind + text.len() - end;
                hand_on(self, Part { text: &text[from..end], first, begins, behind })?;
            }
            let Some(Found { end, id, .. }) = found else { return Ok(()) };
            self.put(&[id])?;
            self.done(end - from, behind + text.len() - end)?;
            from = end;
        }
    }

    /// Normalizes what is between two added tokens, in pieces if that can be.
    fn normalize(&mut self, part: Part<'_>) -> Result<(), Halt> {
        let mut rest = part;
        // An added token that is looked for after this could be cut.
        let in_pieces = self.view.sections.normalized == 0;
        loop {
            let end =
                if in_pieces { self.rule.cut(rest.text, PIECE_BYTES) } else { rest.text.len() };
            let (piece, behind) = rest.text.split_at(end);
            self.piece(Part { behind: part.behind + behind.len(), ..rest.with(piece) })?;
            if behind.is_empty() {
                return Ok(());
            }
            rest = Part { text: behind, first: false, begins: false, behind: part.behind };
        }
    }

    fn piece(&mut self, part: Part<'_>) -> Result<(), Halt> {
        let mut text = String::new();
        let mut part = part;
        if self.has(layout::NFC) && !nfc::is_normalized(part.text) {
            reserve(&mut text, part.text.len())?;
            nfc::normalize_into(part.text, &mut text)?;
            part = part.with(&text);
        }
        if self.view.sections.normalized == 0 {
            return self.prefix(part);
        }
        // Added tokens are looked for in the normalized text, in which all spaces are one character.
        let is_sentencepiece = self.view.sections.kind == layout::SENTENCEPIECE_BPE;
        let always = part.begins && self.has(layout::ALWAYS_PREFIX_SPACE);
        let mut spaced = String::new();
        // `contains` would bring 1 KB of the standard library's code, to search for any text.
        let is_marked = || part.text.match_indices('\u{2581}').next().is_some();
        if always || is_sentencepiece && is_marked() {
            reserve(&mut spaced, part.text.len() + 1)?;
            spaced.extend(always.then_some(' '));
            let one = |c| if is_sentencepiece && is_space(c) { ' ' } else { c };
            spaced.extend(part.text.chars().map(one));
            part = part.with(&spaced);
        }
        self.between_added(part, true, &mut Self::prefix)
    }

    /// Puts a space before a part, if the tokenizer asks for it.
    fn prefix(&mut self, part: Part<'_>) -> Result<(), Halt> {
        let always = self.has(layout::ALWAYS_PREFIX_SPACE);
        // That was done before, if added tokens had to be found behind it.
        let wanted = self.has(layout::ADD_PREFIX_SPACE)
            && part.begins
            && (part.first || !self.has(layout::FIRST_PREFIX_SPACE))
            && !(always && self.view.sections.normalized > 0);
        let has_space = match self.view.sections.kind {
            layout::SENTENCEPIECE_BPE => part.text.starts_with(is_space),
            _ => part.text.starts_with(' '),
        };
        if !wanted || has_space && !always {
            return self.words(part);
        }
        let mut text = String::new();
        reserve(&mut text, part.text.len() + 1)?;
        text.push(' ');
        text.push_str(part.text);
        self.words(part.with(&text))
    }

    fn words(&mut self, part: Part<'_>) -> Result<(), Halt> {
        let mut rest = part.text;
        while !rest.is_empty() {
            let (word, behind) = rest.split_at(self.rule.word(rest));
            let left = self.rest.min(part.behind + rest.len());
            let (go_on, mut flow) = (&mut self.go_on, ControlFlow::Continue(()));
            self.merger.encode(word.as_bytes(), self.tokens, &mut || {
                flow = go_on(None, left);
                flow.is_continue()
            })?;
            if flow.is_break() {
                return Err(Halt::Broken);
            }
            rest = behind;
            self.done(word.len(), part.behind + rest.len())?;
        }
        Ok(())
    }

    fn put(&mut self, tokens: &[u32]) -> Result<(), Halt> {
        Ok(append(self.tokens, tokens)?)
    }

    /// Counts what is encoded, and asks the caller from time to time.
    fn done(&mut self, bytes: usize, behind: usize) -> Result<(), Halt> {
        self.unasked += bytes;
        if self.unasked < PIECE_BYTES || behind == 0 {
            return Ok(());
        }
        self.unasked = 0;
        self.rest = self.rest.min(behind);
        match (self.go_on)(Some(self.tokens), self.rest) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Halt::Broken),
        }
    }
}

fn reserve(text: &mut String, bytes: usize) -> Result<(), TextError> {
    text.try_reserve(bytes).map_err(|_| TextError::OutOfMemory { bytes })
}
