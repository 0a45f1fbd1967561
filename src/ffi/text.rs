//! Text
//!
//! These functions turn text into token ids and back, with the tokenizer in the model file. If the
//! file is mapped, the first use copies the tokenizer's tables: about 1 MB for 50 000 tokens.

use alloc::vec::Vec;
use core::ffi::c_char;
use core::ptr;

use super::arguments::{Out, buffer_for, copy_out, slice, text};
use super::boundary::Report;
use super::failure::Failure;
#[cfg(not(feature = "text"))]
use super::failure::NO_TOKENIZING as UNSUPPORTED;
use super::model::{self, Shared, cbl_model};
use super::options::{self, cbl_options};
use super::status::cbl_status;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::model::TokenizerBytes;
use crate::session::Session;
use crate::text::TokenTable;

#[cfg(feature = "text")]
use crate::text::EncodeOptions;

/// How [`cbl_model_tokenize`] reads a text.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(feature = "text"),
    expect(dead_code, reason = "the options are checked all the same")
)]
struct Reading {
    parse_special: bool,
    begin_of_text: bool,
}

/// The tokens of a text.
#[cfg(feature = "text")]
fn encode(shared: &Shared, text: &str, reading: Reading) -> Result<Vec<u32>, Failure> {
    let Reading { parse_special, begin_of_text } = reading;
    let options = EncodeOptions { parse_special, begin_of_text };
    Ok(shared.tokenizer()?.encode(text, options).map_err(Error::from)?)
}

#[cfg(not(feature = "text"))]
fn encode(_: &Shared, _: &str, _: Reading) -> Result<Vec<u32>, Failure> {
    Err(UNSUPPORTED)
}

/// The tokens of a text that is to come after `position` tokens of a session.
#[cfg(feature = "text")]
pub(super) fn encode_after(
    position: usize,
    session: &Session,
    shared: &Shared,
    text: &str,
    parse_special: bool,
) -> Result<Vec<u32>, Failure> {
    let options = EncodeOptions { parse_special, ..Default::default() };
    Ok(session.encode_after(position, shared.tokenizer()?, text, options)?)
}

#[cfg(not(feature = "text"))]
pub(super) fn encode_after(
    _: usize,
    _: &Session,
    _: &Shared,
    _: &str,
    _: bool,
) -> Result<Vec<u32>, Failure> {
    Err(UNSUPPORTED)
}

/// The tokens of a prompt for a sequence of a batch.
#[cfg(feature = "text")]
pub(super) fn encode_for_batch(
    batch: &Batch,
    shared: &Shared,
    text: &str,
    parse_special: bool,
) -> Result<Vec<u32>, Failure> {
    Ok(batch.encode(
        shared.tokenizer()?,
        text,
        EncodeOptions { parse_special, ..Default::default() },
    )?)
}

#[cfg(not(feature = "text"))]
pub(super) fn encode_for_batch(
    _: &Batch,
    _: &Shared,
    _: &str,
    _: bool,
) -> Result<Vec<u32>, Failure> {
    Err(UNSUPPORTED)
}

/// Turns `length` bytes of UTF-8 into token ids. `*count` receives the number of ids. `tokens` has
/// room for `capacity` ids, and receives them if they all fit. A capacity of 3 * `length` + 2 is
/// always enough, and `length` + 2 unless the tokenizer normalizes texts. A capacity of 0 only asks for the number, and then gives CBL_BUFFER_TOO_SMALL. `options`
/// may be NULL; only CBL_OPTION_PARSE_SPECIAL and CBL_OPTION_BEGIN_OF_TEXT are used. Set the latter
/// for a text whose tokens are to begin a session.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_INVALID_UTF8, CBL_NO_TOKENIZER,
/// CBL_BAD_TEXT, CBL_BUFFER_TOO_SMALL, CBL_MODEL_CHANGED, CBL_NO_MEMORY, CBL_UNSUPPORTED, CBL_BUSY,
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_tokenize(
    model: *const cbl_model,
    options: *const cbl_options,
    text: *const c_char,
    length: usize,
    tokens: *mut u32,
    capacity: usize,
    count: *mut usize,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(count, 0);
        model::with(model, Report::Buffer(message, message_size), |shared| {
            out?;
            let text = self::text(text, length)?;
            let reading = options::with(options, |options| {
                let (parse_special, begin_of_text) = (options.parse_special, options.begin_of_text);
                Ok(Reading { parse_special, begin_of_text })
            })?;
            copy_out(&encode(shared, text, reading)?, tokens, capacity, count)
        })
    }
}

/// Turns `count` token ids into the bytes that they stand for. `*length` receives the number of
/// bytes. `text` has room for `capacity` bytes, and receives them if they all fit, without a zero
/// byte at the end. A capacity of 0 only asks for the number, and then gives CBL_BUFFER_TOO_SMALL.
/// A token may be a part of a character, so the bytes may begin or end inside a UTF-8 character.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_TOKEN, CBL_NO_TOKENIZER,
/// CBL_BAD_TEXT, CBL_BUFFER_TOO_SMALL, CBL_MODEL_CHANGED, CBL_NO_MEMORY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_detokenize(
    model: *const cbl_model,
    tokens: *const u32,
    count: usize,
    text: *mut c_char,
    capacity: usize,
    length: *mut usize,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(length, 0);
        model::with(model, Report::Buffer(message, message_size), |shared| {
            out?;
            let tokens = slice(tokens, count)?;
            let table = shared.tokenizer()?.table();
            let needed = decoded_length(shared, table, tokens)?;
            Out::new(length, needed)?;
            let mut rest = buffer_for(needed, text.cast::<u8>(), capacity)?;
            for &token in tokens {
                let bytes = table.token_bytes(token).unwrap_or_default();
                let (place, others) = rest.split_at_mut(bytes.len());
                place.copy_from_slice(bytes);
                rest = others;
            }
            Ok(())
        })
    }
}

fn decoded_length(
    shared: &Shared,
    table: &TokenTable<TokenizerBytes>,
    tokens: &[u32],
) -> Result<usize> {
    let vocab_size = shared.model.config().vocab_size;
    let mut length = 0;
    for &token in tokens {
        if token as usize >= vocab_size {
            return Err(Error::TokenOutOfRange { token, vocab_size });
        }
        length += table.token_bytes(token).map_or(0, <[u8]>::len);
    }
    Ok(length)
}

/// Finds the bytes that one token stands for: `*bytes` points to `*length` bytes, without a zero
/// byte at the end. They are valid as long as the model, whatever happens to its file. NULL and 0
/// on failure, and for a token that stands for nothing.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_TOKEN, CBL_NO_TOKENIZER,
/// CBL_BAD_TEXT, CBL_MODEL_CHANGED, CBL_NO_MEMORY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_token_bytes(
    model: *const cbl_model,
    token: u32,
    bytes: *mut *const c_char,
    length: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let outs = (Out::new(bytes, ptr::null()), Out::new(length, 0));
        model::with(model, Report::Nothing, |shared| {
            let (bytes, length) = (outs.0?, outs.1?);
            let table = shared.tokenizer()?.table();
            decoded_length(shared, table, &[token])?;
            if let Some(found) = table.token_bytes(token) {
                bytes.set(found.as_ptr().cast());
                length.set(found.len());
            }
            Ok(())
        })
    }
}
