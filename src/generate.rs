//! Generation: a prompt in, a stream of tokens or of text out.

use std::ops::{ControlFlow, DerefMut};
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

/// Tokens one by one: evaluates each chosen token only when the next one is asked for.
///
/// Allocates nothing.
pub struct Generator<'a> {
    session: &'a mut Session,
    sampler: &'a SamplerOptions,
    next: Next<'a>,
    prompt_tokens: usize,
}

/// What is to be evaluated next.
enum Next<'a> {
    Prompt(&'a [u32]),
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

impl<'a> Generator<'a> {
    /// Prepares to continue `prompt`, which comes after whatever the session holds already. An empty
    /// prompt stands for the end-of-text token, after which a new text begins.
    ///
    /// Fails before anything is evaluated if the prompt is longer than the session has room for.
    pub fn new(
        session: &'a mut Session,
        prompt: &'a [u32],
        sampler: &'a SamplerOptions,
    ) -> Result<Self> {
        sampler.check()?;
        let next = match (prompt, session.model().config().eos_token_id) {
            ([], Some(end_of_text)) => Next::Token([end_of_text]),
            ([], None) => return Err(Error::NoTokens),
            _ => Next::Prompt(prompt),
        };
        let (position, context) = (session.position(), session.context());
        let prompt_tokens = next.tokens().len();
        if prompt_tokens > context - position {
            return Err(Error::ContextFull { position, tokens: prompt_tokens, context });
        }
        Ok(Self { session, sampler, next, prompt_tokens })
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Chooses the next token; `None` when the session has no position left for the last one.
    pub fn next_token(&mut self) -> Result<Option<u32>> {
        if !self.evaluate(&[], &mut || ())? {
            return Ok(None);
        }
        self.choose(None).map(Some)
    }

    /// Evaluates what is to be evaluated, and `forced` tokens behind it, calling `beside` meanwhile;
    /// false if they do not fit.
    fn evaluate(&mut self, forced: &[u32], beside: &mut dyn FnMut()) -> Result<bool> {
        let tokens = self.next.tokens();
        let room = self.session.context() - self.session.position();
        if tokens.len() + forced.len() > room {
            return Ok(false);
        }
        match forced {
            [] => self.session.evaluate_beside(tokens, beside)?,
            _ => self.session.evaluate_beside(&[tokens, forced].concat(), beside)?,
        };
        Ok(true)
    }

    fn choose(&mut self, allowed: Option<&[u32]>) -> Result<u32> {
        let token = match allowed {
            None => self.session.sample(self.sampler)?,
            Some(allowed) => self.session.sample_within(self.sampler, allowed)?,
        };
        self.next = Next::Token([token]);
        Ok(token)
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
    on_step: impl FnMut(Step) -> ControlFlow<StopReason>,
) -> Result<Generation> {
    let end_of_text = session.model().config().eos_token_id;
    let generator = Generator::new(session, prompt, &options.sampler)?;
    let prompt_tokens = generator.prompt_tokens();
    let course = Course::new(options, end_of_text, constraint);
    let (start, prompt_time) = (Instant::now(), Duration::ZERO);
    let mut run = Run { generator, course, on_step, start, prompt_time };
    let stop_reason = run.run()?;
    Ok(Generation {
        prompt_tokens,
        tokens: run.course.tokens,
        stop_reason,
        pending: run.course.pending(),
        prompt_time: run.prompt_time,
        decode_time: run.start.elapsed() - run.prompt_time,
    })
}

/// What becomes of a text, whoever evaluates it: counts its tokens, and keeps its constraint in step.
pub(crate) struct Course<C> {
    constraint: Option<C>,
    /// Tokens that the constraint forced since the last choice.
    forced: Vec<u32>,
    end_of_text: Option<u32>,
    max_tokens: usize,
    tokens: usize,
    chosen: Option<u32>,
}

/// Whether a text goes on, or why it ends.
pub(crate) type Flow = ControlFlow<StopReason>;

impl<C: DerefMut<Target: Constraint>> Course<C> {
    pub fn new(options: &GenerateOptions, end_of_text: Option<u32>, constraint: Option<C>) -> Self {
        // A text that has the form it must have ends, whatever was asked for.
        let ends = constraint.is_some() || !options.ignore_end_of_text;
        Self {
            constraint,
            forced: Vec::new(),
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

    /// Hands on the tokens that must come next. Goes before each choice.
    pub fn force(&mut self, on_step: &mut impl FnMut(Step) -> Flow) -> Result<Flow> {
        self.forced.clear();
        if let Some(constraint) = &mut self.constraint {
            if !constraint.is_over() {
                constraint.force(&mut self.forced)?;
            }
            for &token in &self.forced {
                if self.tokens == self.max_tokens {
                    return Ok(ControlFlow::Break(StopReason::Incomplete));
                }
                self.tokens += 1;
                if let ControlFlow::Break(reason) = on_step(Step { token, logits: None }) {
                    return Ok(ControlFlow::Break(reason));
                }
            }
            if constraint.is_over() {
                return Ok(ControlFlow::Break(StopReason::Complete));
            }
        }
        match self.tokens == self.max_tokens {
            true => Ok(ControlFlow::Break(StopReason::MaxTokens)),
            false => Ok(ControlFlow::Continue(())),
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

/// A generation on its way.
struct Run<'a, 'c, F> {
    generator: Generator<'a>,
    course: Course<&'c mut dyn Constraint>,
    on_step: F,
    start: Instant,
    prompt_time: Duration,
}

impl<F: FnMut(Step) -> Flow> Run<'_, '_, F> {
    fn run(&mut self) -> Result<StopReason> {
        loop {
            let flow = match self.course.force(&mut self.on_step) {
                Ok(ControlFlow::Continue(())) => self.step(),
                other => other,
            };
            match flow {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(reason)) => return self.course.judge(reason),
                Err(Error::Cancelled) => return Ok(StopReason::Cancelled),
                Err(error) => return Err(error),
            }
        }
    }

    /// Chooses the next token and hands it on.
    fn step(&mut self) -> Result<Flow> {
        let Self { generator, course, .. } = self;
        // A guessed token takes no pass, and nothing is prepared beside it.
        let forced = std::mem::take(&mut course.forced);
        let fits = generator.evaluate(&forced, &mut || course.prepare())?;
        course.forced = forced;
        if !fits {
            return Ok(ControlFlow::Break(StopReason::ContextFull));
        }
        let token = generator.choose(course.allowed()?)?;
        if self.prompt_time.is_zero() {
            self.prompt_time = self.start.elapsed();
        }
        if let ControlFlow::Break(reason) = course.accept(token)? {
            return Ok(ControlFlow::Break(reason));
        }
        let logits = generator.session.last_logits()?;
        Ok((self.on_step)(Step { token, logits: Some(logits) }))
    }
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
    let mut stream = TextStream::new(table, &options.stop)?;
    let generation = generate_steps(session, prompt, options, constraint, |step| {
        let mut is_told = false;
        let flow = stream.push(step.token, &mut |text: &str| {
            is_told = true;
            on_text(text, Some(step))
        });
        if !is_told && on_text("", Some(step)).is_break() {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        flow
    })?;
    stream.finish(generation.stop_reason, &mut |text: &str| on_text(text, None));
    Ok(generation)
}

/// Text out of tokens, as soon as it is certain: whole characters, and nothing that may be the beginning
/// of a stop string. Allocates only when it is made.
pub struct TextStream<'a, B> {
    table: &'a TokenTable<B>,
    characters: Utf8Stream,
    stops: StopMatcher,
    decoded: String,
    certain: String,
}

impl<'a, B: AsRef<[u8]>> TextStream<'a, B> {
    /// A stream that ends before any of the stop strings.
    ///
    /// # Errors
    /// [`Error::Text`] if a stop string is empty; [`Error::OutOfMemory`].
    pub fn new(table: &'a TokenTable<B>, stop: &[String]) -> Result<Self> {
        let mut stops = StopMatcher::new(stop)?;
        // Room for any piece, so that no token allocates: each byte may become a U+FFFD of three.
        let piece = 3 * (table.longest_token() + MAX_CHAR_BYTES);
        stops.reserve(piece).map_err(|_| Error::OutOfMemory { bytes: piece })?;
        let room = piece + stop.iter().map(String::len).max().unwrap_or(0);
        let (decoded, certain) = (string_with_room(room)?, string_with_room(room)?);
        Ok(Self { table, characters: Utf8Stream::new(), stops, decoded, certain })
    }

    /// Hands on what has become certain with a token. Breaks when a stop string is there, or
    /// `on_text` breaks.
    pub fn push(
        &mut self,
        token: u32,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> ControlFlow<StopReason> {
        self.decoded.clear();
        let bytes = self.table.token_bytes(token).unwrap_or_default();
        self.characters.push(bytes, &mut self.decoded);
        let stopped = self.stops.push(&self.decoded, &mut self.certain).is_some();
        match self.emit(on_text) {
            ControlFlow::Break(()) => ControlFlow::Break(StopReason::Cancelled),
            ControlFlow::Continue(()) if stopped => ControlFlow::Break(StopReason::StopString),
            ControlFlow::Continue(()) => ControlFlow::Continue(()),
        }
    }

    /// Hands on what was held back, if the text goes as far.
    pub fn finish(
        &mut self,
        reason: StopReason,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) {
        if matches!(reason, StopReason::StopString | StopReason::Cancelled) {
            return;
        }
        self.decoded.clear();
        self.characters.finish(&mut self.decoded);
        self.stops.push(&self.decoded, &mut self.certain);
        self.stops.finish(&mut self.certain);
        // Nothing comes after this piece, so whether to go on does not matter.
        let _ = self.emit(on_text);
    }

    fn emit(&mut self, on_text: &mut impl FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.certain.is_empty() {
            return ControlFlow::Continue(());
        }
        let flow = on_text(&self.certain);
        self.certain.clear();
        flow
    }
}

/// Bytes of the longest UTF-8 character.
const MAX_CHAR_BYTES: usize = 4;

fn string_with_room(bytes: usize) -> Result<String> {
    let mut string = String::new();
    string.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    Ok(string)
}
