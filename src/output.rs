//! Writing files so that a reader never finds an incomplete one.
//!
//! An [`OutputFile`] is a temporary file beside its target. [`OutputFile::commit`] syncs it, renames it
//! over the target and syncs the directory. Dropping it removes it. A reader finds the whole old file
//! or the whole new file, however many writers there are.
//!
//! The temporary file of `model.cbl` is called `.model.cbl.<16 digits>.cbl-tmp`. The digits are random,
//! and the file is always a new one, so nobody can put a link in its place. Its writer keeps it locked.
//! A process that is killed leaves a file that nobody has locked, and the next writer of the same
//! target removes it. If the file system has no locks, such files stay. If machines share a directory
//! but not its locks, one machine may remove the temporary file of another, and the commit of the other
//! then fails.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

mod error;
mod leftovers;
mod lock;
mod mode;
mod names;
mod rename;
mod target;
mod temporary;
#[cfg(test)]
mod tests;

pub use error::{OutputError, Result};
pub use mode::Readers;
pub use target::{Existing, directory_of};

use mode::copy_mode;
use rename::{rename_new, sync_directory};
use target::{check_existing, follow};

/// A file being written, which appears under its name when it is committed.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// `None` after the rename.
    temporary: Option<PathBuf>,
    target: PathBuf,
    existing: Existing,
    /// The file whose mode the new file gets.
    replaced: Option<Metadata>,
}

impl OutputFile {
    /// Creates the temporary file for `target`, and removes those that killed processes left for it.
    ///
    /// A target that is a symbolic link stands for the file that the link leads to, which must exist:
    /// the link stays. A target that exists must be a regular file.
    ///
    /// # Errors
    /// See [`OutputError`]. Everything that can be checked before writing is checked here.
    pub fn create(target: &Path, existing: Existing, readers: Readers) -> Result<Self> {
        let target = follow(target)?;
        let replaced = check_existing(&target, existing)?;
        let directory = directory_of(&target)?;
        let prefix = names::prefix_of(target.file_name().unwrap_or_default())?;
        leftovers::remove(directory, &prefix);
        // A file that replaces another gets that file's mode at the end. Until then only its owner may
        // read it.
        let is_open = readers == Readers::AsUsual && replaced.is_none();
        let (temporary, file) = temporary::create(directory, &prefix, is_open)?;
        let replaced = replaced.filter(|_| readers == Readers::AsUsual);
        Ok(Self { file, temporary: Some(temporary), target, existing, replaced })
    }

    /// The path that the file will have. Links are followed.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The path of the temporary file.
    pub fn temporary(&self) -> &Path {
        self.temporary.as_deref().expect("it has its name only when `rename` has taken it")
    }

    /// The temporary file, open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// An error for a failure to write to [`OutputFile::file`]. It names the target.
    pub fn error(&self, action: &'static str, source: io::Error) -> OutputError {
        OutputError::Io { action, path: self.target.clone(), source }
    }

    /// Makes the file durable and gives it its name: [`sync`](Self::sync), then
    /// [`rename`](Self::rename).
    ///
    /// # Errors
    /// Those of `sync` and `rename`.
    pub fn commit(mut self) -> Result<()> {
        self.sync()?;
        self.rename()
    }

    /// Gives the file the mode that it will have, and writes it to the disk.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    pub fn sync(&mut self) -> Result<()> {
        let kept = self.replaced.take().map_or(Ok(()), |replaced| copy_mode(&replaced, &self.file));
        kept.and_then(|()| self.file.sync_all()).map_err(|source| self.error("write", source))
    }

    /// Gives the file its name, and writes the name to the disk.
    ///
    /// # Errors
    /// [`OutputError::Exists`] if the target has appeared meanwhile and existing files are to be kept;
    /// [`OutputError::Io`].
    pub fn rename(mut self) -> Result<()> {
        let renamed = match self.existing {
            Existing::Replace => fs::rename(self.temporary(), &self.target),
            Existing::Keep => rename_new(self.temporary(), &self.target),
        };
        match renamed {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && self.existing == Existing::Keep => {
                Err(OutputError::Exists { path: self.target.clone() })
            }
            Err(source) => Err(self.error("write", source)),
            Ok(()) => {
                self.temporary = None;
                sync_directory(directory_of(&self.target)?)
                    .map_err(|source| self.error("sync the directory of", source))
            }
        }
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            // An error of removing would hide the error that led here.
            let _ = fs::remove_file(temporary);
        }
    }
}
