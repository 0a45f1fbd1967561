//! Weights saved by PyTorch's `torch.save`: `pytorch_model.bin`, whole or in shards.
//!
//! Such a file is a pickle, a program for a stack machine that may call anything in Python, and
//! beside it the storages that tensors are views of. `pickle.rs` runs the program as data: it knows
//! the closed list of names that a state dict consists of and calls nothing, `zip.rs` and
//! `legacy.rs` find the storages of the two containers, and this file makes ranges of bytes of a
//! mapped file of both. Two names may share a storage, as a tied head does.
//!
//! The `pytorch-reader` crate was tried first. It calls nothing either, but skips names that it
//! does not know instead of refusing the file, inflates compressed entries, and hands out tensors
//! whole and in memory rather than as places in the file. The archive's tables are read by the
//! `zip` crate, built without any decompressor.

mod legacy;
mod pickle;
mod zip;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use cerebellum::terminal::quoted;

use super::error::{Error, Result};
use super::shards::Format;
use super::storage::{MappedFile, StoredTensor};
use crate::dtype::Dtype;
use pickle::{Element, StorageRef, TensorRef};

/// The format's files.
pub(super) const FORMAT: Format =
    Format { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", tensors };

/// Where each storage lies in the file, by key.
type Storages = HashMap<String, Range<usize>>;

fn tensors(file: &MappedFile, number: usize) -> Result<Vec<StoredTensor>> {
    let (bytes, path) = (file.bytes(), file.path());
    let (tensors, storages) =
        if legacy::is_legacy(bytes) { legacy::read(bytes, path)? } else { zip::read(bytes, path)? };
    tensors.into_iter().map(|tensor| place(tensor, &storages, number, path)).collect()
}

/// Finds the bytes of a tensor, and checks that they are inside its storage.
fn place(
    tensor: TensorRef,
    storages: &Storages,
    number: usize,
    path: &Path,
) -> Result<StoredTensor> {
    let TensorRef { name, storage, offset, shape, strides } = tensor;
    let refuse = |problem: &str| {
        let (file, tensor, problem) = (path.to_owned(), name.to_owned(), problem.to_owned());
        Err(Error::TensorStorage { file, tensor, problem })
    };
    let StorageRef { key, element, elements } = storage;
    let Some(bytes) = storages.get(key) else {
        return refuse(&format!("its storage {} is not in the file", quoted(key)));
    };
    let size = element.size();
    if elements.checked_mul(size) != Some(bytes.len()) {
        let (key, found) = (quoted(key), bytes.len());
        return refuse(&format!("its storage {key} has {found} bytes, not {elements} elements"));
    }
    if !is_contiguous(&shape, &strides) {
        return refuse("it is a strided view: call `.contiguous()` on it before saving");
    }
    let end = shape
        .iter()
        .try_fold(1usize, |product, extent| product.checked_mul(*extent))
        .and_then(|count| count.checked_add(offset));
    match end {
        Some(end) if end <= elements => Ok(StoredTensor {
            dtype: element.dtype(),
            shape,
            file: number,
            // Neither product overflows, being at most `elements · size`.
            bytes: bytes.start + offset * size..bytes.start + end * size,
            name: name.to_owned(),
        }),
        _ => refuse(&format!("it reaches beyond the {elements} elements of its storage")),
    }
}

/// Whether the elements lie in row-major order without gaps. The stride of an extent of 1 is never
/// used, and PyTorch writes anything there.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1usize;
    shape.len() == strides.len()
        && shape.iter().zip(strides).rev().all(|(extent, stride)| {
            let expected = *extent == 1 || *stride == step;
            step = step.saturating_mul(*extent);
            expected
        })
}

impl Element {
    /// The type if its elements are decoded, or its name.
    fn dtype(self) -> std::result::Result<Dtype, String> {
        match self {
            Self::Float => Ok(Dtype::F32),
            Self::Half => Ok(Dtype::F16),
            Self::BFloat16 => Ok(Dtype::Bf16),
            other => Err(format!("torch.{other:?}Storage")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguity_follows_the_definition() {
        assert!(is_contiguous(&[2, 3], &[3, 1]));
        assert!(is_contiguous(&[], &[]));
        assert!(is_contiguous(&[1, 3], &[77, 1]));
        assert!(!is_contiguous(&[2, 3], &[1, 2]));
        assert!(!is_contiguous(&[2, 3], &[0, 1]));
        assert!(!is_contiguous(&[2, 3], &[3]));
    }
}
