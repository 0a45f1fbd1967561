//! The numbers that stand for generations on demand in C programs.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::failure::Failure;
use super::status::cbl_status::CBL_NO_GENERATION;

/// The failure of a call with a number that is not that of the handle's generation.
pub(super) const NO_GENERATION: Failure = Failure::Misuse(
    CBL_NO_GENERATION,
    "this generation is none of the handle's, or was ended, by a call that changes what it needs or by a failure; begin another one",
);

/// A number that no generation of this process had before. So a number of another session's generation
/// is an error.
pub(super) fn new_number() -> u64 {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    LAST.fetch_add(1, Relaxed) as u64 + 1
}
