//! Size and speed of the tokenizer: `cargo bench --bench text [TEXT_FILE]`.
//!
//! Reports, for each test tokenizer, the table's size, the time to check it, the time of the first encoding behind
//! that, and the speed of encoding and decoding, as a ratio to the `tokenizers` library's in the same run. Times are
//! medians.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cerebellum::text::{EncodeOptions, Encoder, TokenTable, Utf8Stream};
use cerebellum_tools::tokenizer::import;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

/// Encoded if no file is given: prose, repeated with changing words.
fn sample_text() -> String {
    let line = |n: u32| {
        format!("The {n}th traveller said: \"It's {} miles to the sea, isn't it?\"\n", n * 7 % 1000)
    };
    (0..6000).map(line).collect()
}

fn median<T>(runs: usize, mut f: impl FnMut() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let start = Instant::now();
            black_box(f());
            start.elapsed()
        })
        .collect();
    times.sort();
    times[runs / 2]
}

/// Counts the bytes in use.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system allocator; counting has no effect on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.fetch_add(layout.size(), Relaxed) + layout.size();
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
static ALLOCATOR: Counting = Counting;

/// Runs `f` and prints the memory that its result keeps and the most that was in use meanwhile.
fn with_memory<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    let [kept, peak] = [&IN_USE, &PEAK].map(|bytes| (bytes.load(Relaxed) - before) >> 10);
    println!("  {what} keeps {kept} KiB, at most {peak} KiB");
    result
}

fn measure(name: &str, vocab_size: u32, library: &Tokenizer, text: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name);
    let start = Instant::now();
    let blob = import(&dir, vocab_size).expect("importable").expect("present").blob;
    println!("{name}: table {} bytes, imported in {:.1?}", blob.len(), start.elapsed());

    let table = TokenTable::parse(blob.as_slice()).expect("valid");
    println!("  parse     {:.1?}", median(101, || TokenTable::parse(blob.as_slice())));

    let encoder = Encoder::new(&table);
    let first = || {
        let table = TokenTable::parse(blob.as_slice()).expect("valid");
        Encoder::new(&table)
            .encode("Once upon a time", EncodeOptions::default())
            .expect("encodable")
    };
    println!("  first     {:.1?}, checking included", median(101, first));

    let encode = || encoder.encode(text, EncodeOptions::default()).expect("encodable");
    let ids = with_memory("ids      ", encode);
    let speed = |time: Duration| text.len() as f64 / 1e6 / time.as_secs_f64();
    let own = median(5, encode);
    println!("  encode    {:.2} MB/s, {} bytes, {} tokens", speed(own), text.len(), ids.len());
    let theirs = median(3, || library.encode_fast(text, false).expect("encodable"));
    let ratio = theirs.as_secs_f64() / own.as_secs_f64();
    println!("  library   {:.2} MB/s: ours is {ratio:.1} times as fast", speed(theirs));

    let mut out = String::with_capacity(2 * text.len());
    let decode = || {
        out.clear();
        let mut stream = Utf8Stream::new();
        for &id in &ids {
            stream.push(table.token_bytes(id).unwrap_or_default(), &mut out);
        }
        stream.finish(&mut out);
    };
    println!("  decode    {:.0} MB/s", speed(median(11, decode)));
    assert_eq!(out, text);
}

fn main() {
    let file = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let text = match file {
        Some(path) => std::fs::read_to_string(&path).expect("a readable UTF-8 file"),
        None => sample_text(),
    };
    let data = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name);
        path.to_str().expect("a path of text").to_owned()
    };
    let demo = Tokenizer::from_file(data("demo/tokenizer.json")).expect("readable");
    measure("demo", 4096, &demo, &text);
    let gpt2 = BPE::from_file(&data("gpt2/vocab.json"), &data("gpt2/merges.txt"));
    let mut gpt2 = Tokenizer::new(gpt2.build().expect("readable"));
    gpt2.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    measure("gpt2", 50257, &gpt2, &text);
}
