//! Size and speed of the tokenizer: `cargo bench --bench text [TEXT_FILE]`.
//!
//! Reports, for each test tokenizer, the table's size, the time to check it, the time and memory to
//! build the encoder, and the speed of encoding and decoding. Times are medians.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use cerebellum::text::{EncodeOptions, Encoder, TokenTable, Utf8Stream};
use cerebellum_tools::tokenizer::import;

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

/// Resident memory in KiB, where the system tells.
fn resident_kib() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn measure(name: &str, vocab_size: u32, text: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers").join(name);
    let start = Instant::now();
    let blob = import(&dir, vocab_size).expect("importable").expect("present").blob;
    println!("{name}: table {} bytes, imported in {:.1?}", blob.len(), start.elapsed());

    let table = TokenTable::parse(blob.as_slice()).expect("valid");
    println!("  parse     {:.1?}", median(101, || TokenTable::parse(blob.as_slice())));

    let before = resident_kib();
    let encoder = Encoder::new(&table).expect("buildable");
    if let (Some(before), Some(after)) = (before, resident_kib()) {
        println!("  encoder   {} KiB resident", after - before);
    }
    println!("  encoder   built in {:.1?}", median(11, || Encoder::new(&table)));

    let encode = || encoder.encode(text, EncodeOptions::default()).expect("encodable");
    let ids = encode();
    let speed = |time: Duration| text.len() as f64 / 1e6 / time.as_secs_f64();
    println!(
        "  encode    {:.2} MB/s, {} bytes, {} tokens",
        speed(median(5, encode)),
        text.len(),
        ids.len()
    );

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
    measure("demo", 4096, &text);
    measure("gpt2", 50257, &text);
}
