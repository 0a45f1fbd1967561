//! Takes a checkpoint's tokenizer into the model file.
//!
//! Reads Hugging Face's `tokenizer.json`, GPT-2's `vocab.json` with `merges.txt`, or the lists in a
//! GGUF file, checks that it
//! is the one kind the runtime knows (byte-level BPE with GPT-2's pre-tokenizer), and writes the
//! table of `docs/tokenizer-format.md`. The same files give the same bytes.

mod blob;
mod files;
mod gguf;
mod hf_json;
mod vocabulary;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use cerebellum::terminal::quoted;
use cerebellum::text::{Encoder, TextError, TokenTable};

use crate::json;

pub use vocabulary::{AddedToken, TokenType, Vocabulary};

/// Largest tokenizer file that is read. GPT-2's is 3.5 MB, the largest public ones about 35 MB.
const MAX_FILE_BYTES: u64 = 128 << 20;

const JSON: &str = "tokenizer.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// A tokenizer ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedTokenizer {
    /// The table, as `cerebellum::text::TokenTable` reads it.
    pub blob: Vec<u8>,
    /// The file it was read from.
    pub source: PathBuf,
    /// Number of tokens.
    pub tokens: usize,
    /// Ids below the model's vocabulary size that have no token. They decode to no text.
    pub unused_ids: usize,
    /// Number of merges.
    pub merges: usize,
    /// What was left out, one sentence each, to be shown to the user.
    pub warnings: Vec<String>,
}

/// Why a tokenizer could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is too large to be a tokenizer, or no regular file.
    #[error("{} is no regular file of at most {limit} bytes; replace it by the model's tokenizer", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// Largest size accepted.
        limit: u64,
    },
    /// A file is not the JSON expected.
    #[error("cannot parse {}: {source}; download it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// One of two files that belong together is missing.
    #[error("{} is missing; it belongs to {}", path.display(), companion.display())]
    Missing {
        /// The missing file.
        path: PathBuf,
        /// The file that needs it.
        companion: PathBuf,
    },
    /// The tokenizer is of a kind that the runtime does not know.
    #[error("{}: unsupported tokenizer: {what}; only GPT-2's byte-level BPE can be converted. Convert without a tokenizer and work on token ids, or give another directory with --tokenizer", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature that is not supported.
        what: String,
    },
    /// The tokenizer contradicts itself.
    #[error("{}: {what}; download the tokenizer again or repair the file", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The tokenizer has tokens that the model does not have.
    #[error("{}: token {token} has id {id}, but the model's vocab_size is {vocab_size}: this is another model's tokenizer. Give the right directory with --tokenizer", path.display(), token = quoted(token))]
    BeyondModel {
        /// The file.
        path: PathBuf,
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Number of token ids of the model.
        vocab_size: u32,
    },
    /// The runtime would not accept the tokenizer.
    #[error("{}: {source}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What the runtime says.
        source: TextError,
    },
}

/// Reads the tokenizer of the checkpoint at `path` (a directory, or a GGUF file, which must not be
/// changed meanwhile) for a model with `vocab_size` token ids.
///
/// Of a directory, `tokenizer.json` is preferred over `vocab.json` and `merges.txt`. `Ok(None)`
/// means that there is no tokenizer.
///
/// Ids without a token are allowed. Added tokens with an id that the model does not have are left
/// out with a warning (a padding token is often added without enlarging the model); any other such
/// token is an error.
///
/// # Errors
/// [`TokenizerError`], naming the file and what to do about it.
pub fn import(path: &Path, vocab_size: u32) -> Result<Option<ImportedTokenizer>, TokenizerError> {
    match read(path)? {
        Some((vocabulary, source)) => from_vocabulary(vocabulary, &source, vocab_size).map(Some),
        None => Ok(None),
    }
}

/// Reads the tokenizer of the checkpoint at `path` as its files spell it, and says which file that
/// was. [`import`] says where it is looked for.
///
/// # Errors
/// [`TokenizerError`], naming the file and what to do about it.
pub fn read(path: &Path) -> Result<Option<(Vocabulary, PathBuf)>, TokenizerError> {
    if path.is_file() {
        return Ok(gguf::read(path)?.map(|vocabulary| (vocabulary, path.to_owned())));
    }
    let [json, vocab, merges] = [JSON, VOCAB, MERGES].map(|name| path.join(name));
    if exists(&json) {
        Ok(Some((hf_json::read(&json)?, json)))
    } else if exists(&vocab) || exists(&merges) {
        Ok(Some((files::read(path, &vocab, &merges)?, vocab)))
    } else {
        Ok(None)
    }
}

/// The files that [`import`] and [`read`] read of the checkpoint at `path`, as far as they are there.
pub fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let names = [JSON, VOCAB, MERGES].into_iter().chain(files::BESIDE);
    names.map(|name| path.join(name)).filter(|path| exists(path)).collect()
}

/// Makes the table of a vocabulary that was read from `source`, for a model with `vocab_size` token
/// ids. [`import`] says what happens to ids that are missing or too large.
///
/// # Errors
/// [`TokenizerError`], naming `source`.
pub fn from_vocabulary(
    vocabulary: Vocabulary,
    source: &Path,
    vocab_size: u32,
) -> Result<ImportedTokenizer, TokenizerError> {
    let (parts, warnings) = vocabulary.resolve(source, vocab_size)?;
    let blob =
        blob::write(&parts).ok_or_else(|| invalid(source, "the tokenizer exceeds 4 GiB".into()))?;
    check(&blob).map_err(|error| TokenizerError::Table { path: source.into(), source: error })?;
    let tokens = parts.tokens.iter().filter(|token| !token.is_empty()).count();
    Ok(ImportedTokenizer {
        source: source.into(),
        tokens,
        unused_ids: vocab_size as usize - tokens,
        merges: parts.merges.len(),
        warnings,
        blob,
    })
}

/// Sets the tokenizer up as the device will, so that errors appear now and not there.
fn check(blob: &[u8]) -> Result<(), TextError> {
    Encoder::new(&TokenTable::parse(blob)?).map(drop)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Reads a whole file of bounded size.
fn read_file(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    let io = |source| TokenizerError::Io { path: path.into(), source };
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(TokenizerError::NotAFile { path: path.into(), limit: MAX_FILE_BYTES });
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, TokenizerError> {
    parse_json(&read_file(path)?, path)
}

fn parse_json<'a, T: serde::Deserialize<'a>>(
    bytes: &'a [u8],
    path: &Path,
) -> Result<T, TokenizerError> {
    json::parse(bytes).map_err(|source| TokenizerError::Json { path: path.into(), source })
}

fn unsupported(path: &Path, what: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { path: path.into(), what: what.into() }
}

fn invalid(path: &Path, what: String) -> TokenizerError {
    TokenizerError::Invalid { path: path.into(), what }
}
