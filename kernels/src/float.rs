//! Arithmetic that `core` has not: the standard library's, or what stands in for it where there is none.
//!
//! The square root and the fused multiply-adds are rounded once, to nearest even, everywhere: `docs/numbers.md` is
//! made of them. [`exp`] and [`ln`] are a platform's, and serve only what that document does not define.

#[cfg(target_os = "none")]
#[path = "float/bare.rs"]
mod platform;
#[cfg(not(target_os = "none"))]
#[path = "float/hosted.rs"]
mod platform;
#[cfg(fmadd)]
mod riscv;
#[cfg(any(test, all(target_os = "none", not(any(fmadd, vfma)))))]
mod soft;
#[cfg(vfma)]
mod vfp;

pub use self::platform::{exp, fma, fma64, ln, sqrt, sqrt64};
#[cfg(vfma)]
pub(crate) use self::vfp::{add_f16, add_i8};
