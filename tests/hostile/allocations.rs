//! Counts the bytes each thread has allocated, so that tests can run side by side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::Relaxed};

thread_local! {
    /// Bytes now, and the most there were. Signed: a thread may free what another allocated.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The same of all threads together.
static ALL_LIVE: AtomicIsize = AtomicIsize::new(0);
static ALL_PEAK: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    ALL_PEAK.fetch_max(ALL_LIVE.fetch_add(change, Relaxed) + change, Relaxed);
    // A thread that is ending has no counters any more, and nobody asks for them.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call is passed on unchanged to the system allocator; counting has no effect on it,
// and the counters are thread-locals that need neither initialization nor memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `pointer` came from the system allocator through one of the other methods.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // While it is moved, there are both.
        count(new_size as isize);
        count(-(layout.size() as isize));
        // SAFETY: as for `dealloc`; the caller's contract is the system allocator's.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

/// Runs `work` and returns the most bytes it had allocated at once on this thread.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}

/// The same for all threads: where nothing else is done meanwhile.
#[allow(dead_code, reason = "tests run side by side; a fuzz target is alone")]
pub fn peak_of_process<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALL_LIVE.load(Relaxed);
    ALL_PEAK.store(before, Relaxed);
    let result = work();
    (result, (ALL_PEAK.load(Relaxed) - before) as usize)
}

#[test]
fn the_peak_is_counted() {
    let (_, peak) = peak_of(|| drop((vec![0u8; 1000], vec![0u8; 500])));
    assert_eq!(peak, 1500);
}
