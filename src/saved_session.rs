//! Saving a session, restoring it, and forking one from another.
//!
//! A saved session is a header, the tokens, the last token's logits if they are there, and the cache
//! of the positions in use, head by head, then a CRC-32 of all that. Everything is little-endian.
//!
//! ```text
//!  0  magic "CBLSAVED"
//!  8  u32 version, u32 type of the cache (0 float16, 1 int8)
//! 16  u64 length of the model file
//! 24  u32 CRC-32 of the model's checksums, u32 CRC-32 of the model's header
//! 32  u64 position
//! 40  u64 logits that follow the tokens: the vocabulary's size, or 0
//! 48  u64 length of all this, the checksum included
//! 56  u32 tokens [position], f32 logits, cache (KvCache::used), u32 CRC-32
//! ```
//!
//! The cache's part does not depend on the session's context, chunk, threads or instruction set, so
//! neither do the bytes: any session of the same model and cache type with room for the position can
//! take them, and goes on with the same bits.

use core::ops::Range;

use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use crate::kv_cache::KvType;
use crate::memory::Arena;
use crate::model::Model;
use crate::session::{Session, all_finite};

const MAGIC: [u8; 8] = *b"CBLSAVED";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 56;
const CHECKSUM_BYTES: usize = 4;

/// Where a saved session is read from: a file, a cursor over bytes.
pub trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// The first bytes of a saved session.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Header {
    kind: u32,
    model_bytes: u64,
    model_checksums: [u8; 8],
    position: u64,
    logits: u64,
    length: u64,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.kind.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.model_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.model_checksums);
        bytes[32..40].copy_from_slice(&self.position.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.logits.to_le_bytes());
        bytes[48..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes[..8] != MAGIC {
            return Err(Error::SavedSession("these bytes are none"));
        }
        if u32_at(8) != VERSION {
            return Err(Error::SavedSession("another version of this library made it"));
        }
        Ok(Self {
            kind: u32_at(12),
            model_bytes: u64_at(16),
            model_checksums: bytes[24..32].try_into().expect("8 bytes"),
            position: u64_at(32),
            logits: u64_at(40),
            length: u64_at(48),
        })
    }
}

impl Session {
    /// Length of what [`save`](Self::save) writes now.
    pub fn saved_bytes(&self) -> usize {
        let numbers = self.position() + self.last_logits().map_or(0, <[f32]>::len);
        HEADER_BYTES + numbers * 4 + self.cache.used_bytes(self.position()) + CHECKSUM_BYTES
    }

    /// Writes the session's tokens, cache and last logits.
    ///
    /// # Errors
    /// [`Error::SavedSessionIo`]; [`Error::FileChanged`], because the model's checksums go with it.
    pub fn save(&mut self, out: &mut dyn Write) -> Result<()> {
        let fail = |source| Error::SavedSessionIo { action: "write", source };
        self.forget_guesses();
        self.fill_windows()?;
        let header = self.header()?;
        let mut out = Summing { inner: out, checksum: Checksum::new() };
        out.write_all(&header.to_bytes()).map_err(fail)?;
        out.write_all(as_bytes(self.tokens())).map_err(fail)?;
        out.write_all(as_bytes(self.last_logits().unwrap_or_default())).map_err(fail)?;
        let position = self.position();
        self.cache.clear_unused_lanes(&mut self.arena, position);
        for range in self.cache.used(position) {
            out.write_all(self.arena.bytes(range)).map_err(fail)?;
        }
        let checksum = out.checksum.finish();
        out.inner.write_all(&checksum.to_le_bytes()).map_err(fail)
    }

    /// Takes over a saved session in place of what this one holds. Reads the source twice: first to
    /// check all of it, so that a refused one leaves the session as it was.
    ///
    /// # Errors
    /// [`Error::SavedSession`] if it is damaged, or of another model, cache type or version;
    /// [`Error::ContextFull`] if it has more positions than this session; [`Error::SavedSessionIo`];
    /// [`Error::FileChanged`], because it is compared with the model's checksums. If the source fails or changes between the two readings, the session is reset.
    pub fn restore(&mut self, source: &mut dyn Source) -> Result<()> {
        let fail = |source| Error::SavedSessionIo { action: "read", source };
        let start = source.stream_position().map_err(fail)?;
        let header = self.check_saved(source)?;
        source.seek(SeekFrom::Start(start)).map_err(fail)?;
        let loaded = self.load(source, header);
        if loaded.is_err() {
            self.reset();
        }
        loaded
    }

    /// As [`restore`](Self::restore), from memory.
    ///
    /// # Errors
    /// Those of [`restore`](Self::restore).
    pub fn restore_bytes(&mut self, saved: &[u8]) -> Result<()> {
        self.restore(&mut Cursor::new(saved))
    }

    /// Takes over the tokens, cache and logits of another session of the same model and cache type:
    /// both then go on from a shared beginning.
    ///
    /// # Errors
    /// [`Error::SavedSession`] if model or cache type differ; [`Error::ContextFull`] if this session
    /// has fewer positions than the other one holds. Then this session is as before.
    pub fn copy_from(&mut self, other: &mut Session) -> Result<()> {
        other.fill_windows()?;
        self.check_header(other.header()?)?;
        let position = other.position();
        self.forget_and_record(other.tokens());
        copy_ranges(
            (&mut self.arena, self.cache.used(position)),
            (&mut other.arena, other.cache.used(position)),
        );
        self.cache.note_restored(position);
        if let Ok(logits) = other.last_logits() {
            self.logits_to_fill().copy_from_slice(logits);
        }
        Ok(())
    }

    fn header(&self) -> Result<Header> {
        Ok(Header {
            kind: match self.cache.kind() {
                KvType::F16 => 0,
                KvType::Int8 => 1,
            },
            model_bytes: self.model().file_bytes() as u64,
            model_checksums: fingerprint(self.model())?,
            position: self.position() as u64,
            logits: self.last_logits().map_or(0, |logits| logits.len() as u64),
            length: self.saved_bytes() as u64,
        })
    }

    /// Whether this session can take what `saved` announces.
    fn check_header(&self, saved: Header) -> Result<()> {
        let own = self.header()?;
        let vocab_size = self.model().config().vocab_size as u64;
        if (saved.model_bytes, saved.model_checksums) != (own.model_bytes, own.model_checksums) {
            return Err(Error::SavedSession("it belongs to another model"));
        }
        if saved.kind != own.kind {
            return Err(Error::SavedSession("its cache has another type than this session's"));
        }
        if saved.logits != 0 && saved.logits != vocab_size {
            return Err(Error::SavedSession("it is damaged"));
        }
        if saved.position > self.context() as u64 {
            let tokens = usize::try_from(saved.position).unwrap_or(usize::MAX);
            return Err(Error::ContextFull { position: 0, tokens, context: self.context() });
        }
        // No overflow: the position is at most the context, whose cache was allocated.
        let cache = self.cache.used_bytes(saved.position as usize) as u64;
        let numbers = (saved.position + saved.logits) * 4;
        let expected = (HEADER_BYTES + CHECKSUM_BYTES) as u64 + numbers + cache;
        if saved.length != expected {
            return Err(Error::SavedSession("it is damaged"));
        }
        Ok(())
    }

    /// Reads all of a saved session; changes nothing.
    fn check_saved(&self, source: &mut dyn Read) -> Result<Header> {
        let mut head = [0; HEADER_BYTES];
        read(source, &mut head)?;
        let header = Header::from_bytes(&head)?;
        self.check_header(header)?;
        let mut checksum = Checksum::new();
        checksum.update(&head);
        let mut checked = Summing { inner: source, checksum };
        let (tokens, logits) = (header.position * 4, header.logits * 4);
        let cache = header.length - (HEADER_BYTES + CHECKSUM_BYTES) as u64 - tokens - logits;
        let mut is_finite = true;
        each_part(&mut checked, tokens, |_| ())?;
        each_part(&mut checked, logits, |part| is_finite &= all_finite_bytes(part))?;
        each_part(&mut checked, cache, |_| ())?;
        let Summing { inner: source, checksum } = checked;
        let mut stored = [0; CHECKSUM_BYTES];
        read(source, &mut stored)?;
        if checksum.finish() != u32::from_le_bytes(stored) {
            return Err(Error::SavedSession("it is damaged"));
        }
        // A checksum is no signature, and no session has such logits.
        if !is_finite {
            return Err(Error::SavedSession("its logits are not finite"));
        }
        // Not `read`, which a signal may interrupt.
        match source.read_exact(&mut [0]) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(header),
            Ok(()) => Err(Error::SavedSession("something follows it")),
            Err(source) => Err(Error::SavedSessionIo { action: "read", source }),
        }
    }

    /// Takes over a saved session that was checked.
    fn load(&mut self, source: &mut dyn Read, checked: Header) -> Result<()> {
        let mut head = [0; HEADER_BYTES];
        read(source, &mut head)?;
        let mut source = Summing { inner: source, checksum: Checksum::new() };
        source.checksum.update(&head);
        if Header::from_bytes(&head)? != checked {
            return Err(Error::SavedSession("it changed while it was read"));
        }
        self.reset();
        let position = checked.position as usize;
        self.load_tokens(&mut source, position)?;
        if checked.logits > 0 {
            let logits = self.logits_to_fill();
            read(&mut source, as_bytes_mut(logits))?;
            if !all_finite(logits) {
                return Err(Error::SavedSession("it changed while it was read"));
            }
        }
        for range in self.cache.used(position) {
            read(&mut source, self.arena.bytes(range))?;
        }
        self.cache.note_restored(position);
        let mut stored = [0; CHECKSUM_BYTES];
        read(source.inner, &mut stored)?;
        if source.checksum.finish() != u32::from_le_bytes(stored) {
            return Err(Error::SavedSession("it changed while it was read"));
        }
        Ok(())
    }

    /// A checksum is no signature, so the tokens are checked as any others.
    fn load_tokens(&mut self, source: &mut dyn Read, position: usize) -> Result<()> {
        let vocab_size = self.model().config().vocab_size;
        let mut buffer = [0; 1024];
        while self.position() < position {
            let tokens = buffer.len().min(position - self.position());
            let tokens = &mut buffer[..tokens];
            read(source, as_bytes_mut(tokens))?;
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
                return Err(Error::TokenOutOfRange { token, vocab_size });
            }
            self.record(tokens);
        }
        Ok(())
    }
}

/// Copies ranges of one arena to those of another, as many bytes in all: a ring of another size is cut in
/// another place.
fn copy_ranges(
    (to, to_ranges): (&mut Arena, impl Iterator<Item = Range<usize>>),
    (from, mut from_ranges): (&mut Arena, impl Iterator<Item = Range<usize>>),
) {
    let mut rest = 0..0;
    for mut range in to_ranges {
        while !range.is_empty() {
            if rest.is_empty() {
                rest = from_ranges.next().expect("caches of one model use equally many bytes");
            }
            let len = range.len().min(rest.len());
            let bytes = from.bytes(rest.start..rest.start + len);
            to.bytes(range.start..range.start + len).copy_from_slice(bytes);
            (range.start, rest.start) = (range.start + len, rest.start + len);
        }
    }
}

/// Tells models apart by the checksums that their files carry: of the table of all tensors'
/// checksums, and of the header.
fn fingerprint(model: &Model) -> Result<[u8; 8]> {
    Ok(*model.checksums()?.last_chunk().expect("a table of checksums ends with two"))
}

/// Reads `bytes` bytes in parts, each of whole numbers if all are.
fn each_part(source: &mut dyn Read, mut bytes: u64, mut visit: impl FnMut(&[u8])) -> Result<()> {
    let mut buffer = [0; 4096];
    while bytes > 0 {
        let part = bytes.min(buffer.len() as u64) as usize;
        read(source, &mut buffer[..part])?;
        visit(&buffer[..part]);
        bytes -= part as u64;
    }
    Ok(())
}

/// Whether none of these binary32 numbers, little-endian, is infinite or NaN.
fn all_finite_bytes(numbers: &[u8]) -> bool {
    let (numbers, _) = numbers.as_chunks();
    numbers.iter().all(|&number| f32::from_le_bytes(number).is_finite())
}

fn read(source: &mut dyn Read, buffer: &mut [u8]) -> Result<()> {
    source.read_exact(buffer).map_err(|source| match source.kind() {
        ErrorKind::UnexpectedEof => Error::SavedSession("it is cut off"),
        _ => Error::SavedSessionIo { action: "read", source },
    })
}

/// Numbers that may be seen as bytes.
trait Number: Copy {}
impl Number for u32 {}
impl Number for f32 {}

fn as_bytes<T: Number>(numbers: &[T]) -> &[u8] {
    // SAFETY: a `Number` has no padding, and bytes need no alignment.
    unsafe { core::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

fn as_bytes_mut<T: Number>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `as_bytes`, and any bytes are a `Number`.
    unsafe { core::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

/// Adds up the checksum of all that passes.
struct Summing<'a, T: ?Sized> {
    inner: &'a mut T,
    checksum: Checksum,
}

impl<T: Write + ?Sized> Write for Summing<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read + ?Sized> Read for Summing<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.checksum.update(&buffer[..read]);
        Ok(read)
    }
}
