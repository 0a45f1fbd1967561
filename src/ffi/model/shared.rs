//! Handles of models, and the state that they share with sessions.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::ffi::boundary::{self, Report, once, panic_if_armed};
use crate::ffi::failure::{Failure, POISONED};
use crate::ffi::handle::{self, Handle};
use crate::ffi::host::Log;
use crate::ffi::status::cbl_status;
use crate::ffi::unwinding;
use crate::model::{Model, TokenizerBytes};
use crate::sync::OnceLock;
use crate::text::Tokenizer;

/// An open model.
pub struct cbl_model {
    pub(super) poisoned: AtomicBool,
    pub(super) shared: Arc<Shared>,
}

impl Handle for cbl_model {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-modl");
}

/// The state that a model's handle and its sessions share.
pub struct Shared {
    pub model: Model,
    /// Made at the first use of text.
    pub(super) tokenizer: OnceLock<Arc<Tokenizer<TokenizerBytes>>>,
    /// Made for the first text that must have a form.
    #[cfg(feature = "constraints")]
    pub(super) vocabulary: OnceLock<crate::constraint::Vocabulary>,
    /// Ends with a zero byte, for C.
    pub(super) digest: Vec<u8>,
    pub log: Option<Log>,
}

impl Shared {
    /// The tokenizer, for one call. If the model file was changed, this is an error even if the
    /// tokenizer was made before, as it is for evaluations.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer<TokenizerBytes>>> {
        self.model.check_unchanged()?;
        if self.tokenizer.get().is_none() {
            // If two threads come here at the same time, one result is dropped.
            let _ = self.tokenizer.set(Arc::new(self.model.tokenizer()?));
        }
        self.tokenizer.get().ok_or(Error::NoTokenizer)
    }
}

/// Runs a function on a model.
///
/// # Safety
/// As [`handle::get`]. `report` keeps the contract of its variant.
pub unsafe fn with(
    model: *const cbl_model,
    report: Report<'_>,
    body: impl FnOnce(&Shared) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with_shared(model, report, |shared| body(shared)) }
}

/// As [`with`], for a body that keeps the shared state.
///
/// # Safety
/// As [`with`].
pub unsafe fn with_shared(
    model: *const cbl_model,
    report: Report<'_>,
    body: impl FnOnce(&Arc<Shared>) -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    // SAFETY: the caller's contract.
    unsafe { with_dyn(model, report, &mut |shared| once(&mut body)(shared)) }
}

/// # Safety
/// As [`with`].
unsafe fn with_dyn(
    model: *const cbl_model,
    report: Report<'_>,
    body: &mut dyn FnMut(&Arc<Shared>) -> Result<(), Failure>,
) -> cbl_status {
    boundary::status_of_locked(report, || {
        // SAFETY: the caller's contract.
        let model = unsafe { handle::get(model) }?;
        if model.poisoned.load(Relaxed) {
            return Err(POISONED);
        }
        let _poison = PoisonOnPanic(&model.poisoned);
        panic_if_armed();
        body(&model.shared)
    })
}

struct PoisonOnPanic<'a>(&'a AtomicBool);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        if unwinding::is_unwinding() {
            self.0.store(true, Relaxed);
        }
    }
}
