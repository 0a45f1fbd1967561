//! Greedy answers, by a model file and by the float reference.

use std::ops::ControlFlow;

use cerebellum::batch::{Batch, Request, generate};
use cerebellum::generate::{GenerateOptions, StopReason};
use cerebellum::sampler::SamplerOptions;
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
/// evaluates the whole text before it.
///
/// # Errors
/// Those of [`Reference::last_logits`].
pub fn answer_by_reference<B: AsRef<[u8]> + Sync>(
    reference: &Reference,
    table: &TokenTable<B>,
    prompts: &[Vec<u32>],
    max_tokens: usize,
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
            if Some(token) == config.eos_token_id {
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

/// Whether a line has been said and ended.
fn is_answered(text: &[u8]) -> bool {
    text.trim_ascii_start().contains(&b'\n')
}

/// The first line that says something.
fn first_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.trim_start().lines().next().unwrap_or_default().trim_end().to_owned()
}
