//! A continuation of a prompt with how probable it is, as `score --json` and the server's `/score` tell it.

use cerebellum::score::Scores;
use serde::Serialize;

/// A continuation and how probable it is: natural logarithms.
#[derive(Clone, Debug, Serialize)]
pub struct Scored {
    /// Its text.
    pub text: String,
    /// Sum over the tokens.
    pub log_probability: f64,
    /// How many tokens.
    pub tokens: usize,
    /// Exponential of the mean negative log-probability.
    pub perplexity: f64,
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// That of each token.
    pub token_log_probabilities: Vec<f64>,
}

impl Scored {
    /// The continuations of which these are the scores, in order.
    pub fn all(
        texts: impl IntoIterator<Item = String>,
        ids: impl IntoIterator<Item = Vec<u32>>,
        scores: &Scores,
    ) -> Vec<Self> {
        let continuations = texts.into_iter().zip(ids).enumerate();
        let scored = continuations.map(|(i, (text, token_ids))| Self {
            text,
            log_probability: scores.log_probability(i),
            tokens: token_ids.len(),
            perplexity: (-scores.mean_log_probability(i)).exp(),
            token_ids,
            token_log_probabilities: scores.tokens(i),
        });
        scored.collect()
    }
}
