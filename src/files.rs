//! Models and saved sessions in files: what there is only with an operating system.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::{Access, ModelBytes, open_regular};
use crate::memory::try_box;
use crate::model::Model;
use crate::open_options::{OpenOptions, OpenStage};
use crate::output::{Existing, OutputFile, Readers};
use crate::session::Session;

impl Model {
    /// Opens a model file by mapping or reading it. [`OpenOptions`](crate::OpenOptions) can do more.
    ///
    /// Takes time proportional to the header, not to the model; [`Model::verify`] reads it all.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        Self::from_bytes(ModelBytes::open(path.as_ref(), access)?)
    }

    /// Opens a model file that is open already, as [`Model::open`] does; `path` is its name in messages.
    pub fn from_file(file: File, path: &Path, access: Access) -> Result<Self> {
        Self::from_bytes(ModelBytes::from_file(file, path, access)?)
    }
}

impl OpenOptions<'_> {
    /// Opens a model file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NotAFile`]; [`Error::Format`]; [`Error::OutOfMemory`];
    /// [`Error::Damaged`]; [`Error::FileChanged`] if the file is changed meanwhile;
    /// [`Error::OpenCancelled`].
    pub fn open(mut self, path: impl AsRef<Path>) -> Result<Model> {
        let (path, access) = (path.as_ref(), self.access);
        let bytes = ModelBytes::open_telling(path, access, &mut self.teller(OpenStage::Read))?;
        self.finish(bytes)
    }

    /// Opens a model file that is open already; `name` is its name in messages.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_file(self, file: File, name: &Path) -> Result<Model> {
        self.open_part(file, name, None)
    }

    /// Opens a model that is a part of a file, such as an asset in a package: the bytes of `range`. To be
    /// mapped it must begin at a multiple of 64 bytes, which `zipalign` sees to; not to be read.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); [`Error::FileRange`] if the file has no such part, or it cannot be
    /// mapped.
    pub fn open_range(self, file: File, name: &Path, range: Range<u64>) -> Result<Model> {
        self.open_part(file, name, Some(range))
    }

    fn open_part(mut self, file: File, name: &Path, range: Option<Range<u64>>) -> Result<Model> {
        let access = self.access;
        let bytes = {
            let mut tell = self.teller(OpenStage::Read);
            ModelBytes::from_file_range(file, name, range, access, &mut tell)?
        };
        self.finish(bytes)
    }
}

impl Session {
    /// Writes what [`save`](Self::save) writes to a file that only its owner may read, mode 0600: it holds
    /// the tokens. It is written beside `path`, flushed to the disk and renamed, so that there is the old file
    /// or the new one, never a part, whoever else saves to that path ([`crate::output`]). A symbolic link
    /// stands for the file that it leads to.
    ///
    /// # Errors
    /// [`Error::Output`], naming the path: among others if there is something else than a regular file.
    pub fn save_file(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let mut output = OutputFile::create(path.as_ref(), Existing::Replace, Readers::Owner)?;
        // Unbuffered, for a buffer could not be had without risk: writes are few and large.
        match self.save(output.file()) {
            Err(Error::SavedSessionIo { action, source }) => {
                Err(output.error(action, source).into())
            }
            saved => saved.and_then(|()| Ok(output.commit()?)),
        }
    }

    /// As [`restore`](Self::restore), from a regular file.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::NotAFile`]; [`Error::Restore`], which names the file, with those of
    /// [`restore`](Self::restore) in it.
    pub fn restore_file(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let restored = self.restore(&mut open_regular(path)?);
        restored.map_err(|source| match try_box(source) {
            Ok(source) => Error::Restore { path: path.to_owned(), source },
            Err(no_memory) => no_memory,
        })
    }
}
