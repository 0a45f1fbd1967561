//! The weights of a model: checked, and kept in memory.

use core::ffi::{c_char, c_void};
use core::ptr::NonNull;

use super::shared::{cbl_model, with};
use crate::error::Error;
use crate::ffi::arguments::Out;
use crate::ffi::boundary::Report;
use crate::ffi::failure::Failure;
use crate::ffi::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use crate::memory::HostMemory;
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

/// Copies weights to `bytes` bytes at `memory`, which begins on a 64-byte boundary: those weights that
/// save a token most bytes of the model. From then on its sessions and batches read them there. This
/// makes them faster if the model lies in slow memory, such as flash that is read over a few wires.
/// Results are the same bits. `*saved` is the number of bytes of the model that a token no longer
/// reads; 0 on failure. `cerebellum plan --flash-mb-s N --ram BYTES` shows it in advance.
///
/// Nobody else may use the memory until the model and all its sessions and batches are freed. A model
/// has one such copy. If any of the memory belongs to a session or a model, if the memory has no room
/// for any tensor, or if the model has a copy already, the call returns CBL_BAD_ARGUMENT or
/// CBL_BAD_OPTION, and the message says what is wrong.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_MEMORY,
/// CBL_MODEL_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_copy_weights(
    model: *const cbl_model,
    memory: *mut c_void,
    bytes: usize,
    saved: *mut usize,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(saved, 0);
        with(model, Report::Buffer(message, message_size), |shared| {
            let (out, none) = (out?, Failure::Misuse(CBL_BAD_ARGUMENT, "the memory is NULL"));
            let memory = HostMemory::new(NonNull::new(memory.cast()).ok_or(none)?, bytes);
            out.set(shared.model.copy_weights(memory)?.saved_bytes);
            Ok(())
        })
    }
}
