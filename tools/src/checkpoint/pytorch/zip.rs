//! The container since PyTorch 1.6: an archive of `ROOT/data.pkl` and storages `ROOT/data/KEY`.
//!
//! PyTorch stores all entries uncompressed, so that each is a range of the mapped file. Anything
//! else is refused, which leaves nothing that could inflate.

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use ::zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, TensorRef};
use super::storages::Storages;
use crate::checkpoint::error::{Error, Result};

/// More storages than the largest checkpoint has. Bounds what the archive's table may cost.
const MAX_ENTRIES: usize = 1 << 17;

pub(super) fn read<'a>(bytes: &'a [u8], path: &'a Path) -> Result<(Vec<TensorRef<'a>>, Storages)> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|source| Error::Zip { path: path.to_owned(), source })?;
    if archive.len() > MAX_ENTRIES {
        return Err(entry_error(path, "", format!("is one of more than {MAX_ENTRIES}")));
    }
    let mut entries = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        entries.push(entry(&mut archive, index, bytes.len(), path)?);
    }

    let root = root(&entries, path)?.to_owned();
    if let Some(order) = find(&entries, &format!("{root}byteorder"))
        && bytes[order.clone()] != *b"little"
    {
        return Err(entry_error(path, "byteorder", "is not \"little\"".to_owned()));
    }
    let pickle = find(&entries, &format!("{root}data.pkl")).expect("the root was found by it");
    let (tensors, _) = pickle::state_dict(&bytes[pickle.clone()], path)?;

    let prefix = format!("{root}data/");
    let storage = |(name, range): (String, Range<usize>)| {
        Some((name.strip_prefix(&prefix)?.to_owned(), range))
    };
    Ok((tensors, entries.into_iter().filter_map(storage).collect()))
}

/// The name and place of an entry.
fn entry(
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    index: usize,
    file_len: usize,
    path: &Path,
) -> Result<(String, Range<usize>)> {
    let zip = |source| Error::Zip { path: path.to_owned(), source };
    let entry = archive.by_index_raw(index).map_err(zip)?;
    let name = entry.name().map_err(zip)?.into_owned();
    if entry.compression() != CompressionMethod::Stored
        || entry.compressed_size() != entry.size()
        || entry.encrypted()
    {
        let (stored, size) = (entry.compressed_size(), entry.size());
        let problem = format!("is compressed or encrypted ({stored} bytes for {size})");
        return Err(entry_error(path, &name, problem));
    }
    let start = entry.data_start().expect("set by reading the entry");
    match start.checked_add(entry.size()) {
        Some(end) if end <= file_len as u64 => Ok((name, start as usize..end as usize)),
        _ => Err(entry_error(path, &name, "reaches beyond the end of the file".to_owned())),
    }
}

/// The directory, with its slash, that everything is in: the one of `data.pkl`.
fn root<'a>(entries: &'a [(String, Range<usize>)], path: &Path) -> Result<&'a str> {
    let mut roots = entries
        .iter()
        .filter_map(|(name, _)| name.strip_suffix("data.pkl"))
        .filter(|root| root.is_empty() || root.ends_with('/'));
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root),
        (None, _) => Err(entry_error(path, "data.pkl", "is missing".to_owned())),
        (Some(_), Some(_)) => Err(entry_error(path, "data.pkl", "is there twice".to_owned())),
    }
}

fn find<'a>(entries: &'a [(String, Range<usize>)], name: &str) -> Option<&'a Range<usize>> {
    entries.iter().find(|(entry, _)| entry == name).map(|(_, range)| range)
}

fn entry_error(path: &Path, entry: &str, problem: String) -> Error {
    Error::ZipEntry { path: path.to_owned(), entry: entry.to_owned(), problem }
}
