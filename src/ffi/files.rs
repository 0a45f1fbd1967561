//! Models and saved sessions in files.

use core::ffi::{CStr, c_char};
use core::ops::Range;
use std::fs::File;
use std::path::Path;

#[cfg(unix)]
use crate::error::Error;
use crate::model::Model;
use crate::open_options::OpenOptions;
use crate::session::Session;

use super::failure::Failure;
use super::status::cbl_status::CBL_BAD_ARGUMENT;
#[cfg(not(unix))]
use super::status::cbl_status::{CBL_INVALID_UTF8, CBL_UNSUPPORTED};

/// Opens the model file at `path`.
///
/// # Safety
/// As [`path`].
pub(super) unsafe fn open(how: OpenOptions, path: *const c_char) -> Result<Model, Failure> {
    // SAFETY: the caller's contract.
    Ok(how.open(unsafe { self::path(path) }?)?)
}

/// Opens the model in a file that is open, or in a part of it.
pub(super) fn open_descriptor(
    how: OpenOptions,
    fd: i32,
    range: Option<Range<u64>>,
) -> Result<Model, Failure> {
    let (file, name) = (duplicate(fd)?, Path::new(FD_NAME));
    Ok(match range {
        None => how.open_file(file, name)?,
        Some(range) => how.open_range(file, name, range)?,
    })
}

/// Saves a session to the file at `path`.
///
/// # Safety
/// As [`path`].
pub(super) unsafe fn save(session: &mut Session, path: *const c_char) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    Ok(session.save_file(unsafe { self::path(path) }?)?)
}

/// Restores a session from the file at `path`.
///
/// # Safety
/// As [`path`].
pub(super) unsafe fn restore(session: &mut Session, path: *const c_char) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    Ok(session.restore_file(unsafe { self::path(path) }?)?)
}

/// The caller's path, which ends with a zero byte. On Unix it is any bytes, elsewhere UTF-8.
///
/// # Safety
/// `path` is null, or points to bytes that end with a zero and are valid for `'a`.
unsafe fn path<'a>(path: *const c_char) -> Result<&'a Path, Failure> {
    if path.is_null() {
        return Err(Failure::Misuse(CBL_BAD_ARGUMENT, "a path is NULL"));
    }
    // SAFETY: the caller's contract.
    let path = unsafe { CStr::from_ptr(path) };
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())))
    }
    #[cfg(not(unix))]
    {
        let text = path.to_str();
        let text =
            text.map_err(|_| Failure::Misuse(CBL_INVALID_UTF8, "a path is not valid UTF-8"))?;
        Ok(Path::new(text))
    }
}

/// The name in messages for a file without a path.
const FD_NAME: &str = "the file descriptor's file";

#[cfg(unix)]
fn duplicate(fd: i32) -> Result<File, Failure> {
    use std::os::fd::BorrowedFd;
    if fd < 0 {
        let detail = "a file descriptor is negative";
        return Err(Failure::Misuse(CBL_BAD_ARGUMENT, detail));
    }
    // SAFETY: it is not -1. It is only duplicated, which fails if it is not open.
    let duplicate = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned();
    let fail = |source| Error::Io { action: "duplicate", path: FD_NAME.into(), source };
    Ok(duplicate.map_err(fail)?.into())
}

#[cfg(not(unix))]
fn duplicate(_: i32) -> Result<File, Failure> {
    let detail = "file descriptors are for Unix only";
    Err(Failure::Misuse(CBL_UNSUPPORTED, detail))
}
