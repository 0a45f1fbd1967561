//! Everything that can be wrong with a checkpoint, each with what to do about it.
//!
//! Names from files are shown by [`name`] and [`quoted`]: a tensor's name must neither forge a line nor
//! give orders to a terminal.

use std::path::{Component, Path, PathBuf};

use cerebellum::terminal::{name, quoted, text};
use thiserror::Error;

use crate::dtype::Dtype;

/// Why a checkpoint could not be opened or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, read or map a file.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The path is missing, or is neither a directory nor a GGUF file.
    #[error(
        "{path} {is}: give the directory that holds config.json and the weights, or a GGUF file{hub}",
        path = path.display(),
        is = what_it_is(path),
        hub = name_on_hub(path)
    )]
    NotADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// The directory has no configuration.
    #[error(
        "{path} is missing: give a Hugging Face model directory (config.json and weights)",
        path = path.display()
    )]
    MissingConfig {
        /// Where the configuration was looked for.
        path: PathBuf,
    },
    /// The directory has no weights in a format this reader knows.
    #[error(
        "no weights in {directory} (looked for {looked_for}): download the weights next to \
         config.json",
        directory = directory.display()
    )]
    MissingWeights {
        /// The checkpoint's directory.
        directory: PathBuf,
        /// The file names that were tried.
        looked_for: String,
    },
    /// The directory holds an adapter, which is no model by itself.
    #[error(
        "{path} is an adapter (PEFT, LoRA), no model: it changes {base}; merge it into that model \
         (`PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(DIR)`) and \
         give DIR",
        path = path.display(),
        base = base.as_ref().map_or("its base model".to_owned(), |base| format!("the model {}", quoted(base)))
    )]
    Adapter {
        /// The file that shows it.
        path: PathBuf,
        /// The base model, if the adapter's configuration names it.
        base: Option<String>,
    },
    /// The weights contain matrices of an adapter beside those of the model.
    #[error(
        "{file}: tensor {tensor} is part of an adapter (LoRA) that was not merged into the model: \
         call `model.merge_and_unload()` before saving it",
        file = file.display(),
        tensor = name(tensor)
    )]
    UnmergedAdapter {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
    },
    /// Something other than a regular file (a directory, a pipe, a device) bears a file's name.
    #[error("{path} is not a regular file: put the downloaded file in its place", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A Git LFS pointer lies where the file's content should be.
    #[error(
        "{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository",
        path = path.display()
    )]
    LfsPointer {
        /// The pointer file.
        path: PathBuf,
    },
    /// A JSON file is larger than any genuine one, so it is not parsed.
    #[error(
        "{path} has {found} bytes, more than the {limit} such a file can have: it is not what its \
         name says; download it again",
        path = path.display()
    )]
    JsonTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// The largest size accepted, in bytes.
        limit: u64,
    },
    /// A JSON file does not parse.
    #[error(
        "{path} is not the JSON expected: {}; download it again",
        name(&source.to_string()),
        path = path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser objects to, with line and column.
        source: serde_json::Error,
    },
    /// A field of the configuration is missing, of the wrong type or out of bounds.
    #[error(
        "{path}: `{field}` {problem}",
        path = path.display(),
        field = name(field),
        problem = text(problem)
    )]
    ConfigField {
        /// The configuration file.
        path: PathBuf,
        /// The field at fault.
        field: String,
        /// What is wrong with it and what is accepted.
        problem: String,
    },
    /// The model is of a family this project does not run.
    #[error(
        "{path}: `{field}` is {found}, which is not supported; supported: {supported}",
        path = path.display(),
        found = quoted(found)
    )]
    UnsupportedModelType {
        /// The configuration file.
        path: PathBuf,
        /// The field that says so.
        field: &'static str,
        /// The value found.
        found: String,
        /// The values accepted.
        supported: String,
    },
    /// The activation function is not one of those implemented.
    #[error(
        "{path}: `{field}` is {found}, which is not supported; supported: {supported}",
        path = path.display(),
        found = quoted(found)
    )]
    UnsupportedActivation {
        /// The configuration file.
        path: PathBuf,
        /// The field that says so.
        field: &'static str,
        /// The value found.
        found: String,
        /// The values accepted.
        supported: String,
    },
    /// A safetensors file is cut short, has bytes to spare, or has a damaged header.
    #[error(
        "{path} is truncated or damaged ({}): compare its size with the original and \
         download it again",
        name(&source.to_string()),
        path = path.display()
    )]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the format's own check objects to.
        source: safetensors::SafeTensorError,
    },
    /// A GGUF file is cut short, damaged, or contradicts itself.
    #[error(
        "{path} is no GGUF file that can be read: {source}; compare its size with the original and \
         download it again, or convert the model again",
        path = path.display()
    )]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: crate::gguf::Invalid,
    },
    /// A PyTorch file is no archive that can be read: cut short, damaged, or something else.
    #[error(
        "{path} is truncated or damaged, or not from torch.save ({source}): compare its size with \
         the original and download it again",
        path = path.display()
    )]
    Zip {
        /// The file.
        path: PathBuf,
        /// What the archive's reader objects to.
        source: zip::result::ZipError,
    },
    /// An entry of a PyTorch archive is not as `torch.save` writes it.
    #[error(
        "{path}: entry {entry} {problem}: torch.save writes no such archive; download it again, \
         or get the weights as safetensors",
        path = path.display(),
        entry = quoted(entry)
    )]
    ZipEntry {
        /// The file.
        path: PathBuf,
        /// The entry's name in the archive.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A PyTorch file ends before its tensors do.
    #[error(
        "{path} is truncated: compare its size with the original and download it again",
        path = path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// A pickle holds something other than a state dict, or is damaged.
    #[error(
        "{path} holds no state dict that can be read (byte {at} of its pickle: {problem}): save \
         `model.state_dict()`, best as safetensors, or download it again",
        path = path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
        /// How far the pickle was read.
        at: usize,
        /// What stands there.
        problem: String,
    },
    /// A pickle names a class or function that no state dict needs. It was not called.
    #[error(
        "{path} names {class}, which is no part of a state dict: loaded by Python, such a file can \
         run any code, and nothing of it is used; get the weights as safetensors from a source you \
         trust",
        path = path.display(),
        class = name(class)
    )]
    PickleClass {
        /// The file.
        path: PathBuf,
        /// The name, with its module.
        class: String,
    },
    /// A tensor of a PyTorch file is no plain part of its storage.
    #[error(
        "{file}: tensor {tensor} cannot be read: {problem}; save the checkpoint again, best as \
         safetensors",
        file = file.display(),
        tensor = name(tensor)
    )]
    TensorStorage {
        /// The file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// The index names a shard that is not there.
    #[error(
        "shard {shard} is missing, though {index} names it: download it into the same directory",
        shard = shard.display(),
        index = index.display()
    )]
    MissingShard {
        /// The missing file.
        shard: PathBuf,
        /// The index that names it.
        index: PathBuf,
    },
    /// The index names a shard outside the checkpoint's directory.
    #[error(
        "{index} names the shard {shard}, which is not a plain file name: shards must lie \
         beside their index",
        index = index.display(),
        shard = quoted(shard)
    )]
    ShardPath {
        /// The index.
        index: PathBuf,
        /// The name found.
        shard: String,
    },
    /// The index places a tensor in a shard that does not contain it.
    #[error(
        "{index} places tensor {tensor} in {shard}, which does not contain it: the index and the \
         shards are from different versions; download both again",
        index = index.display(),
        shard = shard.display(),
        tensor = name(tensor)
    )]
    IndexMismatch {
        /// The index.
        index: PathBuf,
        /// The tensor, by its name in the index.
        tensor: String,
        /// The shard that should contain it.
        shard: PathBuf,
    },
    /// Two tensors have the same name once a `transformer.` prefix is taken off.
    #[error(
        "tensor {tensor} is stored twice, in {first} and in {second}: remove one of the two",
        first = first.display(),
        second = second.display(),
        tensor = name(tensor)
    )]
    DuplicateTensor {
        /// The canonical name.
        tensor: String,
        /// The file that holds the first.
        first: PathBuf,
        /// The file that holds the second (may be the same).
        second: PathBuf,
    },
    /// The model needs a tensor that no file has.
    #[error(
        "tensor {tensor} is missing from {location}: {hint}",
        location = location.display()
    )]
    MissingTensor {
        /// The canonical name.
        tensor: String,
        /// The checkpoint's directory.
        location: PathBuf,
        /// Which field of the configuration asks for it.
        hint: String,
    },
    /// A tensor's shape contradicts the configuration.
    #[error(
        "{file}: tensor {tensor} has shape {found}, but the configuration asks for {expected}: \
         the two are not from the same model; download both again",
        file = file.display(),
        tensor = name(tensor),
        expected = shape(expected),
        found = shape(found)
    )]
    WrongShape {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The shape that follows from the configuration, as stored.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Some linear layers are stored `[in, out]`, some `[out, in]`.
    #[error(
        "{file}: tensor {tensor} is transposed in relation to {other}: square matrices could be \
         either way round, so the checkpoint cannot be read; save all linear layers as GPT-2 does, \
         [in, out]",
        file = file.display(),
        tensor = name(tensor),
        other = name(other)
    )]
    MixedLayouts {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// A tensor that is the other way round.
        other: String,
    },
    /// The embedding has fewer rows than the vocabulary, or many more.
    #[error(
        "{file}: tensor {tensor} has {rows} rows, but `vocab_size` is {vocab_size}: take both from \
         the same model, or set `vocab_size` in config.json to {rows}",
        file = file.display(),
        tensor = name(tensor)
    )]
    VocabularySize {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The rows found.
        rows: usize,
        /// The rows the configuration asks for.
        vocab_size: usize,
    },
    /// A tensor belongs to a layer beyond the configuration's last.
    #[error(
        "{file}: tensor {tensor} belongs to a layer beyond `{field}` = {n_layer} in the \
         configuration: the two are not from the same model; download both again",
        file = file.display(),
        tensor = name(tensor)
    )]
    UnexpectedLayer {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The field with the number of layers.
        field: &'static str,
        /// The number of layers in the configuration.
        n_layer: usize,
    },
    /// A tensor belongs to a layer, but the configuration asks for no such tensor.
    #[error(
        "{file}: tensor {tensor} would change what its layer computes, but the configuration asks for \
         no such tensor: the two are not from the same model, or the model is a variant that is not \
         supported",
        file = file.display(),
        tensor = name(tensor)
    )]
    UnusedTensor {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
    },
    /// A weight is stored in a type this reader does not decode.
    #[error(
        "{file}: tensor {tensor} is stored as {found}, which is not supported: take or save the \
         same model as F32, F16 or BF16, or as GGUF with {}",
        block_types(),
        file = file.display(),
        tensor = name(tensor),
        found = name(found)
    )]
    UnsupportedDtype {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The type found.
        found: String,
    },
    /// A weight is not a number, or infinite.
    #[error(
        "{file}: tensor {tensor} holds {value} at index {index}: the checkpoint is damaged or \
         its training diverged; it cannot be converted",
        file = file.display(),
        tensor = name(tensor),
        index = shape(index)
    )]
    NotFinite {
        /// The file that holds the tensor.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The value: NaN or an infinity.
        value: f32,
        /// Where, in the stored shape.
        index: Vec<usize>,
    },
    /// A tensor was asked for that a model of this configuration does not have.
    #[error("{location} has no tensor named {tensor}: see `tensor_names` for those it has", location = location.display(), tensor = name(tensor))]
    UnknownTensor {
        /// The name asked for.
        tensor: String,
        /// The checkpoint's directory.
        location: PathBuf,
    },
}

/// What a path is that is no checkpoint.
fn what_it_is(path: &Path) -> &'static str {
    match path.extension() {
        _ if !path.exists() => "does not exist",
        Some(extension) if extension == "cbl" => "is a model file, no checkpoint",
        _ => "is not a directory",
    }
}

/// The name on the hub of what was given as `ORG/NAME` and is not on the disk.
fn name_on_hub(path: &Path) -> String {
    let words = path.components().all(|part| matches!(part, Component::Normal(_)));
    if !words || path.components().count() != 2 || path.exists() {
        return String::new();
    }
    format!("; a model on the hub is named hf:{}", path.display())
}

/// A shape, of which a file may have as many dimensions as it likes.
fn shape(extents: &[usize]) -> String {
    name(&format!("{extents:?}")).to_string()
}

/// ggml's types that are decoded.
fn block_types() -> String {
    let types = Dtype::all().filter(|dtype| dtype.block_elements() > 1);
    types.map(Dtype::name).collect::<Vec<_>>().join(", ")
}

/// A result of reading a checkpoint.
pub type Result<T, E = Error> = std::result::Result<T, E>;
