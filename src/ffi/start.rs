//! Without an operating system
//!
//! A library that was made by `packaging/install.sh --bare` needs no operating system and no C library. It has no files,
//! no threads and no clock: functions that need a file return CBL_UNSUPPORTED, CBL_OPTION_THREADS is 1, and times
//! are 0. A bug, which gives CBL_PANIC elsewhere, ends in the host's callback.
//!
//! The library allocates from memory that the host gives it once. All calls come from one thread, which no other
//! interrupts to call the library; only cbl_session_cancel() and cbl_batch_cancel() may be called by an
//! interrupt handler or on another core.

use core::ffi::{c_char, c_void};

#[cfg(not(target_os = "none"))]
use self::hosted as system;
use super::arguments::Out;
#[cfg(target_os = "none")]
use super::bare as system;
use super::boundary::{self, Report};
use super::status::cbl_status;

/// Is told of a bug in the library, in English; the text ends with a zero byte. It must not return, throw or
/// longjmp: it resets the device, for example. If it returns, the library loops forever.
pub type cbl_panic_callback = Option<unsafe extern "C" fn(message: *const c_char)>;

/// Gives the library `size` bytes at `memory` to allocate from, for good. Comes before all other calls, and once.
/// `on_panic` may be NULL.
///
/// cbl_model_plan() says what a session takes of it, if it has no arena of its own. A model takes some 120 KB, most of
/// it while it is opened, and texts a little more.
///
/// Errors: CBL_BAD_ARGUMENT, CBL_BUSY if it was called before, CBL_UNSUPPORTED if there is an operating system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_bare_start(
    memory: *mut c_void,
    size: usize,
    on_panic: cbl_panic_callback,
) -> cbl_status {
    // SAFETY: the caller's contract.
    boundary::status(Report::Nothing, || unsafe { system::start(memory.cast(), size, on_panic) })
}

/// Writes how many bytes of the memory of cbl_bare_start() are in use, and how many were at most.
///
/// Errors: CBL_BAD_ARGUMENT, CBL_UNSUPPORTED if there is an operating system.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_bare_memory(used: *mut usize, most: *mut usize) -> cbl_status {
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let (used, most) = unsafe { (Out::new(used, 0), Out::new(most, 0)) };
        let (used, most) = (used?, most?);
        let bytes = system::memory()?;
        used.set(bytes.0);
        most.set(bytes.1);
        Ok(())
    })
}

/// Where there is a system to ask for memory.
#[cfg(not(target_os = "none"))]
mod hosted {
    use super::{cbl_panic_callback, cbl_status};
    use crate::ffi::failure::Failure;

    const HOSTED: Failure = Failure::Misuse(
        cbl_status::CBL_UNSUPPORTED,
        "the operating system gives the library its memory",
    );

    pub unsafe fn start(_: *mut u8, _: usize, _: cbl_panic_callback) -> Result<(), Failure> {
        Err(HOSTED)
    }

    pub fn memory() -> Result<(usize, usize), Failure> {
        Err(HOSTED)
    }
}
