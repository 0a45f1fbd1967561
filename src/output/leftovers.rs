//! Temporary files that killed processes left.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::path::Path;

use super::lock::{Lock, is_at, lock};
use super::names::{DIGITS, SUFFIX, join};

/// Removes the temporary files in a directory whose names begin with `prefix` and that no process has
/// locked. A file that cannot be removed stays and disturbs nobody.
pub fn remove(directory: &Path, prefix: &OsStr) {
    for_each_name(directory, &mut |name| {
        if is_temporary(name, prefix)
            && let Ok(path) = join(&[directory.as_os_str(), "/".as_ref(), name])
        {
            remove_if_left(&path);
        }
    });
}

fn is_temporary(name: &OsStr, prefix: &OsStr) -> bool {
    let digits = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
    let digits = digits.and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    digits.is_some_and(|it| it.len() == DIGITS && it.iter().all(u8::is_ascii_hexdigit))
}

fn remove_if_left(path: &Path) {
    // Not a pipe, because opening one would wait; and not a link.
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let Ok(file) = options.open(path) else { return };
    // Since the file was listed, its writer may have renamed it. Or its writer has just made it and not
    // locked it yet; that writer finds this lock, and takes another name.
    if lock(&file) == Lock::Ours && is_at(path, &file) {
        let _ = fs::remove_file(path);
    }
}

/// Calls `visit` with the name of each file in a directory. It does not use `fs::read_dir`, which
/// aborts the process if there is no memory.
#[cfg(unix)]
fn for_each_name(directory: &Path, visit: &mut dyn FnMut(&OsStr)) {
    use std::ffi::CStr;
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = join(&[directory.as_os_str(), "\0".as_ref()]) else { return };
    let Ok(path) = CStr::from_bytes_with_nul(path.as_os_str().as_bytes()) else { return };
    // SAFETY: the path ends with a zero.
    let stream = unsafe { libc::opendir(path.as_ptr()) };
    if stream.is_null() {
        return;
    }
    loop {
        // SAFETY: the stream is open, and this thread alone uses it.
        let entry = unsafe { libc::readdir(stream) };
        if entry.is_null() {
            break;
        }
        // SAFETY: until the next `readdir` the entry is valid and its name ends with a zero. Only the
        // name is borrowed: an entry may be shorter than its type.
        let name = unsafe { CStr::from_ptr((&raw const (*entry).d_name).cast()) };
        visit(OsStr::from_bytes(name.to_bytes()));
    }
    // SAFETY: the stream is open, and not used any more.
    unsafe { libc::closedir(stream) };
}

#[cfg(not(unix))]
fn for_each_name(directory: &Path, visit: &mut dyn FnMut(&OsStr)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    entries.flatten().for_each(|entry| visit(&entry.file_name()));
}
