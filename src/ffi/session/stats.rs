//! What a session has done.

use core::ffi::c_char;
use core::time::Duration;

use super::running::Running;
use super::state::{Inner, cbl_session, with_running};
use crate::ffi::arguments::{Growing, GrowingOut};
use crate::ffi::status::cbl_status;
use crate::ffi::stop_reason::cbl_stop_reason;
use crate::ffi::version::isa_name;
use crate::generate::Generation;

/// What a session has done. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_session_stats {
    /// Name of the instruction set in use. Static.
    pub isa: *const c_char,
    /// Number of positions that the session has.
    pub context: u64,
    /// Number of positions in use.
    pub position: u64,
    /// Number of threads that share the work.
    pub threads: u64,
    /// Number of tokens evaluated since the session was made.
    pub evaluated_tokens: u64,
    /// Time to evaluate these tokens, sampling included.
    pub evaluation_seconds: f64,
    /// Number of tokens in the prompt of the last generation.
    pub prompt_tokens: u64,
    /// Time to evaluate that prompt and choose the first token.
    pub prompt_seconds: f64,
    /// Number of tokens that the last generation chose.
    pub generated_tokens: u64,
    /// Time from the first to the last of these tokens.
    pub generation_seconds: f64,
    /// Why the last generation ended: a cbl_stop_reason. CBL_STOP_NONE while one is running.
    pub stop_reason: i32,
    /// Always 0.
    pub reserved: i32,
    /// Number of tokens that were guessed and evaluated (CBL_OPTION_DRAFT).
    pub guessed_tokens: u64,
    /// Number of guesses that were right. Each saved a pass over the weights.
    pub right_guesses: u64,
    /// The last token of the last generation, which is chosen but not evaluated. Pass it to
    /// cbl_session_evaluate() if the session is to hold the whole generated text. -1 after the
    /// end-of-text token, and if there is no such token.
    pub pending_token: i64,
}

// SAFETY: `repr(C)`, and zeros are a null pointer and numbers.
unsafe impl Growing for cbl_session_stats {
    const FIRST_SIZE: usize = core::mem::offset_of!(cbl_session_stats, guessed_tokens);
}

const _: () = assert!(size_of::<usize>() != 8 || size_of::<cbl_session_stats>() == 112);

/// Writes to `*stats` what a session has done. `size` is `sizeof *stats`.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_get_stats(
    session: *mut cbl_session,
    stats: *mut cbl_session_stats,
    size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = GrowingOut::new(stats, size);
        with_running(session, |inner| {
            out?.set(&inner.stats());
            Ok(())
        })
    }
}

impl Inner {
    fn stats(&self) -> cbl_session_stats {
        let (session, mut counters) = (&self.session, self.counters);
        let on_its_way = self.running.as_ref().and_then(Running::uncounted);
        if let Some(generation) = &on_its_way {
            counters.generated(generation);
        }
        let of_last = counters.generation;
        let reason = of_last.filter(|_| on_its_way.is_none()).map(|it| it.stop_reason);
        let seconds =
            |time: fn(Generation) -> Duration| of_last.map_or(0.0, |g| time(g).as_secs_f64());
        cbl_session_stats {
            isa: isa_name(session.isa()).as_ptr(),
            context: session.context() as u64,
            position: session.position() as u64,
            threads: self.setup.workers() as u64,
            evaluated_tokens: counters.evaluated_tokens,
            evaluation_seconds: counters.evaluation.as_secs_f64(),
            prompt_tokens: of_last.map_or(0, |g| g.prompt_tokens as u64),
            prompt_seconds: seconds(|g| g.prompt_time),
            generated_tokens: of_last.map_or(0, |g| g.tokens as u64),
            generation_seconds: seconds(|g| g.decode_time),
            stop_reason: reason.map_or(cbl_stop_reason::CBL_STOP_NONE, Into::into) as i32,
            reserved: 0,
            guessed_tokens: session.draft_counts().drafted,
            right_guesses: session.draft_counts().accepted,
            pending_token: of_last.and_then(|g| g.pending).map_or(-1, i64::from),
        }
    }
}
