//! What becomes of a text, whoever evaluates it.

use std::ops::ControlFlow;

use super::constraint::Constraint;
use super::options::GenerateOptions;
use super::outcome::{Step, StopReason};
use crate::error::Result;

/// What becomes of a text, whoever evaluates it: counts its tokens, and keeps its constraint in step.
pub(crate) struct Course<'a> {
    constraint: Option<Box<dyn Constraint + 'a>>,
    /// Tokens that the constraint forced since the last choice, and how many of them were handed on; not
    /// known before it is asked.
    pub(super) forced: Vec<u32>,
    handed_on: Option<usize>,
    end_of_text: Option<u32>,
    max_tokens: usize,
    tokens: usize,
    chosen: Option<u32>,
}

/// Whether a text goes on, or why it ends.
pub(crate) type Flow = ControlFlow<StopReason>;

impl<'a> Course<'a> {
    pub fn new(
        options: &GenerateOptions,
        end_of_text: Option<u32>,
        constraint: Option<Box<dyn Constraint + 'a>>,
    ) -> Self {
        // A text that has the form it must have ends, whatever was asked for.
        let ends = constraint.is_some() || !options.ignore_end_of_text;
        Self {
            constraint,
            forced: Vec::new(),
            handed_on: None,
            end_of_text: end_of_text.filter(|_| ends),
            max_tokens: options.max_tokens,
            tokens: 0,
            chosen: None,
        }
    }

    /// How many tokens were handed on.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The tokens that come behind the one that was chosen last, and are evaluated with it.
    pub fn forced(&self) -> &[u32] {
        &self.forced
    }

    /// See [`Generation::pending`](super::Generation::pending).
    pub fn pending(&self) -> Option<u32> {
        self.chosen.filter(|_| self.constraint.is_none())
    }

    /// The next token that must come and is to be handed on, until there is none: then one may be
    /// chosen.
    pub fn next_forced(&mut self) -> Result<ControlFlow<StopReason, Option<u32>>> {
        if let Some(constraint) = &mut self.constraint {
            let handed_on = match &mut self.handed_on {
                Some(handed_on) => handed_on,
                unknown => {
                    self.forced.clear();
                    if !constraint.is_over() {
                        constraint.force(&mut self.forced)?;
                    }
                    unknown.insert(0)
                }
            };
            if let Some(&token) = self.forced.get(*handed_on) {
                if self.tokens == self.max_tokens {
                    return Ok(ControlFlow::Break(StopReason::Incomplete));
                }
                *handed_on += 1;
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

    /// Hands on all of them.
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

    /// While the tokens so far are evaluated: finds out which ones may come next.
    pub fn prepare(&mut self) {
        if let Some(constraint) = &mut self.constraint {
            constraint.prepare();
        }
    }

    /// The tokens that may come next, if not all.
    pub fn allowed(&mut self) -> Result<Option<&[u32]>> {
        self.constraint.as_mut().map(|constraint| constraint.allowed()).transpose()
    }

    /// Takes the token that was chosen; it is to be handed on unless the text ends before it.
    pub fn accept(&mut self, token: u32) -> Result<Flow> {
        self.handed_on = None;
        self.chosen = Some(token).filter(|_| Some(token) != self.end_of_text);
        if self.chosen.is_none() {
            return Ok(ControlFlow::Break(StopReason::EndOfText));
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(token)?;
        }
        self.tokens += 1;
        Ok(ControlFlow::Continue(()))
    }

    /// Why the text ended: with a constraint, what counts is whether it is met.
    pub fn judge(&mut self, reason: StopReason) -> Result<StopReason> {
        use StopReason::{Complete, ContextFull, EndOfText, Incomplete, MaxTokens};
        let Some(constraint) = &mut self.constraint else { return Ok(reason) };
        match reason {
            EndOfText => Ok(Complete),
            // Forced tokens that were not handed on are no part of the text.
            MaxTokens | ContextFull if constraint.is_complete()? => Ok(reason),
            MaxTokens | ContextFull => Ok(Incomplete),
            _ => Ok(reason),
        }
    }
}
