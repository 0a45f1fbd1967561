//! Locks: the standard library's, or where there is none small ones with the same functions.

#[cfg(not(feature = "std"))]
mod bare;

#[cfg(not(feature = "std"))]
use bare as source;
#[cfg(feature = "std")]
use std::sync as source;

pub(crate) use source::{Mutex, OnceLock, PoisonError};
#[cfg(feature = "capi")]
pub(crate) use source::{MutexGuard, RwLock, RwLockReadGuard, TryLockError};
