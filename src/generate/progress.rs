//! A running generation in a session.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use core::ops::ControlFlow;
use core::time::Duration;

use super::constraint::Constraint;
use super::options::GenerateOptions;
use super::outcome::{Generation, Step, StopReason};
use super::text_state::{EndTokens, TextState};
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::session::Session;

/// A running generation without its session. Every call gets the session, which nobody else may change
/// between the calls.
pub(crate) struct Progress<'a> {
    options: Cow<'a, GenerateOptions>,
    text_state: TextState<'a>,
    /// The tokens to evaluate before the next choice. The forced tokens come after them.
    next: Next<'a>,
    state: State,
    pub(super) prompt_tokens: usize,
    /// Time until the first choice, and time after it.
    prompt_time: Duration,
    decode_time: Duration,
}

/// The tokens to evaluate next.
enum Next<'a> {
    Prompt(Cow<'a, [u32]>),
    Token([u32; 1]),
}

impl Next<'_> {
    fn tokens(&self) -> &[u32] {
        match self {
            Self::Prompt(tokens) => tokens,
            Self::Token(token) => token,
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// No token was chosen yet.
    InPrompt,
    InText,
    Over(StopReason),
    Failed,
}

impl<'a> Progress<'a> {
    /// See [`Generator::new`](super::Generator::new).
    pub fn new(
        session: &Session,
        prompt: Cow<'a, [u32]>,
        options: Cow<'a, GenerateOptions>,
        constraint: Option<Box<dyn Constraint + 'a>>,
    ) -> Result<Self> {
        options.sampler.check_for(session.model().config().vocab_size)?;
        let end_of_text = session.model().config().eos_token_id;
        let next = match (&prompt[..], end_of_text) {
            ([], Some(end_of_text)) => Next::Token([end_of_text]),
            _ => Next::Prompt(prompt),
        };
        let prompt_tokens = next.tokens().len();
        session.check_tokens(next.tokens(), prompt_tokens)?;
        Ok(Self {
            text_state: TextState::new(&options, EndTokens::of(session.model()), constraint),
            options,
            next,
            state: State::InPrompt,
            prompt_tokens,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        })
    }

    /// See [`Generator::next_step`](super::Generator::next_step).
    pub fn next<'s>(&mut self, session: &'s mut Session) -> Result<Option<Step<'s>>> {
        let is_in_prompt = match self.state {
            State::InPrompt => true,
            State::InText => false,
            State::Over(_) | State::Failed => return Ok(None),
        };
        let start = Instant::now();
        let found = self.advance(session);
        *(if is_in_prompt { &mut self.prompt_time } else { &mut self.decode_time }) +=
            start.elapsed();
        match found {
            Ok(ControlFlow::Continue(Choice::Forced(token))) => {
                Ok(Some(Step { token, logits: None }))
            }
            Ok(ControlFlow::Continue(Choice::Chosen(token))) => {
                Ok(Some(Step { token, logits: Some(session.last_logits()?) }))
            }
            Ok(ControlFlow::Break(reason)) => self.stop(reason).map(|()| None),
            Err(Error::Cancelled) => self.stop(StopReason::Cancelled).map(|()| None),
            Err(error) => {
                self.state = State::Failed;
                Err(error)
            }
        }
    }

    fn advance(&mut self, session: &mut Session) -> Result<ControlFlow<StopReason, Choice>> {
        session.take_cancel()?;
        match self.text_state.next_forced()? {
            ControlFlow::Break(reason) => return Ok(ControlFlow::Break(reason)),
            ControlFlow::Continue(Some(token)) => {
                return Ok(ControlFlow::Continue(Choice::Forced(token)));
            }
            ControlFlow::Continue(None) => {}
        }
        if !self.evaluate(session)? {
            return Ok(ControlFlow::Break(StopReason::ContextFull));
        }
        let sampler = &self.options.sampler;
        let token = match self.text_state.allowed()? {
            None => session.sample(sampler)?,
            Some(allowed) => session.sample_within(sampler, allowed)?,
        };
        self.state = State::InText;
        self.next = Next::Token([token]);
        Ok(match self.text_state.accept(token)? {
            ControlFlow::Break(reason) => ControlFlow::Break(reason),
            ControlFlow::Continue(()) => ControlFlow::Continue(Choice::Chosen(token)),
        })
    }

    /// Evaluates the next tokens and the forced tokens after them. Returns false if they do not fit.
    fn evaluate(&mut self, session: &mut Session) -> Result<bool> {
        let Self { text_state, next, .. } = self;
        let (tokens, forced) = (next.tokens(), core::mem::take(&mut text_state.forced));
        if tokens.len() + forced.len() > session.context() - session.position() {
            return Ok(false);
        }
        // A token that was guessed right takes no pass, so nothing is prepared meanwhile.
        let mut meanwhile = || text_state.prepare();
        match &forced[..] {
            [] => session.evaluate_meanwhile(tokens, &mut meanwhile)?,
            forced => session.evaluate_meanwhile(&[tokens, forced].concat(), &mut meanwhile)?,
        }
        text_state.forced = forced;
        Ok(true)
    }

    /// Ends the text, even if it has ended for another reason.
    pub fn stop(&mut self, reason: StopReason) -> Result<()> {
        self.state = State::Failed;
        self.state = State::Over(self.text_state.judge(reason)?);
        Ok(())
    }

    /// Why it has ended, if it has ended.
    pub fn stop_reason(&self) -> Option<StopReason> {
        match self.state {
            State::Over(reason) => Some(reason),
            _ => None,
        }
    }

    /// The result so far. Before the end, its stop reason is that the caller cancelled it.
    pub fn generation(&self) -> Generation {
        Generation {
            prompt_tokens: self.prompt_tokens,
            reused_tokens: 0,
            tokens: self.text_state.tokens(),
            stop_reason: self.stop_reason().unwrap_or(StopReason::Cancelled),
            pending: self.text_state.pending(),
            prompt_time: self.prompt_time,
            decode_time: self.decode_time,
        }
    }
}

/// A token, and whether it was forced or chosen.
enum Choice {
    Forced(u32),
    Chosen(u32),
}
