//! Saving
//!
//! A session's tokens, cache and last logits as bytes: a prompt that is evaluated once can be restored
//! any number of times, in milliseconds, and goes on with the same bits. The bytes carry a fingerprint of
//! the model and a checksum, and fit any session of the same model and cache type with room for the
//! tokens, whatever its threads, chunk or instruction set. They are not encrypted: whoever can read them
//! can read the tokens, and the checksum finds accidents, not forgeries.

use std::ffi::{OsString, c_char, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor};
use std::path::Path;

use super::arguments::{Out, buffer_for, path, slice};
use super::boundary::Failure;
use super::session::{self, cbl_session};
use super::status::cbl_status;
use crate::error::{Error, Result};
use crate::session::Session;

/// Saves a session to a buffer of `capacity` bytes. `*size` receives the size of what is saved, also if
/// the buffer is too small; call with a capacity of 0 to ask first.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUFFER_TOO_SMALL,
/// CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_save(
    session: *mut cbl_session,
    buffer: *mut c_void,
    capacity: usize,
    size: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(size, 0);
        session::with_running(session, |inner| {
            let needed = inner.session.saved_bytes();
            out?.set(needed);
            let buffer = buffer_for(needed, buffer.cast::<u8>(), capacity)?;
            Ok(inner.session.save(&mut Cursor::new(buffer))?)
        })
    }
}

/// Restores what cbl_session_save() wrote, `size` bytes at `data`, in place of what the session holds.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_SAVED, CBL_CONTEXT_FULL if
/// the session has too few positions, CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_restore(
    session: *mut cbl_session,
    data: *const c_void,
    size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        session::with(session, |inner| {
            Ok(inner.session.restore_bytes(slice(data.cast::<u8>(), size)?)?)
        })
    }
}

/// Saves a session to a file: written beside it under the name with ".tmp" appended, flushed to the
/// disk, then renamed, so that there is the old file or the new one and never a part.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_IO, CBL_MODEL_CHANGED, CBL_BUSY,
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_save_file(
    session: *mut cbl_session,
    path: *const c_char,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        session::with_running(session, |inner| save_file(&mut inner.session, self::path(path)?))
    }
}

fn save_file(session: &mut Session, path: &Path) -> Result<(), Failure> {
    let mut temporary = OsString::new();
    let bytes = path.as_os_str().len() + ".tmp".len();
    temporary.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    temporary.push(path);
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = write_file(session, temporary).and_then(|()| {
        fs::rename(temporary, path).map_err(|source| io_error("write", source))?;
        sync_directory_of(path).map_err(|source| io_error("write", source))
    });
    if written.is_err() {
        // The failure itself is what matters; there may be nothing to remove.
        let _ = fs::remove_file(temporary);
    }
    Ok(written?)
}

fn write_file(session: &mut Session, path: &Path) -> Result<()> {
    let fail = |source| io_error("write", source);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
    // Unbuffered, for a buffer could not be had without risk: writes are few and large.
    let mut out = file.map_err(fail)?;
    session.save(&mut out)?;
    out.sync_all().map_err(fail)
}

/// A rename is safe on the disk once its directory is.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Restores what cbl_session_save_file() wrote. The file is read twice, first to check it; if it is
/// changed or fails in between, the session is reset.
///
/// One thread at a time. Errors: those of cbl_session_restore(), CBL_MODEL_CHANGED among them; CBL_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_restore_file(
    session: *mut cbl_session,
    path: *const c_char,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        session::with(session, |inner| {
            let file = File::open(self::path(path)?);
            Ok(inner.session.restore(&mut file.map_err(|source| io_error("open", source))?)?)
        })
    }
}

fn io_error(action: &'static str, source: io::Error) -> Error {
    Error::SavedSessionIo { action, source }
}
