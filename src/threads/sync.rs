//! The primitives of `std`, or loom's when its model checker runs the tests.

#[cfg(not(all(model_checked, test)))]
pub(super) use core::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(all(feature = "std", not(all(model_checked, test))))]
pub(super) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicPtr, AtomicU32},
};
#[cfg(all(
    feature = "std",
    not(any(
        all(unix, not(miri)),
        all(model_checked, test),
        all(target_family = "wasm", target_feature = "atomics")
    ))
))]
pub(super) use std::thread::{Builder, JoinHandle};

#[cfg(all(model_checked, test))]
pub(super) use loom::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize},
    },
    thread::{Builder, JoinHandle},
};
