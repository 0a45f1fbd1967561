//! The tokenizer in a GGUF file.

use std::fs::File;
use std::path::Path;

use cerebellum::text::layout;
use memmap2::Mmap;

use super::error::{TokenizerError, invalid, unsupported};
use super::vocabulary::{TokenType, Vocabulary};
use crate::gguf::{Array, Gguf, Value, keys};

/// Values of `tokenizer.ggml.pre` that mean GPT-2's regular expression (`llama-vocab.cpp`).
const PRE_TOKENIZERS: [&str; 2] = ["gpt-2", "phi-2"];

/// Reads the file's vocabulary; `None` if it has none.
pub fn read(path: &Path) -> Result<Option<Vocabulary>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the map is only read, as bytes that may have any value, and is dropped in this
    // function; that nobody changes the file meanwhile is asked of the caller by `import`.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let gguf = Gguf::parse(&map).map_err(|error| invalid(path, error.to_string()))?;
    match gguf.get(keys::TOKENIZER) {
        None | Some(Value::Text("no_vocab")) => return Ok(None),
        Some(Value::Text("gpt2")) => {}
        Some(other) => return Err(unsupported(path, format!("{} {other}", keys::TOKENIZER))),
    }
    match gguf.get(keys::PRE_TOKENIZER) {
        // Files from before that entry existed; the architecture is GPT-2's.
        None | Some(Value::Text("default")) => {}
        Some(Value::Text(pre)) if PRE_TOKENIZERS.contains(&pre) => {}
        Some(other) => return Err(unsupported(path, format!("{} {other}", keys::PRE_TOKENIZER))),
    }
    vocabulary(&gguf, path).map(Some)
}

fn vocabulary(gguf: &Gguf, path: &Path) -> Result<Vocabulary, TokenizerError> {
    let tokens = texts(gguf, keys::TOKENS, path)?;
    let merges = texts(gguf, keys::MERGES, path)?;
    let types = match gguf.get(keys::TOKEN_TYPES) {
        None => vec![TokenType::Normal; tokens.len()],
        Some(Value::Array(types)) => token_types(types, path)?,
        Some(_) => return Err(invalid(path, format!("{} is no list", keys::TOKEN_TYPES))),
    };
    let mut vocabulary = Vocabulary::from_lists(&tokens, &types, &merges, path)?;
    if gguf.get(keys::ADD_PREFIX_SPACE) == Some(Value::Bool(true)) {
        vocabulary.flags |= layout::ADD_PREFIX_SPACE;
    }
    Ok(vocabulary)
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
