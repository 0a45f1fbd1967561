//! The tokenizer in a GGUF file.

use std::fs::File;
use std::path::Path;

use cerebellum::text::layout;
use memmap2::Mmap;

use super::error::{TokenizerError, invalid, unsupported};
use super::vocabulary::{TokenType, Vocabulary};
use crate::gguf::{Array, Gguf, Value, keys};

/// Values of `tokenizer.ggml.pre` (`llama-vocab.cpp`), with the split rule and the flags that they mean.
const PRE_TOKENIZERS: [(&str, u8, u32); 15] = [
    ("gpt-2", layout::SPLIT_GPT2, 0),
    ("phi-2", layout::SPLIT_GPT2, 0),
    ("olmo", layout::SPLIT_GPT2, 0),
    ("mpt", layout::SPLIT_GPT2, 0),
    ("smollm", layout::SPLIT_GPT2_DIGITS, 0),
    ("starcoder", layout::SPLIT_GPT2_DIGITS, 0),
    ("refact", layout::SPLIT_GPT2_DIGITS, 0),
    ("codeshell", layout::SPLIT_GPT2_DIGITS, 0),
    ("llama-bpe", layout::SPLIT_LLAMA3, LLAMA3),
    ("llama-v3", layout::SPLIT_LLAMA3, LLAMA3),
    ("llama3", layout::SPLIT_LLAMA3, LLAMA3),
    ("smaug-bpe", layout::SPLIT_LLAMA3, 0),
    ("dbrx", layout::SPLIT_LLAMA3, 0),
    ("qwen2", layout::SPLIT_QWEN2, layout::NFC),
    ("deepseek-r1-qwen", layout::SPLIT_QWEN2, layout::NFC),
];

/// Llama 3's texts begin with a token unless the file says otherwise.
const LLAMA3: u32 = layout::WHOLE_WORDS | layout::ADD_BOS;

const BOS: &str = "tokenizer.ggml.bos_token_id";

/// The name of the way in which a byte-level BPE with this rule and these flags cuts texts, and whether it
/// normalizes them too; `None` if no name means it.
pub fn pre_tokenizer(rule: u8, flags: u32) -> Option<(&'static str, bool)> {
    let is_meant = |(_, known, known_flags): &&(&str, u8, u32)| {
        *known == rule && (known_flags ^ flags) & layout::WHOLE_WORDS == 0
    };
    let (name, _, known) = PRE_TOKENIZERS.iter().find(is_meant)?;
    Some((name, known & layout::NFC != 0))
}

/// Reads the file's vocabulary; `None` if it has none.
pub fn read(path: &Path) -> Result<Option<Vocabulary>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is only read, as bytes that may have any value, and is dropped in this
    // function; that nobody changes the file meanwhile is asked of the caller by `import`.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let gguf = Gguf::parse(&map).map_err(|error| invalid(path, error.to_string()))?;
    let mut vocabulary = match gguf.get(keys::TOKENIZER) {
        None | Some(Value::Text("no_vocab")) => return Ok(None),
        Some(Value::Text("gpt2")) => with_merges(&gguf, path)?,
        Some(Value::Text("llama")) => with_scores(&gguf, path)?,
        Some(other) => return Err(unsupported(path, format!("{} {other}", keys::TOKENIZER))),
    };
    let mut set = |key: &str, flags: u32| match gguf.get(key) {
        Some(Value::Bool(true)) => vocabulary.flags |= flags,
        Some(Value::Bool(false)) => vocabulary.flags &= !flags,
        _ => {}
    };
    set(keys::ADD_BOS, layout::ADD_BOS);
    match gguf.get(keys::TOKENIZER) {
        Some(Value::Text("llama")) => set(keys::ADD_PREFIX_SPACE, SENTENCEPIECE_PREFIX),
        _ => set(keys::ADD_PREFIX_SPACE, layout::ADD_PREFIX_SPACE),
    }
    vocabulary.bos = match gguf.get(BOS) {
        Some(Value::Int(id)) => u32::try_from(id).ok(),
        _ => None,
    };
    // The one without the other says nothing, as in what is read from other files.
    if vocabulary.bos.is_none() || vocabulary.flags & layout::ADD_BOS == 0 {
        vocabulary.bos = None;
        vocabulary.flags &= !layout::ADD_BOS;
    }
    Ok(Some(vocabulary))
}

/// llama.cpp puts a space before each piece between control tokens, whether it begins with one or not.
const SENTENCEPIECE_PREFIX: u32 = layout::ADD_PREFIX_SPACE | layout::ALWAYS_PREFIX_SPACE;

/// Byte-level BPE.
fn with_merges(gguf: &Gguf, path: &Path) -> Result<Vocabulary, TokenizerError> {
    let (rule, flags) = match gguf.get(keys::PRE_TOKENIZER) {
        // Files from before that entry existed; the architecture is GPT-2's.
        None | Some(Value::Text("default")) => (layout::SPLIT_GPT2, 0),
        Some(other) => {
            let known = PRE_TOKENIZERS.iter().find(|(name, ..)| other == Value::Text(name));
            let Some(&(_, rule, flags)) = known else {
                return Err(unsupported(path, format!("{} {other}", keys::PRE_TOKENIZER)));
            };
            (rule, flags)
        }
    };
    let tokens = texts(gguf, keys::TOKENS, path)?;
    let merges = texts(gguf, keys::MERGES, path)?;
    let types = types(gguf, tokens.len(), path)?;
    let vocabulary = Vocabulary::from_lists(&tokens, &types, &merges, path)?;
    Ok(Vocabulary { rule, flags, ..vocabulary })
}

/// SentencePiece's BPE.
fn with_scores(gguf: &Gguf, path: &Path) -> Result<Vocabulary, TokenizerError> {
    let tokens = texts(gguf, keys::TOKENS, path)?;
    let types = types(gguf, tokens.len(), path)?;
    let Some(Value::Array(scores)) = gguf.get(keys::SCORES) else {
        return Err(invalid(path, format!("{} is no list", keys::SCORES)));
    };
    let score = |value: Value| match value {
        Value::Float(score) => Some(score as f32),
        _ => None,
    };
    let scores: Option<Vec<f32>> = scores.iter().map(score).collect();
    let scores =
        scores.ok_or_else(|| invalid(path, format!("{} is no list of numbers", keys::SCORES)))?;
    let vocabulary = Vocabulary::from_scores(&tokens, &types, &scores, path)?;
    Ok(Vocabulary { flags: layout::ADD_BOS | SENTENCEPIECE_PREFIX, ..vocabulary })
}

fn types(gguf: &Gguf, tokens: usize, path: &Path) -> Result<Vec<TokenType>, TokenizerError> {
    match gguf.get(keys::TOKEN_TYPES) {
        None => Ok(vec![TokenType::Normal; tokens]),
        Some(Value::Array(types)) => token_types(types, path),
        Some(_) => Err(invalid(path, format!("{} is no list", keys::TOKEN_TYPES))),
    }
}

fn token_types(types: Array, path: &Path) -> Result<Vec<TokenType>, TokenizerError> {
    let known = |(id, value): (usize, Value)| {
        let number = match value {
            Value::Int(number) => i32::try_from(number).ok(),
            _ => None,
        };
        number
            .and_then(TokenType::from_gguf)
            .ok_or_else(|| unsupported(path, format!("token {id} of type {value}")))
    };
    types.iter().enumerate().map(known).collect()
}

fn texts<'a>(gguf: &Gguf<'a>, key: &str, path: &Path) -> Result<Vec<&'a str>, TokenizerError> {
    let list = || match gguf.get(key) {
        Some(Value::Array(array)) => array
            .iter()
            .map(|value| match value {
                Value::Text(text) => Some(text),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    list().ok_or_else(|| invalid(path, format!("{key} is no list of strings")))
}
