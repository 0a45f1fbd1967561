//! Generation: a prompt in, tokens or text out, one by one.
//!
//! [`Generator`] and [`TextGenerator`] are asked for each token; [`generate_tokens`],
//! [`generate_text`] and their like hand each on to a function.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::sampler::SamplerOptions;
use crate::session::Session;
use crate::text::{StopMatcher, TokenTable, Utf8Stream};

/// When to stop, and how to choose.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// The most tokens to generate.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
    /// Strings that end the text, which is cut before them. For [`generate_text`] only.
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
    /// `clone`, but a lack of memory is an error.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        let mut stop = crate::memory::try_vec(self.stop.len())?;
        for text in &self.stop {
            let mut copy = string_with_room(text.len())?;
            copy.push_str(text);
            stop.push(copy);
        }
        let mut logit_bias = crate::memory::try_vec(self.sampler.logit_bias.len())?;
        logit_bias.extend_from_slice(&self.sampler.logit_bias);
        let sampler = SamplerOptions { logit_bias, ..self.sampler };
        Ok(Self { sampler, stop, ..*self })
    }
}

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
    /// The text is all that its [`Constraint`] asks for.
    Complete,
    /// The tokens that were asked for, or the session's positions, ran out before the text was what
    /// its [`Constraint`] asks for.
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

/// What a text must be like: decides before each token which ones may come next.
///
/// The feature `constraints` makes such of choices, regular expressions and JSON schemas.
pub trait Constraint {
    /// Appends the tokens that must come next to `tokens`, and takes them as accepted. They are not
    /// chosen, and are evaluated together.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        let _ = tokens;
        Ok(())
    }

    /// Called, possibly several times, before [`allowed`](Self::allowed) while the model evaluates the
    /// tokens so far: the time to compute what that returns. What goes wrong is for `allowed` to tell.
    fn prepare(&mut self) {}

    /// The tokens that may come next, a bit for each as
    /// [`sample_within`](Session::sample_within) takes them. The end-of-text token is among them where
    /// the text may end.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    fn allowed(&mut self) -> Result<&[u32]>;

    /// Takes the token that was chosen, which is one of the allowed.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    fn accept(&mut self, token: u32) -> Result<()>;

    /// Whether the text may end here.
    ///
    /// # Errors
    /// [`Error::Constraint`].
    fn is_complete(&mut self) -> Result<bool>;

    /// Whether it must end here.
    fn is_over(&self) -> bool;
}

impl<C: Constraint + ?Sized> Constraint for &mut C {
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        (**self).force(tokens)
    }

    fn prepare(&mut self) {
        (**self).prepare();
    }

    fn allowed(&mut self) -> Result<&[u32]> {
        (**self).allowed()
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        (**self).accept(token)
    }

    fn is_complete(&mut self) -> Result<bool> {
        (**self).is_complete()
    }

    fn is_over(&self) -> bool {
        (**self).is_over()
    }
}

/// A constraint as all loops take it, which are compiled once.
fn boxed<'a>(constraint: &'a mut dyn Constraint) -> Box<dyn Constraint + 'a> {
    Box::new(constraint)
}

/// A token of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The token.
    pub token: u32,
    /// The logits `[vocab_size]` it was chosen from; none if a [`Constraint`] left no choice.
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

/// Tokens one by one: each is evaluated only when the next one is asked for.
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
/// Allocates nothing, if its constraint does not.
pub struct Generator<'a> {
    session: &'a mut Session,
    progress: Progress<'a>,
}

impl<'a> Generator<'a> {
    /// Prepares to continue `prompt`, which comes after whatever the session holds already, within a
    /// constraint if one is given. An empty prompt stands for the end-of-text token, after which a new
    /// text begins. Nothing is evaluated yet.
    ///
    /// # Errors
    /// [`Error::Option`]; [`Error::TokenOutOfRange`]; [`Error::ContextFull`] if the prompt is longer
    /// than the session has room for.
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

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.progress.prompt_tokens
    }

    /// The next token; none once there is a [`stop_reason`](Self::stop_reason), or after an error.
    ///
    /// # Errors
    /// Those of [`Session::evaluate`] and [`Session::sample_within`], and the constraint's own. To be
    /// cancelled is none: it ends the text.
    pub fn next_step(&mut self) -> Result<Option<Step<'_>>> {
        self.progress.next(self.session)
    }

    /// Why the text has ended, if it has.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.progress.stop_reason()
    }

    /// What was done. A text that has not ended is [cancelled](StopReason::Cancelled).
    pub fn end(self) -> Generation {
        self.progress.generation()
    }
}

/// A token of a text, and what has become certain with it.
#[derive(Clone, Copy, Debug)]
pub struct TextStep<'a> {
    /// Whole characters, and nothing that may be the beginning of a stop string; often none.
    pub text: &'a str,
    /// The token; none if text that was held back follows the last one.
    pub step: Option<Step<'a>>,
}

/// Text piece by piece: as [`Generator`], with stop strings.
///
/// Allocates when it is made, and then no more, if its constraint does not.
pub struct TextGenerator<'a, B> {
    session: &'a mut Session,
    table: &'a TokenTable<B>,
    progress: Progress<'a>,
    buffer: TextBuffer,
}

impl<'a, B: AsRef<[u8]>> TextGenerator<'a, B> {
    /// As [`Generator::new`]; `table` says what tokens stand for.
    ///
    /// # Errors
    /// Those of [`Generator::new`] and [`TextStream::new`].
    pub fn new(
        session: &'a mut Session,
        table: &'a TokenTable<B>,
        prompt: &'a [u32],
        options: &'a GenerateOptions,
        constraint: Option<&'a mut dyn Constraint>,
    ) -> Result<Self> {
        let buffer = TextBuffer::new(table, &options.stop)?;
        let (prompt, options) = (Cow::Borrowed(prompt), Cow::Borrowed(options));
        let progress = Progress::new(session, prompt, options, constraint.map(boxed))?;
        Ok(Self { session, table, progress, buffer })
    }

    /// The next token with its text, and at the end what was held back, if the text goes as far. None
    /// after that, or after an error.
    ///
    /// # Errors
    /// Those of [`Generator::next_step`].
    pub fn next_step(&mut self) -> Result<Option<TextStep<'_>>> {
        self.buffer.next(&mut self.progress, self.session, self.table)
    }

    /// The next text that is not empty.
    ///
    /// # Errors
    /// Those of [`Generator::next_step`].
    pub fn next_text(&mut self) -> Result<Option<&str>> {
        while let Some(step) = self.buffer.next(&mut self.progress, self.session, self.table)? {
            if !step.text.is_empty() {
                return Ok(Some(self.buffer.text()));
            }
        }
        Ok(None)
    }

    /// As [`Generator::stop_reason`]; text that was held back may still follow.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.progress.stop_reason()
    }

    /// As [`Generator::end`].
    pub fn end(self) -> Generation {
        self.progress.generation()
    }
}

/// Continues a prompt of token ids, handing each token to `on_token` as it is chosen.
pub fn generate_tokens(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_token: impl FnMut(u32) -> ControlFlow<StopReason>,
) -> Result<Generation> {
    generate_steps(session, prompt, options, None, |step| on_token(step.token))
}

/// As [`generate_tokens`], within a constraint if one is given, handing on what each token was chosen
/// from as well. With a constraint the end-of-text token always ends the text.
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

/// What becomes of a text, whoever evaluates it: counts its tokens, and keeps its constraint in step.
pub(crate) struct Course<'a> {
    constraint: Option<Box<dyn Constraint + 'a>>,
    /// Tokens that the constraint forced since the last choice, and how many of them were handed on; not
    /// known before it is asked.
    forced: Vec<u32>,
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

    /// See [`Generation::pending`].
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

/// A generation on its way, but for its session, which every call is given and which nobody else changes
/// meanwhile.
pub(crate) struct Progress<'a> {
    options: Cow<'a, GenerateOptions>,
    course: Course<'a>,
    /// What is to be evaluated before the next choice, and before what is forced.
    next: Next<'a>,
    state: State,
    prompt_tokens: usize,
    /// Time spent until the first choice, and since.
    prompt_time: Duration,
    decode_time: Duration,
}

/// What is to be evaluated next.
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
    /// Nothing was chosen yet.
    InPrompt,
    InText,
    Over(StopReason),
    Failed,
}

impl<'a> Progress<'a> {
    /// See [`Generator::new`].
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
            course: Course::new(&options, end_of_text, constraint),
            options,
            next,
            state: State::InPrompt,
            prompt_tokens,
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        })
    }

    /// See [`Generator::next_step`].
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
        session.follow_cancel()?;
        match self.course.next_forced()? {
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
        let token = match self.course.allowed()? {
            None => session.sample(sampler)?,
            Some(allowed) => session.sample_within(sampler, allowed)?,
        };
        self.state = State::InText;
        self.next = Next::Token([token]);
        Ok(match self.course.accept(token)? {
            ControlFlow::Break(reason) => ControlFlow::Break(reason),
            ControlFlow::Continue(()) => ControlFlow::Continue(Choice::Chosen(token)),
        })
    }

    /// Evaluates what is to be evaluated, and what was forced after it; false if it does not fit.
    fn evaluate(&mut self, session: &mut Session) -> Result<bool> {
        let Self { course, next, .. } = self;
        let (tokens, forced) = (next.tokens(), std::mem::take(&mut course.forced));
        if tokens.len() + forced.len() > session.context() - session.position() {
            return Ok(false);
        }
        // A guessed token takes no pass, and nothing is prepared beside it.
        let mut beside = || course.prepare();
        match &forced[..] {
            [] => session.evaluate_beside(tokens, &mut beside)?,
            forced => session.evaluate_beside(&[tokens, forced].concat(), &mut beside)?,
        }
        course.forced = forced;
        Ok(true)
    }

    /// Ends the text, even if it had another end.
    pub fn stop(&mut self, reason: StopReason) -> Result<()> {
        self.state = State::Failed;
        self.state = State::Over(self.course.judge(reason)?);
        Ok(())
    }

    /// Why it has ended, if it has.
    pub fn stop_reason(&self) -> Option<StopReason> {
        match self.state {
            State::Over(reason) => Some(reason),
            _ => None,
        }
    }

    /// What was done; whoever asks before the end has cancelled it.
    pub fn generation(&self) -> Generation {
        Generation {
            prompt_tokens: self.prompt_tokens,
            tokens: self.course.tokens(),
            stop_reason: self.stop_reason().unwrap_or(StopReason::Cancelled),
            pending: self.course.pending(),
            prompt_time: self.prompt_time,
            decode_time: self.decode_time,
        }
    }
}

/// How a token came about.
enum Choice {
    Forced(u32),
    Chosen(u32),
}

/// Continues a prompt of token ids, handing text to `on_text` as soon as it is certain: whole
/// characters, and nothing that may be the beginning of a stop string.
pub fn generate_text<B: AsRef<[u8]>>(
    session: &mut Session,
    table: &TokenTable<B>,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation> {
    generate_text_steps(session, table, prompt, options, None, |text, _| match text {
        "" => ControlFlow::Continue(()),
        text => on_text(text),
    })
}

/// As [`generate_text`], within a constraint if one is given. `on_text` is called for each token, and
/// once at the end without one if there is text left; the text that became certain may be empty. A stop
/// string may cut a text before it is what the constraint asks for.
///
/// # Errors
/// Those of [`generate_steps`] and [`TextStream::new`].
pub fn generate_text_steps<B: AsRef<[u8]>>(
    session: &mut Session,
    table: &TokenTable<B>,
    prompt: &[u32],
    options: &GenerateOptions,
    constraint: Option<&mut dyn Constraint>,
    mut on_text: impl FnMut(&str, Option<Step>) -> ControlFlow<()>,
) -> Result<Generation> {
    let mut buffer = TextBuffer::new(table, &options.stop)?;
    let (prompt, options) = (Cow::Borrowed(prompt), Cow::Borrowed(options));
    let mut progress = Progress::new(session, prompt, options, constraint.map(boxed))?;
    while let Some(TextStep { text, step }) = buffer.next(&mut progress, session, table)? {
        // Nothing comes after text without a token, so whether to go on does not matter.
        if on_text(text, step).is_break() && step.is_some() {
            progress.stop(StopReason::Cancelled)?;
        }
    }
    Ok(progress.generation())
}

/// Text out of tokens, as soon as it is certain: whole characters, and nothing that may be the beginning
/// of a stop string. Allocates only when it is made.
pub struct TextStream<'a, B> {
    table: &'a TokenTable<B>,
    buffer: TextBuffer,
}

impl<'a, B: AsRef<[u8]>> TextStream<'a, B> {
    /// A stream that ends before any of the stop strings.
    ///
    /// # Errors
    /// [`Error::Text`] if a stop string is empty; [`Error::OutOfMemory`].
    pub fn new(table: &'a TokenTable<B>, stop: &[String]) -> Result<Self> {
        Ok(Self { table, buffer: TextBuffer::new(table, stop)? })
    }

    /// Hands on what has become certain with a token. Breaks when a stop string is there, or
    /// `on_text` breaks.
    pub fn push(
        &mut self,
        token: u32,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<StopReason> {
        let stopped = self.buffer.push(self.table, token);
        match self.buffer.text() {
            "" => {}
            text if on_text(text).is_break() => return ControlFlow::Break(StopReason::Cancelled),
            _ => {}
        }
        match stopped {
            true => ControlFlow::Break(StopReason::StopString),
            false => ControlFlow::Continue(()),
        }
    }

    /// Hands on what was held back, if the text goes as far.
    pub fn finish(
        &mut self,
        reason: StopReason,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) {
        self.buffer.finish(reason);
        if !self.buffer.text().is_empty() {
            // Nothing comes after this piece, so whether to go on does not matter.
            let _ = on_text(self.buffer.text());
        }
    }
}

/// What a [`TextStream`] holds back and hands on.
pub(crate) struct TextBuffer {
    characters: Utf8Stream,
    stops: StopMatcher,
    decoded: String,
    certain: String,
}

impl TextBuffer {
    /// See [`TextStream::new`].
    pub fn new<B: AsRef<[u8]>>(table: &TokenTable<B>, stop: &[String]) -> Result<Self> {
        let mut stops = StopMatcher::new(stop)?;
        // Room for any piece, so that no token allocates: each byte may become a U+FFFD of three.
        let piece = 3 * (table.longest_token() + MAX_CHAR_BYTES);
        stops.reserve(piece).map_err(|_| Error::OutOfMemory { bytes: piece })?;
        let room = piece + stop.iter().map(String::len).max().unwrap_or(0);
        let (decoded, certain) = (string_with_room(room)?, string_with_room(room)?);
        Ok(Self { characters: Utf8Stream::new(), stops, decoded, certain })
    }

    /// What has become certain with the last token, or at the end.
    pub fn text(&self) -> &str {
        &self.certain
    }

    /// Takes a token; whether a stop string is there.
    pub fn push<B: AsRef<[u8]>>(&mut self, table: &TokenTable<B>, token: u32) -> bool {
        self.decoded.clear();
        self.certain.clear();
        let bytes = table.token_bytes(token).unwrap_or_default();
        self.characters.push(bytes, &mut self.decoded);
        self.stops.push(&self.decoded, &mut self.certain).is_some()
    }

    /// Takes the end.
    pub fn finish(&mut self, reason: StopReason) {
        self.decoded.clear();
        self.certain.clear();
        if matches!(reason, StopReason::StopString | StopReason::Cancelled) {
            return;
        }
        self.characters.finish(&mut self.decoded);
        self.stops.push(&self.decoded, &mut self.certain);
        self.stops.finish(&mut self.certain);
    }

    /// See [`TextGenerator::next_step`].
    pub fn next<'s, B: AsRef<[u8]>>(
        &'s mut self,
        progress: &mut Progress,
        session: &'s mut Session,
        table: &TokenTable<B>,
    ) -> Result<Option<TextStep<'s>>> {
        if let Some(step) = progress.next(session)? {
            if self.push(table, step.token) {
                progress.stop(StopReason::StopString)?;
            }
            return Ok(Some(TextStep { text: self.text(), step: Some(step) }));
        }
        let Some(reason) = progress.stop_reason() else { return Ok(None) };
        self.finish(reason);
        Ok(Some(TextStep { text: self.text(), step: None }).filter(|last| !last.text.is_empty()))
    }
}

/// Bytes of the longest UTF-8 character.
const MAX_CHAR_BYTES: usize = 4;

fn string_with_room(bytes: usize) -> Result<String> {
    let mut string = String::new();
    string.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    Ok(string)
}
