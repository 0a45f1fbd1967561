//! Temporary files with random names.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::path::{MAIN_SEPARATOR_STR, Path, PathBuf};

use super::error::{OutputError, Result};
use super::lock::{Lock, is_at, lock};
use super::names::{DIGITS, SUFFIX, hexadecimal, join};

/// The number of names that are tried. A random name is taken only if somebody wants to disturb.
const ATTEMPTS: usize = 100;

/// Makes a new file with a random name, and locks it. Unless it `is_open`, only its owner may read it.
pub fn create(directory: &Path, prefix: &OsStr, is_open: bool) -> Result<(PathBuf, File)> {
    let fail = |source| OutputError::Io { action: "write in", path: directory.to_owned(), source };
    let mut options = OpenOptions::new();
    // `create_new` never opens an existing file, and never follows a link.
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // The umask removes rights from this mode.
        options.mode(if is_open { 0o666 } else { 0o600 });
    }
    #[cfg(not(unix))]
    let _ = is_open;
    for _ in 0..ATTEMPTS {
        let mut digits = [0; DIGITS];
        let digits = hexadecimal(random(), &mut digits);
        let separator = MAIN_SEPARATOR_STR.as_ref();
        let parts = [directory.as_os_str(), separator, prefix, digits.as_ref(), SUFFIX.as_ref()];
        let path = join(&parts)?;
        let file = match options.open(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
            file => file.map_err(fail)?,
        };
        // Before the file is locked, another writer may take it for a leftover and remove it.
        if lock(&file) != Lock::Theirs && is_at(&path, &file) {
            return Ok((path, file));
        }
        let _ = fs::remove_file(&path);
    }
    Err(fail(ErrorKind::AlreadyExists.into()))
}

/// A number that nobody can guess.
fn random() -> u64 {
    // The hasher's random keys come from the system. A forked child has the keys of its parent, but its
    // own process id.
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
