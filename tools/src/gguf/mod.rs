//! GGUF, the file format of llama.cpp: reading it safely, and writing it. Models are not known here.
//!
//! A file holds, little-endian: a magic and a version, the numbers of tensors and of metadata
//! entries, the entries, a table of tensors, and from the next multiple of `general.alignment` on
//! the tensors' data. The format is specified in ggml's `docs/gguf.md`.
//!
//! [`Gguf`] parses a file; [`Header`] writes all that stands before the data. [`keys`] and [`gpt2`]
//! say what entries are called. [`Checkpoint`](crate::checkpoint::Checkpoint) opens such files as models,
//! [`export_gguf`](crate::export_gguf) writes models.

pub mod gpt2;
mod invalid;
pub mod keys;
mod layout;
mod read;
mod write;

pub use invalid::Invalid;
pub use layout::{DEFAULT_ALIGNMENT, MAGIC};
pub use read::{Array, Gguf, TensorEntry, Value};
pub use write::{Header, TensorHead};
