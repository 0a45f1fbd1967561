//! Takes a checkpoint's tokenizer into the model file.
//!
//! Reads Hugging Face's `tokenizer.json`, GPT-2's `vocab.json` with `merges.txt`, or the lists in a
//! GGUF file, checks that it is of a kind that the runtime knows, and writes the table of
//! `docs/tokenizer-format.md`. The same files give the same bytes.

pub mod blob;
mod error;
mod files;
mod gguf;
mod hf_json;
mod oracle;
mod pipeline;
mod reading;
mod vocabulary;

use std::path::{Path, PathBuf};

use cerebellum::text::TokenTable;

pub use error::TokenizerError;
pub(crate) use gguf::pre_tokenizer;
pub use vocabulary::{AddedToken, TokenType, Vocabulary};

use error::invalid;
use reading::exists;

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
    let Some((vocabulary, source)) = read(path)? else { return Ok(None) };
    let imported = from_vocabulary(vocabulary, &source, vocab_size)?;
    check_text(&imported, "")?;
    Ok(Some(imported))
}

/// Compares a tokenizer that was read from a `tokenizer.json` with what the `tokenizers` library, reading the
/// same file, makes of a built-in text and of each line of `text`. (If tokens were left out, they differ.)
///
/// # Errors
/// [`TokenizerError::Invalid`], with the text that they disagree about.
pub fn check_text(imported: &ImportedTokenizer, text: &str) -> Result<(), TokenizerError> {
    let source = &imported.source;
    if source.file_name().is_none_or(|name| name != JSON) || !imported.warnings.is_empty() {
        return Ok(());
    }
    oracle::compare(&reading::read_file(source)?, source, &imported.blob, text)
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
        let mut vocabulary = hf_json::read(&json)?;
        files::set_begin_of_text(path, &mut vocabulary)?;
        Ok(Some((vocabulary, json)))
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

/// Names of the files that [`import`] reads of a directory with the files of which `has` is true.
#[cfg(feature = "hub")]
pub(crate) fn file_names(has: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let own: &[&str] = if has(JSON) { &[JSON] } else { &[VOCAB, MERGES] };
    own.iter().copied().chain(files::BESIDE).filter(|name| has(name)).collect()
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
    TokenTable::parse(blob.as_slice())
        .map_err(|error| TokenizerError::Table { path: source.into(), source: error })?;
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
