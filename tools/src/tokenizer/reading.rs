//! Reads files of a tokenizer, of bounded size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::TokenizerError;
use crate::json;

/// Largest tokenizer file that is read. GPT-2's is 3.5 MB, the largest public ones about 35 MB.
const MAX_FILE_BYTES: u64 = 128 << 20;

pub(super) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Reads a whole file of bounded size.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, TokenizerError> {
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

pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, TokenizerError> {
    parse_json(&read_file(path)?, path)
}

pub(super) fn parse_json<'a, T: serde::Deserialize<'a>>(
    bytes: &'a [u8],
    path: &Path,
) -> Result<T, TokenizerError> {
    json::parse(bytes).map_err(|source| TokenizerError::Json { path: path.into(), source })
}
