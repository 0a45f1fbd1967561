//! Tensors as every weight format delivers them: ranges of bytes in mapped files.
//!
//! A reader of one format (such as `safetensors.rs`) only has to say which files there are and where
//! in them each tensor lies; decoding, transposing, digesting and giving memory back are done once,
//! for all formats.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;
use memmap2::Mmap;

use super::config::Config;
use super::error::{Error, Result};
use crate::gguf::blocks;

/// What a format's reader returns.
pub(super) struct Source {
    /// The model's configuration.
    pub config: Config,
    /// The bytes the configuration was read from, for the digest.
    pub config_bytes: Vec<u8>,
    /// The files with weights.
    pub files: Vec<MappedFile>,
    /// Every tensor in them, in any order and under the names the files use.
    pub tensors: Vec<StoredTensor>,
    /// From those names to canonical ones.
    pub canonical: fn(&str) -> String,
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

/// A type that weights may be stored in. Types of ggml (`Q…`) store weights in blocks that share
/// scales; a row is a whole number of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 4 bits and, for 32 weights, a scale.
    Q4_0,
    /// 4 bits and, for 32 weights, a scale and a minimum.
    Q4_1,
    /// 5 bits and, for 32 weights, a scale.
    Q5_0,
    /// 5 bits and, for 32 weights, a scale and a minimum.
    Q5_1,
    /// 8 bits and, for 32 weights, a scale.
    Q8_0,
    /// ggml's Q4_K: 4 bits, blocks of 256 with scales and minima for 32 weights each.
    Q4K,
    /// ggml's Q5_K: as Q4_K, with 5 bits.
    Q5K,
    /// ggml's Q6_K: 6 bits, blocks of 256 with scales for 16 weights each.
    Q6K,
}

impl Dtype {
    /// Weights in a block; 1 for the plain types.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => blocks::BLOCK,
            Self::Q4K | Self::Q5K | Self::Q6K => blocks::SUPER_BLOCK,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of this many elements, a whole number of blocks; `None` if that overflows.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        (elements / self.block_elements()).checked_mul(self.block_bytes())
    }

    /// The name in safetensors files or ggml's, which the digest includes too.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
        }
    }

    /// Decodes `values.len()` elements from little-endian `bytes`, at any alignment; of block types
    /// whole blocks.
    pub(super) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.bytes(values.len()));
        match self {
            Self::F32 => decode_f32(bytes, values),
            Self::F16 => decode_f16(bytes, values),
            Self::Bf16 => decode_bf16(bytes, values),
            Self::Q4_0 => blocks::decode(bytes, values, blocks::q4_0),
            Self::Q4_1 => blocks::decode(bytes, values, blocks::q4_1),
            Self::Q5_0 => blocks::decode(bytes, values, blocks::q5_0),
            Self::Q5_1 => blocks::decode(bytes, values, blocks::q5_1),
            Self::Q8_0 => blocks::decode(bytes, values, blocks::q8_0),
            Self::Q4K => blocks::decode(bytes, values, blocks::q4_k),
            Self::Q5K => blocks::decode(bytes, values, blocks::q5_k),
            Self::Q6K => blocks::decode(bytes, values, blocks::q6_k),
        }
    }
}

/// Which way round the weights of linear layers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[in, out]`, as by the `Conv1D` of transformers' GPT-2.
    Conv1d,
    /// `[out, in]`, as by PyTorch's `Linear`, by GGUF, and as used.
    Linear,
}

fn decode_f32(bytes: &[u8], values: &mut [f32]) {
    for (value, element) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_le_bytes(*element);
    }
}

fn decode_bf16(bytes: &[u8], values: &mut [f32]) {
    for (value, element) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*element)) << 16);
    }
}

/// `half` converts whole slices with the processor's own instruction, but wants aligned input; a
/// file promises no alignment, so a small aligned buffer stands between.
fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    let mut aligned = [f16::ZERO; 64];
    for (bytes, values) in bytes.chunks(2 * aligned.len()).zip(values.chunks_mut(aligned.len())) {
        let aligned = &mut aligned[..values.len()];
        for (element, bytes) in aligned.iter_mut().zip(bytes.as_chunks().0) {
            *element = f16::from_le_bytes(*bytes);
        }
        aligned.convert_to_f32_slice(values);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the `half` crate's conversion of single values: every 16-bit pattern.
    #[test]
    fn sixteen_bit_types_decode_exactly() {
        let patterns: Vec<u16> = (0..=u16::MAX).collect();
        // One byte of offset, to leave alignment behind.
        let bytes: Vec<u8> =
            std::iter::once(0).chain(patterns.iter().flat_map(|bits| bits.to_le_bytes())).collect();
        let mut values = vec![0.0; patterns.len()];
        Dtype::F16.decode(&bytes[1..], &mut values);
        for (bits, value) in patterns.iter().zip(&values) {
            let expected = f16::from_bits(*bits).to_f32();
            assert!(value.to_bits() == expected.to_bits() || expected.is_nan(), "{bits:#x}");
        }
        Dtype::Bf16.decode(&bytes[1..], &mut values);
        for (bits, value) in patterns.iter().zip(&values) {
            let expected = half::bf16::from_bits(*bits).to_f32();
            assert!(value.to_bits() == expected.to_bits() || expected.is_nan(), "{bits:#x}");
        }
    }

    #[test]
    fn lengths_around_the_buffer_decode() {
        for length in [0, 1, 63, 64, 65, 130] {
            let bytes: Vec<u8> =
                (0..length).flat_map(|i| f16::from_f32(i as f32).to_le_bytes()).collect();
            let mut values = vec![-1.0; length];
            Dtype::F16.decode(&bytes, &mut values);
            assert!(values.iter().enumerate().all(|(i, value)| *value == i as f32), "{length}");
        }
    }
}
