//! Handles of batches, and the state that their lock guards.

use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;

use super::running::Running;
use crate::batch::Batch;
use crate::ffi::failure::Failure;
use crate::ffi::handle::{self, Handle};
use crate::ffi::locked::Locked;
use crate::ffi::model::Shared;
use crate::ffi::status::cbl_status::{self, CBL_BAD_ARGUMENT};

/// Several sequences of tokens that are evaluated together, numbered from 0.
pub struct cbl_batch {
    /// `cbl_batch_cancel` sets it; the batch in `locked` reads it.
    pub(super) cancel: AtomicBool,
    pub(super) locked: Locked<Inner>,
}

impl Handle for cbl_batch {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-btch");
}

/// The state that the lock guards.
pub struct Inner {
    pub batch: Batch,
    pub shared: Arc<Shared>,
    pub running: Option<Running>,
}

impl Inner {
    /// Refuses the number of a sequence that the batch does not have.
    pub fn check(&self, sequence: usize) -> Result<(), Failure> {
        if sequence < self.batch.sequences() {
            return Ok(());
        }
        Err(Failure::Misuse(CBL_BAD_ARGUMENT, "there is no sequence of that number in the batch"))
    }
}

/// Runs `body` on a batch that no other call is using. `body` may change the batch, so the generation
/// on demand ends.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn with(
    batch: *mut cbl_batch,
    body: &mut dyn FnMut(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with_running(batch, &mut |inner| {
            inner.running = None;
            body(inner)
        })
    }
}

/// As [`with`], but the generation on demand goes on: `body` does not change the sequences.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn with_running(
    batch: *mut cbl_batch,
    body: &mut dyn FnMut(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    match unsafe { handle::get(batch) } {
        Ok(handle) => handle.locked.run(body),
        Err(failure) => failure.status(),
    }
}

/// As [`with`], for a call that `cbl_batch_cancel` stops. A request that comes during the call is
/// cleared when the call ends, even if it came too late.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn work(
    batch: *mut cbl_batch,
    body: &mut dyn FnMut(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(batch, &mut |inner| {
            let result = body(inner);
            inner.batch.clear_cancel();
            result
        })
    }
}
