//! What can be wrong with a model file.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};

use super::VERSION;
use super::json::JsonError;
use crate::terminal;

/// Why bytes are not a model file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Not even the frame of a model file.
    #[error("not a cerebellum model file ({0}); make one with `cerebellum quantize`")]
    NotAModel(&'static str),
    /// The header's checksum does not match.
    #[error(
        "header checksum mismatch: the file is truncated, extended or damaged; copy or quantize it again"
    )]
    HeaderChecksum,
    /// The header is not the JSON it should be.
    #[error("bad header: {}", terminal::name(.0))]
    Json(String),
    /// A version this library does not know.
    #[error(
        "model file version {found} is not supported, this library reads version {VERSION}; quantize the checkpoint again or update the library"
    )]
    Version {
        /// The file's version.
        found: u32,
    },
    /// A configuration field out of its bounds.
    #[error("bad configuration: {field}: {}", terminal::text(detail))]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A tensor that is missing, surplus, or not what the configuration implies.
    #[error("tensor {}: {detail}", terminal::name(name))]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// The file is not as long as its tensors.
    #[error("the file has {found} bytes, its tensors need {expected}; copy or quantize it again")]
    Length {
        /// Bytes that the header implies.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// The table of checksums is damaged.
    #[error("the table of checksums is damaged; copy or quantize the file again")]
    ChecksumTable,
}

impl From<JsonError> for FormatError {
    fn from(error: JsonError) -> Self {
        Self::Json(error.to_string())
    }
}

impl FormatError {
    pub(super) fn config(field: &'static str, detail: String) -> Self {
        Self::Config { field, detail }
    }

    pub(super) fn tensor(name: &str, detail: impl Into<String>) -> Self {
        Self::Tensor { name: name.to_owned(), detail: detail.into() }
    }
}
