//! How good a model is on a text, and what quantization cost it.
//!
//! The protocol of `docs/quality.md`: the text is tokenized whole and cut into [`Windows`] without
//! overlap, each evaluated from an empty cache; every token of a window but its first is scored
//! ([`TokenScore`]) with its negative log-likelihood and, if there is a float reference, with the
//! divergence between the two models' predictions. [`Metrics`] sums the scores up.
//!
//! Windows are independent, so each thread works on windows of its own, reference and quantized model
//! in turn. Scores are put together in the order of the text: no result depends on the threads.

mod distribution;
mod error;
mod metrics;
mod windows;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cerebellum::{Model, Session};

pub use distribution::{LogSoftmax, kl_divergence, top_1};
pub use error::{Error, Result};
pub use metrics::{Comparison, Metrics};
pub use windows::Windows;

use crate::checkpoint::Checkpoint;
use crate::quantize::model_config;
use crate::reference::{Parallelism, Reference};

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

/// Scores every window with one session a thread: `sessions` are of one model, with
/// [`LogitsFor::All`](cerebellum::LogitsFor::All) and a context of at least a window. `advance` is
/// told of each window that is done.
///
/// Each thread holds the reference's logits of one window, `[window, vocab_size]` in float32.
///
/// # Errors
/// Those of [`Session::evaluate_each`] and [`Reference::logits`], and [`Error::NonFinite`].
pub fn score(
    sessions: Vec<Session>,
    reference: Option<&Reference>,
    windows: &Windows,
    advance: &(dyn Fn() + Sync),
) -> Result<Vec<TokenScore>> {
    on_each_window(sessions, windows, advance, |session, window| match reference {
        None => score_session(session, window),
        Some(reference) => score_pair(session, reference, window),
    })
}

/// Scores every window with the float reference alone, on so many `threads`.
///
/// # Errors
/// Those of [`Reference::logits`], and [`Error::NonFinite`].
pub fn score_reference(
    reference: &Reference,
    windows: &Windows,
    threads: usize,
    advance: &(dyn Fn() + Sync),
) -> Result<Vec<TokenScore>> {
    let workers = vec![(); threads.min(windows.count())];
    on_each_window(workers, windows, advance, |(), window| {
        let logits = reference_logits(reference, window)?;
        let rows = logits.chunks_exact(reference.config().vocab_size);
        Ok(rows.zip(&window[1..]).map(|(row, &target)| TokenScore::new(row, target)).collect())
    })
}

fn score_session(session: &mut Session, window: &[u32]) -> Result<Vec<TokenScore>> {
    let mut scores = Vec::with_capacity(window.len() - 1);
    session.reset();
    session.evaluate_each(&window[..window.len() - 1], |position, logits| {
        scores.push(TokenScore::new(logits, window[position + 1]));
    })?;
    Ok(scores)
}

fn score_pair(
    session: &mut Session,
    reference: &Reference,
    window: &[u32],
) -> Result<Vec<TokenScore>> {
    let expected = reference_logits(reference, window)?; // (window - 1, vocab_size)
    let mut scores = Vec::with_capacity(window.len() - 1);
    session.reset();
    session.evaluate_each(&window[..window.len() - 1], |position, logits| {
        let reference = &expected[position * logits.len()..][..logits.len()];
        scores.push(TokenScore::compared(reference, logits, window[position + 1]));
    })?;
    Ok(scores)
}

/// The reference's logits after every token but the last, which nothing follows.
fn reference_logits(reference: &Reference, window: &[u32]) -> Result<Vec<f32>> {
    let logits = reference.logits(&window[..window.len() - 1])?;
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(logits),
        Some(index) => Err(Error::NonFinite { position: index / reference.config().vocab_size }),
    }
}

/// Calls `score` for every window, each worker on a thread of its own taking the next window, and
/// joins the scores in the order of the text.
fn on_each_window<W: Send>(
    workers: Vec<W>,
    windows: &Windows,
    advance: &(dyn Fn() + Sync),
    score: impl Fn(&mut W, &[u32]) -> Result<Vec<TokenScore>> + Sync,
) -> Result<Vec<TokenScore>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![Vec::new(); windows.count()]);
    let work = |mut worker: W| -> Result<()> {
        while let Some((index, window)) = windows.take(next.fetch_add(1, Ordering::Relaxed)) {
            let scores = score(&mut worker, window).inspect_err(|_| {
                next.store(windows.count(), Ordering::Relaxed); // the others need not go on
            })?;
            done.lock().expect("no thread panics with the lock")[index] = scores;
            advance();
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = workers.into_iter().map(|worker| scope.spawn(|| work(worker)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(done.into_inner().expect("no thread panics with the lock").concat())
}

/// Loads a checkpoint to be compared with, or evaluated alone, by [`score`] and [`score_reference`]:
/// each thread computes windows of its own, so that one window is not shared between threads.
///
/// # Errors
/// Those of [`Reference::load`].
pub fn load_reference(checkpoint: &Checkpoint) -> Result<Reference> {
    Ok(Reference::load(checkpoint)?.with_parallelism(Parallelism::Serial))
}

/// Whether a model file was made from `checkpoint`'s very weights, as far as the file tells.
///
/// # Errors
/// [`Error::OtherModel`] if the two cannot be the same model: a number of `config.json` differs that
/// the logits depend on.
pub fn is_source(checkpoint: &Checkpoint, model: &Model) -> Result<bool> {
    let differences = differences(&model_config(checkpoint), model.config());
    if !differences.is_empty() {
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
