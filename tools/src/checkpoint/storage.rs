//! Tensors as every weight format delivers them: ranges of bytes in mapped files.
//!
//! A reader of one format (such as `safetensors.rs`) only has to say which files there are and where
//! in them each tensor lies; decoding, transposing, digesting and giving memory back are done once,
//! for all formats.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::config::Parsed;
use super::error::{Error, Result};
use super::names::Names;
use crate::dtype::Dtype;

/// What a format's reader returns.
pub(super) struct Source {
    /// What the configuration says.
    pub parsed: Parsed,
    /// The bytes the configuration was read from, for the digest.
    pub config_bytes: Vec<u8>,
    /// The files with weights.
    pub files: Vec<MappedFile>,
    /// Every tensor in them, in any order and under the names the files use.
    pub tensors: Vec<StoredTensor>,
    /// What the format calls the tensors of the model's family.
    pub names: &'static Names,
    /// Which way round linear layers are, if the format says.
    pub layout: Option<Layout>,
}

/// A tensor's place in a file.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    /// The name in the file.
    pub name: String,
    /// The element type, or the format's name for one that is not decoded.
    pub dtype: std::result::Result<Dtype, String>,
    /// The shape as stored, row-major.
    pub shape: Vec<usize>,
    /// Which of [`Source::files`].
    pub file: usize,
    /// Where the bytes lie in it; checked by the reader to lie inside.
    pub bytes: Range<usize>,
}

/// Which way round the weights of linear layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[in, out]`, as by the `Conv1D` of transformers' GPT-2.
    Conv1d,
    /// `[out, in]`, as by PyTorch's `Linear`, by GGUF, and as used.
    Linear,
}

/// A file mapped for reading, whose pages can be given back.
#[derive(Debug)]
pub(super) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a regular file. The file must not be changed while it is mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        // Asked before opening: to open a pipe without a writer would wait for ever.
        if !path.metadata().map_err(io)?.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is only read, as bytes that may have any value. That nobody changes the
        // file meanwhile is asked of the caller in the documentation of `Checkpoint::open`.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        if map.starts_with(b"version https://git-lfs") {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), map })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Takes pages out of this process's resident memory; reading them again brings them back.
    /// Best effort: where the system declines, memory is merely not given back.
    pub fn release(&self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: `MADV_DONTNEED` discards changes only in anonymous or private writable memory.
        // This map is shared and read-only, so a discarded page is read from the file again, with
        // the same content: no reference into the map can see a difference.
        unsafe {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            let _ = self.map.unchecked_advise_range(advice, range.start, range.len());
        }
    }
}

/// Reads a whole JSON file of at most `limit` bytes.
pub(super) fn read_json(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let metadata = path.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    if metadata.len() > limit {
        return Err(Error::JsonTooLarge { path: path.to_owned(), found: metadata.len(), limit });
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(limit).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}
