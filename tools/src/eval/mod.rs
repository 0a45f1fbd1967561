//! How good a model is on a text, and what quantization cost it.
//!
//! The protocol of `docs/quality.md`: the text is tokenized whole and cut into [`Windows`] without
//! overlap, each evaluated from an empty cache; every token of a window but its first is scored
//! ([`TokenScore`]) with its negative log-likelihood and, if there is a float reference, with the
//! divergence between the two models' predictions. [`Metrics`] sums the scores up.
//!
//! Windows are independent, so each thread works on windows of its own, the reference and then every
//! model that is compared with it. Scores are put together in the order of the text: no result depends on
//! the threads.

mod bootstrap;
mod error;
mod histogram;
mod metrics;
mod stored_weights;
pub mod tasks;
mod token_score;
mod windows;
mod workers;

use cerebellum::{Model, Session};

pub use crate::distribution::{LogSoftmax, kl_divergence, top_1};
pub use error::{Error, Result};
pub use histogram::Histogram;
pub use metrics::{Comparison, Metrics, mean_interval};
pub use stored_weights::StoredWeights;
pub use token_score::{Against, TokenScore};
pub use windows::Windows;

use crate::checkpoint::Checkpoint;
use crate::reference::{Parallelism, Reference, Weights};
use workers::share_out;

/// A model that predicts the tokens of a window.
pub enum Predictor<'a> {
    /// A model file in the runtime: with [`LogitsFor::All`](cerebellum::LogitsFor::All) and a context
    /// of at least a window.
    Session(Box<Session>),
    /// Float32: the reference itself, or a file's weights without quantized activations
    /// ([`StoredWeights`]). Holds the logits of one window, `[window, vocab_size]`.
    Float(&'a Reference),
}

/// Scores every window by each predictor, and returns each one's scores in the order of the text.
///
/// `workers` has the predictors of one thread after another: the same models in the same order. The
/// reference's logits of a window are computed once for all of them; each thread holds those of one
/// window, `[window, vocab_size]` in float32. `advance` is told of each window that is done.
///
/// # Errors
/// Those of [`Session::evaluate_each`] and [`Reference::logits`], and [`Error::NonFinite`].
///
/// # Panics
/// If there is no worker.
pub fn score(
    workers: Vec<Vec<Predictor>>,
    reference: Option<&Reference>,
    windows: &Windows,
    advance: &(dyn Fn() + Sync),
) -> Result<Vec<Vec<TokenScore>>> {
    let predictors = workers.first().expect("at least one worker").len();
    let by_window = share_out(workers, windows.count(), advance, |predictors, index| {
        let window = windows.get(index);
        let expected =
            reference.map(|reference| reference_logits(reference, window)).transpose()?;
        let of_one = |one: &mut Predictor| one.score(expected.as_deref(), window);
        predictors.iter_mut().map(of_one).collect::<Result<Vec<_>>>()
    })?;
    let mut scores = vec![Vec::new(); predictors];
    for window in by_window {
        for (all, of_window) in scores.iter_mut().zip(window) {
            all.extend(of_window);
        }
    }
    Ok(scores)
}

impl Predictor<'_> {
    /// The scores of a window, compared with the logits `expected`, `[window - 1, vocab_size]`.
    fn score(&mut self, expected: Option<&[f32]>, window: &[u32]) -> Result<Vec<TokenScore>> {
        let inputs = &window[..window.len() - 1];
        let score = |position: usize, logits: &[f32]| {
            let target = window[position + 1];
            let row = position * logits.len()..(position + 1) * logits.len();
            match expected {
                None => TokenScore::new(logits, target),
                Some(expected) => TokenScore::compared(&expected[row], logits, target),
            }
        };
        match self {
            Self::Session(session) => {
                let mut scores = Vec::with_capacity(inputs.len());
                session.reset();
                session.evaluate_each(inputs, |position, logits| {
                    scores.push(score(position, logits));
                })?;
                Ok(scores)
            }
            Self::Float(model) => {
                let logits = reference_logits(model, window)?;
                let rows = logits.chunks_exact(model.config().vocab_size).enumerate();
                Ok(rows.map(|(position, row)| score(position, row)).collect())
            }
        }
    }
}

/// The reference's logits after every token but the last, which nothing follows.
fn reference_logits(reference: &Reference, window: &[u32]) -> Result<Vec<f32>> {
    let logits = reference.logits(&window[..window.len() - 1])?;
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(logits),
        Some(index) => Err(Error::NonFinite { position: index / reference.config().vocab_size }),
    }
}

/// Loads a model to be compared with, or scored as a [`Predictor::Float`]: each thread computes
/// windows of its own, so that one window is not shared between threads.
///
/// # Errors
/// Those of [`Reference::load`].
pub fn load_reference(weights: &impl Weights) -> Result<Reference> {
    Ok(Reference::load(weights)?.with_parallelism(Parallelism::Serial))
}

/// Whether a model file was made from `checkpoint`'s very weights, as far as the file tells.
///
/// # Errors
/// [`Error::OtherModel`] if the two cannot be the same model: a number of `config.json` differs that
/// the logits depend on.
pub fn is_source(checkpoint: &Checkpoint, model: &Model) -> Result<bool> {
    let mut differences = differences(checkpoint.config(), model.config());
    if !differences.is_empty() {
        // Of another family nearly all fields differ.
        let more = differences.len().saturating_sub(3);
        differences.truncate(3);
        if more > 0 {
            differences.push(format!("and {more} more fields"));
        }
        let checkpoint = checkpoint.path().to_owned();
        return Err(Error::OtherModel { checkpoint, differences: differences.join(", ") });
    }
    let digest = format!("blake3:{}", checkpoint.digest().to_hex());
    Ok(model.header().source.as_ref().is_none_or(|source| source.digest == digest))
}

/// The fields in which two configurations differ, with their values.
fn differences(
    checkpoint: &cerebellum::format::Config,
    model: &cerebellum::format::Config,
) -> Vec<String> {
    let fields = |config| serde_json::to_value(config).expect("plain fields");
    let (checkpoint, model) = (fields(checkpoint), fields(model));
    let fields = checkpoint.as_object().into_iter().flatten();
    fields
        // The end-of-text token is a convention of the text and changes no logit.
        .filter(|&(name, value)| name != "eos_token_id" && *value != model[name])
        .map(|(name, value)| format!("{name} {value} instead of {}", model[name]))
        .collect()
}
