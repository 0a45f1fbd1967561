//! What a static library without an operating system must bring: the allocator, and the end of a panic.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt::Write;
use core::panic::PanicInfo;
use core::ptr::{NonNull, null_mut};

use linked_list_allocator::Heap;

use super::failure::Failure;
use super::message::Message;
use super::start::cbl_panic_callback;
use super::status::cbl_status::{CBL_BAD_ARGUMENT, CBL_BUSY};
use crate::sync::{Mutex, PoisonError};

/// The host's memory.
struct Memory {
    heap: Heap,
    most: usize,
    on_panic: cbl_panic_callback,
}

struct Host(Mutex<Memory>);

#[global_allocator]
static HOST: Host = Host(Mutex::new(Memory { heap: Heap::empty(), most: 0, on_panic: None }));

impl Host {
    fn with<T>(&self, use_it: impl FnOnce(&mut Memory) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// SAFETY: `Heap` gives out each piece of the host's memory once, under a lock.
unsafe impl GlobalAlloc for Host {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.with(|memory| {
            let piece = memory.heap.allocate_first_fit(layout);
            memory.most = memory.most.max(memory.heap.used());
            piece.map_or(null_mut(), NonNull::as_ptr)
        })
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: the caller got the piece from `alloc`, so it is not null.
        self.with(|memory| unsafe {
            memory.heap.deallocate(NonNull::new_unchecked(piece), layout)
        });
    }
}

/// # Safety
/// As `cbl_bare_start`.
pub(super) unsafe fn start(
    start: *mut u8,
    size: usize,
    on_panic: cbl_panic_callback,
) -> Result<(), Failure> {
    // What it writes at both ends, and room for something.
    const LEAST: usize = 256;
    if start.is_null() || size < LEAST || start.addr().checked_add(size).is_none() {
        return Err(Failure::Misuse(CBL_BAD_ARGUMENT, "the memory is NULL or impossible"));
    }
    HOST.with(|memory| {
        if memory.heap.size() > 0 {
            return Err(Failure::Misuse(CBL_BUSY, "the library has its memory already"));
        }
        // SAFETY: the caller gives the memory to the library for good.
        unsafe { memory.heap.init(start, size) };
        memory.on_panic = on_panic;
        Ok(())
    })
}

/// How many bytes are in use, and were at most.
#[allow(clippy::unnecessary_wraps, reason = "as where there is an operating system")]
pub(super) fn memory() -> Result<(usize, usize), Failure> {
    Ok(HOST.with(|memory| (memory.heap.used(), memory.most)))
}

#[panic_handler]
fn panicked(panic: &PanicInfo<'_>) -> ! {
    // The lock may be taken by what panicked.
    let on_panic = HOST.0.try_lock().map_or(None, |memory| memory.on_panic);
    if let Some(tell) = on_panic {
        let mut message = Message::empty();
        let _ = write!(message, "a bug in the library, please report it: {panic}");
        // SAFETY: the contract of `cbl_bare_start`.
        unsafe { tell(message.as_ptr()) };
    }
    loop {
        core::hint::spin_loop();
    }
}
