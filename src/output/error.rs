//! Why a file could not be written.

use std::io;
use std::path::PathBuf;

/// Why a file could not be created or finished. No temporary file is left in any case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The target exists, and replacing it was not asked for.
    #[error("{} exists; choose another name", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target is a directory.
    #[error("{} is a directory; give the path of a file", path.display())]
    IsDirectory {
        /// The target.
        path: PathBuf,
    },
    /// The target is a device, a pipe or a socket, which a rename would destroy.
    #[error("{} is not a regular file; give the path of a file", path.display())]
    NotAFile {
        /// The target.
        path: PathBuf,
    },
    /// The target is a symbolic link to a file that does not exist.
    #[error("{} is a link to a file that does not exist; remove the link, or give another path", path.display())]
    BrokenLink {
        /// The link.
        path: PathBuf,
    },
    /// The directory of the target does not exist.
    #[error("there is no directory {}; create it, or give another path", path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// There is no memory for the name of the temporary file.
    #[error("cannot allocate {bytes} bytes")]
    OutOfMemory {
        /// Size of the allocation.
        bytes: usize,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action that failed, such as "write".
        action: &'static str,
        /// The target.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

/// A result of writing a file.
pub type Result<T> = std::result::Result<T, OutputError>;
