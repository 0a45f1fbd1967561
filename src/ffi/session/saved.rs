//! Saving
//!
//! A session's tokens, cache and last logits can be saved as bytes. A prompt is then evaluated once
//! and restored any number of times, each in milliseconds, and the session goes on with the same
//! bits. The saved bytes contain a fingerprint of the model and a checksum. They fit any session of
//! the same model and the same type of cache that has room for the tokens; threads, chunk and
//! instruction set may differ. The bytes are not encrypted: whoever can read them can read the
//! tokens. The checksum finds accidents, not forgeries.

use core::ffi::{c_char, c_void};

use super::state::{self, cbl_session};
use crate::ffi::arguments::{Out, buffer_for, slice};
use crate::ffi::files;
use crate::ffi::status::cbl_status;
use crate::io::Cursor;

/// Saves a session to a buffer of `capacity` bytes. `*size` receives the number of bytes that it
/// takes, also if the buffer is too small. A capacity of 0 only asks for the number, and gives
/// CBL_BUFFER_TOO_SMALL.
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
        state::with_running(session, |inner| {
            let needed = inner.session.saved_bytes();
            out?.set(needed);
            let buffer = buffer_for(needed, buffer.cast::<u8>(), capacity)?;
            Ok(inner.session.save(&mut Cursor::new(buffer))?)
        })
    }
}

/// Restores what cbl_session_save() wrote: `size` bytes at `data`. It replaces the tokens that the
/// session holds.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_SAVED, CBL_CONTEXT_FULL
/// if the session has too few positions, CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_restore(
    session: *mut cbl_session,
    data: *const c_void,
    size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        state::with(session, |inner| {
            Ok(inner.session.restore_bytes(slice(data.cast::<u8>(), size)?)?)
        })
    }
}

/// Saves a session to a file. Only the owner may read it (mode 0600), because it holds the tokens.
///
/// The file is written under another name beside `path`, flushed to the disk and then renamed. So
/// `path` is always the old file or the new one, and never a part, also if several sessions save to
/// it at the same time. A symbolic link stands for the file that it leads to. A device, a pipe, a
/// socket or a directory is refused. A process that is killed may leave a file `.NAME.<16
/// digits>.cbl-tmp`; the next call for the same path removes it.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_IO, CBL_NO_MEMORY,
/// CBL_MODEL_CHANGED, CBL_BUSY, CBL_PANIC; CBL_UNSUPPORTED without an operating system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_save_file(
    session: *mut cbl_session,
    path: *const c_char,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { state::with_running(session, |inner| files::save(&mut inner.session, path)) }
}

/// Restores what cbl_session_save_file() wrote, from a regular file. The call reads the file twice,
/// first to check it. If the file is changed or cannot be read the second time, the session is
/// reset.
///
/// One thread at a time. Errors: those of cbl_session_restore(), CBL_MODEL_CHANGED among them;
/// CBL_IO; CBL_UNSUPPORTED without an operating system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_restore_file(
    session: *mut cbl_session,
    path: *const c_char,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { state::with(session, |inner| files::restore(&mut inner.session, path)) }
}
