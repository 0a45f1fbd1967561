//! GPT-2's own format: `vocab.json` and `merges.txt`, with the added tokens in up to three more
//! files, read as the `transformers` library's `GPT2Tokenizer` reads them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cerebellum::terminal::quoted;
use cerebellum::text::layout;
use serde::Deserialize;

use super::error::{TokenizerError, invalid, unsupported};
use super::reading::{exists, parse_json, read_file, read_json};
use super::vocabulary::{AddedToken, Vocabulary, split_merges};
use crate::json::{Object, without_mark};

/// What may lie beside `vocab.json` and `merges.txt`.
pub const BESIDE: [&str; 3] = [CONFIG, ADDED_TOKENS, SPECIAL_TOKENS];
const CONFIG: &str = "tokenizer_config.json";
const ADDED_TOKENS: &str = "added_tokens.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// The control token of GPT-2, special even if no file says so.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Values of `tokenizer_class` that mean GPT-2's tokenizer.
const CLASSES: [&str; 2] = ["GPT2Tokenizer", "GPT2TokenizerFast"];

/// Keys of `tokenizer_config.json` and `special_tokens_map.json` that name special tokens.
const SPECIAL_KEYS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A token in those files: its text alone, or with options.
#[derive(Deserialize)]
#[serde(untagged)]
enum NamedToken {
    Text(String),
    Full(TokenOptions),
}

/// Options as `transformers` writes them; what is absent has that library's default.
#[derive(Deserialize)]
#[serde(default)]
struct TokenOptions {
    content: String,
    special: bool,
    lstrip: bool,
    rstrip: bool,
    single_word: bool,
    normalized: bool,
}

impl Default for TokenOptions {
    fn default() -> Self {
        let (special, lstrip, rstrip, single_word, normalized) = (false, false, false, false, true);
        Self { content: String::new(), special, lstrip, rstrip, single_word, normalized }
    }
}

impl From<NamedToken> for TokenOptions {
    fn from(token: NamedToken) -> Self {
        match token {
            NamedToken::Text(content) => Self { content, ..Self::default() },
            NamedToken::Full(options) => options,
        }
    }
}

impl TokenOptions {
    fn with_id(self, id: u32) -> AddedToken {
        let Self { content, special, lstrip, rstrip, single_word, normalized } = self;
        AddedToken { id, content, special, lstrip, rstrip, single_word, normalized }
    }
}

/// Reads `vocab.json`, `merges.txt` and what lies beside them in `dir`.
pub fn read(dir: &Path, vocab: &Path, merges: &Path) -> Result<Vocabulary, TokenizerError> {
    for (path, companion) in [(vocab, merges), (merges, vocab)] {
        if !exists(path) {
            return Err(TokenizerError::Missing { path: path.into(), companion: companion.into() });
        }
    }
    let tokens: BTreeMap<String, u32> = read_json(vocab)?;
    let config = OptionalFile::read(dir, CONFIG)?;
    let config = config.config()?;
    config.check_class()?;
    let mut vocabulary = Vocabulary {
        merges: read_merges(merges)?,
        added: added_tokens(dir, &tokens, &config)?,
        flags: if config.flag("add_prefix_space")? { layout::ADD_PREFIX_SPACE } else { 0 },
        tokens,
        ..Vocabulary::default()
    };
    set_begin_of_text(dir, &mut vocabulary)?;
    Ok(vocabulary)
}

/// Obeys `add_bos_token` of `tokenizer_config.json`, if it is there: it says whether the model wants its
/// `bos_token` before every text, whatever `tokenizer.json` says.
pub fn set_begin_of_text(dir: &Path, vocabulary: &mut Vocabulary) -> Result<(), TokenizerError> {
    let file = OptionalFile::read(dir, CONFIG)?;
    let config = file.config()?;
    let Some(wanted) = config.get::<bool>("add_bos_token")? else { return Ok(()) };
    vocabulary.flags &= !layout::ADD_BOS;
    let named = vocabulary.bos.take();
    if !wanted {
        return Ok(());
    }
    let special_map = OptionalFile::read(dir, SPECIAL_TOKENS)?;
    let mut text = None;
    for file in [&config, &special_map.config()?] {
        text = text.or(file.get::<NamedToken>("bos_token")?);
    }
    let text = text.map(|token| TokenOptions::from(token).content);
    let of_text = |text: &String| {
        let added = vocabulary.added.iter().find(|token| token.content == *text);
        added.map(|token| token.id).or_else(|| vocabulary.tokens.get(text).copied())
    };
    let Some(id) = text.as_ref().map_or(named, of_text) else {
        let what = "it sets add_bos_token, but no bos_token that the tokenizer has";
        return Err(invalid(config.path, what.into()));
    };
    vocabulary.bos = Some(id);
    vocabulary.flags |= layout::ADD_BOS;
    Ok(())
}

/// `merges.txt`: a line `#version`, then one merge a line in the order they apply.
fn read_merges(path: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let bytes = read_file(path)?;
    let text = std::str::from_utf8(without_mark(&bytes))
        .map_err(|_| invalid(path, "it is not UTF-8 text".into()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("#version"));
    split_merges(lines, path)
}

/// Gathers added tokens by content: with ids from `added_tokens.json` and the config, and special
/// ones by name from the config and `special_tokens_map.json`. The first to describe a token wins.
fn added_tokens(
    dir: &Path,
    tokens: &BTreeMap<String, u32>,
    config: &Config,
) -> Result<Vec<AddedToken>, TokenizerError> {
    let mut added: BTreeMap<String, AddedToken> = BTreeMap::new();
    for (id, token) in config.added_tokens_decoder()? {
        added.insert(token.content.clone(), token.with_id(id));
    }
    let by_content = OptionalFile::read(dir, ADDED_TOKENS)?;
    for (content, id) in by_content.parse::<BTreeMap<String, u32>>()? {
        let token = TokenOptions::from(NamedToken::Text(content.clone()));
        added.entry(content).or_insert(token.with_id(id));
    }
    let special_map = OptionalFile::read(dir, SPECIAL_TOKENS)?;
    for token in special_tokens(&[config, &special_map.config()?])? {
        let known = added.get(&token.content).map(|token| token.id);
        // A special token without an id anywhere is no token of the model.
        let Some(id) = known.or(tokens.get(&token.content).copied()) else { continue };
        let content = token.content.clone();
        added.entry(content).or_insert(token.with_id(id)).special = true;
    }
    Ok(added.into_values().collect())
}

/// The special tokens that the files name, and GPT-2's own.
fn special_tokens(files: &[&Config]) -> Result<Vec<TokenOptions>, TokenizerError> {
    let mut tokens: Vec<TokenOptions> = Vec::new();
    for file in files {
        for key in SPECIAL_KEYS {
            tokens.extend(file.get::<NamedToken>(key)?.map(TokenOptions::from));
        }
        let more: Option<Vec<NamedToken>> = file.get("additional_special_tokens")?;
        tokens.extend(more.unwrap_or_default().into_iter().map(TokenOptions::from));
    }
    tokens.push(NamedToken::Text(END_OF_TEXT.into()).into());
    Ok(tokens)
}

/// One of the optional JSON files; an empty object if it is absent.
struct OptionalFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl OptionalFile {
    fn read(dir: &Path, name: &str) -> Result<Self, TokenizerError> {
        let path = dir.join(name);
        let bytes = if exists(&path) { read_file(&path)? } else { b"{}".to_vec() };
        Ok(Self { path, bytes })
    }

    fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, TokenizerError> {
        parse_json(&self.bytes, &self.path)
    }

    fn config(&self) -> Result<Config<'_>, TokenizerError> {
        Ok(Config { path: &self.path, object: self.parse()? })
    }
}

/// A file's content, by keys of which any may be missing.
struct Config<'a> {
    path: &'a Path,
    object: Object<'a>,
}

impl<'a> Config<'a> {
    /// The value of `key`; absent and null are the same.
    fn get<T: Deserialize<'a>>(&self, key: &str) -> Result<Option<T>, TokenizerError> {
        let json = |source| TokenizerError::Json { path: self.path.to_owned(), source };
        self.object.get(key).map_err(json)
    }

    fn flag(&self, key: &str) -> Result<bool, TokenizerError> {
        Ok(self.get(key)?.unwrap_or(false))
    }

    /// `added_tokens_decoder` of `tokenizer_config.json`: options by id.
    fn added_tokens_decoder(&self) -> Result<BTreeMap<u32, TokenOptions>, TokenizerError> {
        Ok(self.get("added_tokens_decoder")?.unwrap_or_default())
    }

    /// Other tokenizers use the same two files with other rules.
    fn check_class(&self) -> Result<(), TokenizerError> {
        let class: Option<String> = self.get("tokenizer_class")?;
        if let Some(class) = class.filter(|class| !CLASSES.contains(&class.as_str())) {
            return Err(unsupported(self.path, format!("tokenizer_class {}", quoted(&class))));
        }
        Ok(())
    }
}
