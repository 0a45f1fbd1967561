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
//! file beside them and an arm in `open_source`. A new family is a function in `config/`, a table in
//! `names.rs`, and a line and a table for GGUF.
//!
//! A tensor of the model may be made of several of the file's, or of a part of one: queries, keys and values
//! are one matrix here and three in most files. `names.rs` says which, `tensor.rs` reads their rows.

mod adapter;
mod config;
mod digest;
mod error;
pub(crate) mod expected;
pub(crate) mod gguf;
mod layout;
pub mod names;
mod pytorch;
mod safetensors;
mod shards;
mod storage;
pub(crate) mod tensor;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
pub(crate) use adapter::CONFIG as ADAPTER_CONFIG;
#[cfg(feature = "hub")]
pub(crate) use shards::listed as listed_shards;

pub use config::{Base, Derived, Parsed, Scaling, activation_name};
pub use error::{Error, Result};
pub use storage::Layout;
pub use tensor::Tensor;

pub use crate::dtype::Dtype;

use cerebellum::format::network::{self, Role, TensorId};
use cerebellum::format::{Architecture, Config};
use cerebellum::terminal::name;
use expected::{Expected, ExpectedPiece, expected};
use names::Names;
use shards::Format;
use storage::{MappedFile, Source, StoredTensor, read_json};
use tensor::{Segment, TensorInfo};

pub(crate) const CONFIG: &str = "config.json";
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The most rows of an embedding that count as padding: frameworks round up to a multiple of 128 for
/// each of up to 8 devices. More are not left out silently.
const MAX_PADDING: usize = 1024;

/// In the order they are looked for: of a directory with several, the first is read.
const DIRECTORY_FORMATS: [Format; 2] = [safetensors::FORMAT, pytorch::FORMAT];

/// Names of the files with the weights in a directory, the preferred format first: the one file, and the index of
/// shards that stands for it.
#[cfg(feature = "hub")]
pub(crate) fn weight_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    DIRECTORY_FORMATS.iter().map(|format| (format.single, format.index))
}

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
    bases: Vec<Base>,
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
        let Source { parsed, config_bytes, files, tensors, names, layout } = open_source(path)?;
        let Parsed { mut config, tied, bos_token_id, derived, bases } = parsed;
        let mut notes = Vec::new();
        let mut stored = by_bare_name(tensors, names, &files, &mut notes)?;
        let bare = |role| names.pieces(TensorId::outside(role)).swap_remove(0).0;
        let (head, embedding) = (bare(Role::Head), bare(Role::Embedding));
        let copied_head = is_copy(stored.get(&head), stored.get(&embedding), &files);
        let tied_by_content = copied_head || !stored.contains_key(&head);
        config.tie_word_embeddings = tied.unwrap_or(tied_by_content);
        if config.tie_word_embeddings && copied_head {
            stored.remove(&head);
        }

        let expected = expected(&config, names);
        let layout = match layout {
            Some(layout) => layout,
            None => layout::detect(&expected, &stored, &files)?,
        };
        let mut used = Vec::new();
        let mut left: BTreeSet<&str> = stored.keys().map(String::as_str).collect();
        for expected in expected {
            let mut pieces = Vec::new();
            for piece in &expected.pieces {
                let found = stored.get(&piece.name);
                let found = found.ok_or_else(|| missing(path, &expected, piece, names))?;
                left.remove(piece.name.as_str());
                pieces.push(found.clone());
            }
            if let [piece] = &mut pieces[..] {
                notes.extend(leave_out_padding(piece, &expected));
            }
            used.push(check(pieces, expected, layout, &config, &files)?);
        }
        let extra = left.into_iter().map(|name| (name, &stored[name])).collect();
        let extra = extra_tensors(extra, &config, names, &files)?;
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
            bases,
        })
    }

    /// The path it was opened from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the model is called: the last part of the path, or in a cache of the hub the repository's name instead of
    /// the commit's.
    pub fn name(&self) -> Option<&str> {
        fn text(path: &Path) -> Option<&str> {
            path.file_name()?.to_str()
        }
        let above = self.path.parent().filter(|above| text(above) == Some("snapshots"));
        let repository = above.and_then(Path::parent).and_then(text);
        match repository.and_then(|name| name.strip_prefix("models--")) {
            Some(repository) => repository.rsplit("--").next(),
            None => text(&self.path),
        }
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

    /// What the inverse frequencies of rotated positions follow from, base after base.
    pub fn bases(&self) -> &[Base] {
        &self.bases
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
        let tensors = self.tensors.iter().map(|info| (info, self.handle(info)));
        digest::digest(&self.config_bytes, tensors)
    }

    fn handle<'a>(&'a self, info: &'a TensorInfo) -> Tensor<'a> {
        Tensor::new(info, &self.files)
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
            let architecture = parsed.config.architecture;
            let names = Names::of(architecture);
            // GPT-2's come both ways.
            let is_gpt2 = matches!(architecture, Architecture::Gpt2 | Architecture::Btlm);
            let layout = (!is_gpt2).then_some(Layout::Linear);
            return Ok(Source { parsed, config_bytes, files, tensors, names, layout });
        }
    }
    adapter::refuse(path)?;
    let names = DIRECTORY_FORMATS.iter().flat_map(|format| [format.single, format.index]);
    let looked_for = names.collect::<Vec<_>>().join(", ");
    Err(Error::MissingWeights { directory: path.to_owned(), looked_for })
}

/// Tensors by bare name, without buffers and what belongs to no decoder, which a note tells.
fn by_bare_name(
    tensors: Vec<StoredTensor>,
    names: &Names,
    files: &[MappedFile],
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, StoredTensor>> {
    let wrapper = names::wrapper(tensors.iter().map(|tensor| tensor.name.as_str()));
    let mut map = BTreeMap::<String, StoredTensor>::new();
    let mut left_out = 0;
    for tensor in tensors {
        if names::is_adapter(&tensor.name) {
            let (file, tensor) = (files[tensor.file].path().to_owned(), tensor.name);
            return Err(Error::UnmergedAdapter { file, tensor });
        }
        let name = names.bare(&tensor.name[wrapper.len()..]).to_owned();
        if names.left_out.iter().any(|prefix| name.starts_with(prefix)) {
            left_out += 1;
            continue;
        }
        if names.is_buffer(&name, &tensor.shape) {
            continue;
        }
        if let Some(first) = map.get(&name) {
            let (first, second) = (files[first.file].path(), files[tensor.file].path());
            let (first, second) = (first.to_owned(), second.to_owned());
            return Err(Error::DuplicateTensor { tensor: name, first, second });
        }
        map.insert(name, tensor);
    }
    if left_out > 0 {
        notes.push(format!(
            "only the language model of the checkpoint is read: {left_out} tensors for images are \
             left out"
        ));
    }
    Ok(map)
}

/// Whether a head only repeats the embedding.
fn is_copy(
    head: Option<&StoredTensor>,
    embedding: Option<&StoredTensor>,
    files: &[MappedFile],
) -> bool {
    match (head, embedding) {
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

fn missing(path: &Path, expected: &Expected, piece: &ExpectedPiece, names: &Names) -> Error {
    let hint = match expected.id {
        TensorId { role: Role::Head, .. } => {
            "the configuration's `tie_word_embeddings` is false, so the head needs a matrix"
                .to_owned()
        }
        TensorId { layer: Some(_), .. } => format!(
            "each of the layers that the configuration asks for (`{}`) has one; a shard or part of \
             the download may be missing",
            names.count
        ),
        _ => "every model of this family has it; a shard or part of the download may be missing"
            .to_owned(),
    };
    Error::MissingTensor { tensor: piece.name.clone(), location: path.to_owned(), hint }
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

/// Checks the stored tensors that make a tensor against what the configuration asks for.
fn check(
    stored: Vec<StoredTensor>,
    expected: Expected,
    layout: Layout,
    config: &Config,
    files: &[MappedFile],
) -> Result<TensorInfo> {
    let mut segments = Vec::new();
    for (number, (stored, piece)) in stored.into_iter().zip(&expected.pieces).enumerate() {
        let file = || files[stored.file].path().to_owned();
        if stored.shape != expected.stored_shape(number, layout) {
            return Err(wrong_shape(&stored, &expected, number, layout, config, file()));
        }
        let unsupported =
            |found| Error::UnsupportedDtype { file: file(), tensor: stored.name.clone(), found };
        let dtype = stored.dtype.clone().map_err(unsupported)?;
        let mut segment = Segment {
            stored_name: stored.name.clone(),
            dtype,
            shape: stored.shape.clone(),
            skipped: 0,
            order: piece.order,
            file: stored.file,
            bytes: stored.bytes.clone(),
        };
        if piece.taken.len() < piece.stored_rows {
            let cut = segment.cut(piece.taken.clone());
            cut.ok_or_else(|| unsupported(format!("{}, of which a part is needed", dtype.name())))?;
        }
        segments.push(segment);
    }
    let transposed = expected.linear && layout == Layout::Conv1d;
    let shape = match &segments[..] {
        [segment] => segment.shape.clone(),
        _ => expected.shape.clone(),
    };
    let (name, used, offset) = (expected.name, expected.shape, expected.offset);
    Ok(TensorInfo { name, shape, used, transposed, offset, segments })
}

fn wrong_shape(
    stored: &StoredTensor,
    expected: &Expected,
    piece: usize,
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
            expected: expected.stored_shape(piece, layout),
            found: stored.shape.clone(),
        },
    }
}

/// What is left once the model has taken its tensors: stored names, sorted.
///
/// A layer too many is an error: the configuration would silently cut the model short. So is, of families
/// whose tensors are all known, a tensor in a layer that the configuration does not ask for.
fn extra_tensors(
    left: Vec<(&str, &StoredTensor)>,
    config: &Config,
    names: &Names,
    files: &[MappedFile],
) -> Result<Vec<String>> {
    let mut extra = Vec::new();
    for (bare, tensor) in left {
        let (file, name) = (|| files[tensor.file].path().to_owned(), tensor.name.clone());
        match names.split_layer(bare) {
            Some((layer, _)) if layer >= config.n_layer => {
                let (field, n_layer) = (names.count, config.n_layer);
                return Err(Error::UnexpectedLayer { file: file(), tensor: name, field, n_layer });
            }
            Some(_) if names.is_strict => {
                return Err(Error::UnusedTensor { file: file(), tensor: name });
            }
            _ => extra.push(name),
        }
    }
    extra.sort();
    Ok(extra)
}
