//! When a generation stops, and how it chooses.

#[cfg(feature = "capi")]
use crate::error::Result;
#[cfg(feature = "capi")]
use crate::memory::{self, try_vec};
use crate::sampler::SamplerOptions;

/// When to stop, and how to choose.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The largest number of tokens to generate.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
    /// Strings that end the text. The text is cut before them. Only generated text is searched for
    /// them, so [`generate_tokens`](super::generate_tokens) ignores them.
    pub stop: Vec<String>,
    /// Go on past the end-of-text token.
    pub ignore_end_of_text: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            sampler: SamplerOptions::default(),
            stop: Vec::new(),
            ignore_end_of_text: false,
        }
    }
}

#[cfg(feature = "capi")]
impl GenerateOptions {
    /// As `clone`, but a lack of memory is an error.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let mut stop = try_vec(self.stop.len())?;
        for text in &self.stop {
            stop.push(memory::copy(text)?);
        }
        let mut logit_bias = try_vec(self.sampler.logit_bias.len())?;
        logit_bias.extend_from_slice(&self.sampler.logit_bias);
        let sampler = SamplerOptions { logit_bias, ..self.sampler };
        Ok(Self { sampler, stop, ..*self })
    }
}
