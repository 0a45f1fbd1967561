//! The system's clocks.

pub(crate) use std::time::Instant;

/// Seconds since the beginning of 1970, by the system's clock.
#[cfg(feature = "text")]
pub(crate) fn unix_seconds() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}
