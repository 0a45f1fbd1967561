//! A prediction as a probability distribution, in double precision.

/// The distribution `softmax(logits)` by its logarithms, `z_i - ln Σ exp(z_j)`.
///
/// The largest logit is taken out of the sum, so that nothing overflows and the most likely token's
/// logarithm is exact to rounding.
pub struct LogSoftmax<'a> {
    logits: &'a [f32],
    /// `ln Σ exp(z_j)`.
    log_sum: f64,
}

impl<'a> LogSoftmax<'a> {
    /// The distribution of `logits`, `[vocab_size]`.
    pub fn new(logits: &'a [f32]) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let max = f64::from(max);
        let sum: f64 = logits.iter().map(|&z| (f64::from(z) - max).exp()).sum();
        Self { logits, log_sum: max + sum.ln() }
    }

    /// Logarithms of all probabilities.
    fn log_probabilities(&self) -> impl Iterator<Item = f64> {
        self.logits.iter().map(|&z| f64::from(z) - self.log_sum)
    }

    /// Negative log-likelihood of `token` in nats; panics if it is not in the vocabulary.
    pub fn nll(&self, token: u32) -> f64 {
        self.log_sum - f64::from(self.logits[token as usize])
    }
}

/// `KL(p ‖ q) = Σ p (ln p - ln q)` in nats: what is lost when `q` predicts instead of `p`.
///
/// Panics if the vocabularies differ in size.
pub fn kl_divergence(p: &LogSoftmax, q: &LogSoftmax) -> f64 {
    assert_eq!(p.logits.len(), q.logits.len(), "predictions of different vocabularies");
    let pairs = p.log_probabilities().zip(q.log_probabilities());
    pairs.map(|(p, q)| p.exp() * (p - q)).sum()
}

/// The token with the largest logit, the lowest one among equals: what greedy decoding takes.
pub fn top_1(logits: &[f32]) -> usize {
    let first = (0, f32::NEG_INFINITY);
    let larger =
        |best: (usize, f32), (i, &z): (usize, &f32)| if z > best.1 { (i, z) } else { best };
    logits.iter().enumerate().fold(first, larger).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }

    /// Distributions of simple fractions, so that the expected values are written out by hand.
    #[test]
    fn values_equal_the_textbook_definitions() {
        // Probabilities 1/2, 1/4, 1/4 and 1/4, 1/2, 1/4; float32 logarithms of them are not exact,
        // so the logits are multiples of one rounded ln 2.
        let ln2 = std::f32::consts::LN_2;
        let (p, q) = ([ln2, 0.0, 0.0], [0.0, ln2, 0.0]);
        let (p, q) = (LogSoftmax::new(&p), LogSoftmax::new(&q));
        let z = f64::from(ln2);
        let sum = z.exp() + 2.0;
        close(p.nll(0), sum.ln() - z);
        close(p.nll(2), sum.ln());
        close(kl_divergence(&p, &q), (z.exp() / sum - 1.0 / sum) * z);
        assert!((kl_divergence(&p, &q) - 0.25 * 2f64.ln()).abs() < 1e-8);
        assert_eq!(kl_divergence(&p, &p), 0.0);
    }

    #[test]
    fn extreme_logits_neither_overflow_nor_vanish() {
        let (p, q) = ([3e38, -3e38, 0.0], [-3e38, 3e38, 0.0]);
        let (p, q) = (LogSoftmax::new(&p), LogSoftmax::new(&q));
        assert_eq!(p.nll(0), 0.0);
        close(p.nll(1) / 6e38, f64::from(3e38f32) / 3e38);
        assert!(kl_divergence(&p, &q).is_finite());
        // A shift changes nothing.
        let shifted = [1000.5f32, 1000.0, 999.0];
        close(LogSoftmax::new(&shifted).nll(2), LogSoftmax::new(&[1.5, 1.0, 0.0]).nll(2));
    }

    #[test]
    fn the_lowest_of_equals_is_on_top() {
        assert_eq!(top_1(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(top_1(&[-5.0, -4.0]), 1);
    }
}
