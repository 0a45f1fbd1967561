//! Writing a checkpoint as a GGUF file that llama.cpp can run.
//!
//! What entries and tensors are called, and how rows are ordered, are the tables that the reader of such files
//! uses too (`checkpoint/gguf.rs`). Tensors go through in chunks of rows, so that memory does not grow with
//! the model. The finished file is opened as a checkpoint before it gets its name: what is read must be what was
//! to be written.

mod error;
mod limits;
mod metadata;
mod precision;
mod tensors;
mod vocabulary;

use std::io::BufWriter;
use std::path::Path;

use cerebellum::format::{Architecture, Config};

use crate::chat_template::ImportedChat;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::gguf::Family;
use crate::gguf::{Header, TensorHead};
use crate::output::Output;
use crate::tokenizer::Vocabulary;
pub use error::WriteError;
use error::{Failure, beyond};
pub use precision::Precision;
use tensors::Planned;

/// What became of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Length of the file.
    pub file_bytes: u64,
    /// Number of its tensors.
    pub tensors: usize,
    /// In what llama.cpp's results will differ, one sentence each, to be shown to the user.
    pub warnings: Vec<String>,
}

/// Writes `checkpoint` into `output` as a GGUF file of llama.cpp's architecture for its family, with the
/// `tokenizer` if there is one, and with what `chat` says of conversations.
///
/// # Errors
/// [`WriteError`]. The output is removed then.
pub fn export(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Vocabulary>,
    chat: &ImportedChat,
    precision: Precision,
    mut output: Output,
) -> Result<Exported, WriteError> {
    let Some(family) = Family::of(checkpoint.config().architecture) else {
        return Err(beyond(checkpoint, "architecture", "model_type".to_owned()));
    };
    let mut warnings = limits::check(checkpoint, family)?;
    let mut header = Header::default();
    metadata::write(&mut header, checkpoint, family, precision);
    match tokenizer {
        Some(tokenizer) => {
            let size = checkpoint.config().vocab_size;
            warnings.extend(vocabulary::write(&mut header, tokenizer, size)?);
            warnings.extend(vocabulary::write_chat(&mut header, chat));
        }
        None => vocabulary::write_none(&mut header, family, checkpoint.config().vocab_size),
    }
    metadata::write_token_ids(&mut header, checkpoint, tokenizer);

    let tensors = tensors::plan(checkpoint, family, precision)?;
    let heads: Vec<TensorHead> = tensors.iter().map(Planned::head).collect();
    let header = header.finish(&heads);
    let end = tensors.last().expect("a model has tensors").end();
    let file_bytes = (header.len() + end) as u64;
    let mut file = BufWriter::new(output.file());
    let written = tensors::write(&mut file, &header, &tensors);
    drop(file);
    match written {
        Ok(()) => {}
        Err(Failure::Io(source)) => return Err(output.error("write", source).into()),
        Err(Failure::Other(error)) => return Err(error),
    }
    read_back(checkpoint, family, output.temporary())?;
    output.commit()?;
    Ok(Exported { file_bytes, tensors: tensors.len(), warnings })
}

/// Opens the file: our reader takes its keys as llama.cpp does, so that what it reads is what llama.cpp computes.
fn read_back(checkpoint: &Checkpoint, family: &Family, file: &Path) -> Result<(), WriteError> {
    let read = Checkpoint::open(file)?;
    let (written, read_config) = (comparable(checkpoint.config()), comparable(read.config()));
    if let Some(field) = first_difference(&written, &read_config, "") {
        return Err(beyond(checkpoint, family.architecture, field));
    }
    if checkpoint.derived() != read.derived() {
        return Err(beyond(checkpoint, family.architecture, "rope_scaling".to_owned()));
    }
    Ok(())
}

/// A configuration without what changes no logit: the name of the family, the token that ends a text, whether
/// a head that equals the embedding is stored twice.
fn comparable(config: &Config) -> serde_json::Value {
    let mut config = config.clone();
    config.eos_token_id = None;
    config.tie_word_embeddings = false;
    config.architecture = Architecture::Gpt2;
    serde_json::to_value(config).expect("a configuration is plain data")
}

/// The path of the first value that differs.
fn first_difference(a: &serde_json::Value, b: &serde_json::Value, path: &str) -> Option<String> {
    let (Some(a_fields), Some(b_fields)) = (a.as_object(), b.as_object()) else {
        return (a != b).then(|| path.to_owned());
    };
    let keys = a_fields.keys().chain(b_fields.keys().filter(|key| !a_fields.contains_key(*key)));
    keys.into_iter().find_map(|key| {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let null = serde_json::Value::Null;
        let of = |fields: &serde_json::Map<_, _>| fields.get(key).unwrap_or(&null).clone();
        first_difference(&of(a_fields), &of(b_fields), &path)
    })
}
