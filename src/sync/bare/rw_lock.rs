//! A lock for many that read or one that writes, which nobody waits for.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::TryLockError;

/// A value that many read or one writes.
pub(crate) struct RwLock<T> {
    /// How many read it, or [`WRITTEN`].
    readers: AtomicUsize,
    value: UnsafeCell<T>,
}

const WRITTEN: usize = usize::MAX;

// SAFETY: the lock gives the value to one at a time to write, or to many to read, who may be on any core.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        Self { readers: AtomicUsize::new(0), value: UnsafeCell::new(value) }
    }

    pub fn try_read(&self) -> Result<RwLockReadGuard<'_, T>, TryLockError<()>> {
        let one_more = |readers| if readers < WRITTEN - 1 { Some(readers + 1) } else { None };
        match self.readers.fetch_update(Acquire, Relaxed, one_more) {
            Ok(_) => Ok(RwLockReadGuard(self)),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    pub fn try_write(&self) -> Result<RwLockWriteGuard<'_, T>, TryLockError<()>> {
        match self.readers.compare_exchange(0, WRITTEN, Acquire, Relaxed) {
            Ok(_) => Ok(RwLockWriteGuard(self)),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }
}

/// A value that nobody writes meanwhile.
pub(crate) struct RwLockReadGuard<'a, T>(&'a RwLock<T>);

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody writes until the guard is dropped.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Release);
    }
}

/// A value that nobody else uses meanwhile.
pub(crate) struct RwLockWriteGuard<'a, T>(&'a RwLock<T>);

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody else uses it until the guard is dropped.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.0.readers.store(0, Release);
    }
}
