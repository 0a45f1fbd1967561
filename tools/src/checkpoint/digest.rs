//! The identity of a checkpoint's content.

use blake3::Hasher;

use super::tensor::{Tensor, TensorInfo};

/// Begins the hashed stream, so that no other use of BLAKE3 yields the same digest, and a change
/// of the recipe can be told.
const DOMAIN: &[u8] = b"cerebellum checkpoint digest 1";

/// BLAKE3 of the configuration's bytes, then of each tensor the model uses in canonical order, of each
/// stored tensor that it consists of: canonical name, type, shape, bytes. Every part is preceded by its
/// length.
///
/// So the digest does not depend on how the tensors are spread over files, on their stored order,
/// on prefixes of their names, nor on tensors the model does not use.
pub(super) fn digest<'a>(
    config: &[u8],
    tensors: impl Iterator<Item = (&'a TensorInfo, Tensor<'a>)>,
) -> blake3::Hash {
    let mut hasher = Hasher::new();
    update(&mut hasher, DOMAIN);
    update(&mut hasher, config);
    for (info, tensor) in tensors {
        for (number, segment) in info.segments.iter().enumerate() {
            update(&mut hasher, info.name.as_bytes());
            update(&mut hasher, segment.dtype.name().as_bytes());
            let shape: Vec<u8> =
                segment.shape.iter().flat_map(|extent| (*extent as u64).to_le_bytes()).collect();
            update(&mut hasher, &shape);
            hasher.update(&(segment.bytes.len() as u64).to_le_bytes());
            tensor.for_each_chunk(number, |bytes| {
                hasher.update(bytes);
            });
        }
    }
    hasher.finalize()
}

fn update(hasher: &mut Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}
