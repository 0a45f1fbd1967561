//! Weights in safetensors: one `model.safetensors`, or shards listed by an index.
//!
//! The header is parsed and checked (offsets, overlaps, sizes, nothing left over) by the
//! `safetensors` crate, so that the ranges below are known to lie inside their file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use ::safetensors::SafeTensors;
use ::safetensors::tensor::Dtype as FileDtype;
use serde::Deserialize;

use super::error::{Error, Result};
use super::storage::{Dtype, MappedFile, StoredTensor, read_json};

/// The name of weights in a single file.
pub(super) const SINGLE: &str = "model.safetensors";
/// The name of the index of sharded weights.
pub(super) const INDEX: &str = "model.safetensors.index.json";

const MAX_INDEX_BYTES: u64 = 64 << 20;
/// Before the header stands its length, a little-endian u64.
const HEADER_LENGTH_BYTES: usize = 8;

/// `model.safetensors.index.json`; its `metadata` is of no use here.
#[derive(Deserialize)]
struct Index {
    /// Tensor name to shard file name.
    weight_map: BTreeMap<String, String>,
}

/// Maps the directory's safetensors files and lists their tensors; `None` if it has none.
///
/// A single file wins over an index, as in transformers.
pub(super) fn open(directory: &Path) -> Result<Option<(Vec<MappedFile>, Vec<StoredTensor>)>> {
    let (single, index) = (directory.join(SINGLE), directory.join(INDEX));
    if single.exists() {
        let file = MappedFile::open(&single)?;
        let tensors = tensors(&file, 0)?;
        return Ok(Some((vec![file], tensors)));
    }
    if index.exists() {
        return open_shards(directory, &index).map(Some);
    }
    Ok(None)
}

fn open_shards(directory: &Path, path: &Path) -> Result<(Vec<MappedFile>, Vec<StoredTensor>)> {
    let index: Index = serde_json::from_slice(&read_json(path, MAX_INDEX_BYTES)?)
        .map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();

    let (mut files, mut found) = (Vec::new(), Vec::new());
    for shard in shards {
        let file = open_shard(directory, path, shard)?;
        found.extend(tensors(&file, files.len())?);
        files.push(file);
    }
    check_index(&index, path, directory, &files, &found)?;
    Ok((files, found))
}

fn open_shard(directory: &Path, index: &Path, shard: &str) -> Result<MappedFile> {
    let mut components = Path::new(shard).components();
    let plain =
        matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
    if !plain {
        return Err(Error::ShardPath { index: index.to_owned(), shard: shard.to_owned() });
    }
    let shard = directory.join(shard);
    if !shard.exists() {
        return Err(Error::MissingShard { shard, index: index.to_owned() });
    }
    MappedFile::open(&shard)
}

/// Every tensor must lie in the shard the index gives. (Tensors the index does not list are read
/// all the same.)
fn check_index(
    index: &Index,
    path: &Path,
    directory: &Path,
    files: &[MappedFile],
    tensors: &[StoredTensor],
) -> Result<()> {
    let present: BTreeSet<(&str, &Path)> =
        tensors.iter().map(|tensor| (tensor.name.as_str(), files[tensor.file].path())).collect();
    for (tensor, shard) in &index.weight_map {
        let shard = directory.join(shard);
        if !present.contains(&(tensor.as_str(), shard.as_path())) {
            let (index, tensor) = (path.to_owned(), tensor.clone());
            return Err(Error::IndexMismatch { index, tensor, shard });
        }
    }
    Ok(())
}

/// The tensors of one file, which is number `number` of its checkpoint.
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
