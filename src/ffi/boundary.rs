//! The boundary between C and Rust. Failures and panics become status codes. The Rust side computes in
//! the default floating-point environment.

use alloc::string::String;
use core::ffi::c_char;

use super::failure::Failure;
use super::host::HostEnvironment;
use super::last_failure::LastFailure;
use super::message::{Message, copy_to_buffer};
use super::status::cbl_status;
use super::unwinding;

/// Where the message of a failure goes.
pub(super) enum Report<'a> {
    /// Nowhere: the status says it all.
    Nothing,
    /// To a buffer of the caller's: null, or valid for writing this number of bytes.
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

/// Takes a closure that is called once out of its reference. The boundary is compiled once for
/// references, and not for the body of each function, which saves a tenth of a small library.
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

/// Runs a function that may be called from signal handlers. The function stores to an atomic and
/// computes nothing, so it needs no default floating-point environment. Keeping the host's environment
/// would need a thread-local variable, and a thread may have to allocate memory for its first one.
pub(super) fn status_in_signal(body: impl FnOnce() -> Result<(), Failure>) -> cbl_status {
    let _call = unwinding::Call::begin();
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
/// It is never inlined, and it calls `body` through a pointer. So the compiler cannot move arithmetic
/// on a caller's arguments, which may be in registers, across the change of environment.
#[inline(never)]
fn inside(body: &mut dyn FnMut()) {
    let _call = unwinding::Call::begin();
    let _host = HostEnvironment::leave();
    body();
}

fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    unwinding::catch(body).unwrap_or_else(|payload| Err(Failure::Panic(payload)))
}

/// Drops a failure. Dropping a panic's payload may panic itself, and nothing would catch that, so a
/// payload that is not one of `panic!` is leaked.
fn discard(failure: Failure) {
    match failure {
        Failure::Panic(payload) if !payload.is::<&str>() && !payload.is::<String>() => {
            core::mem::forget(payload);
        }
        other => drop(other),
    }
}

#[cfg(feature = "capi-test-panics")]
pub(super) use super::test_panics::panic_if_armed;

/// Only a build for tests can panic here.
#[cfg(not(feature = "capi-test-panics"))]
pub(super) fn panic_if_armed() {}
