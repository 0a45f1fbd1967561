//! Decoding text allocates nothing per token once the buffers have grown.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use cerebellum::text::{StopMatcher, TokenTable, Utf8Stream};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system allocator; counting has no effect on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from the system allocator through `alloc` or `realloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: as for `dealloc`; the caller's contract is the system allocator's.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn decoding_does_not_allocate_after_warm_up() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers/demo");
    let blob = cerebellum_tools::tokenizer::import(&dir, 4096).unwrap().unwrap().blob;
    let (mut text, mut out) = (String::new(), String::new());
    let (mut utf8, mut stop) =
        (Utf8Stream::new(), StopMatcher::new(["\n\nUser:", "never seen"]).unwrap());

    // One test only: the counter is the process's.
    let before = ALLOCATIONS.load(Relaxed);
    let table = TokenTable::parse(blob.as_slice()).unwrap();
    assert_eq!(ALLOCATIONS.load(Relaxed), before, "parsing allocates");

    let mut run = || {
        for id in 0..5000 {
            text.clear();
            out.clear();
            utf8.push(table.token_bytes(id).unwrap_or_default(), &mut text);
            assert_eq!(stop.push(&text, &mut out), None);
        }
    };
    run();
    let warm = ALLOCATIONS.load(Relaxed);
    assert!(warm > before, "the counter does not count");
    run();
    assert_eq!(ALLOCATIONS.load(Relaxed), warm);
}
