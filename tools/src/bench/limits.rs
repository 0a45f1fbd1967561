//! What the machine can do at most, measured on as many threads as what is held against it.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use memmap2::MmapMut;
use serde::Serialize;

use super::peaks::{Peak, read};
use super::timing::median;
use crate::threads::{self, Started};

/// What each thread reads: several times the largest cache that threads share in this class of machine.
const STREAM_BYTES: usize = 256 << 20;
const ROUNDS: usize = 7;
/// Until the clock is up and the system has given every thread a core of its own.
const WARM_UP: Duration = Duration::from_millis(100);
/// A round takes about so long: the system may take some milliseconds to part two threads that woke up
/// on one core.
const ROUND: Duration = Duration::from_millis(50);

/// Rates of a number of threads together, medians of some rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Threads that were measured, as many as were to be had.
    pub threads: usize,
    /// Bytes per second that can be read from memory.
    pub memory_gb_per_second: f64,
    /// Multiply-accumulates per second of 8-bit integers, where this is known how to measure.
    pub int8_gmac_per_second: Option<f64>,
    /// Multiply-accumulates per second of floats, likewise.
    pub float_gmac_per_second: Option<f64>,
}

/// What some work must do at least.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    /// Bytes to read.
    pub bytes: f64,
    /// Multiply-accumulates of 8-bit integers.
    pub int8_macs: f64,
    /// Multiply-accumulates of floats.
    pub float_macs: f64,
}

impl Limits {
    /// Measures what `threads` threads can do with `isa` for weights of that scheme. Takes some
    /// seconds, and memory of 256 MiB for each thread.
    pub fn measure(threads: usize, isa: Isa, scheme: Scheme) -> Self {
        let rate = |peak: Peak| {
            let (threads, seconds) = seconds_on(threads, || (), |()| peak.run());
            peak.macs * threads as f64 / seconds / 1e9
        };
        let (threads, seconds) = seconds_on(threads, stream, |buffer| {
            // SAFETY: every bit pattern is a u64.
            let (_, words, _) = unsafe { buffer.align_to() };
            black_box(read(words));
        });
        Self {
            threads,
            memory_gb_per_second: (STREAM_BYTES * threads) as f64 / seconds / 1e9,
            int8_gmac_per_second: Peak::integer(isa, scheme).map(rate),
            float_gmac_per_second: Peak::float(isa).map(rate),
        }
    }

    /// The least time that an amount of work can take: that of the bytes or that of the products, which
    /// run beside each other, but integers and floats on the same units.
    pub fn least_seconds(&self, amount: Amount) -> Option<f64> {
        let read = amount.bytes / self.memory_gb_per_second;
        let int8 = amount.int8_macs / self.int8_gmac_per_second?;
        let float = amount.float_macs / self.float_gmac_per_second?;
        Some(read.max(int8 + float) / 1e9)
    }
}

/// A buffer whose pages are all there, and different ones: pages never written are all the same one. They
/// are huge ones where the system has them, as those of a mapped model file.
fn stream() -> MmapMut {
    let mut buffer = MmapMut::map_anon(STREAM_BYTES).expect("memory to read");
    // A system that has none refuses, and the limit is that of its pages.
    #[cfg(target_os = "linux")]
    drop(buffer.advise(memmap2::Advice::HugePage));
    for (i, word) in (1u64..).zip(buffer.as_chunks_mut().0) {
        *word = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    buffer
}

/// Median seconds of one run of `work` on each of the threads at once, each with what it prepared: of
/// some rounds, from the moment when all may start until the last one has finished. Also how many threads
/// were to be had.
fn seconds_on<T>(
    threads: usize,
    prepare: impl Fn() -> T + Sync,
    work: impl Fn(&T) + Sync,
) -> (usize, f64) {
    let meeting = OnceLock::new();
    let runs = AtomicU32::new(u32::MAX);
    let one_thread = |(), started: &Started| {
        let prepared = prepare();
        let meeting = meeting.get_or_init(|| Barrier::new(started.count()));
        meeting.wait();
        let (start, mut warm_runs) = (Instant::now(), 0);
        while start.elapsed() < WARM_UP {
            work(&prepared);
            warm_runs += 1;
        }
        // As many as take a round: those of the slowest thread.
        let of_round = warm_runs as f64 * (ROUND.as_secs_f64() / start.elapsed().as_secs_f64());
        runs.fetch_min(of_round.ceil() as u32, Relaxed);
        meeting.wait();
        let runs = runs.load(Relaxed);
        let round = |_| {
            meeting.wait();
            let start = Instant::now();
            (0..runs).for_each(|_| work(&prepared));
            meeting.wait();
            start.elapsed() / runs
        };
        median(&mut (0..ROUNDS).map(round).collect::<Vec<_>>()).as_secs_f64()
    };
    let seconds = threads::run(vec![(); threads], one_thread);
    (seconds.len(), seconds[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        threads: 1,
        memory_gb_per_second: 10.0,
        int8_gmac_per_second: Some(100.0),
        float_gmac_per_second: Some(50.0),
    };

    #[test]
    fn the_slower_of_reading_and_multiplying_binds() {
        let amount = |bytes| Amount { bytes, int8_macs: 100e9, float_macs: 25e9 };
        assert_eq!(LIMITS.least_seconds(amount(10e9)), Some(1.5));
        assert_eq!(LIMITS.least_seconds(amount(20e9)), Some(2.0));
        let unknown = Limits { int8_gmac_per_second: None, ..LIMITS };
        assert_eq!(unknown.least_seconds(amount(10e9)), None);
    }

    #[test]
    fn all_threads_are_waited_for() {
        let slow = std::sync::atomic::AtomicUsize::new(0);
        let number = || slow.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as u64;
        let sleep = |&n: &u64| std::thread::sleep(Duration::from_millis(5 * n));
        let (threads, seconds) = seconds_on(2, number, sleep);
        assert!(threads == 2 && seconds >= 0.005, "{seconds}");
    }
}
