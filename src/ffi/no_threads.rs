//! As [`thread`](super::thread), where one thread makes all calls.

use core::ffi::{CStr, c_char};
use core::mem::replace;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

use crate::fp_env::Environment;
use crate::sync::{Mutex, PoisonError};

static HOST: Mutex<Option<Environment>> = Mutex::new(None);

pub(super) fn host() -> Option<Environment> {
    *HOST.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn replace_host(host: Option<Environment>) -> Option<Environment> {
    replace(&mut *HOST.lock().unwrap_or_else(PoisonError::into_inner), host)
}

/// The handle that was in use, and the message; null if that is over.
static NUMBER: AtomicUsize = AtomicUsize::new(0);
static DETAIL: AtomicPtr<c_char> = AtomicPtr::new(null_mut());

pub(super) fn note_busy(number: usize, detail: &'static CStr) {
    NUMBER.store(number, Relaxed);
    DETAIL.store(detail.as_ptr().cast_mut(), Relaxed);
}

pub(super) fn forget_busy(number: usize) {
    if NUMBER.load(Relaxed) == number {
        DETAIL.store(null_mut(), Relaxed);
    }
}

pub(super) fn busy(number: usize) -> Option<*const c_char> {
    let detail = DETAIL.load(Relaxed);
    (NUMBER.load(Relaxed) == number && !detail.is_null()).then_some(detail.cast_const())
}
