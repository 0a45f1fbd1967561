//! The functions that set options.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::ffi::c_char;

use super::handle::{cbl_options, change};
use crate::error::Error;
use crate::ffi::arguments::text;
use crate::ffi::status::cbl_status;
use crate::memory;

/// Sets an option of type int. `key` is a cbl_option.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_UNSUPPORTED, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_int(
    options: *mut cbl_options,
    key: i32,
    value: i64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| options.set_int(key, value)) }
}

/// Sets an option of type float. `key` is a cbl_option.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_float(
    options: *mut cbl_options,
    key: i32,
    value: f64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| Ok(options.set_float(key, value)?)) }
}

/// Sets an option of type string to the `length` bytes at `value`. `key` is a cbl_option.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8,
/// CBL_BAD_OPTION, CBL_NO_THREADS, CBL_UNSUPPORTED, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_string(
    options: *mut cbl_options,
    key: i32,
    value: *const c_char,
    length: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| options.set_string(key, text(value, length)?)) }
}

/// Adds a stop string: `length` bytes of UTF-8, which are copied. A generated text ends before the
/// first stop string that appears in it, even if the string begins or ends inside a token. No part
/// of a stop string is passed on.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_BAD_OPTION
/// if the string is empty, CBL_NO_MEMORY, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_add_stop(
    options: *mut cbl_options,
    stop: *const c_char,
    length: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            let stop = text(stop, length)?;
            if stop.is_empty() {
                let detail = "is empty and would stop before the first token".to_owned();
                return Err(Error::Option { name: "stop string", detail }.into());
            }
            let stop = memory::copy(stop)?;
            let bytes = size_of::<String>();
            options.generate.stop.try_reserve(1).map_err(|_| Error::OutOfMemory { bytes })?;
            options.generate.stop.push(stop);
            Ok(())
        })
    }
}

/// Removes all stop strings.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_clear_stops(options: *mut cbl_options) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            options.generate.stop.clear();
            Ok(())
        })
    }
}

/// Adds `bias`, -1000 to 1000, to the logit of a token before penalty and temperature. -100 makes
/// the token almost impossible, 100 almost certain, and 0 removes its bias. If the model does not
/// have the token, a generation or a choice fails with CBL_BAD_OPTION.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_set_logit_bias(
    options: *mut cbl_options,
    token: u32,
    bias: f64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { change(options, |options| Ok(options.set_logit_bias(token, bias)?)) }
}

/// Removes all biases that cbl_options_set_logit_bias() has set.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_options_clear_logit_biases(options: *mut cbl_options) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        change(options, |options| {
            options.generate.sampler.logit_bias.clear();
            Ok(())
        })
    }
}
