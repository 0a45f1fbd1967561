//! Handles of batches, and what is behind their lock.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::running::Running;
use crate::batch::Batch;
use crate::ffi::failure::Failure;
use crate::ffi::handle::{self, Handle};
use crate::ffi::locked::Locked;
use crate::ffi::model::Shared;
use crate::ffi::status::cbl_status::{self, CBL_BAD_ARGUMENT};

/// Several sequences of tokens that are evaluated together, numbered from 0.
pub struct cbl_batch {
    /// Set by `cbl_batch_cancel`; the batch inside looks at it.
    pub(super) cancel: AtomicBool,
    pub(super) locked: Locked<Inner>,
}

impl Handle for cbl_batch {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-btch");
}

/// What is behind the lock.
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

/// Runs a function on a batch that nobody else is using. It may change the batch, so it ends a generation
/// on demand.
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

/// As [`with`], for a function that leaves the sequences as they are: a generation on demand goes on.
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

/// As [`with`], for a call that cbl_batch_cancel() stops: a request that came while it ran is not there any
/// more when it returns.
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
