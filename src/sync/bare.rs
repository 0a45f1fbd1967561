//! Locks without an operating system. Who finds one taken waits by looking again, which ends only if its owner goes on
//! meanwhile: on another core, not under an interrupt handler. So handlers call nothing that locks.
//!
//! Nothing unwinds there, so no lock is ever poisoned; the errors exist for the sake of one source.

#[cfg(feature = "capi")]
mod rw_lock;

#[cfg(feature = "capi")]
pub(crate) use rw_lock::{RwLock, RwLockReadGuard};

use core::cell::UnsafeCell;
use core::fmt;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU8};

/// Never happens.
#[derive(Debug)]
pub(crate) struct PoisonError<T>(T);

impl<T> PoisonError<T> {
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// Why a lock could not be had at once.
#[derive(Debug)]
pub(crate) enum TryLockError<T> {
    #[expect(dead_code, reason = "nothing unwinds, so nothing is poisoned")]
    Poisoned(PoisonError<T>),
    WouldBlock,
}

/// A value that one at a time uses.
pub(crate) struct Mutex<T> {
    is_locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one at a time, who may be on any core.
unsafe impl<T: Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Self { is_locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    pub fn lock(&self) -> Result<MutexGuard<'_, T>, PoisonError<MutexGuard<'_, T>>> {
        loop {
            match self.try_lock() {
                Ok(guard) => return Ok(guard),
                Err(_) => spin_loop(),
            }
        }
    }

    pub fn try_lock(&self) -> Result<MutexGuard<'_, T>, TryLockError<MutexGuard<'_, T>>> {
        // Acquire: sees what the owner before wrote.
        match self.is_locked.compare_exchange(false, true, Acquire, Relaxed) {
            Ok(_) => Ok(MutexGuard(self)),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    #[cfg(feature = "capi")]
    pub fn get_mut(&mut self) -> Result<&mut T, PoisonError<&mut T>> {
        Ok(self.value.get_mut())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// A locked value.
#[must_use = "the lock is free again as soon as this is dropped"]
pub(crate) struct MutexGuard<'a, T>(&'a Mutex<T>);

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is ours until the guard is dropped.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // Release: the next owner sees what was written.
        self.0.is_locked.store(false, Release);
    }
}

const EMPTY: u8 = 0;
const BEING_SET: u8 = 1;
const SET: u8 = 2;

/// A value that is set once.
pub(crate) struct OnceLock<T> {
    state: AtomicU8,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is written once, by who changed the state from `EMPTY`, and shared after it is `SET`.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> OnceLock<T> {
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(None) }
    }

    pub fn get(&self) -> Option<&T> {
        // Acquire: sees the value that was written before.
        if self.state.load(Acquire) != SET {
            return None;
        }
        // SAFETY: nobody writes once it is set.
        unsafe { &*self.value.get() }.as_ref()
    }

    /// Gives the value back if there is one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        loop {
            match self.state.compare_exchange(EMPTY, BEING_SET, Acquire, Acquire) {
                Ok(_) => break,
                Err(SET) => return Err(value),
                Err(_) => spin_loop(),
            }
        }
        // SAFETY: who changed the state from `EMPTY` alone uses the value until it is `SET`.
        unsafe { *self.value.get() = Some(value) };
        self.state.store(SET, Release);
        Ok(())
    }

    #[cfg(all(feature = "capi", feature = "text"))]
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            // Another's is as good.
            drop(self.set(make()));
        }
        self.get().expect("is set")
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}
