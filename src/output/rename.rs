//! Renaming a file so that the new name is on the disk.

use std::fs;
#[cfg(unix)]
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Renames a file, and fails if the new name exists.
#[cfg(target_os = "linux")]
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    let (from_c, to_c) =
        (CString::new(from.as_os_str().as_bytes())?, CString::new(to.as_os_str().as_bytes())?);
    // SAFETY: both paths end with a zero. By number, as old C libraries have no function for it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            from_c.as_ptr(),
            libc::AT_FDCWD,
            to_c.as_ptr(),
            libc::RENAME_NOREPLACE,
        )
    };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Old systems, and file systems that cannot do this.
        Some(libc::ENOSYS | libc::EINVAL) => link_new(from, to),
        _ => Err(error),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    link_new(from, to)
}

/// As [`rename_new`], by a hard link. If the file system has no hard links, it looks for the name
/// first.
pub fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(e),
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Writes a directory to the disk, and with it the renames in it.
#[cfg(unix)]
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    match File::open(directory).and_then(|directory| directory.sync_all()) {
        // The directory may be written but not read, or the file system cannot sync directories.
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EACCES | libc::EINVAL | libc::ENOTSUP | libc::ENOSYS)
            ) =>
        {
            Ok(())
        }
        synced => synced,
    }
}

/// Elsewhere a directory cannot be opened for syncing.
#[cfg(not(unix))]
pub fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
