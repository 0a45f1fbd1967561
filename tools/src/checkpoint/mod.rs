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
//! A format's reader (`safetensors.rs`, `pytorch.rs`, `gguf.rs`) only finds the tensors in its files; names,
//! shapes, types, tying and contents are checked here, once for all formats. A new format is a new
//! file beside them and an arm in `open_source`.

mod adapter;
mod config;
mod digest;
mod dtype;
mod error;
mod expected;
mod gguf;
mod layout;
pub mod names;
mod pytorch;
mod safetensors;
mod shards;
mod storage;
mod tensor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use config::{Derived, Parsed, activation_name};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use storage::Layout;
pub use tensor::Tensor;

use cerebellum::format::Config;
use cerebellum::format::network::{self, Role, TensorId};
use cerebellum::terminal::name;
use expected::{Expected, expected};
use shards::Format;
use storage::{MappedFile, Source, StoredTensor, read_json};
use tensor::TensorInfo;

const CONFIG: &str = "config.json";
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The most rows of an embedding that count as padding: frameworks round up to a multiple of 128 for
/// each of up to 8 devices. More are not left out silently.
const MAX_PADDING: usize = 1024;

/// In the order they are looked for: of a directory with several, the first is read.
const DIRECTORY_FORMATS: [Format; 2] = [safetensors::FORMAT, pytorch::FORMAT];

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
    notes: Vec<String>,
    layout: Layout,
    bos_token_id: Option<u32>,
    derived: Derived,
}

impl Checkpoint {
    /// Opens a checkpoint: a GGUF file, or a Hugging Face model directory with
    /// `config.json` and the weights as `model.safetensors` or else as PyTorch's
    /// `pytorch_model.bin`, either in one file or in shards with their `….index.json`.
    ///
    /// The configuration is checked, and that every tensor it asks for is there, once, with the
    /// right shape and a type that can be decoded. Values are checked as they are read. The files
    /// stay mapped, and must not be changed while the checkpoint is open.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::NotFinite`] and [`Error::UnknownTensor`].
    pub fn open(path: &Path) -> Result<Self> {
        let Source { parsed, config_bytes, files, tensors, canonical, layout } = open_source(path)?;
        let Parsed { mut config, tied, bos_token_id, derived } = parsed;
        let mut stored = by_canonical_name(tensors, canonical, &files)?;
        let copied_head = head_is_copy(&stored, &files);
        let head = TensorId::outside(Role::Head).name();
        let tied_by_content = copied_head || !stored.contains_key(&head);
        config.tie_word_embeddings = tied.unwrap_or(tied_by_content);
        if config.tie_word_embeddings && copied_head {
            stored.remove(&head);
        }

        let expected = expected(&config);
        let layout = match layout {
            Some(layout) => layout,
            None => layout::detect(&expected, &stored, &files)?,
        };
        let (mut used, mut notes) = (Vec::new(), Vec::new());
        for expected in expected {
            let mut stored =
                stored.remove(&expected.name).ok_or_else(|| missing(path, &expected))?;
            notes.extend(leave_out_padding(&mut stored, &expected));
            used.push(check(stored, expected, layout, &config, &files)?);
        }
        let extra = extra_tensors(stored, &config, &files)?;
        let (path, tensors) = (path.to_owned(), used);
        Ok(Self {
            path,
            config,
            config_bytes,
            files,
            tensors,
            extra,
            notes,
            layout,
            bos_token_id,
            derived,
        })
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files it is read from: weights, their index, and the configuration.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self.files.iter().map(|file| file.path().to_owned()).collect();
        if self.path.is_dir() {
            let indexes = DIRECTORY_FORMATS.iter().map(|format| format.index);
            let beside = indexes.chain([CONFIG]).map(|name| self.path.join(name));
            files.extend(beside.filter(|path| path.exists()));
        }
        files
    }

    /// The checked configuration, as a model file has it.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The token that begins a text.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.bos_token_id
    }

    /// The tensors of a model file that follow from the configuration.
    pub fn derived(&self) -> &Derived {
        &self.derived
    }

    /// Canonical names of the tensors the model uses, in the order its forward pass uses them.
    pub fn tensor_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.iter().map(|info| info.name.as_str())
    }

    /// Names, as stored, of tensors the model does not use: worth a warning. Buffers of the causal
    /// mask, ALiBi's slopes and a tied head's second copy are not among them; a head that differs from the embedding
    /// although `config.json` ties the two is.
    pub fn extra_tensors(&self) -> &[String] {
        &self.extra
    }

    /// What was read otherwise than stored, one sentence each, to be shown to the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Which way round the file has linear layers. Reading by rows gives `[out, in]` for both.
    ///
    /// Where the format does not say, the shapes do: of each linear layer but attention's square
    /// `c_proj`, which goes with the rest.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether the head is the embedding. `tie_word_embeddings` decides where `config.json` has
    /// it. Where it has not, the head is tied unless `lm_head.weight` is there and differs.
    pub fn is_tied(&self) -> bool {
        self.config.tie_word_embeddings
    }

    /// The tensor that serves as head, `[vocab_size, n_embd]`.
    pub fn head(&self) -> TensorId {
        network::head(&self.config)
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
    if gguf::is_gguf(path) {
        return gguf::open(path);
    }
    if !path.is_dir() {
        return Err(Error::NotADirectory { path: path.to_owned() });
    }
    let config_path = path.join(CONFIG);
    if !config_path.exists() {
        adapter::refuse(path)?;
        return Err(Error::MissingConfig { path: config_path });
    }
    let config_bytes = read_json(&config_path, MAX_CONFIG_BYTES)?;
    let parsed = Parsed::parse(&config_bytes, &config_path)?;
    for format in &DIRECTORY_FORMATS {
        if let Some((files, tensors)) = shards::open(path, format)? {
            let canonical = names::canonical;
            return Ok(Source { parsed, config_bytes, files, tensors, canonical, layout: None });
        }
    }
    adapter::refuse(path)?;
    let names = DIRECTORY_FORMATS.iter().flat_map(|format| [format.single, format.index]);
    let looked_for = names.collect::<Vec<_>>().join(", ");
    Err(Error::MissingWeights { directory: path.to_owned(), looked_for })
}

/// Tensors by canonical name, without buffers.
fn by_canonical_name(
    tensors: Vec<StoredTensor>,
    canonical: fn(&str) -> String,
    files: &[MappedFile],
) -> Result<BTreeMap<String, StoredTensor>> {
    let wrapper = names::wrapper(tensors.iter().map(|tensor| tensor.name.as_str()));
    let mut map = BTreeMap::<String, StoredTensor>::new();
    for tensor in tensors {
        if names::is_adapter(&tensor.name) {
            let (file, tensor) = (files[tensor.file].path().to_owned(), tensor.name);
            return Err(Error::UnmergedAdapter { file, tensor });
        }
        let name = canonical(&tensor.name[wrapper.len()..]);
        if names::is_buffer(&name, &tensor.shape) {
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
    let get = |role| tensors.get(&TensorId::outside(role).name());
    match (get(Role::Head), get(Role::Embedding)) {
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
    if (a.file, &a.bytes) == (b.file, &b.bytes) {
        return true; // two names of one storage
    }
    let bytes = |tensor: &StoredTensor| &files[tensor.file].bytes()[tensor.bytes.clone()];
    let same = bytes(a) == bytes(b);
    for tensor in [a, b] {
        files[tensor.file].release(tensor.bytes.clone());
    }
    same
}

fn missing(path: &Path, expected: &Expected) -> Error {
    let hint = match expected.id {
        TensorId { role: Role::Head, .. } => {
            "config.json says `tie_word_embeddings` is false, so the head needs a matrix"
        }
        TensorId { layer: Some(_), .. } => {
            "the configuration asks for it (`n_layer`); a shard or part of the download may be missing"
        }
        _ => "every GPT-2-family model has it; a shard or part of the download may be missing",
    };
    Error::MissingTensor { tensor: expected.name.clone(), location: path.to_owned(), hint }
}

/// Shortens an embedding or head with more rows than the vocabulary to those of its tokens, and says
/// so. Training frameworks round the number of rows up; no token has the rows that they add.
fn leave_out_padding(stored: &mut StoredTensor, expected: &Expected) -> Option<String> {
    let (&[rows, width], &[vocab_size, n_embd]) = (&stored.shape[..], &expected.shape[..]) else {
        return None;
    };
    let is_table = matches!(expected.id.role, Role::Embedding | Role::Head);
    if !is_table || width != n_embd || !(vocab_size + 1..=vocab_size + MAX_PADDING).contains(&rows)
    {
        return None;
    }
    let row_bytes = stored.bytes.len() / rows;
    stored.shape[0] = vocab_size;
    stored.bytes.end = stored.bytes.start + vocab_size * row_bytes;
    let (tensor, extra) = (name(&stored.name), rows - vocab_size);
    Some(format!(
        "the last {extra} rows of {tensor} are left out as padding: it has {rows}, but \
         `vocab_size` is {vocab_size}"
    ))
}

/// Checks a stored tensor against what the configuration asks for.
fn check(
    stored: StoredTensor,
    expected: Expected,
    layout: Layout,
    config: &Config,
    files: &[MappedFile],
) -> Result<TensorInfo> {
    let file = || files[stored.file].path().to_owned();
    if stored.shape != expected.stored_shape(layout) {
        return Err(wrong_shape(&stored, expected, layout, config, file()));
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
        transposed: expected.linear && layout == Layout::Conv1d,
        file: stored.file,
        bytes: stored.bytes,
    })
}

fn wrong_shape(
    stored: &StoredTensor,
    expected: Expected,
    layout: Layout,
    config: &Config,
    file: PathBuf,
) -> Error {
    let tensor = stored.name.clone();
    let vocabulary = matches!(expected.id.role, Role::Embedding | Role::Head);
    match stored.shape[..] {
        [rows, width] if vocabulary && width == config.n_embd => {
            Error::VocabularySize { file, tensor, rows, vocab_size: config.vocab_size }
        }
        _ => Error::WrongShape {
            file,
            tensor,
            expected: expected.stored_shape(layout),
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
