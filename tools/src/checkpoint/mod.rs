//! Reading trained checkpoints: a directory becomes a checked configuration and float32 tensors.
//!
//! ```no_run
//! # fn main() -> Result<(), cerebellum_tools::checkpoint::Error> {
//! use cerebellum_tools::checkpoint::Checkpoint;
//!
//! let checkpoint = Checkpoint::open("Cerebras-GPT-111M".as_ref())?;
//! for name in checkpoint.tensor_names() {
//!     let tensor = checkpoint.tensor(name)?;
//!     for first in (0..tensor.rows()).step_by(16) {
//!         let last = tensor.rows().min(first + 16);
//!         let rows: Vec<f32> = tensor.read_rows(first..last)?; // [last - first, columns]
//!         println!("{name} {first}: {:?}", &rows[..4]);
//!     }
//! } // dropping `tensor` gives the memory of its pages back
//! # Ok(())
//! # }
//! ```
//!
//! A format's reader (`safetensors.rs`) only finds the tensors in its files; names, shapes, types,
//! tying and contents are checked here, once for all formats. A new format is a new file beside
//! it and an arm in `open_source`.

mod config;
mod digest;
mod error;
mod expected;
pub mod names;
mod safetensors;
mod storage;
mod tensor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use config::{Activation, Architecture, Config};
pub use error::{Error, Result};
pub use storage::Dtype;
pub use tensor::Tensor;

use expected::{Expected, expected};
use names::{EMBEDDING, HEAD};
use storage::{MappedFile, Source, StoredTensor, read_json};
use tensor::TensorInfo;

const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// An opened checkpoint: its configuration, and its tensors to be read one by one.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    config: Config,
    config_bytes: Vec<u8>,
    files: Vec<MappedFile>,
    /// The tensors the model uses, in canonical order.
    tensors: Vec<TensorInfo>,
    extra: Vec<String>,
    tied: bool,
}

impl Checkpoint {
    /// Opens a Hugging Face model directory: `config.json`, and `model.safetensors` or shards with
    /// their `model.safetensors.index.json`.
    ///
    /// The configuration is checked, and that every tensor it asks for is there, once, with the
    /// right shape and a type that can be decoded. Values are checked as they are read. The files
    /// stay mapped, and must not be changed while the checkpoint is open.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotFinite`] and [`Error::UnknownTensor`].
    pub fn open(path: &Path) -> Result<Self> {
        let Source { config, config_bytes, files, tensors } = open_source(path)?;
        let mut stored = by_canonical_name(tensors, &files)?;
        let copied_head = head_is_copy(&stored, &files);
        let tied_by_content = copied_head || !stored.contains_key(HEAD);
        let tied = config.tie_word_embeddings.unwrap_or(tied_by_content);
        if tied && copied_head {
            stored.remove(HEAD);
        }

        let mut used = Vec::new();
        for expected in expected(&config, tied) {
            let stored = stored.remove(&expected.name).ok_or_else(|| missing(path, &expected))?;
            used.push(check(stored, expected, &config, &files)?);
        }
        let extra = extra_tensors(stored, &config, &files)?;
        Ok(Self { path: path.to_owned(), config, config_bytes, files, tensors: used, extra, tied })
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files it is read from: weights and configuration.
    pub fn files(&self) -> Vec<PathBuf> {
        let weights = self.files.iter().map(|file| file.path().to_owned());
        weights.chain([self.path.join("config.json")]).collect()
    }

    /// The checked configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Canonical names of the tensors the model uses, in the order its forward pass uses them.
    pub fn tensor_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|info| info.name.as_str())
    }

    /// Names, as stored, of tensors the model does not use: worth a warning. Buffers of the causal
    /// mask and a tied head's second copy are not among them; a head that differs from the embedding
    /// although `config.json` ties the two is.
    pub fn extra_tensors(&self) -> &[String] {
        &self.extra
    }

    /// Whether the head is the embedding. `tie_word_embeddings` decides where `config.json` has
    /// it. Where it has not, the head is tied unless `lm_head.weight` is there and differs.
    pub fn is_tied(&self) -> bool {
        self.tied
    }

    /// The tensor that serves as head, `[vocab_size, n_embd]`.
    pub fn head_name(&self) -> &'static str {
        if self.tied { EMBEDDING } else { HEAD }
    }

    /// A handle on a tensor, to read it by rows.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`] if the model has no tensor of this canonical name.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let info = self.tensors.iter().find(|info| info.name == name).ok_or_else(|| {
            Error::UnknownTensor { tensor: name.to_owned(), location: self.path.clone() }
        })?;
        Ok(self.handle(info))
    }

    /// A tensor's shape as stored, row-major.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor).
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.tensor(name)?.shape().to_owned())
    }

    /// All elements of a tensor in stored order.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and [`Error::NotFinite`].
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.tensor(name)?.read_f32()
    }

    /// All rows of a tensor as used: a linear layer's weight is `[out, in]`.
    ///
    /// # Errors
    /// As [`tensor`](Self::tensor), and [`Error::NotFinite`].
    pub fn read_matrix(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        tensor.read_rows(0..tensor.rows())
    }

    /// BLAKE3 of the content the model depends on: `config.json`, and the tensors used with their
    /// names, types and shapes. The same for the same tensors in one file or in shards.
    pub fn digest(&self) -> blake3::Hash {
        digest::digest(self)
    }

    fn handle<'a>(&'a self, info: &'a TensorInfo) -> Tensor<'a> {
        Tensor::new(info, &self.files[info.file])
    }
}

/// Finds out the format and reads its tables.
fn open_source(path: &Path) -> Result<Source> {
    if !path.is_dir() {
        return Err(Error::NotADirectory { path: path.to_owned() });
    }
    let config_path = path.join("config.json");
    if !config_path.exists() {
        return Err(Error::MissingConfig { path: config_path });
    }
    let config_bytes = read_json(&config_path, MAX_CONFIG_BYTES)?;
    let config = Config::parse(&config_bytes, &config_path)?;
    let (files, tensors) = safetensors::open(path)?.ok_or_else(|| Error::MissingWeights {
        directory: path.to_owned(),
        looked_for: format!("{}, {}", safetensors::SINGLE, safetensors::INDEX),
    })?;
    Ok(Source { config, config_bytes, files, tensors })
}

/// Tensors by canonical name, without the buffers of the causal mask.
fn by_canonical_name(
    tensors: Vec<StoredTensor>,
    files: &[MappedFile],
) -> Result<BTreeMap<String, StoredTensor>> {
    let mut map = BTreeMap::<String, StoredTensor>::new();
    for tensor in tensors {
        let name = names::canonical(&tensor.name).to_owned();
        if names::is_mask_buffer(&name, &tensor.shape) {
            continue;
        }
        if let Some(first) = map.get(&name) {
            let (first, second) = (files[first.file].path(), files[tensor.file].path());
            let (first, second) = (first.to_owned(), second.to_owned());
            return Err(Error::DuplicateTensor { tensor: name, first, second });
        }
        map.insert(name, tensor);
    }
    Ok(map)
}

/// Whether there is a head that only repeats the embedding.
fn head_is_copy(tensors: &BTreeMap<String, StoredTensor>, files: &[MappedFile]) -> bool {
    match (tensors.get(HEAD), tensors.get(EMBEDDING)) {
        (Some(head), Some(embedding)) => same_content(head, embedding, files),
        _ => false,
    }
}

/// Whether two tensors are equal byte for byte. Copies are saved with one type, so that tensors of
/// different types count as different.
fn same_content(a: &StoredTensor, b: &StoredTensor, files: &[MappedFile]) -> bool {
    if (&a.dtype, &a.shape) != (&b.dtype, &b.shape) {
        return false;
    }
    let bytes = |tensor: &StoredTensor| &files[tensor.file].bytes()[tensor.bytes.clone()];
    let same = bytes(a) == bytes(b);
    for tensor in [a, b] {
        files[tensor.file].release(tensor.bytes.clone());
    }
    same
}

fn missing(path: &Path, expected: &Expected) -> Error {
    let hint = match expected.name.as_str() {
        HEAD => "config.json says `tie_word_embeddings` is false, so the head needs a matrix",
        name if names::layer(name).is_some() => {
            "config.json asks for it (`n_layer`); a shard or part of the download may be missing"
        }
        _ => "every GPT-2-family model has it; a shard or part of the download may be missing",
    };
    Error::MissingTensor { tensor: expected.name.clone(), location: path.to_owned(), hint }
}

/// Checks a stored tensor against what the configuration asks for.
fn check(
    stored: StoredTensor,
    expected: Expected,
    config: &Config,
    files: &[MappedFile],
) -> Result<TensorInfo> {
    let file = || files[stored.file].path().to_owned();
    if stored.shape != expected.shape {
        return Err(wrong_shape(&stored, expected, config, file()));
    }
    let dtype = stored.dtype.clone().map_err(|found| Error::UnsupportedDtype {
        file: file(),
        tensor: stored.name.clone(),
        found,
    })?;
    Ok(TensorInfo {
        name: expected.name,
        stored_name: stored.name,
        dtype,
        shape: stored.shape,
        conv1d: expected.conv1d,
        file: stored.file,
        bytes: stored.bytes,
    })
}

fn wrong_shape(stored: &StoredTensor, expected: Expected, config: &Config, file: PathBuf) -> Error {
    let tensor = stored.name.clone();
    let vocabulary = expected.name == EMBEDDING || expected.name == HEAD;
    match stored.shape[..] {
        [rows, width] if vocabulary && width == config.n_embd => {
            Error::VocabularySize { file, tensor, rows, vocab_size: config.vocab_size }
        }
        _ => Error::WrongShape {
            file,
            tensor,
            expected: expected.shape,
            found: stored.shape.clone(),
        },
    }
}

/// What is left once the model has taken its tensors: stored names, sorted.
///
/// A layer too many is an error: the configuration would silently cut the model short.
fn extra_tensors(
    left: BTreeMap<String, StoredTensor>,
    config: &Config,
    files: &[MappedFile],
) -> Result<Vec<String>> {
    let mut extra = Vec::new();
    for (name, tensor) in left {
        if names::layer(&name).is_some_and(|layer| layer >= config.n_layer) {
            return Err(Error::UnexpectedLayer {
                file: files[tensor.file].path().to_owned(),
                tensor: tensor.name,
                n_layer: config.n_layer,
            });
        }
        extra.push(tensor.name);
    }
    extra.sort();
    Ok(extra)
}
