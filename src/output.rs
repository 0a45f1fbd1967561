//! Files that are either complete or not there.
//!
//! An [`OutputFile`] is a temporary file beside its target. [`OutputFile::commit`] syncs it, renames it
//! over the target and syncs the directory; dropping it removes it. A reader finds the old file or the
//! new one, whole, however many writers there are.
//!
//! The temporary file of `model.cbl` is called `.model.cbl.<16 digits>.cbl-tmp`. The digits are random and
//! the file is created, never opened, so nobody can put a link in its place. Its writer keeps it locked.
//! So a process that is killed leaves a file that nobody has locked, and the next writer of the same
//! target removes it. (Where file systems know no locks, such files stay. Where machines share a directory
//! and not its locks, one may remove what another one writes, whose commit then fails.)

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

use mode::hand_on;
use rename::{rename_new, sync_directory};
use target::{check_existing, follow};

/// A file being written, which appears under its name when it is committed.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// `None` once it has its name.
    temporary: Option<PathBuf>,
    target: PathBuf,
    existing: Existing,
    /// The file whose mode is handed on.
    replaced: Option<Metadata>,
}

impl OutputFile {
    /// Creates the temporary file for `target`, and removes those that killed processes left for it.
    ///
    /// A target that is a symbolic link stands for the file that the link leads to, which must exist: the
    /// link stays. A target that exists must be a regular file.
    ///
    /// # Errors
    /// See [`OutputError`]: all that can be known before writing is checked here.
    pub fn create(target: &Path, existing: Existing, readers: Readers) -> Result<Self> {
        let target = follow(target)?;
        let replaced = check_existing(&target, existing)?;
        let directory = directory_of(&target)?;
        let prefix = names::prefix_of(target.file_name().unwrap_or_default())?;
        leftovers::remove(directory, &prefix);
        // A file that replaces another gets its mode in the end: nobody else may read it until then.
        let is_open = readers == Readers::AsUsual && replaced.is_none();
        let (temporary, file) = temporary::create(directory, &prefix, is_open)?;
        let replaced = replaced.filter(|_| readers == Readers::AsUsual);
        Ok(Self { file, temporary: Some(temporary), target, existing, replaced })
    }

    /// Where the file will be, links followed.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where the file is until then.
    pub fn temporary(&self) -> &Path {
        self.temporary.as_deref().expect("it has its name only when `rename` has taken it")
    }

    /// The temporary file, open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// An error of writing to [`OutputFile::file`], named after the target.
    pub fn error(&self, action: &'static str, source: io::Error) -> OutputError {
        OutputError::Io { action, path: self.target.clone(), source }
    }

    /// Makes the file durable and gives it its name: [`sync`](Self::sync), then [`rename`](Self::rename).
    ///
    /// # Errors
    /// Those of the two.
    pub fn commit(mut self) -> Result<()> {
        self.sync()?;
        self.rename()
    }

    /// Gives the file the mode that it will have, and writes it to the disk.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    pub fn sync(&mut self) -> Result<()> {
        let kept = self.replaced.take().map_or(Ok(()), |replaced| hand_on(&replaced, &self.file));
        kept.and_then(|()| self.file.sync_all()).map_err(|source| self.error("write", source))
    }

    /// Gives the file its name, and writes that to the disk.
    ///
    /// # Errors
    /// [`OutputError::Exists`] if a target has appeared meanwhile that is to be kept, and
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
            // A file that cannot be removed is no reason to hide the error that led here.
            let _ = fs::remove_file(temporary);
        }
    }
}
