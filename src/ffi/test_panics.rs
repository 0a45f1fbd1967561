//! For tests only: a panic inside any function of the interface.

use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

static ARMED: AtomicBool = AtomicBool::new(false);

/// Sets whether the next calls panic. The header does not declare this, and no library that ships has
/// it.
#[unsafe(no_mangle)]
pub extern "C" fn cbl_test_arm_panic(armed: bool) {
    ARMED.store(armed, SeqCst);
}

pub(super) fn panic_if_armed() {
    assert!(!ARMED.load(SeqCst), "a panic for a test");
}
