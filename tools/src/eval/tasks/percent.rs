//! A mean in percent.

use super::super::metrics::mean_interval;

/// A mean over examples, in percent, with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent {
    /// The mean.
    pub value: f64,
    /// Its interval; `None` below 10 examples.
    pub interval: Option<[f64; 2]>,
}

impl Percent {
    /// The mean of `values`, each 0 to 1, or of differences of such.
    pub(super) fn mean(values: &[f64]) -> Self {
        let value = 100.0 * values.iter().sum::<f64>() / values.len() as f64;
        Self { value, interval: mean_interval(values).map(|ends| ends.map(|end| 100.0 * end)) }
    }
}
