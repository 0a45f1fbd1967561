//! Generation: a prompt in, a stream of tokens or of text out.

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
        }
    }
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
    /// here. None after the end-of-text token, and if there is no token.
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
        if self.session.position() == self.session.context() {
            return Ok(None);
        }
        self.session.evaluate(self.next.tokens())?;
        let token = self.session.sample(self.sampler)?;
        self.next = Next::Token([token]);
        Ok(Some(token))
    }
}

/// Continues a prompt of token ids, handing each token to `on_token` as it is chosen.
pub fn generate_tokens(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_token: impl FnMut(u32) -> ControlFlow<StopReason>,
) -> Result<Generation> {
    let end_of_text = session.model().config().eos_token_id.filter(|_| !options.ignore_end_of_text);
    let mut generator = Generator::new(session, prompt, &options.sampler)?;
    let start = Instant::now();
    let (mut tokens, mut pending, mut prompt_time) = (0, None, Duration::ZERO);
    let stop_reason = loop {
        if tokens == options.max_tokens {
            break StopReason::MaxTokens;
        }
        let token = match generator.next_token() {
            Ok(Some(token)) => token,
            Ok(None) => break StopReason::ContextFull,
            Err(Error::Cancelled) => break StopReason::Cancelled,
            Err(error) => return Err(error),
        };
        if prompt_time.is_zero() {
            prompt_time = start.elapsed();
        }
        pending = Some(token).filter(|_| Some(token) != end_of_text);
        if pending.is_none() {
            break StopReason::EndOfText;
        }
        tokens += 1;
        if let ControlFlow::Break(reason) = on_token(token) {
            break reason;
        }
    };
    let decode_time = start.elapsed() - prompt_time;
    let prompt_tokens = generator.prompt_tokens();
    Ok(Generation { prompt_tokens, tokens, stop_reason, pending, prompt_time, decode_time })
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
    let mut stream = TextStream::new(table, &options.stop)?;
    let generation =
        generate_tokens(session, prompt, options, |token| stream.push(token, &mut on_text))?;
    stream.finish(generation.stop_reason, &mut on_text);
    Ok(generation)
}

/// Text out of tokens, as soon as it is certain.
pub(crate) struct TextStream<'a, B> {
    table: &'a TokenTable<B>,
    characters: Utf8Stream,
    stops: StopMatcher,
    decoded: String,
    certain: String,
}

impl<'a, B: AsRef<[u8]>> TextStream<'a, B> {
    /// Takes room for any piece, so that no token allocates.
    pub fn new(table: &'a TokenTable<B>, stop: &[String]) -> Result<Self> {
        let mut stops = StopMatcher::new(stop)?;
        // Each byte may become a U+FFFD of three.
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
