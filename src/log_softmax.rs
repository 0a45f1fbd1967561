//! Logarithms of probabilities (`docs/numbers.md` section 11): the same bits on every processor.

use crate::fp_env::FpEnv;
use crate::kernels::scalar::{LANES, fold16};
use crate::kernels::{Kernels, Work};
use crate::math::exp;

/// Terms that are summed in binary32 before the sum goes on in binary64.
const BLOCK: usize = 1024;

/// The logarithm of the sum of the exponentials: what to subtract from a logit for the logarithm of its
/// token's probability. NaN if a logit is NaN or +infinity, or all are -infinity.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    log_sum_exp_by(Kernels::best(), logits)
}

/// As [`log_sum_exp`], computed on the instruction set of these kernels; the bits are the same.
pub fn log_sum_exp_by(kernels: &Kernels, logits: &[f32]) -> f64 {
    let _env = FpEnv::set_default();
    kernels.run(LogSumExp(logits))
}

struct LogSumExp<'a>(&'a [f32]);

impl Work for LogSumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        compute(self.0)
    }
}

#[inline(always)]
fn compute(logits: &[f32]) -> f64 {
    let max = maximum(logits);
    let mut total = 0.0;
    for block in logits.chunks(BLOCK) {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = block.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += exp(x - max);
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += exp(x - max);
        }
        total += f64::from(fold16(lanes));
    }
    f64::from(max) + ln(total)
}

/// The largest value; a NaN is passed over.
#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let larger = |max: f32, x: f32| if x > max { x } else { max };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| larger(max, x))
}

/// ln x for a positive normal x, within 2 units in the last place (of 1 near 1); NaN for a NaN.
///
/// x = m 2^e with m between sqrt(1/2) and sqrt(2), and ln m = 2 artanh((m - 1) / (m + 1)), whose series
/// has converged after 11 terms.
pub(crate) fn ln(x: f64) -> f64 {
    const LN_2: f64 = core::f64::consts::LN_2;
    const MANTISSA: u64 = (1 << 52) - 1;
    if x.is_nan() {
        return x;
    }
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut m = f64::from_bits(bits & MANTISSA | 1.0f64.to_bits());
    if m > core::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = (0..11).rev().fold(0.0, |sum, k| sum * s2 + 1.0 / f64::from(2 * k + 1));
    f64::from(exponent) * LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ln_is_near_the_platform_s(x in 1e-300..1e300) {
            let want = f64::ln(x);
            prop_assert!((ln(x) - want).abs() <= 4e-16 * want.abs().max(1.0), "{} {want}", ln(x));
        }

        #[test]
        fn probabilities_add_up_to_one(logits in prop::collection::vec(-30.0..30.0f32, 1..3000)) {
            let log_sum = log_sum_exp(&logits);
            let total: f64 = logits.iter().map(|&z| (f64::from(z) - log_sum).exp()).sum();
            prop_assert!((total - 1.0).abs() < 1e-6, "{total}");
            for kernels in Isa::available().filter_map(Kernels::new) {
                let by_them = log_sum_exp_by(kernels, &logits);
                prop_assert_eq!(log_sum.to_bits(), by_them.to_bits(), "{}", kernels.isa());
            }
        }
    }

    #[test]
    fn special_values() {
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(log_sum_exp(&[2.5]), 2.5);
        assert_eq!(log_sum_exp(&[0.0, f32::NEG_INFINITY]), 0.0);
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(log_sum_exp(&[0.0, bad]).is_nan(), "{bad}");
        }
    }
}
