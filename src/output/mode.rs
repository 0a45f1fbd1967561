//! Who may read an output file.

use std::fs::{File, Metadata};
use std::io;

/// Who may read the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone (mode 0600), whoever could read the file that it replaces.
    Owner,
    /// Those who could read the file that it replaces: the new file gets the mode of that file, and its
    /// group and owner as far as this process may set them. If it replaces none, those whom the umask
    /// allows.
    AsUsual,
}

/// Gives `file` the mode of the file that it replaces, and its group and owner as far as the system
/// allows. If the group cannot be set, the group gets no rights.
#[cfg(unix)]
pub fn copy_mode(replaced: &Metadata, file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let own = file.metadata()?;
    let mut mode = replaced.mode() & 0o777;
    if own.gid() != replaced.gid() && fchown(file, None, Some(replaced.gid())).is_err() {
        mode &= !0o070;
    }
    // Only root may give a file away.
    if own.uid() != replaced.uid() {
        let _ = fchown(file, Some(replaced.uid()), None);
    }
    // Some file systems have one mode for all files and refuse any change.
    if own.mode() & 0o777 == mode {
        return Ok(());
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub fn copy_mode(replaced: &Metadata, file: &File) -> io::Result<()> {
    file.set_permissions(replaced.permissions())
}
