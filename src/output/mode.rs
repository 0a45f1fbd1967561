//! Who may read a file.

use std::fs::{File, Metadata};
use std::io;

/// Who may read the new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone (mode 0600), whoever could read the file that it replaces.
    Owner,
    /// Those who could read the file that it replaces, which hands on its mode and, as far as this process
    /// may give them, its group and owner. If it replaces none, those whom the umask allows.
    AsUsual,
}

/// Gives `file` the mode of another one, and its group and owner as far as that is allowed. The group's part
/// of the mode goes only to that group.
#[cfg(unix)]
pub fn hand_on(replaced: &Metadata, file: &File) -> io::Result<()> {
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
    // Some file systems have one mode for all files, and refuse any change.
    if own.mode() & 0o777 == mode {
        return Ok(());
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
pub fn hand_on(replaced: &Metadata, file: &File) -> io::Result<()> {
    file.set_permissions(replaced.permissions())
}
