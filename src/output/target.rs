//! The target of an output file: which file it is, and whether it may be replaced.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf, is_separator};

use super::error::{OutputError, Result};
use super::names::join;

/// What happens to a file that has the target's name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// The new file replaces it.
    Replace,
    /// It stays, and creating the new file fails.
    Keep,
}

/// The file that `target` stands for: itself, or the file that a link leads to.
pub fn follow(target: &Path) -> Result<PathBuf> {
    if !fs::symlink_metadata(target).is_ok_and(|metadata| metadata.is_symlink()) {
        return join(&[target.as_os_str()]);
    }
    let fail = |source| OutputError::Io { action: "follow", path: target.to_owned(), source };
    match fs::metadata(target) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(OutputError::BrokenLink { path: target.to_owned() })
        }
        // This asks the system whether it allows following the link, as opening would. The system may
        // refuse to follow a link that somebody else has put into a directory for all, such as /tmp.
        Err(source) => Err(fail(source)),
        Ok(_) => fs::canonicalize(target).map_err(fail),
    }
}

/// Refuses a target that may not be replaced. Returns the metadata of one that may.
pub fn check_existing(target: &Path, existing: Existing) -> Result<Option<Metadata>> {
    let path = || target.to_owned();
    if target.as_os_str().as_encoded_bytes().last().is_some_and(|&end| is_separator(end.into())) {
        return Err(OutputError::IsDirectory { path: path() });
    }
    let metadata = match fs::metadata(target) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OutputError::Io { action: "write", path: path(), source }),
        Ok(metadata) => metadata,
    };
    if metadata.is_dir() {
        return Err(OutputError::IsDirectory { path: path() });
    }
    if !metadata.is_file() {
        return Err(OutputError::NotAFile { path: path() });
    }
    match existing {
        Existing::Replace => Ok(Some(metadata)),
        Existing::Keep => Err(OutputError::Exists { path: path() }),
    }
}

/// The directory that a file is in.
///
/// # Errors
/// [`OutputError::IsDirectory`] if the path does not end in a name; [`OutputError::NoDirectory`].
pub fn directory_of(target: &Path) -> Result<&Path> {
    let directory = match (target.parent(), target.file_name()) {
        (Some(parent), Some(_)) if parent.as_os_str().is_empty() => Path::new("."),
        (Some(parent), Some(_)) => parent,
        _ => return Err(OutputError::IsDirectory { path: target.to_owned() }),
    };
    match directory.is_dir() {
        true => Ok(directory),
        false => Err(OutputError::NoDirectory { path: directory.to_owned() }),
    }
}
