//! Section 12: rotary positions. The angle's operations are binary64, whose fused multiply-add Rust's
//! `mul_add` is on every processor.

use super::arithmetic::{fma, mul};

const P0: f64 = f64::from_bits(0x3ff9_21fb_5444_2d18);
const P1: f64 = f64::from_bits(0x3c91_a626_3314_5c07);
const P2: f64 = f64::from_bits(0xb91f_1976_b7ed_8fbc);
const TWO_OVER_PI: f64 = f64::from_bits(0x3fe4_5f30_6dc9_c883);
/// 1.5 * 2^52.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// The inverse frequencies of a base, and its factor.
pub struct Base {
    pub frequencies: Vec<f64>,
    pub factor: f64,
}

impl Base {
    /// Cosine and sine of each pair at a position.
    pub fn angles(&self, position: usize) -> Vec<(f32, f32)> {
        let angle = |frequency: &f64| {
            let (cos, sin) = cos_sin(position as f64 * frequency);
            ((cos * self.factor) as f32, (sin * self.factor) as f32)
        };
        self.frequencies.iter().map(angle).collect()
    }
}

/// One over the factorial of `n`.
fn coefficient(n: u32) -> f64 {
    1.0 / (1..=n).map(f64::from).product::<f64>()
}

/// `-x/first! + x^2/(first + 2)! - ...` up to `last!`, over `x`.
fn series(first: u32, last: u32, z: f64) -> f64 {
    let mut sum = 0.0;
    for n in (first..=last).rev().step_by(2) {
        let sign = if ((n - first) / 2).is_multiple_of(2) { -1.0 } else { 1.0 };
        let c = sign * coefficient(n);
        sum = if n == last { c } else { f64::mul_add(sum, z, c) };
    }
    sum
}

fn cos_sin(a: f64) -> (f64, f64) {
    let t = f64::mul_add(a, TWO_OVER_PI, ROUND);
    let k = t - ROUND;
    let r = f64::mul_add(k, -P0, a);
    let r = f64::mul_add(k, -P1, r);
    let r = f64::mul_add(k, -P2, r);
    let z = r * r;
    let s = f64::mul_add(r * z, series(3, 15, z), r);
    let q = f64::mul_add(z, series(2, 16, z), 1.0);
    match (k as i64).rem_euclid(4) {
        0 => (q, s),
        1 => (-s, q),
        2 => (-q, -s),
        _ => (s, -q),
    }
}

/// Rotates a head.
pub fn rotate(head: &mut [f32], angles: &[(f32, f32)]) {
    let n = angles.len();
    for (i, &(cos, sin)) in angles.iter().enumerate() {
        let (a, b) = (head[i], head[i + n]);
        head[i] = fma(a, cos, -mul(b, sin));
        head[i + n] = fma(b, cos, mul(a, sin));
    }
}

/// Against the C library, near the largest angles that a file can ask for.
#[test]
fn angles_are_those_of_the_cosine_and_sine() {
    for position in [0, 1, 2, 3, 700, 65_537, (1 << 20) - 1] {
        for frequency in [1.0, 0.7, 1e-2, 1e-6] {
            let a = f64::from(position) * frequency;
            let (cos, sin) = cos_sin(a);
            assert!((cos - a.cos()).abs() < 1e-9 && (sin - a.sin()).abs() < 1e-9, "{a}");
        }
    }
}
