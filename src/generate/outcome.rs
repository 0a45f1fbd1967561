//! What comes of a generation.

use std::time::Duration;

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model chose the end-of-text token.
    EndOfText,
    /// As many tokens as were asked for.
    MaxTokens,
    /// A stop string appeared.
    StopString,
    /// The session has no position left.
    ContextFull,
    /// The receiver of the stream, or the session's flag, asked to stop.
    Cancelled,
    /// The text is all that its [`Constraint`](super::Constraint) asks for.
    Complete,
    /// The tokens that were asked for, or the session's positions, ran out before the text was what
    /// its [`Constraint`](super::Constraint) asks for.
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
pub struct Step<'a> {
    /// The token.
    pub token: u32,
    /// The logits `[vocab_size]` it was chosen from; none if a [`Constraint`](super::Constraint) left no choice.
    pub logits: Option<&'a [f32]>,
}

/// What a generation did.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, the end-of-text token not counted.
    pub tokens: usize,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// The last token, which was chosen but not evaluated: a prompt that begins with it goes on exactly
    /// here. None after the end-of-text token, if there is no token, and within a constraint, which may
    /// have forced several tokens since.
    pub pending: Option<u32>,
    /// Time to evaluate the prompt.
    pub prompt_time: Duration,
    /// Time from then on.
    pub decode_time: Duration,
}

impl Generation {
    /// One that was stopped before it began.
    #[cfg(feature = "capi")]
    pub(crate) fn cancelled() -> Self {
        Self {
            prompt_tokens: 0,
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

    /// Speed of generation; the first token is the prompt's.
    pub fn decode_tokens_per_second(&self) -> f64 {
        per_second(self.tokens.saturating_sub(1), self.decode_time)
    }
}

fn per_second(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}
