//! The memory between the variables and the stack, given out piece by piece.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{NonNull, null_mut};

use cerebellum::HostMemory;
use linked_list_allocator::Heap;

struct Memory(UnsafeCell<(Heap, usize)>);

// SAFETY: there is one core, and no interrupt handler allocates.
unsafe impl Sync for Memory {}

#[global_allocator]
static MEMORY: Memory = Memory(UnsafeCell::new((Heap::empty(), 0)));

// SAFETY: `Heap` gives out each piece once; nobody else uses its memory.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `Sync`.
        let (heap, most) = unsafe { &mut *self.0.get() };
        let piece = heap.allocate_first_fit(layout);
        *most = heap.used().max(*most);
        piece.map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        // SAFETY: as for `Sync`; the caller got `piece` from `alloc`.
        unsafe { (*self.0.get()).0.deallocate(NonNull::new_unchecked(piece), layout) }
    }
}

/// RAM for a copy of weights, which are read faster there than in flash.
const WEIGHTS: usize = 512 << 10;

/// Takes the memory from the linker's script, and returns the part that is for a copy of weights. Once, and first of
/// all.
pub fn give() -> HostMemory {
    unsafe extern "C" {
        static mut heap_start: u8;
        static mut heap_end: u8;
    }
    let (start, end) = (&raw mut heap_start, &raw mut heap_end);
    // SAFETY: the script leaves this memory to nobody else; nothing is allocated yet.
    unsafe {
        (*MEMORY.0.get()).0.init(start.add(WEIGHTS), end.addr() - start.addr() - WEIGHTS);
        HostMemory::new(NonNull::new_unchecked(start), WEIGHTS)
    }
}

/// How many bytes are in use.
pub fn used() -> usize {
    // SAFETY: as for `Sync`.
    unsafe { (*MEMORY.0.get()).0.used() }
}

/// How many bytes are not.
pub fn free() -> usize {
    // SAFETY: as for `Sync`.
    unsafe { (*MEMORY.0.get()).0.free() }
}

/// The most bytes that were in use at a time.
pub fn most() -> usize {
    // SAFETY: as for `Sync`.
    unsafe { (*MEMORY.0.get()).1 }
}
