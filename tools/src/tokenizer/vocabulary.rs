//! A tokenizer as checkpoints describe it, by text; and its translation into ids and bytes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use cerebellum::terminal::quoted;
use cerebellum::text::{byte_level, layout};
use tokenizers::NormalizedString;

use super::blob::{Added, Parts};
use super::error::{TokenizerError, invalid, unsupported};
use super::pipeline::METASPACE;

/// Most token ids a tokenizer may have; bounds what a hostile id can make us allocate.
const MAX_TOKENS: u32 = 1 << 20;

/// A BPE tokenizer, spelled as in its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary {
    /// Kind of tokenizer, of `cerebellum::text::layout`.
    pub kind: u8,
    /// Ids of the tokens that merging can make, spelled in GPT-2's byte-level alphabet or in SentencePiece's
    /// way, with U+2581 for a space and `<0x0A>` for a byte. Added tokens may be listed here too, as Hugging
    /// Face does.
    pub tokens: BTreeMap<String, u32>,
    /// Pairs of tokens in the order they are merged.
    pub merges: Vec<(String, String)>,
    /// Tokens that are looked for in the text as a whole, before merging.
    pub added: Vec<AddedToken>,
    /// The rule by which texts are cut into words, of `cerebellum::text::layout`.
    pub rule: u8,
    /// Header flags of `cerebellum::text::layout`.
    pub flags: u32,
    /// The token that begins a text.
    pub bos: Option<u32>,
}

impl Default for Vocabulary {
    /// GPT-2's, without tokens.
    fn default() -> Self {
        Self {
            kind: layout::BYTE_LEVEL_BPE,
            tokens: BTreeMap::new(),
            merges: Vec::new(),
            added: Vec::new(),
            rule: layout::SPLIT_GPT2,
            flags: 0,
            bos: None,
        }
    }
}

/// A token that is looked for in the text as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct AddedToken {
    /// Its id.
    pub id: u32,
    /// The text itself, not in the byte-level alphabet.
    pub content: String,
    /// Whether it is a control token and no text.
    pub special: bool,
    /// Whether it swallows the white space before it.
    pub lstrip: bool,
    /// Whether it swallows the white space after it.
    pub rstrip: bool,
    /// Whether it matches only where no word character touches it.
    pub single_word: bool,
    /// Whether it is looked for after the tokens without this flag.
    pub normalized: bool,
}

/// What a token is for, in the terms of GGUF's `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// Made by merging.
    Normal,
    /// A control token such as `<|endoftext|>`.
    Control,
    /// Text that is looked for as a whole.
    UserDefined,
    /// An id without a token.
    Unused,
    /// What SentencePiece gives for a character without a token; there are bytes for it.
    Unknown,
    /// A byte, such as `<0x0A>`.
    Byte,
}

impl TokenType {
    /// The type with GGUF's number (`llama_token_type` in llama.cpp): 1 normal, 2 unknown, 3 control, 4 user
    /// defined, 5 unused, 6 byte.
    pub fn from_gguf(number: i32) -> Option<Self> {
        match number {
            1 => Some(Self::Normal),
            2 => Some(Self::Unknown),
            3 => Some(Self::Control),
            4 => Some(Self::UserDefined),
            5 => Some(Self::Unused),
            6 => Some(Self::Byte),
            _ => None,
        }
    }

    /// GGUF's number for the type.
    pub fn to_gguf(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }
}

impl Vocabulary {
    /// The tokens as GGUF lists them, by id, with their types: what [`from_lists`](Self::from_lists)
    /// reads. Ids without a token become unused ones named `[PAD…]`, as llama.cpp's converter names
    /// them; tokens beyond `vocab_size` are left out.
    pub fn to_lists(&self, vocab_size: usize) -> (Vec<String>, Vec<TokenType>) {
        let unused = |id| (format!("[PAD{id}]"), TokenType::Unused);
        let mut list: Vec<_> = (0..vocab_size).map(unused).collect();
        let mut place = |id: u32, token: &str, kind| {
            if let Some(entry) = list.get_mut(id as usize) {
                *entry = (token.to_owned(), kind);
            }
        };
        let has_byte_tokens = self.kind == layout::SENTENCEPIECE_BPE;
        for (token, id) in &self.tokens {
            let is_byte = has_byte_tokens && byte_token(token).is_some();
            place(*id, token, if is_byte { TokenType::Byte } else { TokenType::Normal });
        }
        for token in &self.added {
            let kind = if token.special { TokenType::Control } else { TokenType::UserDefined };
            place(token.id, &token.content, kind);
        }
        list.into_iter().unzip()
    }

    /// A GPT-2 tokenizer as GGUF lists it: tokens by id with their types, and merges `"left right"`.
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`], naming `source`, if the lists differ in length, two tokens are
    /// equal, or a merge is no pair.
    pub fn from_lists<T: AsRef<str>>(
        tokens: &[T],
        types: &[TokenType],
        merges: &[T],
        source: &Path,
    ) -> Result<Self, TokenizerError> {
        if tokens.len() != types.len() {
            let what = format!("{} tokens but {} token types", tokens.len(), types.len());
            return Err(invalid(source, what));
        }
        let merges = split_merges(merges.iter().map(AsRef::as_ref), source)?;
        let mut vocabulary = Self { merges, ..Self::default() };
        for ((id, token), kind) in (0..).zip(tokens).zip(types) {
            vocabulary.add(id, token.as_ref(), *kind, source)?;
        }
        Ok(vocabulary)
    }

    /// A tokenizer of SentencePiece as GGUF lists it: tokens by id with their types, and scores instead of merges.
    ///
    /// Each two tokens that are another one together merge to it, those with the highest score first. (Of one
    /// token's, as the `transformers` library does, those with the longest left part.)
    ///
    /// # Errors
    /// [`TokenizerError::Invalid`], naming `source`, if the lists differ in length or two tokens are equal.
    pub fn from_scores<T: AsRef<str>>(
        tokens: &[T],
        types: &[TokenType],
        scores: &[f32],
        source: &Path,
    ) -> Result<Self, TokenizerError> {
        if tokens.len() != scores.len() || tokens.len() != types.len() {
            let (tokens, scores, types) = (tokens.len(), scores.len(), types.len());
            let what = format!("{tokens} tokens but {scores} scores and {types} token types");
            return Err(invalid(source, what));
        }
        let kind = layout::SENTENCEPIECE_BPE;
        let mut vocabulary = Self { kind, rule: layout::SPLIT_SPACES, ..Self::default() };
        for ((id, token), kind) in (0..).zip(tokens).zip(types) {
            vocabulary.add(id, token.as_ref(), *kind, source)?;
        }
        let ids = &vocabulary.tokens;
        let mut merges = Vec::new();
        for ((token, kind), &score) in tokens.iter().zip(types).zip(scores) {
            if *kind != TokenType::Normal {
                continue;
            }
            let token = token.as_ref();
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                if ids.contains_key(left) && ids.contains_key(right) {
                    merges.push((score, left, right));
                }
            }
        }
        merges.sort_by(|(a, left_a, right_a), (b, left_b, right_b)| {
            let lengths = [left_a, right_a, left_b, right_b].map(|part| part.chars().count());
            b.total_cmp(a).then((lengths[2], lengths[3]).cmp(&(lengths[0], lengths[1])))
        });
        let owned = |(_, left, right): (f32, &str, &str)| (left.to_owned(), right.to_owned());
        vocabulary.merges = merges.into_iter().map(owned).collect();
        Ok(vocabulary)
    }

    fn add(
        &mut self,
        id: u32,
        token: &str,
        kind: TokenType,
        source: &Path,
    ) -> Result<(), TokenizerError> {
        if kind == TokenType::Unused {
            return Ok(());
        }
        if !matches!(kind, TokenType::Normal | TokenType::Byte) {
            let (content, special) = (token.to_owned(), kind != TokenType::UserDefined);
            self.added.push(AddedToken { id, content, special, ..AddedToken::default() });
            // The list is also the vocabulary that merges name tokens of. A token whose text is no
            // spelling of itself cannot be meant.
            let is_spelled = match self.kind {
                layout::SENTENCEPIECE_BPE => false,
                _ => byte_level::unspell(token).as_deref() == Some(token.as_bytes()),
            };
            if !is_spelled {
                return Ok(());
            }
        }
        match self.tokens.insert(token.into(), id) {
            None => Ok(()),
            Some(first) => {
                let what = format!("tokens {first} and {id} are both {}", quoted(token));
                Err(invalid(source, what))
            }
        }
    }

    /// Translates tokens to bytes and merges to ids. Also returns warnings about tokens left out.
    pub(super) fn resolve(
        mut self,
        source: &Path,
        vocab_size: u32,
    ) -> Result<(Parts, Vec<String>), TokenizerError> {
        let warnings = self.leave_out_beyond(vocab_size);
        self.check_added(source)?;
        let spelling = Spelling { kind: self.kind, flags: self.flags };
        let mut resolver = Resolver { source, vocab_size, spelling, tokens: Vec::new() };
        let mut added = resolver.place_added(&self)?;
        let ids = resolver.place_tokens(&self.tokens, &added)?;
        added.sort_unstable_by_key(|token| token.id);
        let merges = resolver.merges(&self.merges, &ids)?;
        let bytes = spelling.byte_tokens(&ids);
        let mut glue = None;
        let index = if spelling.is_sentencepiece() {
            if bytes.contains(&None) {
                return Err(unsupported(source, "byte_fallback without a token for each byte"));
            }
            if self.rule == layout::SPLIT_SPACES {
                (self.rule, glue) = words_at_spaces(&ids);
            }
            spelling.characters(&ids)
        } else if self.flags & layout::WHOLE_WORDS != 0 {
            unmade_words(&resolver.tokens, ids.values().copied(), &bytes, &merges)
        } else {
            Vec::new()
        };
        let Self { kind, rule, flags, bos, .. } = self;
        let tokens = resolver.tokens;
        Ok((Parts { kind, rule, flags, bos, glue, tokens, bytes, added, index, merges }, warnings))
    }

    /// Refuses added tokens that cannot be told apart, or that swallow each other's white space.
    fn check_added(&self, source: &Path) -> Result<(), TokenizerError> {
        let mut ids = HashMap::new();
        for AddedToken { content, id, .. } in &self.added {
            if let Some(first) = ids.insert(content, id) {
                let content = quoted(content);
                return Err(invalid(
                    source,
                    format!("added tokens {first} and {id} are both {content}"),
                ));
            }
        }
        let strips = |token: &AddedToken| token.lstrip || token.rstrip;
        let with_space = |token: &&AddedToken| token.content.trim() != token.content;
        match self.added.iter().find(with_space).filter(|_| self.added.iter().any(strips)) {
            None => Ok(()),
            Some(token) => Err(unsupported(
                source,
                format!(
                    "added token {} begins or ends with white space while others strip it",
                    token.id
                ),
            )),
        }
    }

    /// Drops the added tokens that the model has no embedding for.
    fn leave_out_beyond(&mut self, vocab_size: u32) -> Vec<String> {
        let (kept, dropped): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.added).into_iter().partition(|token| token.id < vocab_size);
        self.added = kept;
        let warn = |token: &AddedToken| {
            self.tokens.remove(&token.content);
            let (content, id) = (quoted(&token.content), token.id);
            format!(
                "added token {content} is left out: its id {id} is not below the model's vocab_size {vocab_size}"
            )
        };
        dropped.iter().map(warn).collect()
    }
}

/// The merge `"left right"` as a pair, or what is wrong with it.
pub(super) fn split_merge(line: &str) -> Result<(&str, &str), String> {
    match line.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left, right))
        }
        _ => Err(format!("{} is not two tokens", quoted(line))),
    }
}

/// Merges `"left right"`, one of a line or a list each.
pub(super) fn split_merges<'a>(
    lines: impl Iterator<Item = &'a str>,
    source: &Path,
) -> Result<Vec<(String, String)>, TokenizerError> {
    let merge = |(rank, line)| match split_merge(line) {
        Ok((left, right)) => Ok((left.to_owned(), right.to_owned())),
        Err(problem) => Err(invalid(source, format!("merge {rank}, {problem}"))),
    };
    lines.enumerate().map(merge).collect()
}

/// How a tokenizer spells its tokens.
#[derive(Clone, Copy)]
struct Spelling {
    kind: u8,
    flags: u32,
}

impl Spelling {
    fn is_sentencepiece(self) -> bool {
        self.kind == layout::SENTENCEPIECE_BPE
    }

    /// The bytes that a token of the vocabulary means; `None` if the name is no spelling.
    fn bytes(self, name: &str) -> Option<Vec<u8>> {
        match self.is_sentencepiece() {
            false => byte_level::unspell(name),
            true => Some(match byte_token(name) {
                Some(byte) => vec![byte],
                None => name.replace(METASPACE, " ").into_bytes(),
            }),
        }
    }

    /// The bytes that an added token means.
    fn added_bytes(self, content: &str) -> Vec<u8> {
        match self.is_sentencepiece() {
            false => content.as_bytes().to_vec(),
            true => content.replace(METASPACE, " ").into_bytes(),
        }
    }

    /// The text that an added token is looked for by, if it is not its bytes.
    fn added_text(self, token: &AddedToken) -> Option<Vec<u8>> {
        let content = token.content.as_str();
        let text = match (token.normalized, self.is_sentencepiece()) {
            (false, _) => content.to_owned(),
            (true, true) => {
                // In normalized text all spaces are alike.
                let prefix = if self.flags & layout::ALWAYS_PREFIX_SPACE != 0 { " " } else { "" };
                prefix.to_owned() + &content.replace(METASPACE, " ")
            }
            (true, false) if self.flags & layout::NFC != 0 => {
                let mut text = NormalizedString::from(content);
                text.nfc();
                text.get().to_owned()
            }
            (true, false) => content.to_owned(),
        };
        Some(text.into_bytes()).filter(|text| *text != self.added_bytes(content))
    }

    /// The tokens of single bytes.
    fn byte_tokens(self, ids: &HashMap<&str, u32>) -> Vec<Option<u32>> {
        let name = |byte: u8| match self.is_sentencepiece() {
            true => format!("<0x{byte:02X}>"),
            false => byte_level::byte_to_char(byte).to_string(),
        };
        (0..=255).map(|byte| ids.get(name(byte).as_str()).copied()).collect()
    }

    /// The tokens of single characters, with which SentencePiece begins.
    fn characters(self, ids: &HashMap<&str, u32>) -> Vec<u32> {
        let is_one = |name: &str| name.chars().count() == 1 && name != " ";
        let mut characters: Vec<u32> =
            ids.iter().filter(|(name, _)| is_one(name)).map(|(_, &id)| id).collect();
        characters.sort_unstable();
        characters
    }
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_token(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    let upper = digits.len() == 2 && !digits.bytes().any(|byte| byte.is_ascii_lowercase());
    u8::from_str_radix(digits, 16).ok().filter(|_| upper)
}

/// How words can be cut at spaces so that no merge joins across: the rule, and the one character behind which a
/// space begins no word.
fn words_at_spaces(ids: &HashMap<&str, u32>) -> (u8, Option<char>) {
    let is_space = |c: char| METASPACE.starts_with(c);
    let mut before: Vec<char> = Vec::new();
    for name in ids.keys() {
        let pairs = name.chars().zip(name.chars().skip(1));
        before.extend(pairs.filter(|&(a, b)| !is_space(a) && is_space(b)).map(|(a, _)| a));
    }
    before.sort_unstable();
    before.dedup();
    match before.as_slice() {
        // Otherwise a space is bytes, which stand beside other bytes.
        _ if !ids.contains_key(METASPACE) => (layout::SPLIT_NONE, None),
        [] => (layout::SPLIT_SPACES, None),
        [one] => (layout::SPLIT_SPACES, Some(*one)),
        _ => (layout::SPLIT_NONE, None),
    }
}

/// The tokens that merging does not make of their own bytes.
fn unmade_words(
    tokens: &[Vec<u8>],
    ids: impl Iterator<Item = u32>,
    bytes: &[Option<u32>],
    merges: &[(u32, u32, u32)],
) -> Vec<u32> {
    let ranks = (0_u32..).zip(merges);
    let ranks: HashMap<_, _> = ranks.map(|(rank, &(a, b, both))| ((a, b), (rank, both))).collect();
    let is_made = |id: u32| {
        let token = &tokens[id as usize];
        let mut word: Vec<u32> =
            token.iter().filter_map(|&byte| bytes[usize::from(byte)]).collect();
        loop {
            let pairs = word.windows(2).enumerate();
            let merges = pairs.filter_map(|(at, pair)| Some((ranks.get(&(pair[0], pair[1]))?, at)));
            let Some((&(_, both), at)) = merges.min() else { return word == [id] };
            word.splice(at..at + 2, [both]);
        }
    };
    // A word of a text has no parts of characters.
    let is_word = |id: &u32| std::str::from_utf8(&tokens[*id as usize]).is_ok();
    let mut unmade: Vec<u32> = ids.filter(is_word).filter(|&id| !is_made(id)).collect();
    unmade.sort_unstable();
    unmade
}

/// Fills the table's tokens.
struct Resolver<'a> {
    source: &'a Path,
    vocab_size: u32,
    spelling: Spelling,
    tokens: Vec<Vec<u8>>,
}

impl Resolver<'_> {
    fn place_added(&mut self, vocabulary: &Vocabulary) -> Result<Vec<Added>, TokenizerError> {
        let mut entries = Vec::with_capacity(vocabulary.added.len());
        for token in &vocabulary.added {
            let mut flags = flags(token);
            if self.is_in_vocabulary(token, &vocabulary.tokens)? {
                flags |= layout::IN_VOCABULARY;
            }
            self.place(token.id, &token.content, self.spelling.added_bytes(&token.content))?;
            let text = self.spelling.added_text(token);
            entries.push(Added { id: token.id, flags, text });
        }
        Ok(entries)
    }

    /// Whether merging may make an added token too, because the vocabulary also lists it and its
    /// text reads the same in the byte-level alphabet.
    fn is_in_vocabulary(
        &self,
        token: &AddedToken,
        ordinary: &BTreeMap<String, u32>,
    ) -> Result<bool, TokenizerError> {
        let (content, id) = (&token.content, token.id);
        let Some(&listed) = ordinary.get(content) else { return Ok(false) };
        if listed != id {
            let content = quoted(content);
            let what = format!("added token {content} has id {id}, but {listed} in the vocabulary");
            return Err(invalid(self.source, what));
        }
        match self.spelling.bytes(content) {
            Some(bytes) if bytes == self.spelling.added_bytes(content) => Ok(true),
            // No word of the byte-level alphabet: merging cannot make it.
            None => Ok(false),
            Some(_) => Err(unsupported(
                self.source,
                format!(
                    "added token {} (id {id}) is also a token in byte-level spelling, with another meaning",
                    quoted(content)
                ),
            )),
        }
    }

    /// Places the tokens that are not added ones; returns the ids of all that merges may name.
    fn place_tokens<'t>(
        &mut self,
        ordinary: &'t BTreeMap<String, u32>,
        added: &[Added],
    ) -> Result<HashMap<&'t str, u32>, TokenizerError> {
        let added: HashMap<u32, u8> = added.iter().map(|token| (token.id, token.flags)).collect();
        let mut ids = HashMap::with_capacity(ordinary.len());
        for (name, &id) in ordinary.iter().filter(|(name, _)| !name.is_empty()) {
            let placed = self.spelling.added_bytes(name);
            let already = self.tokens.get(id as usize).is_some_and(|token| *token == placed);
            match added.get(&id).filter(|_| already) {
                Some(flags) if flags & layout::IN_VOCABULARY == 0 => continue,
                Some(_) => {}
                None => {
                    let bytes =
                        self.spelling.bytes(name).ok_or_else(|| self.not_byte_level(name, id))?;
                    self.place(id, name, bytes)?;
                }
            }
            ids.insert(name.as_str(), id);
        }
        Ok(ids)
    }

    fn not_byte_level(&self, name: &str, id: u32) -> TokenizerError {
        let name = quoted(name);
        let what = format!("token {name} (id {id}) is not in the byte-level alphabet");
        unsupported(self.source, what)
    }

    fn place(&mut self, id: u32, name: &str, bytes: Vec<u8>) -> Result<(), TokenizerError> {
        if id >= self.vocab_size {
            return Err(TokenizerError::BeyondModel {
                path: self.source.into(),
                token: name.into(),
                id,
                vocab_size: self.vocab_size,
            });
        }
        if id >= MAX_TOKENS {
            let what = format!("token {} has id {id}, the limit is {MAX_TOKENS}", quoted(name));
            return Err(invalid(self.source, what));
        }
        let index = id as usize;
        if self.tokens.len() <= index {
            self.tokens.resize(index + 1, Vec::new());
        }
        if bytes.is_empty() || !self.tokens[index].is_empty() {
            let name = quoted(name);
            let what = format!("token {name} is empty or shares its id {id} with another");
            return Err(invalid(self.source, what));
        }
        self.tokens[index] = bytes;
        Ok(())
    }

    fn merges(
        &self,
        merges: &[(String, String)],
        ids: &HashMap<&str, u32>,
    ) -> Result<Vec<(u32, u32, u32)>, TokenizerError> {
        let id = |rank: usize, name: &str| {
            let what =
                || format!("merge {rank} needs token {}, which the vocabulary lacks", quoted(name));
            ids.get(name).copied().ok_or_else(|| invalid(self.source, what()))
        };
        let resolve = |(rank, (left, right)): (usize, &(String, String))| {
            let both = id(rank, &format!("{left}{right}"))?;
            Ok((id(rank, left)?, id(rank, right)?, both))
        };
        merges.iter().enumerate().map(resolve).collect()
    }
}

fn flags(token: &AddedToken) -> u8 {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    flag(token.special, layout::SPECIAL)
        | flag(token.lstrip, layout::LSTRIP)
        | flag(token.rstrip, layout::RSTRIP)
        | flag(token.single_word, layout::SINGLE_WORD)
        | flag(token.normalized, layout::NORMALIZED)
}
