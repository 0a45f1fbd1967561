//! The container before PyTorch 1.6: pickles one after the other, then the storages.
//!
//! In order: a magic number, the protocol version, the machine it was saved on, the state dict, the
//! list of storage keys; then in that list's order each storage as a count of elements (i64) and
//! its elements. How large an element is, only the state dict knows.

use std::collections::HashMap;
use std::path::Path;

use cerebellum::terminal::quoted;

use super::pickle::{self, TensorRef, pickle_error};
use super::storages::Storages;
use crate::checkpoint::error::{Error, Result};

/// The magic number, 0x1950a86a20f9469cfc6c, as every version pickles it: protocol 2, a long of 10
/// bytes, stop.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
/// The only protocol version there has been.
const PROTOCOL: i64 = 1001;
const COUNT_BYTES: usize = 8;

pub(super) fn is_legacy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(super) fn read<'a>(bytes: &'a [u8], path: &'a Path) -> Result<(Vec<TensorRef<'a>>, Storages)> {
    let mut at = MAGIC.len();
    let (protocol, length) = pickle::int(&bytes[at..], path)?;
    if protocol != PROTOCOL {
        let problem = format!("protocol version {protocol}, but only {PROTOCOL} is known");
        return Err(pickle_error(path, at, problem));
    }
    at += length;
    let (little_endian, length) = pickle::flag(&bytes[at..], "little_endian", path)?;
    if !little_endian {
        return Err(pickle_error(path, at, "the file is from a big-endian machine".to_owned()));
    }
    at += length;
    let (tensors, length) = pickle::state_dict(&bytes[at..], path)?;
    at += length;
    let (keys, length) = pickle::texts(&bytes[at..], path)?;
    let storages = storages(bytes, at + length, keys, &tensors, path)?;
    Ok((tensors, storages))
}

/// Walks over the storages, which begin at `at`.
fn storages(
    bytes: &[u8],
    mut at: usize,
    keys: Vec<&str>,
    tensors: &[TensorRef],
    path: &Path,
) -> Result<Storages> {
    let sizes: HashMap<&str, usize> =
        tensors.iter().map(|tensor| (tensor.storage.key, tensor.storage.element.size())).collect();
    let mut storages = Storages::new();
    for key in keys {
        let Some(size) = sizes.get(key) else {
            return Err(pickle_error(path, at, format!("no tensor uses storage {}", quoted(key))));
        };
        let data = at.saturating_add(COUNT_BYTES);
        let end = bytes.get(at..data).and_then(|count| {
            let count = u64::from_le_bytes(count.try_into().expect("8 bytes"));
            usize::try_from(count).ok()?.checked_mul(*size)?.checked_add(data)
        });
        at = match end {
            Some(end) if end <= bytes.len() => end,
            _ => return Err(Error::Truncated { path: path.to_owned() }),
        };
        if storages.insert(key.to_owned(), data..at).is_some() {
            return Err(pickle_error(path, at, format!("storage {} is there twice", quoted(key))));
        }
    }
    Ok(storages)
}
