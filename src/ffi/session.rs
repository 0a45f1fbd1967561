//! Sessions
//!
//! A session is one sequence of tokens with its cache of keys and values and every buffer that it needs,
//! allocated when it is made. Evaluating, sampling and generating tokens allocate nothing.
//!
//! A session is for one thread at a time. A call on a session that is in use, by another thread or by
//! the call whose callback this is, returns CBL_BUSY and does nothing. Functions that take a
//! `const cbl_session *` may be called at any time from any thread.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::arguments::{Growing, GrowingOut, Out, slice};
use super::boundary::{self, Callback, Failure, Report, once};
use super::handle::{self, Handle, Place};
use super::host::{Log, Pool, cbl_log_level, log};
use super::locked::Locked;
use super::model::{self, Shared, cbl_model};
use super::options::{self, Options, cbl_options};
use super::pull::Running;
use super::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use super::version::isa_name;
use crate::error::{Error, Result};
use crate::generate::{Generation, StopReason};
use crate::kernels::Isa;
use crate::memory::try_box;
use crate::session::Session;
use crate::session_options::{LogitsFor, SessionOptions};
use crate::threads::{Executor, HostTeam, Team};

/// A sequence of tokens and what it takes to continue it.
pub struct cbl_session {
    /// Set by `cbl_session_cancel`; the session inside looks at it.
    cancel: AtomicBool,
    /// The position after the last call that has returned.
    position: AtomicUsize,
    locked: Locked<Inner>,
}

impl Handle for cbl_session {
    const TAG: u64 = u64::from_le_bytes(*b"cbl-sess");
}

/// What is behind the lock.
pub(super) struct Inner {
    pub session: Session,
    pub shared: Arc<Shared>,
    pub made: Made,
    pub counters: Counters,
    pub running: Option<Running>,
}

/// What a session is made with.
#[derive(Clone)]
pub(super) struct Made {
    pub options: SessionOptions,
    pool: Option<Pool>,
    pub log: Option<Log>,
}

/// What the session has done so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Counters {
    evaluated_tokens: u64,
    evaluation: Duration,
    generation: Option<Generation>,
}

impl Counters {
    /// Counts tokens whose time was counted already.
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

/// Runs a function on a session that nobody else is using. It may change the session, so it ends a
/// generation on demand.
///
/// # Safety
/// As [`handle::get`].
pub(super) unsafe fn with(
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

/// As [`with`], for a function that leaves the session's tokens as they are: a generation on demand goes
/// on.
///
/// # Safety
/// As [`handle::get`].
pub(super) unsafe fn with_running(
    session: *mut cbl_session,
    body: impl FnOnce(&mut Inner) -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    // SAFETY: the caller's contract.
    unsafe { with_dyn(session, &mut |inner| once(&mut body)(inner)) }
}

/// As [`with`], for a call that cbl_session_cancel() stops: a request that came while it ran is not there any
/// more when it returns, whatever became of the call.
///
/// # Safety
/// As [`handle::get`].
pub(super) unsafe fn work(
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

/// Makes a session and gives it to `out`.
fn make(
    shared: Arc<Shared>,
    made: Made,
    arena: Option<super::host::Arena>,
) -> Result<Place<cbl_session>> {
    let executor = made.executor()?;
    let memory = arena.map(super::host::Arena::memory);
    let session = shared.model.session_in(&made.options, executor, memory)?;
    log(
        made.log,
        cbl_log_level::CBL_LOG_INFO,
        format_args!(
            "session made: context {}, {}, {} threads",
            session.context(),
            session.isa(),
            made.workers(),
        ),
    );
    if session.isa() == Isa::Scalar {
        let text = format_args!("no fast kernels for this processor: evaluation will be slow");
        log(made.log, cbl_log_level::CBL_LOG_WARNING, text);
    }
    let log_to = made.log;
    let inner = Inner { session, shared, made, counters: Counters::default(), running: None };
    let mut handle = Place::new(cbl_session {
        cancel: AtomicBool::new(false),
        position: AtomicUsize::new(0),
        locked: Locked::new(inner, log_to),
    })?;
    let flag = NonNull::from(&handle.cancel);
    // SAFETY: the flag lies beside the session in the same box, and is dropped with it.
    unsafe { handle.locked.get_mut().session.cancel_by_raw(flag) };
    Ok(handle)
}

impl Made {
    pub fn with(options: &Options) -> Self {
        Self { options: options.session.clone(), pool: options.pool, log: options.log }
    }

    /// Threads of its own, or the host's.
    pub fn executor(&self) -> Result<Executor> {
        Ok(match self.pool {
            Some(pool) => Executor::Host(HostTeam::new(try_box(pool)?)),
            None if self.options.threads == 1 => Executor::Caller,
            None => Executor::Team(Team::new(self.options.threads)?),
        })
    }

    /// How many share the work.
    pub fn workers(&self) -> usize {
        self.pool.map_or(self.options.threads, |pool| pool.workers)
    }
}

/// Makes a session of a model. `options` may be NULL. `*session` is NULL if that fails.
///
/// This is where memory is taken, all of it: as much as cbl_model_plan() says; and where threads are
/// started, if the options ask for more than one.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, also if the arena belongs to another session;
/// CBL_BAD_OPTION, CBL_NO_MEMORY, CBL_NO_THREADS, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_new(
    model: *const cbl_model,
    options: *const cbl_options,
    session: *mut *mut cbl_session,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let report = Report::Buffer(message, message_size);
        let out = Out::new(session, ptr::null_mut());
        model::with_shared(model, report, |shared| {
            let out = out?;
            let (made, arena) =
                options::with(options, |options| Ok((Made::with(options), options.arena)))?;
            out.set(make(Arc::clone(shared), made, arena)?.give());
            Ok(())
        })
    }
}

/// Makes another session that holds the same tokens: both go on from a shared beginning, each on its
/// own. With NULL for `options` it is made as the first one was, but not in its arena; otherwise by the
/// options, with the same type of cache and a context that holds the tokens. `*fork` is NULL if that
/// fails.
///
/// One thread at a time. Errors: those of cbl_session_new(); CBL_BAD_SAVED if the type of the cache
/// differs; CBL_CONTEXT_FULL; CBL_MODEL_CHANGED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_fork(
    session: *mut cbl_session,
    options: *const cbl_options,
    fork: *mut *mut cbl_session,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(fork, ptr::null_mut());
        with_running(session, |inner| {
            let out = out?;
            let (made, arena) = if options.is_null() {
                (inner.made.clone(), None)
            } else {
                options::with(options, |options| Ok((Made::with(options), options.arena)))?
            };
            let mut copy = make(Arc::clone(&inner.shared), made, arena)?;
            let copied = &mut copy.locked.get_mut().session;
            copied.copy_from(&mut inner.session)?;
            let position = copied.position();
            *copy.position.get_mut() = position;
            out.set(copy.give());
            Ok(())
        })
    }
}

/// Brings a session's memory into RAM and keeps it there as long as the session lives: all of
/// cbl_model_plan(), whatever of the cache is in use. See cbl_model_lock_memory() for the weights. If the
/// system refuses, the session can be used as before.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE; CBL_NO_MEMORY if the system refuses; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_lock_memory(session: *mut cbl_session) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with_running(session, |inner| Ok(inner.session.lock_memory()?)) }
}

/// Frees a session. NULL is fine.
///
/// No other call may be using the handle, but that is checked: while a call runs, by another thread or
/// around the callback that this is called from, CBL_BUSY is returned and nothing is freed. Errors:
/// CBL_BAD_HANDLE, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_free(session: *mut cbl_session) -> cbl_status {
    if session.is_null() {
        return cbl_status::CBL_OK;
    }
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let handle = unsafe { handle::get(session) }?;
        handle.locked.check_unused()?;
        // SAFETY: the caller's contract, and no call is using it.
        unsafe { handle::free(session) };
        Ok(())
    })
}

/// Why the last failed call on this session failed: English, never NULL, valid until the next call on
/// it. For log files and developers; branch on the status instead. After CBL_BUSY it says so, to the
/// thread that got it; the message of the call that is running is not touched.
///
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_error(session: *mut cbl_session) -> *const c_char {
    boundary::value(handle::NONE.as_ptr(), || {
        // SAFETY: the caller's contract.
        let session = unsafe { handle::get(session) }?;
        Ok(session.locked.failure())
    })
}

/// Forgets every token. Costs nothing.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_reset(session: *mut cbl_session) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        with(session, |inner| {
            inner.session.reset();
            Ok(())
        })
    }
}

/// Forgets the tokens from `position` on, which is at most cbl_session_position(). Costs nothing.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_POSITION, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_rewind(
    session: *mut cbl_session,
    position: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { with(session, |inner| Ok(inner.session.rewind(position)?)) }
}

/// The number of tokens in the session: the position of the next one. During a call, as it was before.
/// 0 for a bad handle.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_position(session: *const cbl_session) -> usize {
    boundary::value(0, || {
        // SAFETY: the caller's contract.
        Ok(unsafe { handle::get(session) }?.position.load(Relaxed))
    })
}

/// The tokens in the session: `*tokens` points to `*count` ids, valid until the next call on it. NULL
/// and 0 on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_tokens(
    session: *mut cbl_session,
    tokens: *mut *const u32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let outs = (Out::new(tokens, ptr::null()), Out::new(count, 0));
        with_running(session, |inner| {
            let (tokens, count) = (outs.0?, outs.1?);
            tokens.set(inner.session.tokens().as_ptr());
            count.set(inner.session.tokens().len());
            Ok(())
        })
    }
}

/// Appends `count` tokens. Afterwards the last one's logits can be read or sampled.
///
/// One thread at a time. On failure the session is as before, but for the logits. Errors:
/// CBL_BAD_HANDLE, CBL_BAD_ARGUMENT if `count` is 0, CBL_BAD_TOKEN, CBL_CONTEXT_FULL,
/// CBL_MODEL_CHANGED, CBL_NON_FINITE, CBL_CANCELLED, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_evaluate(
    session: *mut cbl_session,
    tokens: *const u32,
    count: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe { work(session, |inner| evaluate(inner, tokens, count, &mut |_, _| ())) }
}

/// Receives the logits of the token at `position`: `count` floats, gone when the callback returns. Return
/// false to receive no more; the evaluation goes on. Must not throw or longjmp. Called on the thread that
/// called the library, in its floating-point environment.
pub type cbl_logits_callback = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        position: usize,
        logits: *const f32,
        count: usize,
    ) -> bool,
>;

/// As cbl_session_evaluate(), and calls `callback` with the logits of every token, in order: what it
/// takes to score a text. The session must be made with CBL_OPTION_ALL_LOGITS.
///
/// One thread at a time. Errors: those of cbl_session_evaluate(), CBL_MODEL_CHANGED among them;
/// CBL_BAD_OPTION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_evaluate_each(
    session: *mut cbl_session,
    tokens: *const u32,
    count: usize,
    callback: cbl_logits_callback,
    user: *mut c_void,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        work(session, |inner| {
            let callback = required(callback)?;
            if inner.made.options.logits != LogitsFor::All {
                let detail = "make the session with CBL_OPTION_ALL_LOGITS".to_owned();
                return Err(Error::Option { name: "all logits", detail }.into());
            }
            let mut wanted = true;
            evaluate(inner, tokens, count, &mut |position, logits| {
                let (row, count) = (logits.as_ptr(), logits.len());
                wanted = wanted && callback.call(|visit| visit(user, position, row, count));
            })
        })
    }
}

/// A callback that may not be NULL.
pub(super) fn required<T: Copy>(callback: Option<T>) -> Result<Callback<T>, Failure> {
    let missing = Failure::Misuse(CBL_BAD_ARGUMENT, "a callback is NULL");
    callback.map(Callback::new).ok_or(missing)
}

/// The caller's tokens, if the session has room for them: a count that is out of proportion is found
/// out before the first token is read.
///
/// # Safety
/// As [`slice`].
pub(super) unsafe fn tokens_that_fit<'a>(
    session: &Session,
    tokens: *const u32,
    count: usize,
) -> Result<&'a [u32], Failure> {
    let (position, context) = (session.position(), session.context());
    if count > context - position {
        return Err(Error::ContextFull { position, tokens: count, context }.into());
    }
    // SAFETY: the caller's contract.
    unsafe { slice(tokens, count) }
}

/// # Safety
/// As [`slice`].
unsafe fn evaluate(
    inner: &mut Inner,
    tokens: *const u32,
    count: usize,
    visit: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), Failure> {
    // SAFETY: the caller's contract.
    let tokens = unsafe { tokens_that_fit(&inner.session, tokens, count) }?;
    inner.counted(count, |session| session.evaluate_each(tokens, visit))
}

/// The last token's logits: `*logits` points to `*count` floats, one for each token of the vocabulary,
/// valid until the next call that evaluates, generates, resets, rewinds, restores or frees. NULL and 0
/// on failure.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_NO_LOGITS, CBL_BUSY, CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_logits(
    session: *mut cbl_session,
    logits: *mut *const f32,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let outs = (Out::new(logits, ptr::null()), Out::new(count, 0));
        with_running(session, |inner| {
            let (logits, count) = (outs.0?, outs.1?);
            let row = inner.session.last_logits()?;
            logits.set(row.as_ptr());
            count.set(row.len());
            Ok(())
        })
    }
}

/// Chooses the next token from the last one's logits by the options for generation. The session does not
/// change: evaluate the token to go on. `options` may be NULL.
///
/// The choice depends on the logits, the options, the session's tokens (for the repetition penalty) and
/// the position (which, with the seed, makes the random number), and on nothing else. `*token` is 0 on
/// failure.
///
/// A single choice cannot follow CBL_OPTION_CHOICES, CBL_OPTION_REGEX or CBL_OPTION_JSON_SCHEMA, which
/// concern a text from its beginning: with one of them set it fails with CBL_BAD_OPTION.
///
/// One thread at a time. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_LOGITS, CBL_BUSY,
/// CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_sample(
    session: *mut cbl_session,
    options: *const cbl_options,
    token: *mut u32,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(token, 0);
        with_running(session, |inner| {
            let out = out?;
            let sample = |options: &Options| Ok(inner.session.sample(options.choice()?)?);
            out.set(options::with(options, sample)?);
            Ok(())
        })
    }
}

/// Stops the call that evaluates or generates on the session: within a fraction of a layer's time, or within
/// a few kilobytes of a text that is tokenized or cut. An evaluation then returns CBL_CANCELLED; a generation
/// returns CBL_OK and CBL_STOP_CANCELLED. Only what prepares a constraint is finished first, a second for
/// 100 000 choices.
///
/// The request is used up by the call that is running, even if it comes too late to stop it. If none is
/// running, it stops the next call that evaluates, generates, scores, classifies, embeds or applies a template;
/// cbl_session_clear_cancel() takes it back.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_cancel(session: *const cbl_session) -> cbl_status {
    set_cancel(session, true)
}

/// Takes back a request of cbl_session_cancel() that no call has followed yet.
///
/// Thread-safe, and safe in a signal handler. Errors: CBL_BAD_HANDLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_session_clear_cancel(session: *const cbl_session) -> cbl_status {
    set_cancel(session, false)
}

/// An atomic store, no lock: safe in a signal handler. (The border's one-time preparations are done:
/// somebody has made the session.)
fn set_cancel(session: *const cbl_session, wanted: bool) -> cbl_status {
    boundary::status_in_signal(|| {
        // SAFETY: the caller's contract.
        unsafe { handle::get(session) }?.cancel.store(wanted, Relaxed);
        Ok(())
    })
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_stop_reason {
    /// It did not: there was none, it failed, or it is on its way.
    CBL_STOP_NONE = 0,
    /// The model chose the end-of-text token.
    CBL_STOP_END_OF_TEXT = 1,
    /// As many tokens as were asked for.
    CBL_STOP_MAX_TOKENS = 2,
    /// A stop string appeared.
    CBL_STOP_STRING = 3,
    /// The session has no position left.
    CBL_STOP_CONTEXT_FULL = 4,
    /// The callback returned false, or cbl_session_cancel() or cbl_generation_end() was called.
    CBL_STOP_CANCELLED = 5,
    /// The text is all that CBL_OPTION_CHOICES, CBL_OPTION_REGEX or CBL_OPTION_JSON_SCHEMA asks for.
    CBL_STOP_COMPLETE = 6,
    /// The tokens that were asked for, or the session's positions, ran out before it was.
    CBL_STOP_INCOMPLETE = 7,
}

impl From<StopReason> for cbl_stop_reason {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::EndOfText => Self::CBL_STOP_END_OF_TEXT,
            StopReason::MaxTokens => Self::CBL_STOP_MAX_TOKENS,
            StopReason::StopString => Self::CBL_STOP_STRING,
            StopReason::ContextFull => Self::CBL_STOP_CONTEXT_FULL,
            StopReason::Cancelled => Self::CBL_STOP_CANCELLED,
            StopReason::Complete => Self::CBL_STOP_COMPLETE,
            StopReason::Incomplete => Self::CBL_STOP_INCOMPLETE,
        }
    }
}

/// A word for a cbl_stop_reason, such as "max_tokens", for logs. For any number; static.
///
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_stop_reason_name(reason: i32) -> *const c_char {
    const NAMES: [&CStr; 8] = [
        c"none",
        c"end_of_text",
        c"max_tokens",
        c"stop_string",
        c"context_full",
        c"cancelled",
        c"complete",
        c"incomplete",
    ];
    let name = || usize::try_from(reason).ok().and_then(|at| NAMES.get(at).copied());
    boundary::value(c"unknown".as_ptr(), || Ok(name().unwrap_or(c"unknown").as_ptr()))
}

/// What a session has done. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_session_stats {
    /// Name of the instruction set in use. Static.
    pub isa: *const c_char,
    /// Positions that the session has.
    pub context: u64,
    /// Positions in use.
    pub position: u64,
    /// Threads that share the work.
    pub threads: u64,
    /// Tokens evaluated since the session was made.
    pub evaluated_tokens: u64,
    /// Time that took, sampling included.
    pub evaluation_seconds: f64,
    /// Tokens of the last generation's prompt.
    pub prompt_tokens: u64,
    /// Time to evaluate that prompt and choose the first token.
    pub prompt_seconds: f64,
    /// Tokens that the last generation produced.
    pub generated_tokens: u64,
    /// Time from the first to the last of them.
    pub generation_seconds: f64,
    /// Why the last generation ended: a cbl_stop_reason. CBL_STOP_NONE while one is on its way.
    pub stop_reason: i32,
    /// 0.
    pub reserved: i32,
    /// Tokens that were guessed and evaluated along with others (CBL_OPTION_DRAFT).
    pub guessed_tokens: u64,
    /// How many of them were right, and saved a pass each.
    pub right_guesses: u64,
    /// The last generation's last token, which is chosen but not evaluated, or -1: cbl_session_evaluate()
    /// it to make the session hold all that was generated. -1 after the end-of-text token, and if there
    /// is none.
    pub pending_token: i64,
}

// SAFETY: `repr(C)`, and zeros are a null pointer and numbers.
unsafe impl Growing for cbl_session_stats {
    const FIRST_SIZE: usize = std::mem::offset_of!(cbl_session_stats, guessed_tokens);
}

const _: () = assert!(size_of::<usize>() != 8 || size_of::<cbl_session_stats>() == 112);

/// Tells what a session has done. `size` is `sizeof *stats`.
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
    /// Evaluates so many tokens and counts them and the time.
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

    /// As [`counted`](Self::counted), for what does not say how many tokens it evaluates: counts by
    /// the position.
    #[cfg(feature = "text")]
    pub fn counted_by_position<T>(
        &mut self,
        evaluate: impl FnOnce(&mut Session) -> Result<T>,
    ) -> Result<T, Failure> {
        let result = self.counted(0, evaluate)?;
        self.counters.evaluated(self.session.position());
        Ok(result)
    }

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
            threads: self.made.workers() as u64,
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
