//! How work is timed.

use std::time::{Duration, Instant};

/// Times of the repetitions of some work with `subject`, before each of which it is prepared. The first run
/// warms caches and threads up and is not counted.
pub(super) fn repeat<T>(
    repetitions: usize,
    subject: &mut T,
    mut prepare: impl FnMut(&mut T) -> cerebellum::Result<()>,
    mut work: impl FnMut(&mut T) -> cerebellum::Result<()>,
) -> cerebellum::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(repetitions);
    for run in 0..=repetitions {
        prepare(subject)?;
        let start = Instant::now();
        work(subject)?;
        if run > 0 {
            times.push(start.elapsed());
        }
    }
    Ok(times)
}

/// The middle one.
pub(super) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
