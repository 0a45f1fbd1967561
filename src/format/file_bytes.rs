//! The bytes of a model file, from a file: mapped or read.

use core::ops::Range;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::{Mmap, MmapOptions};

use super::bytes::{Access, ModelBytes};
use super::header::{front_bytes, probe_opening, read_front};
use crate::error::{Error, Result};
use crate::memory;
use crate::quant::TILE_ALIGN;
use crate::tell::{TELL_EVERY, Tell};

/// The bytes of a file.
pub(super) enum FileBytes {
    Mapped { map: Mmap, file: File, path: PathBuf, stamp: Stamp },
    Read(AlignedBytes),
}

impl FileBytes {
    /// The bytes, which were looked after already.
    pub(super) fn checked(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Read(bytes) => bytes.as_slice(),
        }
    }

    /// Fails if a mapped file was changed, as far as its length and modification time tell.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        match self {
            Self::Mapped { file, path, stamp, .. } if Stamp::of(file).ok() != Some(*stamp) => {
                Err(Error::FileChanged { path: path.clone() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_mapped(&self) -> bool {
        matches!(self, Self::Mapped { .. })
    }
}

/// Opens a regular file for reading.
pub(crate) fn open_regular(path: &Path) -> Result<File> {
    let fail = |source| Error::Io { action: "open", path: path.to_owned(), source };
    // Asked before opening, because opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(Error::NotAFile { path: path.to_owned() });
    }
    File::open(path).map_err(fail)
}

/// Length and modification time: what tells that a file was changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
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
        Self::open_telling(path, access, &mut |_, _| Ok(()))
    }

    /// As [`open`](Self::open), telling how much was read.
    pub(crate) fn open_telling(path: &Path, access: Access, tell: &mut Tell) -> Result<Self> {
        Self::from_file_range(open_regular(path)?, path, None, access, tell)
    }

    /// Takes a regular file that is open already; `path` is its name in messages. Its offset does not
    /// matter.
    pub fn from_file(file: File, path: &Path, access: Access) -> Result<Self> {
        Self::from_file_range(file, path, None, access, &mut |_, _| Ok(()))
    }

    /// As [`from_file`](Self::from_file), a part of the file if there is a range, telling how much was read.
    pub(crate) fn from_file_range(
        file: File,
        path: &Path,
        range: Option<Range<u64>>,
        access: Access,
        tell: &mut Tell,
    ) -> Result<Self> {
        // Copies of the path.
        memory::probe(4096 + path.as_os_str().len())?;
        let fail = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        if !file.metadata().map_err(fail("open"))?.is_file() {
            return Err(Error::NotAFile { path: path.to_owned() });
        }
        let stamp = Stamp::of(&file).map_err(fail("open"))?;
        let range = range.unwrap_or(0..stamp.length);
        let bad_range = |detail| {
            let (offset, length) = (range.start, range.end.saturating_sub(range.start));
            Error::FileRange { path: path.to_owned(), offset, length, detail }
        };
        if range.start > range.end || range.end > stamp.length {
            let detail = format!("the file has {} bytes; check offset and length", stamp.length);
            return Err(bad_range(detail));
        }
        if access == Access::Read {
            let part = FilePart { file, path, range, stamp };
            return Ok(FileBytes::Read(AlignedBytes::read(&part, tell)?).into());
        }
        if range.is_empty() {
            return Ok(FileBytes::Read(AlignedBytes { lines: Vec::new(), length: 0 }).into());
        }
        if !range.start.is_multiple_of(TILE_ALIGN as u64) {
            let detail = format!(
                "to be mapped it must begin at a multiple of {TILE_ALIGN} bytes; align it in the package, or open it with reading instead of mapping"
            );
            return Err(bad_range(detail));
        }
        let memory = |_| Error::OutOfMemory { bytes: usize::MAX };
        let length = usize::try_from(range.end - range.start).map_err(memory)?;
        // No advice to read ahead: with 708 MB, `MADV_WILLNEED` changed nothing from a disk, and in memory
        // all page faults until the first token take 0.01 s of 0.05.
        // SAFETY: memmap2 asks that the file not be changed while it is mapped. That is the caller's
        // part of `Access::Map`, which documents what happens otherwise; the bytes are only ever read
        // as plain integers and floats, for which every bit pattern is valid.
        let map = unsafe { MmapOptions::new().offset(range.start).len(length).map(&file) };
        let map = map.map_err(fail("map"))?;
        probe_opening(&map)?;
        advise_huge_pages(&map);
        Ok(FileBytes::Mapped { map, file, path: path.to_owned(), stamp }.into())
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

pub(super) struct AlignedBytes {
    lines: Vec<Line>,
    length: usize,
}

/// A part of a file to be read.
struct FilePart<'a> {
    file: File,
    path: &'a Path,
    range: Range<u64>,
    /// As it was when it was opened.
    stamp: Stamp,
}

impl FilePart<'_> {
    /// Fills `bytes` with those from `offset` on, counted from the part's beginning. A file that turns out
    /// shorter has been changed.
    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        read_exact_at(&self.file, bytes, self.range.start + offset).map_err(|source| {
            let path = self.path.to_owned();
            match source.kind() {
                ErrorKind::UnexpectedEof => Error::FileChanged { path },
                _ => Error::Io { action: "read", path, source },
            }
        })
    }

    /// Checks its header before all of it is read.
    fn check_front(&self) -> Result<()> {
        let length = self.range.end - self.range.start;
        let mut front = Vec::new();
        let mut fill = |bytes: u64| {
            let (from, bytes) = (front.len(), bytes.min(length) as usize);
            front.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
            front.resize(bytes, 0);
            self.read(from as u64, &mut front[from..])?;
            Ok::<_, Error>(front_bytes(&front))
        };
        let whole = fill(8)?;
        fill(whole)?;
        let mut last = [0; 4];
        let known = length.min(4) as usize;
        self.read(length - known as u64, &mut last[..known])?;
        probe_opening(&front)?;
        read_front(&front, last, length)?;
        Ok(())
    }
}

/// Reads where the file's offset does not matter and is left alone.
#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Reads and moves the file's offset.
#[cfg(not(unix))]
fn read_exact_at(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}

impl AlignedBytes {
    /// Reads all of a part; a file that turns out another has been changed.
    fn read(part: &FilePart, tell: &mut Tell) -> Result<Self> {
        part.check_front()?;
        let total = part.range.end - part.range.start;
        let memory = || Error::OutOfMemory { bytes: total.try_into().unwrap_or(usize::MAX) };
        let length = usize::try_from(total).map_err(|_| memory())?;
        let mut lines = Vec::new();
        lines.try_reserve_exact(length.div_ceil(TILE_ALIGN)).map_err(|_| memory())?;
        lines.resize(length.div_ceil(TILE_ALIGN), Line([0; TILE_ALIGN]));
        let mut bytes = Self { lines, length };
        let mut done = 0;
        tell(done, total)?;
        for piece in bytes.as_mut_slice().chunks_mut(TELL_EVERY) {
            part.read(done, piece)?;
            done += piece.len() as u64;
            tell(done, total)?;
        }
        if Stamp::of(&part.file).ok() != Some(part.stamp) {
            return Err(Error::FileChanged { path: part.path.to_owned() });
        }
        Ok(bytes)
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: `lines` holds at least `length` initialized bytes (see `read`), `Line` is exactly
        // its bytes (asserted above), and the borrow of `self` keeps them alive and unchanged.
        unsafe { core::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; the exclusive borrow of `self` makes the slice exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }
}
