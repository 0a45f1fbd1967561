//! What the machine can do at most, measured by loops that do nothing else.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use serde::Serialize;

/// Larger than any cache in its class, per thread.
const STREAM_BYTES: usize = 256 << 20;
const ROUNDS: usize = 5;

/// Rates of a number of threads together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Threads that were measured.
    pub threads: usize,
    /// Bytes per second that can be read from memory.
    pub memory_gb_per_second: f64,
    /// Multiply-accumulates per second of 8-bit integers, where this is known how to measure.
    pub int8_gmac_per_second: Option<f64>,
}

impl Limits {
    /// Measures what `threads` threads can do. Takes about a second.
    pub fn measure(threads: usize) -> Self {
        let buffers: Vec<Vec<u64>> =
            (0..threads).map(|i| vec![i as u64; STREAM_BYTES / 8]).collect();
        let read = best_of(|| {
            on_threads(&buffers, |buffer| {
                black_box(buffer.iter().fold(0, |sum: u64, x| sum | x));
            })
        });
        let macs = integer_loop().map(|(run, macs)| {
            let seconds = best_of(|| on_threads(&buffers, |_| run()));
            macs * threads as f64 / seconds / 1e9
        });
        Self {
            threads,
            memory_gb_per_second: (STREAM_BYTES * threads) as f64 / read / 1e9,
            int8_gmac_per_second: macs,
        }
    }

    /// The least time in which so many bytes can be read and weights multiplied.
    pub fn least_seconds(&self, bytes: f64, macs: f64) -> Option<f64> {
        let read = bytes / (self.memory_gb_per_second * 1e9);
        self.int8_gmac_per_second.map(|rate| read.max(macs / (rate * 1e9)))
    }
}

/// The shortest of some runs, in seconds: a limit is what is possible at all.
fn best_of(mut run: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(time).fold(f64::INFINITY, f64::min)
}

fn on_threads(buffers: &[Vec<u64>], work: impl Fn(&[u64]) + Sync) {
    thread::scope(|scope| {
        for buffer in &buffers[1..] {
            scope.spawn(|| work(buffer));
        }
        work(&buffers[0]);
    });
}

/// A loop of the widest integer multiply-accumulate this processor has, and how many it does.
fn integer_loop() -> Option<(fn(), f64)> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was detected.
        return Some((|| unsafe { avx2::multiply() }, avx2::MACS));
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::asm;

    const ITERATIONS: usize = 1 << 22;
    /// Independent accumulators: registers 0 to 11.
    const CHAINS: usize = 12;
    /// 32 products of bytes in each instruction.
    pub const MACS: f64 = (ITERATIONS * CHAINS * 32) as f64;

    /// `vpmaddubsw` and `vpaddw`, which is the least that int4 weights need without VNNI. In
    /// assembly, because a compiler would compute the same product only once.
    ///
    /// # Safety
    /// The processor supports AVX2.
    pub unsafe fn multiply() {
        // SAFETY: AVX2 is there; only the registers named are changed, and no memory.
        unsafe {
            asm!(
                "vpxor ymm13, ymm13, ymm13",
                "2:",
                ".irp sum, ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11",
                "vpmaddubsw ymm12, ymm13, ymm13",
                "vpaddw \\sum, \\sum, ymm12",
                ".endr",
                "dec {n}",
                "jnz 2b",
                n = inout(reg) ITERATIONS => _,
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _,
                options(nomem, nostack),
            );
        }
    }
}
