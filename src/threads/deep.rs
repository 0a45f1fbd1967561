//! Calls that need a deeper stack than the caller may have.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use super::error::TeamError;
use super::spawn::{Life, spawn};
use crate::fp_env::FpEnv;

/// Bytes of a deep stack: address space, of which only the pages that are used take memory.
#[cfg(any(feature = "constraints", test))]
const DEEP_STACK: usize = 8 << 20;

/// What must be left of the caller's stack where no thread can be had.
#[cfg(any(feature = "constraints", test))]
const ENOUGH: usize = 2 << 20;

/// Calls `body` on a thread of its own that has a stack of 8 MiB, and waits for it: for code that calls
/// itself along its input. A panic goes on here. Where no thread can be had and the caller's stack is deep
/// enough, it is called on that.
///
/// # Errors
/// [`TeamError::DeepStack`] if neither is there.
#[cfg(any(feature = "constraints", test))]
pub(crate) fn on_deep_stack<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, TeamError> {
    on_stack_of(DEEP_STACK, ENOUGH, body)
}

/// As [`on_deep_stack`], with a stack of so many bytes, or what is left of the caller's if that is `enough`.
pub(crate) fn on_stack_of<T: Send>(
    bytes: usize,
    enough: usize,
    body: impl FnOnce() -> T + Send,
) -> Result<T, TeamError> {
    let (mut body, mut result) = (Some(body), None);
    let mut call = || {
        let body = body.take().expect("it is called once");
        let _env = FpEnv::set_default();
        result = Some(catch_unwind(AssertUnwindSafe(body)));
    };
    let call: &mut (dyn FnMut() + Send) = &mut call;
    // SAFETY: the thread that uses it is joined before `call` goes.
    let call: &'static mut (dyn FnMut() + Send) = unsafe { std::mem::transmute(call) };
    let call = Call(Mutex::new(call));
    // SAFETY: `call` stays until the thread is joined.
    match unsafe { spawn(1, &raw const call, bytes) } {
        Ok(thread) => thread.join(),
        Err(source) => call_here(&call, enough, source)?,
    }
    result.expect("the thread has ended").map_or_else(|panic| resume_unwind(panic), Ok)
}

/// Without the thread that the system refused.
fn call_here(call: &Call, enough: usize, source: io::Error) -> Result<(), TeamError> {
    if stack_left() < enough {
        return Err(TeamError::DeepStack { source });
    }
    call.live();
    Ok(())
}

/// Bytes of this thread's stack that are not used yet; 0 where that cannot be told.
fn stack_left() -> usize {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let (mut attributes, mut start, mut size) =
            (std::mem::MaybeUninit::uninit(), std::ptr::null_mut(), 0);
        // SAFETY: the pointers are valid, and the attributes are initialized by the first call and
        // destroyed by the last.
        let known = unsafe {
            libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
                let known = libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size);
                libc::pthread_attr_destroy(attributes.as_mut_ptr());
                known == 0
            }
        };
        // The stack grows downwards, to where it starts.
        let here = (&raw const start).addr();
        if known { here.saturating_sub(start.addr()).min(size) } else { 0 }
    }
    // The stack lies at the beginning of memory (`--stack-first`, which is how programs are linked).
    #[cfg(target_family = "wasm")]
    {
        let here = 0u8;
        std::hint::black_box(&raw const here).addr()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_family = "wasm")))]
    0
}

/// What the thread does.
struct Call(Mutex<&'static mut (dyn FnMut() + Send)>);

impl Life for Call {
    fn live(&self) {
        // `on_deep_stack` catches what unwinds.
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))();
    }
}

#[cfg(all(test, not(model_checked)))]
mod tests {
    use super::*;

    fn depth(n: usize) -> usize {
        let frame = std::hint::black_box([n; 128]);
        if n == 0 { 0 } else { 1 + depth(frame[n % 128] - 1) }
    }

    #[test]
    fn results_and_panics_come_back() {
        let mut local = 1;
        // More than the stack of a thread of a team has.
        assert_eq!(
            on_deep_stack(|| {
                local += 1;
                depth(2000)
            })
            .unwrap(),
            2000
        );
        assert_eq!(local, 2);
        let panic = catch_unwind(|| on_deep_stack(|| panic!("deep"))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"deep"));
    }

    #[test]
    fn without_a_thread_the_caller_s_stack_must_do() {
        let refused = |stack: usize| {
            let thread = std::thread::Builder::new().stack_size(stack).spawn(|| {
                let mut called = false;
                let mut call = || called = true;
                let call: &mut (dyn FnMut() + Send) = &mut call;
                // SAFETY: it is used in the next line only.
                let call: &'static mut (dyn FnMut() + Send) = unsafe { std::mem::transmute(call) };
                let result =
                    call_here(&Call(Mutex::new(call)), ENOUGH, io::ErrorKind::WouldBlock.into());
                assert_eq!(result.is_ok(), called);
                called
            });
            thread.unwrap().join().unwrap()
        };
        assert!(!refused(64 << 10));
        assert!(refused(4 << 20) || cfg!(not(target_os = "linux")));
    }
}
