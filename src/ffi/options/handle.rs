//! Handles of sets of options.

use core::ffi::c_char;

use super::settings::Options;
use crate::ffi::arguments::Out;
use crate::ffi::boundary::{self, Report, once, panic_if_armed};
use crate::ffi::failure::{Failure, POISONED};
use crate::ffi::handle::{self, Handle, Place};
use crate::ffi::last_failure::LastFailure;
use crate::ffi::status::cbl_status;
use crate::sync::{RwLock, RwLockReadGuard, TryLockError};

/// A set of options.
pub struct cbl_options {
    failure: LastFailure,
    options: RwLock<Options>,
}

const IN_USE: Failure = Failure::Busy(
    c"the options are in use, by another thread or by the call whose callback this is; \
      call again when that has returned",
);

impl Handle for cbl_options {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-opts");
}

/// Runs `body` on the options, or on the defaults if `options` is null. Nobody can change the options
/// meanwhile.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn with<T>(
    options: *const cbl_options,
    body: impl FnOnce(&Options) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if options.is_null() {
        return body(&Options::default());
    }
    // SAFETY: the caller's contract.
    let options = unsafe { handle::get(options) }?;
    body(&*options.read()?)
}

impl cbl_options {
    fn read(&self) -> Result<RwLockReadGuard<'_, Options>, Failure> {
        self.options.try_read().map_err(|error| match error {
            TryLockError::WouldBlock => IN_USE,
            TryLockError::Poisoned(_) => POISONED,
        })
    }
}

/// Runs `body`, which changes the options.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn change(
    options: *mut cbl_options,
    body: impl FnOnce(&mut Options) -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    // SAFETY: the caller's contract.
    unsafe { change_dyn(options, &mut |options| once(&mut body)(options)) }
}

/// # Safety
/// As [`handle::get`].
unsafe fn change_dyn(
    options: *mut cbl_options,
    body: &mut dyn FnMut(&mut Options) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    let options = match unsafe { handle::get(options) } {
        Ok(options) => options,
        Err(failure) => return failure.status(),
    };
    boundary::status_of_locked(Report::Handle(&options.failure), || {
        let mut locked = options.options.try_write().map_err(|error| match error {
            TryLockError::WouldBlock => IN_USE,
            TryLockError::Poisoned(_) => POISONED,
        })?;
        panic_if_armed();
        body(&mut locked)
    })
}

/// Makes a set of options with their defaults. `*options` is NULL if that fails.
///
/// Thread-safe. Errors: CBL_BAD_ARGUMENT, CBL_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_new(options: *mut *mut cbl_options) -> cbl_status {
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let out = unsafe { Out::new(options, core::ptr::null_mut()) }?;
        out.set(
            Place::new(cbl_options {
                failure: LastFailure::none(None),
                options: RwLock::new(Options::default()),
            })?
            .give(),
        );
        Ok(())
    })
}

/// Frees a set of options; NULL is allowed. Models and sessions that were made with it stay usable.
///
/// Errors: CBL_BAD_HANDLE; CBL_BUSY, which frees nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_free(options: *mut cbl_options) -> cbl_status {
    if options.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { handle::get(options) }?;
        if let Err(TryLockError::WouldBlock) = handle.options.try_write() {
            handle.failure.set(&IN_USE);
            return Err(IN_USE);
        }
        // SAFETY: the caller's contract, and no call is using them.
        unsafe { handle::free(options) };
        Ok(())
    })
}

/// Returns why the last failed call that was to change these options failed. The text is English,
/// never NULL, and valid until the next call with the options. After CBL_BUSY, the thread that got
/// it reads that the options are in use; the message for other threads does not change.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_error(options: *mut cbl_options) -> *const c_char {
    boundary::value(handle::NONE.as_ptr(), || {
        // SAFETY: the caller's contract.
        Ok(unsafe { handle::get(options) }?.failure.text())
    })
}
