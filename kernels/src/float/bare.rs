//! Arithmetic without a standard library. Additions, products and quotients are the processor's or the compiler's,
//! which round as IEEE 754 says, too.

#[cfg(fmadd)]
pub use super::riscv::fma;
#[cfg(not(any(fmadd, vfma)))]
pub use super::soft::fma;
#[cfg(vfma)]
pub use super::vfp::fma;

/// As [`fma`], in binary64: once for an angle of rotary positions.
pub fn fma64(a: f64, b: f64, c: f64) -> f64 {
    libm::fma(a, b, c)
}

/// The square root: once or twice for a row.
pub fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

/// As [`sqrt`], in binary64.
pub fn sqrt64(x: f64) -> f64 {
    libm::sqrt(x)
}

/// e^x, nearly.
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// The natural logarithm, nearly.
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}
