//! When a generation stops, and how it chooses.

use alloc::string::String;
use alloc::vec::Vec;

#[cfg(any(feature = "capi", feature = "text"))]
use crate::error::Result;
#[cfg(any(feature = "capi", feature = "text"))]
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

#[cfg(any(feature = "capi", feature = "text"))]
impl GenerateOptions {
    /// As `clone`, but a lack of memory is an error.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let (sampler, stop) = (self.sampler.try_clone()?, copies(&self.stop)?);
        Ok(Self { sampler, stop, ..*self })
    }
}

#[cfg(any(feature = "capi", feature = "text"))]
impl SamplerOptions {
    /// As `clone`, but a lack of memory is an error.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let mut logit_bias = try_vec(self.logit_bias.len())?;
        logit_bias.extend_from_slice(&self.logit_bias);
        Ok(Self { logit_bias, ..*self })
    }
}

/// Copies of stop strings.
#[cfg(any(feature = "capi", feature = "text"))]
pub(crate) fn copies(stop: &[String]) -> Result<Vec<String>> {
    let mut copies = try_vec(stop.len())?;
    for text in stop {
        copies.push(memory::copy(text)?);
    }
    Ok(copies)
}
