//! For tests only: a panic inside of any function of the interface.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

static ARMED: AtomicBool = AtomicBool::new(false);

/// Lets the next calls panic, or not any more. Not in the header, and not in any library that ships.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_test_arm_panic(armed: bool) {
    ARMED.store(armed, SeqCst);
}

pub(super) fn panic_if_armed() {
    assert!(!ARMED.load(SeqCst), "a panic for a test");
}
