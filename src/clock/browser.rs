//! A browser's clock is a function that it gives; the standard library's panics there.

use core::time::Duration;

#[link(wasm_import_module = "cerebellum")]
unsafe extern "C" {
    /// Milliseconds since the beginning of 1970, with a fraction; they never go back.
    safe fn now() -> f64;
}

fn since_1970() -> Duration {
    Duration::try_from_secs_f64(now() / 1000.0).unwrap_or_default()
}

/// A moment, as `std::time::Instant`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub fn now() -> Self {
        Self(since_1970())
    }

    pub fn elapsed(self) -> Duration {
        since_1970().saturating_sub(self.0)
    }
}

/// Seconds since the beginning of 1970, by the system's clock.
#[cfg(feature = "text")]
pub(crate) fn unix_seconds() -> u64 {
    since_1970().as_secs()
}
