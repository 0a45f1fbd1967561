//! What can be wrong with a checkpoint's files about conversations.

use std::path::PathBuf;

/// Why a checkpoint's files about conversations cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ChatTemplateError {
    /// The system refused.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{}: {detail}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}
