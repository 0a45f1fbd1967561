//! Text to token ids, by the `tokenizers` library set up from a [`TokenTable`].

use std::collections::HashMap;
use std::ops::ControlFlow;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{
    AddedToken as LibraryToken, AddedVocabulary, Model, NormalizedString, NormalizerWrapper,
    OffsetType, PreTokenizer, Token,
};

use crate::memory;

use super::splitter::Splitter;
use super::{AddedToken, TextError, TokenTable, byte_level, layout};

/// Spelling the merges out may take this many times the table's bytes. Real vocabularies need
/// less than once; the limit keeps a small hostile table from asking for gigabytes.
const MAX_SPELLING: u64 = 64;

/// The texts of all added tokens together may have this many bytes. Real tokenizers have some hundred to
/// some thousand; the automaton that looks for them takes two hundred times as much memory.
const MAX_ADDED_TEXT: usize = 1 << 16;

/// A text is encoded in pieces that are cut behind so many bytes or somewhat more: the library takes 130 to 280
/// bytes of memory for each byte that it encodes at a time, and cannot be stopped meanwhile.
const PIECE_BYTES: usize = 4096;

/// The library ends the process if it gets no memory. So what it takes at most for a piece is asked for
/// before: for each of its bytes (268 were measured, of short words) ...
const PIECE_MEMORY: usize = 320;

/// ... and for what it keeps after the first text (49 KB).
const ANY_PIECE_MEMORY: usize = 128 << 10;

/// Where an added token forbids a cut, the next place that is tried lies so many bytes further on.
const NEXT_CUT: usize = 64;

/// How to read a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Whether special tokens written in the text, such as `<|endoftext|>`, become that token.
    ///
    /// By default they do not and are encoded as the characters they are: text from outside must
    /// not be able to end a document or otherwise speak with the program's voice. Set it for text
    /// that the program wrote itself, such as a prompt template or an evaluation text.
    pub parse_special: bool,
}

/// GPT-2's byte-level BPE: splits text into words, and each word into tokens by merging.
pub struct Encoder {
    model: BPE,
    splitter: Splitter,
    /// Added tokens that are looked for when special tokens are text: those not special.
    plain: Added,
    /// All added tokens.
    parsing: Added,
    /// Bytes of the longest token.
    longest: usize,
    /// Bytes that occur in UTF-8 but have no token, as characters of the byte-level alphabet.
    missing: Vec<char>,
}

impl Encoder {
    /// Builds the encoder. The table is not needed afterwards.
    ///
    /// # Errors
    /// [`TextError`] if the table is well-formed but its content makes no tokenizer: tokens with
    /// equal bytes, a merge that makes no token, added tokens that are not text.
    pub fn new<B: AsRef<[u8]>>(table: &TokenTable<B>) -> Result<Self, TextError> {
        let names = names(table);
        let vocabulary = vocabulary(&names)?;
        let merges = merges(table, &names, &vocabulary)?;
        let missing = missing_bytes(&vocabulary);
        // No cache: the library's is per thread and is not freed with the encoder, so a host that
        // opens many models would leak.
        let model = BPE::builder().cache_capacity(0).vocab_and_merges(vocabulary, merges).build();
        let added = added_tokens(table)?;
        let special = |token: &LibraryToken| token.special;
        Ok(Self {
            model: model.map_err(library_error)?,
            splitter: Splitter::new(table.add_prefix_space(), table.use_regex())?,
            plain: Added::new(added.iter().filter(|(_, token)| !special(token)))?,
            parsing: Added::new(added.iter())?,
            longest: table.longest_token().max(1),
            missing,
        })
    }

    /// The token ids of `text`. Nothing is put before or after them, and decoding them gives back
    /// exactly `text`, but for a prefix space or stripped spaces that the tokenizer asks for.
    ///
    /// # Errors
    /// [`TextError::NoTokenForByte`] if the vocabulary cannot express the text; [`TextError::OutOfMemory`].
    pub fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        let (mut tokens, mut appended) = (Vec::new(), Ok(()));
        self.encode_in_pieces(text, options, &mut |piece, _| {
            appended = append(&mut tokens, piece);
            if appended.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        appended.map(|()| tokens)
    }

    /// As [`encode`](Self::encode), handing on the tokens of one piece of the text after the other, with the
    /// number of bytes that are left behind it; no more after a break. Memory is taken for a piece, not for
    /// the text, as long as it can be cut: a run of letters, of digits, of spaces or of other characters is
    /// one piece, however long it is.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_in_pieces(
        &self,
        text: &str,
        options: EncodeOptions,
        on_piece: &mut dyn FnMut(&[u32], usize) -> ControlFlow<()>,
    ) -> Result<(), TextError> {
        let added = self.added(options);
        let mut rest = text;
        loop {
            let (piece, behind) = rest.split_at(self.piece_end(rest, added));
            let flow = on_piece(&self.encode_piece(piece, added)?, behind.len());
            if behind.is_empty() || flow.is_break() {
                return Ok(());
            }
            rest = behind;
        }
    }

    /// No text of so many bytes has fewer tokens.
    pub fn least_tokens(&self, bytes: usize, options: EncodeOptions) -> usize {
        // A token that strips the spaces beside it may stand for any number of bytes.
        if self.added(options).any_strips { 0 } else { bytes.div_ceil(self.longest) }
    }

    fn added(&self, options: EncodeOptions) -> &Added {
        if options.parse_special { &self.parsing } else { &self.plain }
    }

    fn encode_piece(&self, piece: &str, added: &Added) -> Result<Vec<u32>, TextError> {
        let bytes = piece.len().saturating_mul(PIECE_MEMORY).saturating_add(ANY_PIECE_MEMORY);
        memory::probe(bytes).map_err(|_| TextError::OutOfMemory { bytes })?;
        let mut words = added.vocabulary.extract_and_normalize(None::<&NormalizerWrapper>, piece);
        self.splitter.pre_tokenize(&mut words).map_err(library_error)?;
        words.tokenize(|word| self.tokenize_word(word)).map_err(library_error)?;
        let encoding = words.into_encoding(None, 0, OffsetType::None).map_err(library_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Where a text may be cut so that the tokens of both sides are those of the whole.
    fn piece_end(&self, text: &str, added: &Added) -> usize {
        // Without the regular expression all that is between two added tokens is one word.
        if !self.splitter.cuts_words() {
            return text.len();
        }
        let mut from = PIECE_BYTES;
        while from < text.len() {
            from = text.floor_char_boundary(from);
            let Some(end) = self.next_split(text, from) else { break };
            if !added.forbids_cut(text, end) {
                return end;
            }
            from = end + NEXT_CUT;
        }
        text.len()
    }

    /// The next place behind the character before `from` where one word surely ends and another begins.
    fn next_split(&self, text: &str, from: usize) -> Option<usize> {
        let mut before = text[..from].chars().next_back()?;
        text[from..].char_indices().find_map(|(at, c)| {
            let before = std::mem::replace(&mut before, c);
            // A word that does not begin with a space would get one.
            let keeps_beginning = c == ' ' || !self.splitter.add_prefix_space;
            (keeps_beginning && is_split(before, c)).then_some(from + at)
        })
    }

    /// Tokens of one word, which is spelled in the byte-level alphabet. The library would drop a
    /// character without a token in silence.
    fn tokenize_word(&self, word: &NormalizedString) -> tokenizers::Result<Vec<Token>> {
        let word = word.get();
        if !self.missing.is_empty() {
            let lost = word.chars().find(|c| self.missing.contains(c));
            if let Some(byte) = lost.and_then(byte_level::char_to_byte) {
                return Err(TextError::NoTokenForByte { byte }.into());
            }
        }
        self.model.tokenize(word)
    }
}

/// Adds the tokens of a piece.
pub(super) fn append(tokens: &mut Vec<u32>, piece: &[u32]) -> Result<(), TextError> {
    let memory = |_| TextError::OutOfMemory { bytes: size_of_val(piece) };
    tokens.try_reserve(piece.len()).map_err(memory)?;
    tokens.extend_from_slice(piece);
    Ok(())
}

/// Whether the [`Splitter`]'s regular expression surely ends a match between two characters, whatever is
/// around them:
///
/// 1. In no match a space comes after anything but a space.
/// 2. In no match a letter, a digit and any other character meet, but for a letter behind an apostrophe.
/// 3. The expression looks back at nothing, and ahead only behind a space; before a cut there is none.
fn is_split(before: char, after: char) -> bool {
    match after {
        ' ' | '\n' | '\r' | '\t' => !before.is_whitespace(),
        _ => match (Kind::of(before), Kind::of(after)) {
            (Some(one), Some(other)) => one != other && before != '\'',
            _ => false,
        },
    }
}

/// What the regular expression tells apart.
#[derive(PartialEq)]
enum Kind {
    Letter,
    Digit,
    Other,
}

impl Kind {
    /// Of characters that are the same in every version of Unicode, and none of them a space.
    fn of(c: char) -> Option<Self> {
        match c {
            'a'..='z' | 'A'..='Z' => Some(Self::Letter),
            // Hiragana, katakana, Chinese characters, hangul: texts without spaces.
            '\u{3041}'..='\u{3096}' | '\u{30a1}'..='\u{30fa}' => Some(Self::Letter),
            '\u{4e00}'..='\u{9fa5}' | '\u{ac00}'..='\u{d7a3}' => Some(Self::Letter),
            '0'..='9' => Some(Self::Digit),
            // Their commas and full stops.
            '\u{3001}' | '\u{3002}' | '\u{ff01}' | '\u{ff0c}' | '\u{ff1f}' => Some(Self::Other),
            _ if c.is_ascii_punctuation() => Some(Self::Other),
            _ => None,
        }
    }
}

/// Added tokens that are looked for, and where they forbid a cut.
struct Added {
    vocabulary: AddedVocabulary,
    /// Whether one of them takes spaces beside it along.
    any_strips: bool,
    texts: Vec<String>,
    /// Texts, by index, and the places in them where a text might be cut otherwise: inside, and for a token
    /// that minds what is beside it at its ends, too.
    cuts: Vec<(usize, usize)>,
}

impl Added {
    fn new<'a>(
        tokens: impl Iterator<Item = &'a (u32, LibraryToken)> + Clone,
    ) -> Result<Self, TextError> {
        let (mut texts, mut cuts) = (Vec::new(), Vec::new());
        for (index, (_, token)) in tokens.clone().enumerate() {
            let text = &token.content;
            let minds_neighbours = token.lstrip || token.rstrip || token.single_word;
            let is_inside = |at: usize| {
                let after = text[at..].chars().next();
                let before = text[..at].chars().next_back();
                before.zip(after).is_some_and(|(before, after)| is_split(before, after))
            };
            let boundaries = (0..=text.len()).filter(|&at| text.is_char_boundary(at));
            let ends = |at: usize| minds_neighbours && (at == 0 || at == text.len());
            let places = boundaries.filter(|&at| is_inside(at) || ends(at));
            cuts.extend(places.map(|at| (index, at)));
            texts.push(text.clone());
        }
        let any_strips = tokens.clone().any(|(_, token)| token.lstrip || token.rstrip);
        Ok(Self { vocabulary: added_vocabulary(tokens)?, any_strips, texts, cuts })
    }

    /// Whether a token is cut there, or would see other neighbours.
    fn forbids_cut(&self, text: &str, at: usize) -> bool {
        let (before, behind) = text.split_at(at);
        self.cuts.iter().any(|&(token, place)| {
            let (head, tail) = self.texts[token].split_at(place);
            before.ends_with(head) && behind.starts_with(tail)
        })
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("model", &self.model).finish_non_exhaustive()
    }
}

/// Each token's name in the BPE vocabulary, by id: its bytes in the byte-level alphabet. Empty for
/// ids that merging never makes.
fn names<B: AsRef<[u8]>>(table: &TokenTable<B>) -> Vec<String> {
    let merged =
        |id: u32| table.added_token(id).is_none_or(|token| token.has(layout::IN_VOCABULARY));
    let bytes = |id| table.token_bytes(id).filter(|_| merged(id)).unwrap_or_default();
    (0..table.len() as u32).map(|id| byte_level::spell(bytes(id))).collect()
}

fn vocabulary(names: &[String]) -> Result<Vocab, TextError> {
    let mut vocabulary = Vocab::with_capacity(names.len());
    for (id, name) in (0..).zip(names).filter(|(_, name)| !name.is_empty()) {
        if let Some(first) = vocabulary.insert(name.clone(), id) {
            return Err(TextError::DuplicateToken { first, second: id });
        }
    }
    Ok(vocabulary)
}

/// The merges as pairs of names. Checks here what the library takes for granted: each side, and
/// the two together, are tokens.
fn merges<B: AsRef<[u8]>>(
    table: &TokenTable<B>,
    names: &[String],
    vocabulary: &Vocab,
) -> Result<Vec<(String, String)>, TextError> {
    let name = |id: u32| names.get(id as usize).map_or("", String::as_str);
    let length = |(left, right)| (name(left).len() + name(right).len()) as u64;
    if table.merges().map(length).sum::<u64>() > MAX_SPELLING * table.byte_len() as u64 {
        return Err(TextError::MergesTooLong);
    }
    let mut joined = String::new();
    let mut spell = |(rank, (left, right)): (u32, (u32, u32))| {
        let (left, right) = (name(left), name(right));
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        let known = !left.is_empty() && !right.is_empty() && vocabulary.contains_key(&joined);
        known.then(|| (left.to_owned(), right.to_owned())).ok_or(TextError::Merge { rank })
    };
    (0..).zip(table.merges()).map(&mut spell).collect()
}

/// Bytes of UTF-8 text without a token. Real vocabularies have them all.
fn missing_bytes(vocabulary: &Vocab) -> Vec<char> {
    let in_utf8 = |byte: &u8| !matches!(byte, 0xC0 | 0xC1 | 0xF5..=0xFF);
    let names = (0..=255).filter(in_utf8).map(byte_level::byte_to_char);
    names.filter(|c| !vocabulary.contains_key(c.encode_utf8(&mut [0; 4]) as &str)).collect()
}

fn added_tokens<B: AsRef<[u8]>>(
    table: &TokenTable<B>,
) -> Result<Vec<(u32, LibraryToken)>, TextError> {
    let text = |token: AddedToken| table.token_bytes(token.id).unwrap_or_default();
    if table.added_tokens().map(|token| text(token).len()).sum::<usize>() > MAX_ADDED_TEXT {
        return Err(TextError::AddedTokensTooLong { limit: MAX_ADDED_TEXT });
    }
    let tokens: Vec<_> = table
        .added_tokens()
        .map(|token| {
            let text = std::str::from_utf8(text(token))
                .map_err(|_| TextError::AddedTokenText { id: token.id })?;
            Ok((token.id, library_token(token, text)))
        })
        .collect::<Result<_, _>>()?;
    refuse_strip_overlap(&tokens)?;
    Ok(tokens)
}

fn library_token(token: AddedToken, text: &str) -> LibraryToken {
    LibraryToken::from(text, token.has(layout::SPECIAL))
        .lstrip(token.has(layout::LSTRIP))
        .rstrip(token.has(layout::RSTRIP))
        .single_word(token.has(layout::SINGLE_WORD))
        .normalized(token.has(layout::NORMALIZED))
}

/// If one token strips the spaces that another begins or ends with, both match the same spaces and
/// the library panics on the overlap.
fn refuse_strip_overlap(tokens: &[(u32, LibraryToken)]) -> Result<(), TextError> {
    if !tokens.iter().any(|(_, token)| token.lstrip || token.rstrip) {
        return Ok(());
    }
    match tokens.iter().find(|(_, token)| token.content.trim() != token.content) {
        Some(&(id, _)) => Err(TextError::StripOverlap { id }),
        None => Ok(()),
    }
}

/// The library takes an added token's id from a model that knows its text. A vocabulary of added
/// tokens alone serves, so that their ids are those of the table whatever the BPE vocabulary says.
fn added_vocabulary<'a>(
    tokens: impl Iterator<Item = &'a (u32, LibraryToken)>,
) -> Result<AddedVocabulary, TextError> {
    let mut ids = HashMap::new();
    let mut contents = Vec::new();
    for (id, token) in tokens {
        if let Some(first) = ids.insert(token.content.clone(), *id) {
            return Err(TextError::DuplicateToken { first, second: *id });
        }
        contents.push(token.clone());
    }
    let ids: Vocab = ids.into_iter().collect();
    let ids = BPE::builder().cache_capacity(0).vocab_and_merges(ids, Vec::new()).build();
    let mut added = AddedVocabulary::new();
    added
        .add_tokens(contents, &ids.map_err(library_error)?, None::<&NormalizerWrapper>)
        .map_err(library_error)?;
    Ok(added)
}

/// Our own errors pass through the library unchanged.
pub(super) fn library_error(error: tokenizers::Error) -> TextError {
    match error.downcast::<TextError>() {
        Ok(own) => *own,
        Err(other) => TextError::Library(other.to_string()),
    }
}
