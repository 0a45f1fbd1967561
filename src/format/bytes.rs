//! The bytes of a model file: mapped, read or borrowed.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::quant::TILE_ALIGN;

/// How a path is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
/// [`get`](Self::get), which looks first whether they are still the same.
pub struct ModelBytes(Kind);

enum Kind {
    Mapped { map: Mmap, file: File, path: PathBuf, stamp: Stamp },
    Owned(AlignedBytes),
    Borrowed(Box<dyn AsRef<[u8]> + Send + Sync>),
}

/// Length and modification time: what tells that a file was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(file: &File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { length: metadata.len(), modified: metadata.modified().ok() })
    }
}

impl ModelBytes {
    /// Opens a regular file.
    pub fn open(path: &Path, access: Access) -> Result<Self> {
        let fail = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        // Asked before opening, because opening a pipe would wait for its other end.
        if !std::fs::metadata(path).map_err(fail("open"))?.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        Self::from_file(File::open(path).map_err(fail("open"))?, path, access)
    }

    /// Takes a regular file that is open already; `path` is its name in messages. Reading begins at
    /// the file's start and moves its offset.
    pub fn from_file(mut file: File, path: &Path, access: Access) -> Result<Self> {
        let fail = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        if !file.metadata().map_err(fail("open"))?.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let stamp = Stamp::of(&file).map_err(fail("open"))?;
        if access == Access::Read {
            file.rewind().map_err(fail("read"))?;
            return Ok(Self(Kind::Owned(AlignedBytes::read(file, stamp.length, path)?)));
        }
        if stamp.length == 0 {
            return Ok(Self(Kind::Borrowed(Box::new([]))));
        }
        // No advice to read ahead: with 708 MB, `MADV_WILLNEED` changed nothing from a disk, and in memory
        // all page faults until the first token take 0.01 s of 0.05.
        // SAFETY: memmap2 asks that the file not be changed while it is mapped. That is the caller's
        // part of `Access::Map`, which documents what happens otherwise; the bytes are only ever read
        // as plain integers and floats, for which every bit pattern is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(fail("map"))?;
        advise_huge_pages(&map);
        Ok(Self(Kind::Mapped { map, file, path: path.to_owned(), stamp }))
    }

    /// Borrows bytes that someone else keeps: flash, an asset bundle, a buffer.
    pub fn borrow(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self> {
        let bytes: Box<dyn AsRef<[u8]> + Send + Sync> = Box::new(bytes);
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
            Kind::Mapped { map, .. } => map,
            Kind::Owned(bytes) => bytes.as_slice(),
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
            Kind::Mapped { file, path, stamp, .. } if Stamp::of(file).ok() != Some(*stamp) => {
                Err(Error::FileChanged { path: path.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Whether the bytes are a mapped file (and so cost no private memory).
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Kind::Mapped { .. })
    }
}

/// Asks that what is read from the disk be read and mapped in pages of 2 MiB: a core then streams weights
/// up to a tenth faster, above all in a virtual machine, where a miss of the TLB costs two walks. Pages
/// that are in memory stay as they are.
#[cfg(target_os = "linux")]
fn advise_huge_pages(map: &Mmap) {
    // A system or file system that has none refuses, and nothing is lost.
    drop(map.advise(memmap2::Advice::HugePage));
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_: &Mmap) {}

/// One cache line, so that a vector of them is aligned as panels need it.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; TILE_ALIGN]);

const _: () = assert!(size_of::<Line>() == TILE_ALIGN && align_of::<Line>() == TILE_ALIGN);

struct AlignedBytes {
    lines: Vec<Line>,
    length: usize,
}

impl AlignedBytes {
    /// Reads exactly `length` bytes; a file that turns out shorter or longer has been changed.
    fn read(mut file: File, length: u64, path: &Path) -> Result<Self> {
        let fail = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let memory = || Error::OutOfMemory { bytes: length.try_into().unwrap_or(usize::MAX) };
        let length = usize::try_from(length).map_err(|_| memory())?;
        let mut lines = Vec::new();
        lines.try_reserve_exact(length.div_ceil(TILE_ALIGN)).map_err(|_| memory())?;
        lines.resize(length.div_ceil(TILE_ALIGN), Line([0; TILE_ALIGN]));
        let mut bytes = Self { lines, length };
        // Whether so many bytes are there; goes on where a signal interrupted it, as `read` would not.
        let mut has = |bytes: &mut [u8]| match file.read_exact(bytes) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
            other => other.map(|()| true).map_err(fail),
        };
        if !has(bytes.as_mut_slice())? || has(&mut [0])? {
            return Err(Error::FileChanged { path: path.to_owned() });
        }
        Ok(bytes)
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `lines` holds at least `length` initialized bytes (see `read`), `Line` is exactly
        // its bytes (asserted above), and the borrow of `self` keeps them alive and unchanged.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; the exclusive borrow of `self` makes the slice exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
