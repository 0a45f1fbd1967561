//! The standard library's arithmetic.

/// `a * b + c`, rounded once.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    a.mul_add(b, c)
}

/// As [`fma`], in binary64.
#[inline(always)]
pub fn fma64(a: f64, b: f64, c: f64) -> f64 {
    a.mul_add(b, c)
}

/// The square root.
#[inline(always)]
pub fn sqrt(x: f32) -> f32 {
    x.sqrt()
}

/// As [`sqrt`], in binary64.
#[inline(always)]
pub fn sqrt64(x: f64) -> f64 {
    x.sqrt()
}

/// e^x, nearly.
pub fn exp(x: f64) -> f64 {
    x.exp()
}

/// The natural logarithm, nearly.
pub fn ln(x: f64) -> f64 {
    x.ln()
}
