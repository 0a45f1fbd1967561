//! Greedy answers, by a model file and by the float reference.

use std::ops::ControlFlow;

use cerebellum::batch::{Batch, Request, generate};
use cerebellum::generate::{GenerateOptions, StopReason};
use cerebellum::sampler::SamplerOptions;
use cerebellum::score::log_probabilities_of;
use cerebellum::text::TokenTable;

use super::super::workers::share_out;
use super::super::{Error, Result, top_1};
use crate::reference::Reference;

/// Requests handed to the batch at once: so often `advance` is told.
const REQUESTS: usize = 128;

/// The answer to each prompt `[tokens]` by a model file: up to `max_tokens` greedy tokens, and of their
/// text the first line. `advance` is told how many are done.
///
/// # Errors
/// Those of [`generate`]; [`Error::Prompt`] for a prompt that is longer than the batch's context.
pub fn answer_by_model<B: AsRef<[u8]>>(
    batch: &mut Batch,
    table: &TokenTable<B>,
    prompts: &[Vec<u32>],
    max_tokens: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Vec<String>> {
    let sampler = SamplerOptions { temperature: 0.0, ..SamplerOptions::default() };
    let options = GenerateOptions { max_tokens, sampler, ..GenerateOptions::default() };
    let request = |prompt: &Vec<u32>| Request { prompt: prompt.clone(), options: options.clone() };
    let mut answers = Vec::with_capacity(prompts.len());
    for prompts in prompts.chunks(REQUESTS) {
        let requests: Vec<Request> = prompts.iter().map(request).collect();
        let mut texts = vec![Vec::new(); requests.len()];
        let results = generate(batch, &requests, |request, token| {
            texts[request].extend_from_slice(table.token_bytes(token).unwrap_or_default());
            match is_answered(&texts[request]) {
                true => ControlFlow::Break(StopReason::StopString),
                false => ControlFlow::Continue(()),
            }
        })?;
        for (index, (text, result)) in texts.iter().zip(results).enumerate() {
            let example = answers.len() + 1;
            result.map_err(|source| Error::Prompt {
                example,
                tokens: prompts[index].len(),
                source,
            })?;
            answers.push(first_line(text));
        }
        advance(prompts.len() as u64);
    }
    Ok(answers)
}

/// As [`answer_by_model`], by the float reference on `threads` threads. It has no cache: every token
/// evaluates the whole text before it. An answer ends at any of the tokens `ends`.
///
/// # Errors
/// Those of [`Reference::last_logits`].
pub fn answer_by_reference<B: AsRef<[u8]> + Sync>(
    reference: &Reference,
    table: &TokenTable<B>,
    prompts: &[Vec<u32>],
    (max_tokens, ends): (usize, &[u32]),
    threads: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Vec<String>> {
    let config = reference.config();
    let workers = vec![(); threads.min(prompts.len())];
    share_out(workers, prompts.len(), &|| advance(1), |(), index| {
        let (mut tokens, mut text) = (prompts[index].clone(), Vec::new());
        let room = config.n_positions.saturating_sub(tokens.len()).max(1);
        for _ in 0..max_tokens.min(room) {
            let token = top_1(&reference.last_logits(&tokens)?) as u32;
            if ends.contains(&token) {
                break;
            }
            text.extend_from_slice(table.token_bytes(token).unwrap_or_default());
            if is_answered(&text) {
                break;
            }
            tokens.push(token);
        }
        Ok(first_line(&text))
    })
}

/// For each prompt the most probable of the continuations `labels`, by the float reference on `threads` threads:
/// the one that scoring them all would find.
///
/// The sum of a label's log-probabilities only falls with each token. So beginnings are evaluated from the most
/// probable one on, and the first whole label that is more probable than all beginnings left is the answer.
///
/// # Errors
/// Those of [`Reference::last_logits`].
pub fn choose_by_reference(
    reference: &Reference,
    prompts: &[Vec<u32>],
    labels: &[Vec<u32>],
    threads: usize,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Vec<usize>> {
    let workers = vec![(); threads.min(prompts.len())];
    share_out(workers, prompts.len(), &|| advance(1), |(), index| {
        let mut left: Vec<(f64, Vec<u32>)> = vec![(0.0, Vec::new())];
        loop {
            let best = (0..left.len()).max_by(|&a, &b| left[a].0.total_cmp(&left[b].0));
            let (score, beginning) = left.swap_remove(best.expect("labels end"));
            if let Some(label) = labels.iter().position(|label| *label == beginning) {
                return Ok(label);
            }
            let logits = reference.last_logits(&[&prompts[index][..], &beginning].concat())?;
            let mut next: Vec<u32> = labels
                .iter()
                .filter_map(|label| label.strip_prefix(&beginning[..])?.first().copied())
                .collect();
            next.sort_unstable();
            next.dedup();
            for (token, p) in next.iter().zip(log_probabilities_of(&logits, &next)) {
                left.push((score + p, [&beginning[..], &[*token]].concat()));
            }
        }
    })
}

/// Whether a line has been said and ended.
fn is_answered(text: &[u8]) -> bool {
    text.trim_ascii_start().contains(&b'\n')
}

/// The first line that says something.
fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_start().lines().next().unwrap_or_default().trim_end().to_owned()
}
