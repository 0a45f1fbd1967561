//! The host's memory.

use core::ptr::NonNull;

use crate::memory::HostMemory;

/// The host's memory for a session.
#[derive(Clone, Copy)]
pub struct Arena {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the session alone uses the memory, on whichever thread it is (`cbl_options_set_arena`).
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    pub fn new(start: NonNull<u8>, bytes: usize) -> Self {
        Self { start, bytes }
    }

    pub fn memory(self) -> HostMemory {
        // SAFETY: the contract of `cbl_options_set_arena`.
        unsafe { HostMemory::new(self.start, self.bytes) }
    }
}
