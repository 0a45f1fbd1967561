//! Locks on temporary files. A file that is being written has one; a file that a killed process left
//! does not.

use std::fs::{self, File};
#[cfg(unix)]
use std::io::{self, ErrorKind};
use std::path::Path;

/// Who has locked a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// This process, as long as the file is open.
    Ours,
    /// Somebody else.
    Theirs,
    /// The file system has no locks.
    Unknown,
}

#[cfg(unix)]
pub fn lock(file: &File) -> Lock {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open. Not `File::try_lock`, which Android does not have.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Lock::Ours,
        _ if io::Error::last_os_error().kind() == ErrorKind::WouldBlock => Lock::Theirs,
        _ => Lock::Unknown,
    }
}

#[cfg(not(unix))]
pub fn lock(file: &File) -> Lock {
    match file.try_lock() {
        Ok(()) => Lock::Ours,
        Err(fs::TryLockError::WouldBlock) => Lock::Theirs,
        Err(fs::TryLockError::Error(_)) => Lock::Unknown,
    }
}

/// Whether `path` is still the name of the file.
#[cfg(unix)]
pub fn is_at(path: &Path, file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (there, ours) = (fs::symlink_metadata(path), file.metadata());
    there.is_ok_and(|there| ours.is_ok_and(|ours| identity(there) == identity(ours)))
}

/// Elsewhere, an open file keeps its name or is removed.
#[cfg(not(unix))]
pub fn is_at(path: &Path, _: &File) -> bool {
    path.exists()
}
