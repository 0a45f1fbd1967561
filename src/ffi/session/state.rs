//! Handles of sessions, and the state that their lock guards.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use core::time::Duration;

use super::running::Running;
use crate::clock::Instant;
use crate::error::Result;
use crate::ffi::boundary::once;
use crate::ffi::failure::Failure;
use crate::ffi::handle::{self, Handle};
use crate::ffi::host::{cbl_log_level, log};
use crate::ffi::locked::Locked;
use crate::ffi::model::Shared;
use crate::ffi::on_demand::NO_GENERATION;
use crate::ffi::options::Setup;
use crate::ffi::status::cbl_status;
use crate::generate::Generation;
use crate::session::Session;

/// A sequence of tokens, and what is needed to continue it.
pub struct cbl_session {
    /// `cbl_session_cancel` sets it; the session in `locked` reads it.
    pub(super) cancel: AtomicBool,
    /// The position after the last call that has returned.
    pub(super) position: AtomicUsize,
    pub(super) locked: Locked<Inner>,
}

impl Handle for cbl_session {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-sess");
}

/// The state that the lock guards.
pub struct Inner {
    pub session: Session,
    pub shared: Arc<Shared>,
    pub setup: Setup,
    pub counters: Counters,
    pub running: Option<Running>,
}

/// What the session has done so far.
#[derive(Clone, Copy, Default)]
pub struct Counters {
    pub(super) evaluated_tokens: u64,
    pub(super) evaluation: Duration,
    pub(super) generation: Option<Generation>,
}

impl Counters {
    /// Counts `tokens` whose time is counted already.
    #[cfg(feature = "text")]
    pub fn evaluated(&mut self, tokens: usize) {
        self.evaluated_tokens += tokens as u64;
    }

    pub fn generated(&mut self, generation: &Generation) {
        // The last token is chosen but not evaluated.
        let tokens = generation.prompt_tokens + generation.tokens.saturating_sub(1);
        self.evaluated_tokens += tokens as u64;
        self.evaluation += generation.prompt_time + generation.decode_time;
        self.generation = Some(*generation);
    }
}

/// Runs `body` on a session that no other call is using. `body` may change the session, so the
/// generation on demand ends.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn with(
    session: *mut cbl_session,
    body: impl FnOnce(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    // SAFETY: the caller's contract.
    unsafe {
        with_dyn(session, &mut |inner| {
            inner.end_running();
            once(&mut body)(inner)
        })
    }
}

/// As [`with`], but the generation on demand goes on: `body` does not change the session's tokens.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn with_running(
    session: *mut cbl_session,
    body: impl FnOnce(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    // SAFETY: the caller's contract.
    unsafe { with_dyn(session, &mut |inner| once(&mut body)(inner)) }
}

/// As [`with`], for a call that `cbl_session_cancel` stops. A request that comes during the call is
/// cleared when the call ends, even if it came too late.
///
/// # Safety
/// As [`handle::get`].
pub unsafe fn work(
    session: *mut cbl_session,
    body: impl FnOnce(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(session, |inner| {
            let result = body(inner);
            inner.session.clear_cancel();
            result
        })
    }
}

/// # Safety
/// As [`handle::get`].
unsafe fn with_dyn(
    session: *mut cbl_session,
    body: &mut dyn FnMut(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    // SAFETY: the caller's contract.
    let handle = match unsafe { handle::get(session) } {
        Ok(handle) => handle,
        Err(failure) => return failure.status(),
    };
    handle.locked.run(&mut |inner| {
        let result = body(inner);
        handle.position.store(inner.session.position(), Relaxed);
        result
    })
}

impl Inner {
    /// Evaluates `tokens` tokens, and counts them and the time.
    pub fn counted<T>(
        &mut self,
        tokens: usize,
        evaluate: impl FnOnce(&mut Session) -> Result<T>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let result = evaluate(&mut self.session)?;
        self.counters.evaluated_tokens += tokens as u64;
        self.counters.evaluation += start.elapsed();
        Ok(result)
    }

    /// As [`counted`](Self::counted), for a function that does not say how many tokens it evaluates:
    /// the position afterwards is taken for their number.
    #[cfg(feature = "text")]
    pub fn counted_by_position<T>(
        &mut self,
        evaluate: impl FnOnce(&mut Session) -> Result<T>,
    ) -> Result<T, Failure> {
        let result = self.counted(0, evaluate)?;
        self.counters.evaluated(self.session.position());
        Ok(result)
    }

    /// The generation on demand, if this is its number.
    pub(super) fn running(&mut self, generation: u64) -> Result<&mut Running, Failure> {
        self.running.as_mut().filter(|it| it.number() == generation).ok_or(NO_GENERATION)
    }

    /// Ends the generation on demand, if there is one.
    pub(super) fn end_running(&mut self) {
        if let Some(generation) = self.running.take().and_then(|running| running.uncounted()) {
            self.end_generation(&generation);
        }
    }

    /// Counts a generation that has ended, and logs it.
    pub(super) fn end_generation(&mut self, generation: &Generation) {
        self.counters.generated(generation);
        log(
            self.shared.log,
            cbl_log_level::CBL_LOG_INFO,
            format_args!(
                "generated {} tokens after {}: {}",
                generation.tokens,
                generation.prompt_tokens,
                generation.stop_reason.name(),
            ),
        );
    }
}
