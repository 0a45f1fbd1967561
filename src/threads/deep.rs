//! Calls that need a deeper stack than the caller may have.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};

use super::TeamError;
use super::spawn::{Life, spawn};
use crate::fp_env::FpEnv;

/// Bytes of a deep stack: address space, of which only the pages that are used take memory.
const DEEP_STACK: usize = 8 << 20;

/// Calls `body` on a thread of its own that has a stack of 8 MiB, and waits for it: for code that calls
/// itself along its input. A panic goes on here.
///
/// # Errors
/// [`TeamError::DeepStack`] if there is no such thread to be had.
pub(crate) fn on_deep_stack<T: Send>(body: impl FnOnce() -> T + Send) -> Result<T, TeamError> {
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
    // SAFETY: `call` stays until the thread is joined, in the next line.
    let thread = unsafe { spawn(1, &raw const call, DEEP_STACK) };
    thread.map_err(|source| TeamError::DeepStack { source })?.join();
    result.expect("the thread has ended").map_or_else(|panic| resume_unwind(panic), Ok)
}

/// What the thread does.
struct Call(Mutex<&'static mut (dyn FnMut() + Send)>);

impl Life for Call {
    fn live(&self) {
        // `on_deep_stack` catches what unwinds.
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))();
    }
}

#[cfg(all(test, not(loom)))]
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
}
