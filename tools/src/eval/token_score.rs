//! The score of one token.

use crate::distribution::{LogSoftmax, kl_divergence, top_1};

/// What is measured at one token: how well the logits before it predict it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Negative log-likelihood of the token, in nats.
    pub nll: f64,
    /// The same prediction compared with the reference's.
    pub against: Option<Against>,
}

/// A quantized model's prediction against the reference's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Against {
    /// The reference's negative log-likelihood of the token, in nats.
    pub reference_nll: f64,
    /// Kullback-Leibler divergence of the prediction from the reference's, in nats.
    pub kl: f64,
    /// Whether both hold the same token most likely.
    pub same_top: bool,
}

impl TokenScore {
    /// The score of `target` under the prediction `logits`, `[vocab_size]`.
    ///
    /// Panics if `target` is not in the vocabulary.
    pub fn new(logits: &[f32], target: u32) -> Self {
        let nll = LogSoftmax::new(logits).nll(target);
        Self { nll, against: None }
    }

    /// As [`new`](Self::new), and compared with the prediction `reference`, `[vocab_size]`.
    ///
    /// Panics if the two vocabularies differ in size, or `target` is not in them.
    pub fn compared(reference: &[f32], logits: &[f32], target: u32) -> Self {
        let (p, q) = (LogSoftmax::new(reference), LogSoftmax::new(logits));
        let against = Against {
            reference_nll: p.nll(target),
            kl: kl_divergence(&p, &q),
            same_top: top_1(reference) == top_1(logits),
        };
        Self { nll: q.nll(target), against: Some(against) }
    }
}
