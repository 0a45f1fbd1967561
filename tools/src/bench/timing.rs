//! How work is timed.

use std::time::{Duration, Instant};

/// Times of the repetitions of some work. The first run warms caches and threads up and is not counted.
pub(super) fn repeat(
    repetitions: usize,
    mut work: impl FnMut() -> cerebellum::Result<()>,
) -> cerebellum::Result<Vec<Duration>> {
    work()?;
    (0..repetitions)
        .map(|_| {
            let start = Instant::now();
            work().map(|()| start.elapsed())
        })
        .collect()
}

/// The middle one.
pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
