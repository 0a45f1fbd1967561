//! The bytes of a model file: mapped, read or borrowed.

use alloc::boxed::Box;

#[cfg(feature = "std")]
use super::file_bytes::FileBytes;
use super::header::probe_opening;
#[cfg(not(feature = "std"))]
use super::no_files::FileBytes;
use crate::error::{Error, Result};
use crate::memory::try_box;
use crate::page_lock::PageLock;
use crate::quant::TILE_ALIGN;

/// How a path is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Map the file: opens at once, pages are shared and evictable. The file must not be changed
    /// while it is mapped: every call that reads it looks first whether it was, and fails with
    /// [`Error::FileChanged`]; but a truncation in the middle of a call raises SIGBUS.
    #[default]
    Map,
    /// Read the file into memory of our own: nothing that happens to the file matters any more.
    Read,
}

/// The bytes of a model file, beginning on a 64-byte boundary. There is no way to them but by
/// [`get`](Self::get), which looks first whether they are still the same. Who made one had the memory that opening the
/// file takes ([`opening_bytes`](super::opening_bytes)).
pub struct ModelBytes(Kind);

enum Kind {
    File(FileBytes),
    Borrowed(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl From<FileBytes> for ModelBytes {
    fn from(bytes: FileBytes) -> Self {
        Self(Kind::File(bytes))
    }
}

impl ModelBytes {
    /// Borrows bytes that someone else keeps: flash, an asset bundle, a buffer.
    pub fn borrow(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        probe_opening(bytes.as_ref())?;
        let bytes: Box<dyn AsRef<[u8]> + Send + Sync> = try_box(bytes)?;
        let offset = (*bytes).as_ref().as_ptr() as usize % TILE_ALIGN;
        if offset != 0 {
            return Err(Error::Misaligned { required: TILE_ALIGN, offset });
        }
        Ok(Self(Kind::Borrowed(bytes)))
    }

    /// The bytes, for a call that reads them now.
    ///
    /// # Errors
    /// [`Error::FileChanged`] if a mapped file was changed since it was opened, as far as its length and
    /// modification time tell: to read what was cut off would raise SIGBUS.
    pub fn get(&self) -> Result<&[u8]> {
        self.check_unchanged()?;
        Ok(self.checked())
    }

    /// The bytes, within a call that has looked already ([`get`](Self::get),
    /// [`check_unchanged`](Self::check_unchanged)).
    pub(crate) fn checked(&self) -> &[u8] {
        match &self.0 {
            Kind::File(bytes) => bytes.checked(),
            Kind::Borrowed(bytes) => (**bytes).as_ref(),
        }
    }

    /// How many there are, or were when the file was opened.
    pub fn len(&self) -> usize {
        self.checked().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fails as [`get`](Self::get) does.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match &self.0 {
            Kind::File(bytes) => bytes.check_unchanged(),
            Kind::Borrowed(_) => Ok(()),
        }
    }

    /// Keeps their pages in memory.
    pub(crate) fn lock(&self) -> Result<PageLock> {
        let bytes = self.get()?;
        PageLock::new(bytes.as_ptr(), bytes.len())
    }

    /// Whether the bytes are a mapped file (and so cost no private memory).
    pub fn is_mapped(&self) -> bool {
        matches!(&self.0, Kind::File(bytes) if bytes.is_mapped())
    }
}
