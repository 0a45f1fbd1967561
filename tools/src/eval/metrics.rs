//! Scores of tokens summed up.

use serde::Serialize;

use super::bootstrap::quantile_intervals;
use super::token_score::{Against, TokenScore};

/// Values from which on their mean is taken to be normally distributed.
const VALUES_FOR_INTERVAL: usize = 10;

/// The normal distribution's two-sided 95 % quantile.
const QUANTILE: f64 = 1.959964;

/// How well a model predicts a text.
///
/// Intervals hold the true value with 95 % probability when another text of the same kind is drawn:
/// tokens near each other are not independent, so they come from the spread of the windows' means, by
/// normal approximation, or from windows drawn again. They are `None` below 10 windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metrics {
    /// Scored tokens.
    pub tokens: usize,
    /// Windows.
    pub windows: usize,
    /// Tokens in a window, its first included, which is not scored.
    pub window: usize,
    /// `exp` of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Its interval.
    pub perplexity_interval: Option<[f64; 2]>,
    /// Against the float reference, if there is one.
    #[serde(flatten)]
    pub comparison: Option<Comparison>,
}

/// How far a model's predictions are from the float reference's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The reference's perplexity.
    pub reference_perplexity: f64,
    /// The model's perplexity over the reference's.
    pub perplexity_ratio: f64,
    /// Its interval; far narrower than the perplexities' own, since both models see the same text.
    pub perplexity_ratio_interval: Option<[f64; 2]>,
    /// Mean Kullback-Leibler divergence from the reference, in nats a token.
    pub kl_mean: f64,
    /// Its interval.
    pub kl_mean_interval: Option<[f64; 2]>,
    /// 95 % of all tokens have at most this divergence.
    pub kl_p95: f64,
    /// Its interval, by the bootstrap over windows.
    pub kl_p95_interval: Option<[f64; 2]>,
    /// 99 % of all tokens.
    pub kl_p99: f64,
    /// Its interval.
    pub kl_p99_interval: Option<[f64; 2]>,
    /// The largest divergence.
    pub kl_max: f64,
    /// Share of the tokens where both models hold the same token most likely.
    pub top1_agreement: f64,
    /// Its interval.
    pub top1_agreement_interval: Option<[f64; 2]>,
}

impl Metrics {
    /// Sums up the scores of whole windows, `window` tokens each, in the order of the text.
    ///
    /// # Panics
    /// If there is no score, or not a whole number of windows.
    pub fn new(scores: &[TokenScore], window: usize) -> Self {
        let nll = Mean::new(scores, window, |score| score.nll);
        Self {
            tokens: scores.len(),
            windows: nll.of_windows.len(),
            window,
            perplexity: nll.value.exp(),
            perplexity_interval: nll.interval().map(|ends| ends.map(f64::exp)),
            comparison: Comparison::new(scores, window),
        }
    }
}

impl Comparison {
    fn new(scores: &[TokenScore], window: usize) -> Option<Self> {
        let against: Option<Vec<Against>> = scores.iter().map(|score| score.against).collect();
        let against = against?;
        let reference = Mean::new(&against, window, |against| against.reference_nll);
        let pairs: Vec<_> = scores.iter().zip(&against).collect();
        let excess =
            Mean::new(&pairs, window, |(score, against)| score.nll - against.reference_nll);
        let kl = Mean::new(&against, window, |against| against.kl);
        let mut sorted: Vec<f64> = against.iter().map(|against| against.kl).collect();
        let tails = (kl.of_windows.len() >= VALUES_FOR_INTERVAL)
            .then(|| quantile_intervals(&sorted, window - 1, [0.95, 0.99]));
        sorted.sort_by(f64::total_cmp);
        let same = Mean::new(&against, window, |against| f64::from(u8::from(against.same_top)));
        Some(Self {
            reference_perplexity: reference.value.exp(),
            perplexity_ratio: excess.value.exp(),
            perplexity_ratio_interval: excess.interval().map(|ends| ends.map(f64::exp)),
            kl_mean: kl.value,
            kl_mean_interval: kl.interval(),
            kl_p95: quantile(&sorted, 0.95),
            kl_p95_interval: tails.map(|[p95, _]| p95),
            kl_p99: quantile(&sorted, 0.99),
            kl_p99_interval: tails.map(|[_, p99]| p99),
            kl_max: quantile(&sorted, 1.0),
            top1_agreement: same.value,
            top1_agreement_interval: same
                .interval()
                .map(|ends| ends.map(|end| end.clamp(0.0, 1.0))),
        })
    }
}

/// The least value that is not below a share `q` of all, those being `sorted`.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted[rank.max(1) - 1]
}

/// The mean over all tokens, which is the mean of the windows' means.
struct Mean {
    value: f64,
    of_windows: Vec<f64>,
}

impl Mean {
    fn new<T>(scores: &[T], window: usize, value: impl Fn(&T) -> f64) -> Self {
        let scored = window - 1;
        assert!(!scores.is_empty() && scores.len().is_multiple_of(scored), "windows are not whole");
        let sum = |chunk: &[T]| chunk.iter().map(&value).sum::<f64>();
        let of_windows: Vec<f64> =
            scores.chunks_exact(scored).map(|chunk| sum(chunk) / scored as f64).collect();
        let value = of_windows.iter().sum::<f64>() / of_windows.len() as f64;
        Self { value, of_windows }
    }

    /// 95 % confidence interval.
    fn interval(&self) -> Option<[f64; 2]> {
        mean_interval(&self.of_windows)
    }
}

/// 95 % confidence interval of the mean of independent `values`, by normal approximation; `None` below
/// 10 values.
pub fn mean_interval(values: &[f64]) -> Option<[f64; 2]> {
    let n = values.len() as f64;
    if values.len() < VALUES_FOR_INTERVAL {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / (n - 1.0) / n).sqrt();
    Some([mean - QUANTILE * error, mean + QUANTILE * error])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(nll: f64, reference_nll: f64, kl: f64, same_top: bool) -> TokenScore {
        TokenScore { nll, against: Some(Against { reference_nll, kl, same_top }) }
    }

    #[test]
    fn small_numbers_come_out_as_by_hand() {
        let scores = [score(1.0, 0.5, 0.1, true), score(2.0, 2.5, 0.3, false)];
        let metrics = Metrics::new(&scores, 3);
        assert_eq!((metrics.tokens, metrics.windows, metrics.window), (2, 1, 3));
        assert_eq!(metrics.perplexity, 1.5f64.exp());
        assert_eq!(metrics.perplexity_interval, None);
        let comparison = metrics.comparison.unwrap();
        assert_eq!(comparison.reference_perplexity, 1.5f64.exp());
        assert_eq!(comparison.perplexity_ratio, 1.0);
        assert_eq!((comparison.kl_mean, comparison.kl_max), (0.2, 0.3));
        assert_eq!(comparison.top1_agreement, 0.5);
        let alone = Metrics::new(&[TokenScore { nll: 0.0, against: None }], 2);
        assert_eq!((alone.perplexity, alone.comparison), (1.0, None));
    }

    /// 100 windows of one scored token, half at 1 and half at 3: the standard error of the mean is
    /// sqrt(100 / 99) / 10.
    #[test]
    fn intervals_follow_the_spread_of_the_windows() {
        let scores: Vec<_> =
            (0..100).map(|i| score(if i % 2 == 0 { 1.0 } else { 3.0 }, 0.0, 0.0, true)).collect();
        let [low, high] = Metrics::new(&scores, 2).perplexity_interval.unwrap();
        let half = 1.96 * (100f64 / 99.0).sqrt() / 10.0;
        assert!((low.ln() - (2.0 - half)).abs() < 1e-4 && (high.ln() - (2.0 + half)).abs() < 1e-4);
        let few = Metrics::new(&scores[..9], 2);
        assert_eq!(
            (few.perplexity_interval, few.comparison.unwrap().kl_p99_interval),
            (None, None)
        );
    }

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let sorted: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&sorted, 0.95), 95.0);
        assert_eq!(quantile(&sorted, 0.99), 99.0);
        assert_eq!(quantile(&sorted[..1], 0.95), 1.0);
    }
}
