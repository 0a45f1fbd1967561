//! What the machine can do at most, measured on as many threads as what is held against it.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use cerebellum::kernels::Isa;
use cerebellum::quant::Scheme;
use memmap2::MmapMut;
use serde::Serialize;

use super::peaks::{LINE_BYTES, Peak, read, read_ahead};
use crate::threads::{self, Started};

const ROUNDS: usize = 3;
/// Until the clock is up and the system has given every thread a core of its own.
const WARM_UP: Duration = Duration::from_millis(50);
/// A round takes about so long: the system may take some milliseconds to part two threads that woke up
/// on one core.
const ROUND: Duration = Duration::from_millis(50);

/// Rates of a number of threads together: those of the fastest round, since a limit is what nothing exceeds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Threads that were measured, as many as were to be had.
    pub threads: usize,
    /// Bytes per second that can be read of as many bytes as the work reads, over and over: what caches keep of
    /// them from pass to pass, they keep of the work's, too.
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
    /// Measures what `threads` threads can do with `isa` for weights of that scheme, of which a pass reads so
    /// many bytes. Takes a second, and memory of as many bytes.
    pub fn measure(threads: usize, isa: Isa, scheme: Scheme, bytes: usize) -> Self {
        let rate = |peak: Peak| {
            let (threads, seconds) = seconds_on(threads, || (), |()| peak.run());
            peak.macs * threads as f64 / seconds / 1e9
        };
        let share = bytes.div_ceil(threads).next_multiple_of(LINE_BYTES);
        // Which of them is faster depends on the processor, and on its pages. Of 512 to 8192 bytes ahead
        // 1024 are the best for Zen 4, 8192 for Zen 5.
        let ways: [fn(&[u64]) -> u64; 3] = [read, read_ahead::<1024>, read_ahead::<8192>];
        let reads = ways.map(|read| {
            let (threads, seconds) = seconds_on(
                threads,
                || stream(share),
                |buffer| {
                    // SAFETY: every bit pattern is a u64.
                    let (_, words, _) = unsafe { buffer.align_to() };
                    black_box(read(words));
                },
            );
            (threads, (share * threads) as f64 / seconds / 1e9)
        });
        Self {
            threads: reads[0].0,
            memory_gb_per_second: reads.iter().map(|read| read.1).fold(0.0, f64::max),
            int8_gmac_per_second: Peak::integer(isa, scheme).map(rate),
            float_gmac_per_second: Peak::float(isa).map(rate),
        }
    }

    /// The higher one of each limit: of several measurements, each is one that the machine has reached.
    pub fn highest(self, other: Self) -> Self {
        Self {
            threads: self.threads.min(other.threads),
            memory_gb_per_second: self.memory_gb_per_second.max(other.memory_gb_per_second),
            int8_gmac_per_second: highest(self.int8_gmac_per_second, other.int8_gmac_per_second),
            float_gmac_per_second: highest(self.float_gmac_per_second, other.float_gmac_per_second),
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

fn highest(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::max)
}

/// A buffer whose pages are all there, and different ones: pages never written are all the same one. They
/// are huge ones where the system has them, as those of a mapped model file.
fn stream(bytes: usize) -> MmapMut {
    let mut buffer = MmapMut::map_anon(bytes).expect("memory to read");
    // A system that has none refuses, and the limit is that of its pages.
    #[cfg(target_os = "linux")]
    drop(buffer.advise(memmap2::Advice::HugePage));
    for (i, word) in (1u64..).zip(buffer.as_chunks_mut().0) {
        *word = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    buffer
}

/// Seconds of one run of `work` on each of the threads at once, each with what it prepared: in the fastest of
/// some rounds, from the first thread's start until the last one has finished. Also how many threads were to
/// be had.
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
            (start, Instant::now())
        };
        (runs, (0..ROUNDS).map(round).collect::<Vec<_>>())
    };
    let threads = threads::run(vec![(); threads], one_thread);
    // A thread may wake up when others have nearly finished: its own time says nothing about them.
    let of_round = |round: usize| {
        let times = threads.iter().map(|(_, rounds)| rounds[round]);
        let (start, end) =
            (times.clone().map(|(start, _)| start).min(), times.map(|(_, end)| end).max());
        end.zip(start).map_or(Duration::ZERO, |(end, start)| end - start)
    };
    let fastest = (0..ROUNDS).map(of_round).min().unwrap_or_default();
    (threads.len(), fastest.as_secs_f64() / f64::from(threads[0].0))
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

    #[test]
    fn the_highest_of_several_measurements_is_kept() {
        let other =
            Limits { memory_gb_per_second: 9.0, int8_gmac_per_second: Some(110.0), ..LIMITS };
        let unknown = Limits { float_gmac_per_second: None, ..other };
        let both = LIMITS.highest(unknown);
        assert_eq!(both.memory_gb_per_second, 10.0);
        assert_eq!(both.int8_gmac_per_second, Some(110.0));
        assert_eq!(both.float_gmac_per_second, Some(50.0));
    }
}
