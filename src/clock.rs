//! The time, also where the standard library has none: in a browser the host tells it.

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use std::time::Instant;

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use self::host::Instant;

/// Seconds since the beginning of 1970, by the system's clock.
#[cfg(feature = "text")]
pub(crate) fn unix_seconds() -> u64 {
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    {
        use std::time::{SystemTime, UNIX_EPOCH};
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
    }
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    host::since_1970().as_secs()
}

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
mod host {
    use std::time::Duration;

    #[link(wasm_import_module = "cerebellum")]
    unsafe extern "C" {
        /// Milliseconds since the beginning of 1970, with a fraction; they never go back.
        safe fn now() -> f64;
    }

    pub fn since_1970() -> Duration {
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
}
