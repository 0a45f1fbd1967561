//! Memory that encoding takes, and what becomes of it when there is none.
#![cfg(feature = "text")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use cerebellum::text::{EncodeOptions, Encoder, TextError, TokenTable, layout, text_bytes};
use cerebellum_tools::tokenizer::{Vocabulary, from_vocabulary, import, read};

/// Counts the bytes in use, and refuses what goes beyond a limit.
struct Limited;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

// SAFETY: calls are passed on unchanged to the system allocator, or refused as it may refuse them.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
        if in_use > LIMIT.load(Relaxed) {
            IN_USE.fetch_sub(layout.size(), Relaxed);
            return std::ptr::null_mut();
        }
        PEAK.fetch_max(in_use, Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: `pointer` came from the system allocator through `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Limited = Limited;

fn vocabulary() -> Vocabulary {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers/demo");
    read(&dir).unwrap().unwrap().0
}

/// Runs `f`, and returns the most bytes that were in use meanwhile, beside those before.
fn peak_of<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    (result, PEAK.load(Relaxed) - before)
}

/// What a window takes.
const FIXED: usize = 64 << 10;

// One test only: the counters are the process's.
#[test]
fn encoding_takes_at_most_four_bytes_a_byte_and_survives_without_memory() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers/gpt2");
    let gpt2 = import(&dir, 50257).unwrap().unwrap().blob;
    let normalizing = |flags| {
        let vocabulary = Vocabulary { flags, ..vocabulary() };
        from_vocabulary(vocabulary, Path::new("demo"), 4096).unwrap().blob
    };
    let [plain, nfc, prefix] = [0, layout::NFC, layout::ADD_PREFIX_SPACE].map(normalizing);
    let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/text/stories.txt");
    let stories = std::fs::read_to_string(stories).unwrap();
    let mut texts = vec![stories.chars().take(300_000).collect::<String>()];
    for unit in ["a", " ", "1", "\n", "\u{e9}", "e\u{301}", "日本", "\0", " a", "zq"] {
        texts.push(unit.repeat(100_000 / unit.len()));
    }
    let options = EncodeOptions::default();
    for (name, blob) in [("GPT-2", &gpt2), ("demo", &plain), ("NFC", &nfc), ("prefix", &prefix)] {
        let (table, memory) = peak_of(|| TokenTable::parse(blob.as_slice()).unwrap());
        assert_eq!(memory, 0);
        let encoder = Encoder::new(&table);
        for text in &texts {
            let (tokens, memory) = peak_of(|| encoder.encode(text, options).unwrap());
            let start: String = text.chars().take(4).collect();
            let (a_byte, tokens) = (memory as f64 / text.len() as f64, size_of_val(&tokens[..]));
            println!("{name} {start:?}: {a_byte:.2} bytes a byte, {tokens} of {memory} are tokens");
            // A word that gets a space in front is copied.
            let copied = if name == "prefix" { text.len() } else { 0 };
            let most = 4 * text.len() + copied + FIXED;
            assert!(memory <= most, "{name}, {start:?}: {a_byte:.2} bytes a byte");
            let (pieces, memory) = peak_of(|| {
                let mut count = 0;
                encoder
                    .encode_in_pieces(text, options, &mut |tokens, _| {
                        count += tokens.len();
                        std::ops::ControlFlow::Continue(())
                    })
                    .unwrap();
                count
            });
            assert_eq!(4 * pieces, tokens);
            assert!(memory <= most, "{name}, {start:?}: {memory} bytes in pieces");
        }
        // What is stated for texts, short ones, too.
        for text in &texts {
            for bytes in [1, 3, 20, 100, 500, 1000, 2000, 5000, 20_000] {
                let text: String = text.chars().take(bytes).collect();
                let (_, memory) = peak_of(|| encoder.encode(&text, options).unwrap());
                assert!(
                    memory <= text_bytes(text.len()),
                    "{name}: {memory} for {} bytes",
                    text.len()
                );
            }
        }
        // Short of memory at every point.
        let text = "The king ate e\u{301} ".to_owned() + &"ab".repeat(1500) + " and so on. ";
        let (whole, most) = peak_of(|| encoder.encode(&text, options).unwrap());
        let mut refused = 0;
        for room in (0..most).step_by(499) {
            LIMIT.store(IN_USE.load(Relaxed) + room, Relaxed);
            let tokens = encoder.encode(&text, options);
            LIMIT.store(usize::MAX, Relaxed);
            match tokens {
                Ok(tokens) => assert_eq!(tokens, whole),
                Err(error) => {
                    assert!(matches!(error, TextError::OutOfMemory { .. }), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 10, "{name}: {refused}");
    }
}
