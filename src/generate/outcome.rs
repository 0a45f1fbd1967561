//! The steps of a generation, and how it ends.

use core::time::Duration;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model chose the end-of-text token.
    EndOfText,
    /// The text has as many tokens as the options allow.
    MaxTokens,
    /// A stop string appeared.
    StopString,
    /// The session has no position left.
    ContextFull,
    /// The closure that receives the text, or the session's flag, asked to stop.
    Cancelled,
    /// The text has the form that its [`Constraint`](super::Constraint) asks for.
    Complete,
    /// The allowed tokens or the session's positions ran out before the text had the form that its
    /// [`Constraint`](super::Constraint) asks for.
    Incomplete,
}

impl StopReason {
    /// The name used in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndOfText => "end_of_text",
            Self::MaxTokens => "max_tokens",
            Self::StopString => "stop_string",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A token of a generation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Step<'a> {
    /// The token.
    pub token: u32,
    /// The logits `[vocab_size]` that it was chosen from. None if a [`Constraint`](super::Constraint)
    /// left no choice.
    pub logits: Option<&'a [f32]>,
}

/// The result of a generation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Generation {
    /// Number of tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were there already, in the sequence of a batch. 0 in a session, whose prompts come
    /// after what it holds.
    pub reused_tokens: usize,
    /// Number of generated tokens, without the end-of-text token.
    pub tokens: usize,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// The last token, which is chosen but not evaluated. A prompt that begins with it continues the
    /// text. None after the end-of-text token, if there is no token, and with a constraint, which may
    /// have forced several tokens after the last choice.
    pub pending: Option<u32>,
    /// Time to evaluate the prompt.
    pub prompt_time: Duration,
    /// Time after that.
    pub decode_time: Duration,
}

impl Generation {
    /// The result of a generation that was stopped before it began.
    #[cfg(feature = "capi")]
    pub(crate) fn cancelled() -> Self {
        Self {
            prompt_tokens: 0,
            reused_tokens: 0,
            tokens: 0,
            stop_reason: StopReason::Cancelled,
            pending: None,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        }
    }

    /// Speed of the prompt's evaluation.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        per_second(self.prompt_tokens, self.prompt_time)
    }

    /// Speed of generation. The first token does not count, because it is chosen from the prompt's
    /// logits.
    pub fn decode_tokens_per_second(&self) -> f64 {
        per_second(self.tokens.saturating_sub(1), self.decode_time)
    }
}

fn per_second(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}
