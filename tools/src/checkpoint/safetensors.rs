//! Weights in safetensors.
//!
//! The header is parsed and checked (offsets, overlaps, sizes, nothing left over) by the
//! `safetensors` crate, so that the ranges below are known to lie inside their file.

use ::safetensors::SafeTensors;
use ::safetensors::tensor::Dtype as FileDtype;

use super::error::{Error, Result};
use super::shards::Format;
use super::storage::{MappedFile, StoredTensor};
use crate::dtype::Dtype;

/// The format's files.
pub(super) const FORMAT: Format =
    Format { single: "model.safetensors", index: "model.safetensors.index.json", tensors };

/// Before the header stands its length, a little-endian u64.
const HEADER_LENGTH_BYTES: usize = 8;

fn tensors(file: &MappedFile, number: usize) -> Result<Vec<StoredTensor>> {
    let (header, metadata) = SafeTensors::read_metadata(file.bytes())
        .map_err(|source| Error::Safetensors { path: file.path().to_owned(), source })?;
    let data = HEADER_LENGTH_BYTES + header;
    let tensor = |(name, info): (String, &::safetensors::tensor::TensorInfo)| StoredTensor {
        name,
        dtype: dtype(info.dtype),
        shape: info.shape.clone(),
        file: number,
        bytes: data + info.data_offsets.0..data + info.data_offsets.1,
    };
    let mut tensors: Vec<_> = metadata.tensors().into_iter().map(tensor).collect();
    // The crate hands them out in random order; errors should not depend on it.
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn dtype(dtype: FileDtype) -> std::result::Result<Dtype, String> {
    match dtype {
        FileDtype::F32 => Ok(Dtype::F32),
        FileDtype::F16 => Ok(Dtype::F16),
        FileDtype::BF16 => Ok(Dtype::Bf16),
        other => Err(format!("{other:?}")),
    }
}
