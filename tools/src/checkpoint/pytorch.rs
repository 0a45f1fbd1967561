//! Weights saved by PyTorch's `torch.save`: `pytorch_model.bin`, whole or in shards.
//!
//! Such a file is a pickle, a program for a stack machine that may call anything in Python, and
//! beside it the storages that tensors are views of. `pickle.rs` runs the program as data: it knows
//! the closed list of names that a state dict consists of and calls nothing, `zip.rs` and
//! `legacy.rs` find the storages of the two containers, and `storages.rs` makes ranges of bytes of a
//! mapped file of both. Two names may share a storage, as a tied head does.
//!
//! The `pytorch-reader` crate was tried first. It calls nothing either, but skips names that it
//! does not know instead of refusing the file, inflates compressed entries, and hands out tensors
//! whole and in memory rather than as places in the file. The archive's tables are read by the
//! `zip` crate, built without any decompressor.

mod legacy;
mod pickle;
mod storages;
mod zip;

use super::error::Result;
use super::shards::Format;
use super::storage::{MappedFile, StoredTensor};
use storages::place;

/// The format's files.
pub(super) const FORMAT: Format =
    Format { single: "pytorch_model.bin", index: "pytorch_model.bin.index.json", tensors };

fn tensors(file: &MappedFile, number: usize) -> Result<Vec<StoredTensor>> {
    let (bytes, path) = (file.bytes(), file.path());
    let (tensors, storages) =
        if legacy::is_legacy(bytes) { legacy::read(bytes, path)? } else { zip::read(bytes, path)? };
    tensors.into_iter().map(|tensor| place(tensor, &storages, number, path)).collect()
}
