//! Which files hold a directory's weights: one, or shards listed by an index. The same for every
//! format that comes in a directory; only the file names and the tables inside differ.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::path::{Component, Path};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use cerebellum::terminal::name;

use super::error::{Error, Result};
use super::storage::{MappedFile, StoredTensor, read_json};
use crate::json;

const MAX_INDEX_BYTES: u64 = 64 << 20;
/// The longest file name of common file systems.
const MAX_FILE_NAME_BYTES: usize = 255;

/// A format of weight files in a directory.
pub(super) struct Format {
    /// The name of weights in a single file.
    pub single: &'static str,
    /// The name of the index of sharded weights.
    pub index: &'static str,
    /// Lists the tensors of one file, which is that number in its checkpoint.
    pub tensors: fn(&MappedFile, usize) -> Result<Vec<StoredTensor>>,
}

/// Files, and every tensor in them.
pub(super) type Weights = (Vec<MappedFile>, Vec<StoredTensor>);

/// An index; its `metadata` is of no use here.
#[derive(Deserialize)]
struct Index {
    /// Tensor name to shard file name.
    #[serde(deserialize_with = "each_once")]
    weight_map: BTreeMap<String, String>,
}

/// Maps the directory's files of this format and lists their tensors; `None` if it has none.
///
/// A single file wins over an index, as in transformers.
pub(super) fn open(directory: &Path, format: &Format) -> Result<Option<Weights>> {
    let (single, index) = (directory.join(format.single), directory.join(format.index));
    if single.exists() {
        let file = MappedFile::open(&single)?;
        let tensors = (format.tensors)(&file, 0)?;
        return Ok(Some((vec![file], tensors)));
    }
    if index.exists() {
        return open_shards(directory, &index, format).map(Some);
    }
    Ok(None)
}

fn open_shards(directory: &Path, path: &Path, format: &Format) -> Result<Weights> {
    let index = read_index(path)?;
    let shards: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();

    let (mut files, mut found) = (Vec::new(), Vec::new());
    for shard in shards {
        let file = open_shard(directory, path, shard)?;
        found.extend((format.tensors)(&file, files.len())?);
        files.push(file);
    }
    check_index(&index, path, directory, &files, &found)?;
    Ok((files, found))
}

fn read_index(path: &Path) -> Result<Index> {
    json::parse(&read_json(path, MAX_INDEX_BYTES)?)
        .map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// The shards that an index names, each once. None of the names leads out of the directory.
#[cfg(feature = "hub")]
pub(crate) fn listed(index: &Path) -> Result<BTreeSet<String>> {
    let shards: BTreeSet<String> = read_index(index)?.weight_map.into_values().collect();
    match shards.iter().find(|shard| !is_plain(shard)) {
        Some(shard) => Err(Error::ShardPath { index: index.to_owned(), shard: shard.clone() }),
        None => Ok(shards),
    }
}

/// Whether this is a file name, and nothing that leads to another directory.
fn is_plain(shard: &str) -> bool {
    let mut components = Path::new(shard).components();
    shard.len() <= MAX_FILE_NAME_BYTES
        && !shard.contains(char::is_control)
        && matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
}

fn open_shard(directory: &Path, index: &Path, shard: &str) -> Result<MappedFile> {
    if !is_plain(shard) {
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

/// A JSON object in which no key comes twice. (A parser that keeps the last would hide that an
/// index places a tensor in two shards.)
fn each_once<'de, D: Deserializer<'de>>(json: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct EachOnce;

    impl<'de> Visitor<'de> for EachOnce {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("an object of shards by tensor")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((tensor, shard)) = entries.next_entry::<String, String>()? {
                match map.entry(tensor) {
                    Entry::Vacant(place) => place.insert(shard),
                    Entry::Occupied(first) => {
                        let [tensor, first, shard] =
                            [first.key(), first.get(), &shard].map(|it| name(it));
                        let twice =
                            format!("tensor {tensor} is listed twice, in {first} and {shard}");
                        return Err(A::Error::custom(twice));
                    }
                };
            }
            Ok(map)
        }
    }

    json.deserialize_map(EachOnce)
}
