//! Generation of tokens.

use alloc::borrow::Cow;
use core::ops::ControlFlow;

use super::constraint::{Constraint, boxed};
use super::options::GenerateOptions;
use super::outcome::{Generation, Step, StopReason};
use super::progress::Progress;
use crate::error::Result;
use crate::session::Session;

/// Generates tokens one by one. A token is evaluated only when the program asks for the next one.
///
/// ```no_run
/// use cerebellum::generate::{GenerateOptions, Generator};
/// use cerebellum::{Access, Model, SessionOptions};
///
/// # fn main() -> cerebellum::Result<()> {
/// let model = Model::open("111m.cbl", Access::Map)?;
/// let mut session = model.session(&SessionOptions::default())?;
/// let options = GenerateOptions::default();
/// let mut generator = Generator::new(&mut session, &[464, 3290], &options, None)?;
/// while let Some(step) = generator.next_step()? {
///     println!("{}", step.token);
/// }
/// println!("{}", generator.end().stop_reason.name());
/// # Ok(())
/// # }
/// ```
///
/// Allocates nothing, unless its constraint does.
pub struct Generator<'a> {
    session: &'a mut Session,
    progress: Progress<'a>,
}

impl<'a> Generator<'a> {
    /// Prepares to continue `prompt`, within a constraint if one is given. The prompt comes after the
    /// tokens that the session holds already. An empty prompt stands for the end-of-text token, after
    /// which a new text begins. Nothing is evaluated yet.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option).
    /// [`Error::TokenOutOfRange`](crate::Error::TokenOutOfRange).
    /// [`Error::ContextFull`](crate::Error::ContextFull) if the session has no room for the prompt.
    pub fn new(
        session: &'a mut Session,
        prompt: &'a [u32],
        options: &'a GenerateOptions,
        constraint: Option<&'a mut dyn Constraint>,
    ) -> Result<Self> {
        let (prompt, options) = (Cow::Borrowed(prompt), Cow::Borrowed(options));
        let progress = Progress::new(session, prompt, options, constraint.map(boxed))?;
        Ok(Self { session, progress })
    }

    /// Number of tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.progress.prompt_tokens
    }

    /// The next token. None after the end, when there is a [`stop_reason`](Self::stop_reason), and
    /// after an error.
    ///
    /// # Errors
    /// Those of [`Session::evaluate`] and [`Session::sample_within`], and the constraint's own. A
    /// cancelled generation is no error: the text ends.
    pub fn next_step(&mut self) -> Result<Option<Step<'_>>> {
        self.progress.next(self.session)
    }

    /// Why the text has ended, if it has ended.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.progress.stop_reason()
    }

    /// The result. A text that has not ended is [cancelled](StopReason::Cancelled).
    pub fn end(self) -> Generation {
        self.progress.generation()
    }
}

/// Continues a prompt of token ids. Passes each token to `on_token` as soon as it is chosen.
pub fn generate_tokens(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_token: impl FnMut(u32) -> ControlFlow<StopReason>,
) -> Result<Generation> {
    generate_steps(session, prompt, options, None, |step| on_token(step.token))
}

/// As [`generate_tokens`], within a constraint if one is given. `on_step` also receives the logits that
/// each token was chosen from. With a constraint, the end-of-text token always ends the text.
///
/// # Errors
/// Those of [`Session::evaluate`] and [`Session::sample_within`], and the constraint's own.
pub fn generate_steps(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    constraint: Option<&mut dyn Constraint>,
    mut on_step: impl FnMut(Step) -> ControlFlow<StopReason>,
) -> Result<Generation> {
    let (prompt, options) = (Cow::Borrowed(prompt), Cow::Borrowed(options));
    let mut progress = Progress::new(session, prompt, options, constraint.map(boxed))?;
    while let Some(step) = progress.next(session)? {
        if let ControlFlow::Break(reason) = on_step(step) {
            progress.stop(reason)?;
        }
    }
    Ok(progress.generation())
}
