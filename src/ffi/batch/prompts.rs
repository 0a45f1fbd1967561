//! Prompts as requests to a batch.

use alloc::vec::Vec;

use crate::batch::{Batch, Request};
use crate::error::{Error, Result};
use crate::ffi::failure::Failure;
use crate::ffi::model::Shared;
use crate::ffi::options::Options;
use crate::ffi::text::encode_for_batch;
use crate::generate::Generation;
use crate::memory::try_vec;

/// The result of each prompt.
pub type Outcomes = Vec<Result<Generation>>;

/// Prompts as requests, all with the same options.
pub struct Prompts {
    pub requests: Vec<Request>,
    /// The number of each request's prompt.
    pub numbers: Vec<usize>,
    /// The outcome of each prompt. A prompt that cannot become a request has failed already.
    pub outcomes: Outcomes,
}

impl Prompts {
    fn with_room(count: usize) -> Result<Self> {
        Ok(Self { requests: try_vec(count)?, numbers: try_vec(count)?, outcomes: try_vec(count)? })
    }

    fn add(&mut self, prompt: Vec<u32>, options: &Options) -> Result<()> {
        self.requests.push(Request { prompt, options: options.generate.try_clone()? });
        self.numbers.push(self.outcomes.len());
        self.outcomes.push(Ok(Generation::cancelled()));
        Ok(())
    }

    pub fn of_texts(
        batch: &Batch,
        shared: &Shared,
        texts: &[&str],
        options: &Options,
    ) -> Result<Self, Failure> {
        let mut prompts = Self::with_room(texts.len())?;
        for text in texts {
            match encode_for_batch(batch, shared, text, options.parse_special) {
                Ok(prompt) => prompts.add(prompt, options)?,
                // This prompt fails, and the others go on.
                Err(Failure::Error(error @ Error::TextTooLong { .. })) => {
                    prompts.outcomes.push(Err(error));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(prompts)
    }

    /// The tokens of all prompts lie one after another in `tokens`.
    pub fn of_tokens(
        tokens: &[u32],
        lengths: &[usize],
        options: &Options,
    ) -> Result<Self, Failure> {
        let (mut prompts, mut rest) = (Self::with_room(lengths.len())?, tokens);
        for &length in lengths {
            let (tokens, others) = rest.split_at(length);
            rest = others;
            let mut prompt = try_vec(length)?;
            prompt.extend_from_slice(tokens);
            prompts.add(prompt, options)?;
        }
        Ok(prompts)
    }
}
