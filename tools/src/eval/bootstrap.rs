//! How certain quantiles are: the bootstrap over windows.
//!
//! Windows are drawn with replacement, as many as there are, and the quantile of their tokens is taken
//! again, a thousand times; the middle 95 % of these values are the interval (Efron and Tibshirani, "An
//! Introduction to the Bootstrap", 1993, chapter 13). Whole windows are drawn since tokens near each other
//! are not independent.

use crate::random::SplitMix;

/// Resamples: their 2.5 % and 97.5 % quantiles lie 25 from the ends.
const RESAMPLES: usize = 1000;

/// 95 % confidence intervals of the quantiles at `shares` of all values, by nearest rank as
/// [`quantile`](super::metrics::quantile); `values` are those of windows of `scored` each, at least two.
///
/// The same values give the same intervals: the generator has a fixed seed.
pub fn quantile_intervals<const N: usize>(
    values: &[f64],
    scored: usize,
    shares: [f64; N],
) -> [[f64; 2]; N] {
    let windows = values.len() / scored;
    let mut descending: Vec<(f64, usize)> =
        values.iter().enumerate().map(|(index, &value)| (value, index / scored)).collect();
    descending.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut random = SplitMix(0);
    let mut found = [[0.0; RESAMPLES]; N];
    for resample in 0..RESAMPLES {
        let mut times = vec![0; windows];
        (0..windows).for_each(|_| times[random.below(windows)] += 1);
        for (found, share) in found.iter_mut().zip(shares) {
            let above = values.len() - (share * values.len() as f64).ceil() as usize;
            found[resample] = value_below(&descending, &times, above);
        }
    }
    found.map(|mut found| {
        found.sort_by(f64::total_cmp);
        [found[RESAMPLES / 40], found[RESAMPLES - 1 - RESAMPLES / 40]]
    })
}

/// The value that `above` values exceed at most, if window `w` is there `times[w]` times.
fn value_below(descending: &[(f64, usize)], times: &[usize], above: usize) -> f64 {
    let mut seen = 0;
    let mut values = descending.iter().skip_while(|(_, window)| {
        seen += times[*window];
        seen <= above
    });
    values.next().expect("all windows together have as many values").0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generator's first outputs for seed 0, as in the test vectors of Java's `SplittableRandom` ports.
    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = SplitMix(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    /// The median of 400 windows of one value each, uniform on 0 to 1: its standard error is
    /// 0.5 / sqrt(400), by the asymptotic normality of order statistics.
    #[test]
    fn intervals_are_as_wide_as_theory_says() {
        let mut random = SplitMix(7);
        let values: Vec<f64> = (0..400).map(|_| random.next() as f64 / u64::MAX as f64).collect();
        let [[low, high]] = quantile_intervals(&values, 1, [0.5]);
        let expected = 2.0 * 1.96 * 0.5 / 20.0;
        assert!(((high - low) / expected - 1.0).abs() < 0.25, "{low} to {high}, {expected}");
        assert!(low < 0.5 && 0.5 < high, "{low} to {high}");
    }

    /// Tokens that agree within their window tell as much as the windows do, not as the tokens.
    #[test]
    fn windows_are_drawn_whole() {
        let one: Vec<f64> = (0..40).map(f64::from).collect();
        let many: Vec<f64> = one.iter().flat_map(|&value| [value; 25]).collect();
        let alone = quantile_intervals(&one, 1, [0.5, 0.95]);
        assert_eq!(quantile_intervals(&many, 25, [0.5, 0.95]), alone);
    }

    #[test]
    fn equal_values_are_certain() {
        assert_eq!(quantile_intervals(&[2.0; 30], 3, [0.95, 0.99]), [[2.0, 2.0]; 2]);
    }
}
