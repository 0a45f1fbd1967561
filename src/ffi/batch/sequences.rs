//! The sequences of a batch: evaluated, chosen from, forgotten.

use core::ptr;

use super::state::{cbl_batch, with, with_running, work};
use crate::batch::Append;
use crate::ffi::arguments::{Out, list_lengths, slice};
use crate::ffi::boundary;
use crate::ffi::options::{self, cbl_options};
use crate::ffi::status::cbl_status;
use crate::memory::try_vec;

/// Forgets the tokens of a sequence from `position` on; with 0, all of them. Takes no time.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if there is no such sequence,
/// CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_rewind(
    batch: *mut cbl_batch,
    sequence: usize,
    position: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(batch, &mut |inner| {
            inner.check(sequence)?;
            Ok(inner.batch.rewind(sequence, position)?)
        })
    }
}

/// Finds the tokens in a sequence: `*tokens` points to `*count` ids, valid until the next call on
/// the batch. NULL and 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_tokens(
    batch: *mut cbl_batch,
    sequence: usize,
    tokens: *mut *const u32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut outs = Some((Out::new(tokens, ptr::null()), Out::new(count, 0)));
        with_running(batch, &mut |inner| {
            let (tokens, count) = boundary::once(&mut outs);
            let (tokens, count) = (tokens?, count?);
            inner.check(sequence)?;
            let held = inner.batch.tokens(sequence);
            tokens.set(held.as_ptr());
            count.set(held.len());
            Ok(())
        })
    }
}

/// Appends tokens to `count` sequences and evaluates them. Sequence `sequences[i]` gets
/// `lengths[i]` tokens, at least one. All tokens lie one after another at `tokens`. No sequence is
/// named twice. Afterwards the last tokens of these sequences have logits, which can be read or
/// sampled. Other sequences have none.
///
/// One thread at a time. On failure all sequences hold the tokens that they held before, and have
/// no logits. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT; CBL_BAD_OPTION if a sequence does not exist
/// or is named twice; CBL_BAD_TOKEN; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED; CBL_NON_FINITE;
/// CBL_CANCELLED; CBL_NO_MEMORY; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_evaluate(
    batch: *mut cbl_batch,
    sequences: *const usize,
    lengths: *const usize,
    count: usize,
    tokens: *const u32,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        work(batch, &mut |inner| {
            let sequences = slice(sequences, count)?;
            let (lengths, total) = list_lengths(lengths, count)?;
            let mut rest = slice(tokens, total)?;
            let mut appends = try_vec(count)?;
            for (&sequence, &length) in sequences.iter().zip(lengths) {
                let (tokens, others) = rest.split_at(length);
                appends.push(Append { sequence, tokens });
                rest = others;
            }
            Ok(inner.batch.evaluate(&appends)?)
        })
    }
}

/// Finds the logits of a sequence's last token, if the last cbl_batch_evaluate() named the
/// sequence: `*logits` points to `*count` floats, one for each token of the vocabulary. They are
/// valid until the next call that evaluates, generates, rewinds or frees. NULL and 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY,
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_logits(
    batch: *mut cbl_batch,
    sequence: usize,
    logits: *mut *const f32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut outs = Some((Out::new(logits, ptr::null()), Out::new(count, 0)));
        with_running(batch, &mut |inner| {
            let (logits, count) = boundary::once(&mut outs);
            let (logits, count) = (logits?, count?);
            inner.check(sequence)?;
            let row = inner.batch.logits(sequence)?;
            logits.set(row.as_ptr());
            count.set(row.len());
            Ok(())
        })
    }
}

/// Chooses the next token of a sequence, as cbl_session_sample() does for a session. The token is
/// not appended.
///
/// One thread at a time. Errors: those of cbl_session_sample().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_batch_sample(
    batch: *mut cbl_batch,
    sequence: usize,
    options: *const cbl_options,
    token: *mut u32,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let mut out = Some(Out::new(token, 0));
        with_running(batch, &mut |inner| {
            let out = boundary::once(&mut out)?;
            inner.check(sequence)?;
            out.set(options::with(options, |options| {
                Ok(inner.batch.sample(sequence, options.choice()?)?)
            })?);
            Ok(())
        })
    }
}
