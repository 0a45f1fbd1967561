//! The border between C and Rust: failures become status codes, and so do panics; what is computed
//! behind it is computed in the default floating-point environment.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Once, OnceLock};

use super::failure::Failure;
use super::host::HostEnvironment;
use super::last_failure::LastFailure;
use super::message::{Message, copy_to_buffer};
use super::status::cbl_status;

/// Where the message of a failure goes.
pub(super) enum Report<'a> {
    /// Nowhere: the status says it all.
    Nothing,
    /// To a buffer of the caller's, valid for writing so many bytes, or null.
    Buffer(*mut c_char, usize),
    /// To the handle.
    Handle(&'a LastFailure),
}

impl Report<'_> {
    fn start(&self) {
        if let Self::Buffer(buffer, size) = *self {
            // SAFETY: valid by the contract of `Report::Buffer`.
            unsafe { copy_to_buffer(&[], buffer, size) };
        }
    }

    fn write(&self, failure: &Failure) {
        match *self {
            Self::Nothing => {}
            // SAFETY: valid by the contract of `Report::Buffer`.
            Self::Buffer(buffer, size) => unsafe {
                copy_to_buffer(Message::new(failure).as_bytes(), buffer, size);
            },
            Self::Handle(last) => last.set(failure),
        }
    }
}

/// Runs a function of the interface that has no handle to poison.
pub(super) fn status(report: Report<'_>, body: impl FnOnce() -> Result<(), Failure>) -> cbl_status {
    status_of_locked(report, || {
        panic_if_armed();
        body()
    })
}

/// As [`status`], for a `body` that takes a handle's lock first and then calls [`panic_if_armed`].
pub(super) fn status_of_locked(
    report: Report<'_>,
    body: impl FnOnce() -> Result<(), Failure>,
) -> cbl_status {
    let mut body = Some(body);
    run(report, &mut || once(&mut body)())
}

/// Takes what is called once through a reference. The border is compiled for references, once, and not
/// for the body of each function: that is a tenth of a small library.
pub(super) fn once<T>(body: &mut Option<T>) -> T {
    body.take().expect("is called once")
}

fn run(report: Report<'_>, body: &mut dyn FnMut() -> Result<(), Failure>) -> cbl_status {
    let mut status = cbl_status::CBL_OK;
    inside(&mut || {
        report.start();
        if let Err(failure) = catch(&mut *body) {
            report.write(&failure);
            status = failure.status();
            discard(failure);
        }
    });
    status
}

/// Runs a function of the interface that returns a plain value, or `otherwise`.
pub(super) fn value<T>(otherwise: T, body: impl FnOnce() -> Result<T, Failure>) -> T {
    let (mut body, mut value) = (Some(body), None);
    inside(&mut || {
        let result = catch(|| {
            panic_if_armed();
            once(&mut body)()
        });
        match result {
            Ok(result) => value = Some(result),
            Err(failure) => discard(failure),
        }
    });
    value.unwrap_or(otherwise)
}

/// Runs a function that is called from signal handlers: it stores to an atomic and computes nothing, so
/// the thread's floating-point environment stays as it is. To keep that would need a variable of the
/// thread, for which a thread that has none yet allocates memory.
pub(super) fn status_in_signal(body: impl FnOnce() -> Result<(), Failure>) -> cbl_status {
    let _call = Call::begin();
    catch(|| {
        panic_if_armed();
        body()
    })
    .map_or_else(
        |failure| {
            let status = failure.status();
            discard(failure);
            status
        },
        |()| cbl_status::CBL_OK,
    )
}

/// Runs `body` inside of the library: counted as a call, in the default floating-point environment.
///
/// Never compiled into its callers, and `body` is reached through a pointer: no arithmetic on a caller's
/// arguments, which may be in registers, moves out across the change of environment.
#[inline(never)]
fn inside(body: &mut dyn FnMut()) {
    let _call = Call::begin();
    let _host = HostEnvironment::leave();
    body();
}

/// `AssertUnwindSafe`: what a panic may leave half done lies behind a lock that it poisons.
fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::Panic(payload)))
}

/// A payload's own drop may panic, and nothing is left to catch that; those of `panic!` are plain.
fn discard(failure: Failure) {
    match failure {
        Failure::Panic(payload) if !payload.is::<&str>() && !payload.is::<String>() => {
            std::mem::forget(payload);
        }
        other => drop(other),
    }
}

/// Calls of the interface that have not returned yet, on all threads.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Call;

impl Call {
    fn begin() -> Self {
        silence_panics();
        CALLS.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Relaxed);
    }
}

/// The standard library writes every panic to standard error, where a host wants nothing of ours.
///
/// The hook belongs to our copy of the standard library, so in a C program this concerns nobody else;
/// a Rust program that links this crate keeps its own hook for all that happens outside of a call.
fn silence_panics() {
    type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;
    static PREVIOUS: OnceLock<Hook> = OnceLock::new();
    static SILENCED: Once = Once::new();
    SILENCED.call_once(|| {
        let _ = PREVIOUS.set(take_hook());
        // Captures nothing, so it is not allocated.
        set_hook(Box::new(|info| {
            if CALLS.load(Relaxed) == 0
                && let Some(previous) = PREVIOUS.get()
            {
                previous(info);
            }
        }));
    });
}

#[cfg(feature = "capi-test-panics")]
pub(super) use super::test_panics::panic_if_armed;

/// In a build for tests, panics if they ask for it.
#[cfg(not(feature = "capi-test-panics"))]
pub(super) fn panic_if_armed() {}
