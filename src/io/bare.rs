//! What of `std::io` saving and restoring sessions needs.

use alloc::vec::Vec;
use core::fmt;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There are fewer bytes than were asked for.
    UnexpectedEof,
    /// There is no room for more bytes.
    WriteZero,
    /// A position that is none.
    InvalidInput,
    /// There is no memory for it.
    OutOfMemory,
    /// That does not exist here.
    Unsupported,
    /// Anything else.
    Other,
}

/// Why bytes could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(ErrorKind);

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            ErrorKind::UnexpectedEof => "there are too few bytes",
            ErrorKind::WriteZero => "there is no room",
            ErrorKind::InvalidInput => "there is no such position",
            ErrorKind::OutOfMemory => "there is no memory",
            ErrorKind::Unsupported => "that does not exist here",
            ErrorKind::Other => "it failed",
        })
    }
}

impl core::error::Error for Error {}

/// The result of reading or writing.
pub type Result<T> = core::result::Result<T, Error>;

/// Bytes come from it.
pub trait Read {
    /// Reads some bytes, none at the end, and returns how many.
    ///
    /// # Errors
    /// The implementor's.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Fills the buffer.
    ///
    /// # Errors
    /// [`ErrorKind::UnexpectedEof`], and those of [`read`](Self::read).
    fn read_exact(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            match self.read(buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => buffer = &mut buffer[read..],
            }
        }
        Ok(())
    }
}

/// Bytes go to it.
pub trait Write {
    /// Writes some bytes, and returns how many.
    ///
    /// # Errors
    /// The implementor's.
    fn write(&mut self, bytes: &[u8]) -> Result<usize>;

    /// Brings to their end what was written.
    ///
    /// # Errors
    /// The implementor's.
    fn flush(&mut self) -> Result<()>;

    /// Writes all of the bytes.
    ///
    /// # Errors
    /// [`ErrorKind::WriteZero`], and those of [`write`](Self::write).
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.write(bytes)? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }
}

impl<W: Write + ?Sized> Write for &mut W {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        (**self).write(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        (**self).flush()
    }
}

impl Write for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.try_reserve(bytes.len()).map_err(|_| ErrorKind::OutOfMemory)?;
        self.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A place to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeekFrom {
    /// So many bytes from the beginning.
    Start(u64),
    /// So many bytes from here.
    Current(i64),
}

/// One may go to another place of it.
pub trait Seek {
    /// Goes there, and returns where that is from the beginning.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], and the implementor's.
    fn seek(&mut self, position: SeekFrom) -> Result<u64>;

    /// Where it is.
    ///
    /// # Errors
    /// Those of [`seek`](Self::seek).
    fn stream_position(&mut self) -> Result<u64> {
        self.seek(SeekFrom::Current(0))
    }
}

/// Bytes in memory, and a place in them.
#[derive(Clone, Debug, Default)]
pub struct Cursor<T> {
    inner: T,
    position: u64,
}

impl<T> Cursor<T> {
    /// At the beginning of the bytes.
    pub fn new(inner: T) -> Self {
        Self { inner, position: 0 }
    }

    /// The place.
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl<T: AsRef<[u8]>> Read for Cursor<T> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let bytes = self.inner.as_ref();
        let start = usize::try_from(self.position).unwrap_or(usize::MAX).min(bytes.len());
        let read = buffer.len().min(bytes.len() - start);
        buffer[..read].copy_from_slice(&bytes[start..start + read]);
        self.position += read as u64;
        Ok(read)
    }
}

impl Write for Cursor<&mut [u8]> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let start = usize::try_from(self.position).unwrap_or(usize::MAX).min(self.inner.len());
        let written = bytes.len().min(self.inner.len() - start);
        self.inner[start..start + written].copy_from_slice(&bytes[..written]);
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<T> Seek for Cursor<T> {
    fn seek(&mut self, position: SeekFrom) -> Result<u64> {
        let position = match position {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
