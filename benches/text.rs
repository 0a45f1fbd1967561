//! Size, speed and memory of the tokenizer: `cargo bench --bench text [TEXT_FILE | MODEL.gguf | MODEL.cbl]...`.
//!
//! Reports, for each tokenizer, the table's size, the time to check it, the time of the first encoding behind that,
//! and the speed of encoding and decoding, as a ratio to the `tokenizers` library's in the same run; and the heap
//! that encoding takes for each byte of text. Times are medians. The tokenizers are the repository's, and those of
//! the GGUF files that are named: byte-level ones with SmolLM's rule, others with Gemma's. Of a model file, what is measured is the
//! time from opening it to the first encoding.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cerebellum::text::{EncodeOptions, Encoder, TokenTable, Utf8Stream, layout};
use cerebellum::{Access, Model};
use cerebellum_tools::tokenizer::{Vocabulary, from_vocabulary, read};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::Replace;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::Split;
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

/// Encoded if no file is given: 1 MB of prose, repeated with changing words.
fn sample_text() -> String {
    let line = |n: u32| {
        format!("The {n}th traveller said: \"It's {} miles to the sea, isn't it?\"\n", n * 7 % 1000)
    };
    (0..15_000).map(line).collect()
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

/// Runs `f`; returns its result, and the most memory that was in use meanwhile.
fn with_memory<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = IN_USE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let result = f();
    (result, PEAK.load(Relaxed) - before)
}

fn measure(name: &str, vocabulary: Vocabulary, library: &Tokenizer, text: &str) {
    let start = Instant::now();
    let tokens = vocabulary.tokens.values().chain(vocabulary.added.iter().map(|added| &added.id));
    let count = tokens.max().expect("tokens") + 1;
    let blob =
        from_vocabulary(vocabulary, Path::new(name), count).expect("a sound vocabulary").blob;
    println!("{name}: {count} tokens, table {} bytes, made in {:.1?}", blob.len(), start.elapsed());

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
    let (ids, memory) = with_memory(encode);
    println!("  heap      {:.2} bytes for each byte of text", memory as f64 / text.len() as f64);
    let speed = |time: Duration| text.len() as f64 / 1e6 / time.as_secs_f64();
    let own = median(5, encode);
    println!("  encode    {:.2} MB/s, {} bytes, {} tokens", speed(own), text.len(), ids.len());
    let encode = || library.encode_fast(text, false).expect("encodable");
    assert!(encode().get_ids() == ids, "{name}: other tokens than the library's");
    let theirs = median(3, encode);
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

/// The library's model of a vocabulary, without rules for splitting.
fn model(vocabulary: &Vocabulary) -> Tokenizer {
    let is_byte_level = vocabulary.kind == layout::BYTE_LEVEL_BPE;
    let vocab = vocabulary.tokens.iter().map(|(token, &id)| (token.clone(), id));
    let added = vocabulary.added.iter().map(|added| (added.content.clone(), added.id));
    let vocab: tokenizers::models::bpe::Vocab = vocab.chain(added).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, vocabulary.merges.clone())
        .byte_fallback(!is_byte_level);
    let mut tokenizer = Tokenizer::new(model.build().expect("a sound model"));
    let added = vocabulary.added.iter().filter(|added| !added.special);
    let added: Vec<_> = added
        .map(|added| AddedToken::from(added.content.clone(), false).normalized(false))
        .collect();
    tokenizer.add_tokens(added).expect("sound tokens");
    tokenizer
}

/// As SmolLM has it.
fn smollm(vocabulary: &Vocabulary) -> Tokenizer {
    let mut tokenizer = model(vocabulary);
    let parts = vec![Digits::new(true).into(), ByteLevel::new(false, true, true).into()];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(parts)));
    tokenizer
}

/// As Gemma has it.
fn gemma(vocabulary: &Vocabulary) -> Tokenizer {
    let mut tokenizer = model(vocabulary);
    let spaces = Replace::new(" ", "\u{2581}").expect("a pattern");
    tokenizer.with_normalizer(Some(spaces)).expect("a normalizer");
    let split = Split::new(" ", SplitDelimiterBehavior::MergedWithPrevious, false);
    tokenizer.with_pre_tokenizer(Some(split.expect("a pattern")));
    tokenizer
}

fn vocabulary(path: &Path) -> Vocabulary {
    read(path).expect("a sound tokenizer").expect("a tokenizer").0
}

fn measure_gguf(path: &Path, text: &str) {
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
    let vocabulary = vocabulary(path);
    let library = if vocabulary.kind == layout::BYTE_LEVEL_BPE { smollm } else { gemma };
    measure(name, vocabulary.clone(), &library(&vocabulary), text);
}

fn measure_opening(path: &Path) {
    for access in [Access::Map, Access::Read] {
        let open = || {
            let start = Instant::now();
            let model = Model::open(path, access).expect("a model file");
            let opened = start.elapsed();
            let tokenizer = model.tokenizer().expect("a tokenizer");
            tokenizer.encode("Once upon a time", EncodeOptions::default()).expect("encodable");
            (opened, start.elapsed() - opened)
        };
        let mut times: Vec<_> = (0..11).map(|_| open()).collect();
        times.sort_by_key(|&(_, first)| first);
        let (opened, first) = times[5];
        println!(
            "{}, {access:?}: opened in {opened:.1?}, first encode {first:.1?} behind",
            path.display()
        );
    }
}

fn main() {
    let files: Vec<PathBuf> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).map(PathBuf::from).collect();
    let named = |extension: &str| {
        let extension = extension.to_owned();
        files.iter().filter(move |file| file.extension().is_some_and(|it| *it == *extension))
    };
    let mut others = files.iter().filter(|file| {
        !file.extension().is_some_and(|it| ["gguf", "cbl"].iter().any(|model| it == *model))
    });
    let text = match others.next_back() {
        Some(path) => std::fs::read_to_string(path).expect("a readable UTF-8 file"),
        None => sample_text(),
    };
    named("cbl").for_each(|file| measure_opening(file));
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers");
    let demo = Tokenizer::from_file(data.join("demo/tokenizer.json")).expect("readable");
    measure("demo", vocabulary(&data.join("demo")), &demo, &text);
    let gpt2 = vocabulary(&data.join("gpt2"));
    let mut library = model(&gpt2);
    library.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    measure("gpt2", gpt2, &library, &text);
    named("gguf").for_each(|file| measure_gguf(file, &text));
}
