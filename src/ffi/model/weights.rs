//! The weights of a model: checked, and kept in memory.

use core::ffi::c_char;

use super::shared::{cbl_model, with};
use crate::error::Error;
use crate::ffi::boundary::Report;
use crate::ffi::failure::Failure;
use crate::ffi::status::cbl_status;
use crate::model::Model;

/// Reads the whole model and checks every checksum. Checksums find accidents, not forgeries.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_MODEL with a message that names a damaged tensor,
/// CBL_MODEL_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_verify(
    model: *const cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with(model, Report::Buffer(message, message_size), |shared| check_all(&shared.model)) }
}

fn check_all(model: &Model) -> Result<(), Failure> {
    match model.verify()?.into_iter().next() {
        None => Ok(()),
        Some(fault) => Err(Error::Damaged { tensor: fault.tensor }.into()),
    }
}

/// Brings the model's pages into memory and keeps them there as long as the model or a session of
/// it lives. So no evaluation waits for the disk. The call takes the time to read the pages that
/// are not in memory yet. Evaluations may run at the same time. If the system refuses, the message
/// names the number of bytes and the limit (RLIMIT_MEMLOCK), and the model can be used as before.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_MODEL_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_lock_memory(
    model: *const cbl_model,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(model, Report::Buffer(message, message_size), |shared| {
            Ok(shared.model.lock_memory()?)
        })
    }
}
