//! A checkpoint in a GGUF file: weights, configuration and tokenizer in one.
//!
//! The configuration is put in terms of `config.json` and checked as one, with the errors naming the
//! file's own keys.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::config::Parsed;
use super::error::{Error, Result};
use super::storage::{Layout, MappedFile, Source, StoredTensor};
use crate::gguf::{Gguf, MAGIC, TensorEntry, Value, gpt2, keys};

const EMBEDDING: &str = "token_embd.weight";

/// Whether this is a file that means to be GGUF, by name or by its first bytes.
pub(super) fn is_gguf(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let mut magic = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    path.extension().is_some_and(|extension| extension == "gguf") || read.is_ok() && magic == *MAGIC
}

pub(super) fn open(path: &Path) -> Result<Source> {
    let file = MappedFile::open(path)?;
    let gguf = Gguf::parse(file.bytes())
        .map_err(|source| Error::Gguf { path: path.to_owned(), source })?;
    check_kind(&gguf, path)?;
    let config_bytes = serde_json::to_vec(&config(&gguf, path)?).expect("a map of plain values");
    let parsed = Parsed::parse(&config_bytes, path).map_err(with_key)?;
    let tensors = gguf.tensors().iter().cloned().map(stored).collect();
    let (files, canonical, layout) = (vec![file], gpt2::canonical, Some(Layout::Linear));
    Ok(Source { parsed, config_bytes, files, tensors, canonical, layout })
}

fn check_kind(gguf: &Gguf, path: &Path) -> Result<()> {
    let path = path.to_owned();
    match gguf.get(keys::ARCHITECTURE) {
        Some(Value::Text(gpt2::ARCHITECTURE)) => {}
        Some(Value::Text(found)) => {
            let (found, supported) = (found.to_owned(), gpt2::ARCHITECTURE.to_owned());
            return Err(Error::UnsupportedModelType {
                path,
                field: keys::ARCHITECTURE,
                found,
                supported,
            });
        }
        _ => {
            let problem = format!("is missing: only models of {} are read", gpt2::ARCHITECTURE);
            return Err(Error::ConfigField { path, field: keys::ARCHITECTURE, problem });
        }
    }
    match gguf.get(keys::SPLIT_COUNT) {
        Some(Value::Int(count)) if count > 1 => {
            let problem = format!("is {count}: merge the parts by `llama-gguf-split --merge`");
            Err(Error::ConfigField { path, field: keys::SPLIT_COUNT, problem })
        }
        _ => Ok(()),
    }
}

/// The metadata as a `config.json`.
fn config(gguf: &Gguf, path: &Path) -> Result<Map<String, Json>> {
    let mut map = Map::new();
    map.insert("model_type".to_owned(), gpt2::ARCHITECTURE.into());
    for (field, key) in gpt2::KEYS {
        let value = match gguf.get(key) {
            None => continue,
            Some(Value::Int(value)) => value.into(),
            Some(Value::Float(value)) => value.into(),
            Some(Value::Text(value)) => value.into(),
            Some(Value::Bool(value)) => value.into(),
            Some(Value::Array(_)) => {
                let problem = "is an array, but must be one value".to_owned();
                return Err(Error::ConfigField { path: path.to_owned(), field: key, problem });
            }
        };
        map.insert(field.to_owned(), value);
    }
    // No key is sure to say how large the vocabulary is; the embedding is.
    let embedding = gguf.tensors().iter().find(|tensor| tensor.name == EMBEDDING);
    match embedding.map(|tensor| &tensor.shape[..]) {
        Some([rows, _]) => drop(map.insert("vocab_size".to_owned(), (*rows).into())),
        _ => {
            let (tensor, location) = (EMBEDDING.to_owned(), path.to_owned());
            let hint = "every GPT-2 model has it, a matrix; convert the model again";
            return Err(Error::MissingTensor { tensor, location, hint });
        }
    }
    Ok(map)
}

/// The error with the file's key in place of the field of `config.json`.
fn with_key(error: Error) -> Error {
    match error {
        Error::ConfigField { path, field, problem } => {
            let key = gpt2::KEYS.iter().find(|(known, _)| *known == field);
            Error::ConfigField { path, field: key.map_or(field, |(_, key)| key), problem }
        }
        other => other,
    }
}

fn stored(tensor: TensorEntry) -> StoredTensor {
    let TensorEntry { name, shape, dtype, bytes } = tensor;
    StoredTensor { name, dtype, shape, file: 0, bytes }
}
