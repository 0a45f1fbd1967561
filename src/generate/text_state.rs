//! The state of a generated text, apart from its evaluation.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use super::constraint::Constraint;
use super::options::GenerateOptions;
use super::outcome::{Step, StopReason};
use crate::error::Result;
use crate::format::MAX_END_TOKENS;
use crate::model::Model;

/// The state of a generated text: counts its tokens, and tells its constraint about them. A session or
/// a batch evaluates the tokens.
pub(crate) struct TextState<'a> {
    constraint: Option<Box<dyn Constraint + 'a>>,
    /// Tokens that the constraint forced after the last choice, and how many of them were passed on.
    /// `None` before the constraint is asked.
    pub(super) forced: Vec<u32>,
    passed_on: Option<usize>,
    ends: EndTokens,
    max_tokens: usize,
    tokens: usize,
    chosen: Option<u32>,
}

/// The tokens that end a text.
#[derive(Clone, Copy, Default)]
pub(crate) struct EndTokens {
    tokens: [u32; MAX_END_TOKENS + 1],
    count: usize,
}

impl EndTokens {
    /// Those of a model: the configuration's, and the header's others.
    pub fn of(model: &Model) -> Self {
        let mut ends = Self::default();
        let tokens = model.config().eos_token_id.into_iter();
        for token in tokens.chain(model.header().end_tokens.iter().copied()) {
            ends.tokens[ends.count] = token;
            ends.count += 1;
        }
        ends
    }

    fn contains(&self, token: u32) -> bool {
        self.tokens[..self.count].contains(&token)
    }
}

/// Whether a text goes on, or why it ends.
pub(crate) type Flow = ControlFlow<StopReason>;

impl<'a> TextState<'a> {
    pub fn new(
        options: &GenerateOptions,
        ends: EndTokens,
        constraint: Option<Box<dyn Constraint + 'a>>,
    ) -> Self {
        // A text that must have a form ends when it has the form, even if the options say to go on.
        let ends_text = constraint.is_some() || !options.ignore_end_of_text;
        Self {
            constraint,
            forced: Vec::new(),
            passed_on: None,
            ends: if ends_text { ends } else { EndTokens::default() },
            max_tokens: options.max_tokens,
            tokens: 0,
            chosen: None,
        }
    }

    /// The number of tokens that were passed on.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The forced tokens after the token that was chosen last. They are evaluated together with it.
    pub fn forced(&self) -> &[u32] {
        &self.forced
    }

    /// See [`Generation::pending`](super::Generation::pending).
    pub fn pending(&self) -> Option<u32> {
        self.chosen.filter(|_| self.constraint.is_none())
    }

    /// The next forced token, which is to be passed on. None if a token is to be chosen.
    pub fn next_forced(&mut self) -> Result<ControlFlow<StopReason, Option<u32>>> {
        if let Some(constraint) = &mut self.constraint {
            let passed_on = match &mut self.passed_on {
                Some(passed_on) => passed_on,
                unknown => {
                    self.forced.clear();
                    if !constraint.is_over() {
                        constraint.force(&mut self.forced)?;
                    }
                    unknown.insert(0)
                }
            };
            if let Some(&token) = self.forced.get(*passed_on) {
                if self.tokens == self.max_tokens {
                    return Ok(ControlFlow::Break(StopReason::Incomplete));
                }
                *passed_on += 1;
                self.tokens += 1;
                return Ok(ControlFlow::Continue(Some(token)));
            }
            if constraint.is_over() {
                return Ok(ControlFlow::Break(StopReason::Complete));
            }
        }
        match self.tokens == self.max_tokens {
            true => Ok(ControlFlow::Break(StopReason::MaxTokens)),
            false => Ok(ControlFlow::Continue(None)),
        }
    }

    /// Passes all forced tokens on.
    pub fn force(&mut self, on_step: &mut impl FnMut(Step) -> Flow) -> Result<Flow> {
        loop {
            let flow = match self.next_forced()? {
                ControlFlow::Continue(None) => return Ok(ControlFlow::Continue(())),
                ControlFlow::Continue(Some(token)) => on_step(Step { token, logits: None }),
                ControlFlow::Break(reason) => ControlFlow::Break(reason),
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
    }

    /// Lets the constraint compute which tokens may come next, while the tokens so far are evaluated.
    pub fn prepare(&mut self) {
        if let Some(constraint) = &mut self.constraint {
            constraint.prepare();
        }
    }

    /// The tokens that may come next. None if all may.
    pub fn allowed(&mut self) -> Result<Option<&[u32]>> {
        self.constraint.as_mut().map(|constraint| constraint.allowed()).transpose()
    }

    /// Accepts the token that was chosen. It is to be passed on, unless the text ends before it.
    pub fn accept(&mut self, token: u32) -> Result<Flow> {
        self.passed_on = None;
        self.chosen = Some(token).filter(|&token| !self.ends.contains(token));
        if self.chosen.is_none() {
            return Ok(ControlFlow::Break(StopReason::EndOfText));
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token)?;
        }
        self.tokens += 1;
        Ok(ControlFlow::Continue(()))
    }

    /// Why the text ended. With a constraint, that depends on whether the text has its form.
    pub fn judge(&mut self, reason: StopReason) -> Result<StopReason> {
        use StopReason::{Complete, ContextFull, EndOfText, Incomplete, MaxTokens};
        let Some(constraint) = &mut self.constraint else { return Ok(reason) };
        match reason {
            EndOfText => Ok(Complete),
            // Forced tokens that were not passed on do not belong to the text.
            MaxTokens | ContextFull if constraint.is_complete()? => Ok(reason),
            MaxTokens | ContextFull => Ok(Incomplete),
            _ => Ok(reason),
        }
    }
}
