//! How a divergence is spread over the tokens.

use super::token_score::TokenScore;

/// Bins of a decade.
const BINS_PER_DECADE: i32 = 4;

/// Shares of the tokens by their divergence from the reference, on a logarithmic scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// The share of each bin, from [`FIRST_DECADE`](Self::FIRST_DECADE) up; the first one holds all
    /// that is less, the last one all that is more.
    pub shares: Vec<f64>,
}

impl Histogram {
    /// The bins begin at `10^FIRST_DECADE` nats.
    pub const FIRST_DECADE: i32 = -7;
    /// The bins end at `10^LAST_DECADE` nats.
    pub const LAST_DECADE: i32 = 1;

    /// The divergences of `scores`; `None` if they were not compared with a reference.
    pub fn of_divergence(scores: &[TokenScore]) -> Option<Self> {
        let bins = ((Self::LAST_DECADE - Self::FIRST_DECADE) * BINS_PER_DECADE) as usize;
        let mut counts = vec![0u64; bins];
        for score in scores {
            let decade = score.against?.kl.max(f64::MIN_POSITIVE).log10();
            let bin = (decade - f64::from(Self::FIRST_DECADE)) * f64::from(BINS_PER_DECADE);
            // Negative numbers become 0.
            counts[(bin as usize).min(bins - 1)] += 1;
        }
        let share = |count| count as f64 / scores.len() as f64;
        Some(Self { shares: counts.into_iter().map(share).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::token_score::Against;
    use super::*;

    #[test]
    fn divergences_fall_into_the_bins_of_their_decade() {
        let score = |kl| TokenScore {
            nll: 1.0,
            against: Some(Against { reference_nll: 1.0, kl, same_top: true }),
        };
        let scores = [-1e-12, 0.0, 1.1e-7, 0.9, 1.1, 50.0].map(score);
        let shares = Histogram::of_divergence(&scores).unwrap().shares;
        let filled: Vec<_> = (0..shares.len()).filter(|&bin| shares[bin] > 0.0).collect();
        assert_eq!((shares.len(), filled), (32, vec![0, 27, 28, 31]));
        assert_eq!((shares[0], shares[31]), (0.5, 1.0 / 6.0));
        assert_eq!(Histogram::of_divergence(&[TokenScore { nll: 1.0, against: None }]), None);
    }
}
