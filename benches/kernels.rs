//! Speed of every kernel on every instruction set, beside the limits of the core it runs on.
//!
//!     cargo bench --bench kernels -- [--quick] [FILTER]
//!
//! One thread; times are its processor time, so that other programs count less. Limits are measured in
//! the same rounds as the kernels: all are interleaved, and a figure is the median of its rounds. A
//! matrix of the decode rows is walked through a set of copies
//! larger than the last cache, as weights are walked through in a pass; its activations stay cached.

use std::hint::black_box;
use std::sync::OnceLock;

use cerebellum::kernels::*;
use cerebellum::quant::{Scheme, TileLayout};

mod limits;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let quick = arguments.iter().any(|a| a == "--quick");
    let filter: Vec<_> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let mut benches = limits::all();
    benches.extend(matmuls());
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|f| name.contains(f.as_str()));
    benches.retain(|b| b.is_limit() || wanted(&b.name));
    let rounds = if quick { 3 } else { 9 };
    for round in 0..rounds {
        for bench in &mut benches {
            bench.measure();
        }
        eprint!("\rround {} of {rounds}", round + 1);
    }
    eprintln!();
    report(&benches);
}

/// What a kernel is held against.
#[derive(Clone, Copy, PartialEq)]
pub enum Limit {
    /// Multiply-accumulates of int4 weights per second.
    Int4,
    /// Of int8 weights.
    Int8,
    /// Of floats.
    Float,
    /// Bytes read from memory per second.
    Memory,
}

/// Something to measure.
pub struct Bench {
    name: String,
    /// Multiply-accumulates of one run.
    macs: f64,
    /// Bytes of weights or cache read by one run.
    bytes: f64,
    limit: Limit,
    defines_limit: bool,
    run: Box<dyn FnMut()>,
    seconds: Vec<f64>,
}

impl Bench {
    fn is_limit(&self) -> bool {
        self.defines_limit
    }

    /// One sample: repeats the run for at least 10 ms.
    fn measure(&mut self) {
        let (start, mut runs) = (processor_seconds(), 0);
        let mut elapsed = 0.0;
        while elapsed < 0.01 {
            (self.run)();
            runs += 1;
            elapsed = processor_seconds() - start;
        }
        self.seconds.push(elapsed / f64::from(runs));
    }

    fn median(&self) -> f64 {
        let mut seconds = self.seconds.clone();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }

    /// What counts against the limit, per second.
    fn rate(&self) -> f64 {
        let work = if self.limit == Limit::Memory { self.bytes } else { self.macs };
        work / self.median()
    }
}

/// Time that the processor has spent on this thread.
fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` may be written.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn report(benches: &[Bench]) {
    let limit = |limit| {
        let defines = |b: &&Bench| b.defines_limit && b.limit == limit;
        benches.iter().find(defines).map_or(f64::NAN, Bench::rate)
    };
    println!("{:58} {:>10} {:>8} {:>8} {:>9}", "", "µs", "GMAC/s", "GB/s", "of limit");
    for b in benches {
        let seconds = b.median();
        println!(
            "{:58} {:>10.1} {:>8.1} {:>8.2} {:>8.1}%",
            b.name,
            seconds * 1e6,
            b.macs / seconds / 1e9,
            b.bytes / seconds / 1e9,
            100.0 * b.rate() / limit(b.limit)
        );
    }
}

/// Instruction sets worth measuring here: scalar code only where it has FMA.
fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|&isa| isa != Isa::Scalar)
}

/// Output and input widths of the matrices of Cerebras-GPT 111M, 256M and 1.3B.
const SHAPES: [(usize, usize); 8] = [
    (2304, 256),
    (2304, 768),
    (3072, 768),
    (768, 3072),
    (50257, 768),
    (3264, 1088),
    (1088, 4352),
    (8192, 2048),
];

/// More than the last cache.
const STREAM_BYTES: usize = 256 << 20;

fn matmuls() -> Vec<Bench> {
    let mut benches = Vec::new();
    for (rows, cols) in SHAPES {
        for (scheme, group) in [(Scheme::Int4, 64), (Scheme::Int8, 128)] {
            for tokens in [1, 2, 4, 8, 64, 512] {
                for isa in isas() {
                    let large = rows * cols * tokens > 200_000_000;
                    if isa != Isa::ScalarFma || !large && tokens == 64 {
                        let tiles = TileLayout::new(rows, cols, scheme, group).expect("sound");
                        benches.push(matmul(isa, tiles, tokens));
                    }
                }
            }
        }
    }
    benches
}

fn matmul(isa: Isa, tiles: TileLayout, tokens: usize) -> Bench {
    let kernels = Kernels::new(isa).expect("available");
    // Decode streams copy after copy; a prompt stays with one.
    let copies = if tokens < 8 { STREAM_BYTES / tiles.bytes() } else { 1 };
    assert!(copies * tiles.bytes() <= STREAM_BYTES);
    let bytes = stream();
    let mut values = vec![0; tokens * tiles.padded_cols()];
    let mut scales = vec![0.0; tokens * tiles.groups()];
    let mut starts = vec![[0; 2]; tokens * tiles.blocks()];
    for t in 0..tokens {
        let x: Vec<f32> = (0..tiles.cols()).map(|i| ((i * 7 + t) % 31) as f32 - 15.0).collect();
        let out = QuantizedRowMut {
            values: &mut values[t * tiles.padded_cols()..][..tiles.padded_cols()],
            scales: &mut scales[t * tiles.groups()..][..tiles.groups()],
            starts: &mut starts[t * tiles.blocks()..][..tiles.blocks()],
        };
        kernels.quantize(&x, tiles.group_size(), out);
    }
    let bias = vec![0.5; tiles.rows()];
    let mut cells = vec![0.0; tokens * tiles.rows()];
    let mut copy = 0;
    let run = move || {
        let at = copy * tiles.bytes();
        copy = (copy + 1) % copies;
        let job = Matmul {
            weights: Weights::new(tiles, 1.0, &bytes[at..][..tiles.bytes()]),
            input: QuantizedRows {
                values: &values,
                scales: &scales,
                starts: &starts,
                padded_cols: tiles.padded_cols(),
                groups: tiles.groups(),
                blocks: tiles.blocks(),
            },
            bias: Some(&bias),
            epilogue: Epilogue::Store,
        };
        let out = CellWriter::new(&mut cells, tiles.rows());
        // SAFETY: one thread, one writer.
        unsafe { kernels.matmul(&job, 0..tiles.panels(), &out) };
        black_box(&cells);
    };
    let (rows, cols, scheme) = (tiles.rows(), tiles.cols(), tiles.scheme());
    let limit = match scheme {
        _ if tokens < 8 => Limit::Memory,
        Scheme::Int4 => Limit::Int4,
        Scheme::Int8 => Limit::Int8,
    };
    Bench {
        name: format!("matmul {isa} {} {rows}x{cols} tokens {tokens}", scheme.name()),
        macs: (rows * cols * tokens) as f64,
        bytes: tiles.bytes() as f64,
        limit,
        defines_limit: false,
        run: Box::new(run),
        seconds: Vec::new(),
    }
}

/// Random bytes on a 64-byte boundary, shared by all benches.
pub fn stream() -> &'static [u8] {
    static STREAM: OnceLock<&'static [u8]> = OnceLock::new();
    STREAM.get_or_init(|| {
        let bytes = Vec::leak(vec![0; STREAM_BYTES + 64]);
        let offset = bytes.as_ptr().align_offset(64);
        let bytes = &mut bytes[offset..offset + STREAM_BYTES];
        let mut state = 1u32;
        for byte in bytes.iter_mut() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        bytes
    })
}
