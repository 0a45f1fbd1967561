//! From tensors as views of storages to ranges of bytes of the file.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use cerebellum::terminal::quoted;

use super::pickle::{Element, StorageRef, TensorRef};
use crate::checkpoint::error::{Error, Result};
use crate::checkpoint::storage::StoredTensor;
use crate::dtype::Dtype;

/// Where each storage lies in the file, by key.
pub(super) type Storages = HashMap<String, Range<usize>>;

/// Finds the bytes of a tensor, and checks that they are inside its storage.
pub(super) fn place(
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
