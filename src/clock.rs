//! The time, also where the standard library has none: in a browser the host tells it, and without an operating
//! system there is none.

#[cfg(not(feature = "std"))]
#[path = "clock/none.rs"]
mod source;
#[cfg(all(feature = "std", not(all(target_family = "wasm", target_os = "unknown"))))]
#[path = "clock/system.rs"]
mod source;
#[cfg(all(feature = "std", target_family = "wasm", target_os = "unknown"))]
#[path = "clock/browser.rs"]
mod source;

pub(crate) use self::source::Instant;
#[cfg(feature = "text")]
pub(crate) use self::source::unix_seconds;
