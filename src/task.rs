//! Tasks: translate, summarize, or whatever a [`Template`] asks for.
//!
//! ```no_run
//! use cerebellum::task::Task;
//! use cerebellum::{Access, Model, SessionOptions};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> cerebellum::Result<()> {
//! let model = Model::open("demo.cbl", Access::Map)?;
//! let tokenizer = model.tokenizer()?;
//! let task = Task::for_model(&model, &tokenizer, model.template("translate")?)?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let done = task.run(&mut session, "I am hungry.", |text| {
//!     print!("{text}"); // as it is made
//!     ControlFlow::Continue(())
//! })?;
//! println!("\n{} tokens, {} parts", done.tokens, done.parts);
//! # Ok(())
//! # }
//! ```
//!
//! Many texts are done sooner together: [`Task::run_all`], and [`Task::run_each`] for those that are not
//! there yet.
//!
//! A text that does not fit into the session's context with the prompt around it and its result after
//! is cut into parts, between sentences where possible; the result is that of the parts, one after the
//! other.

mod many;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::hint::black_box;
use core::ops::{ControlFlow, Range};

use crate::chat::Questions;
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::fp_env::FpEnv;
use crate::generate::{GenerateOptions, Generation, StopReason, copies, generate_text};
use crate::memory::{append, concat, push, try_box};
use crate::model::Model;
use crate::segments;
use crate::session::Session;
use crate::template::{Budget, Split, Template};
use crate::text::{EncodeOptions, Room, Tokenizer};

/// A template with the tokenizer of the model it is for.
///
/// Can be shared between threads, each with a session of its own.
pub struct Task<'a, B> {
    tokenizer: &'a Tokenizer<B>,
    template: Template,
    /// The model's chat form, for a template that is a message.
    questions: Option<Questions>,
    /// The most tokens of a result, whatever the template says.
    max_tokens: usize,
}

/// What became of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TaskResult {
    /// The result, without white space around it.
    pub text: String,
    /// Parts that the text was cut into; none if it was blank.
    pub parts: usize,
    /// Whether it was cut where its template alone would not have, to fit into the context.
    pub split: bool,
    /// Parts whose results were cut because they would have become too long.
    pub cut: usize,
    /// Tokens of the text, without the template.
    pub text_tokens: usize,
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub tokens: usize,
    /// Why the last part's result ended.
    pub stop_reason: StopReason,
    /// Seconds it took.
    pub seconds: f64,
}

impl<'a, B: AsRef<[u8]>> Task<'a, B> {
    /// A task by this template, which must be none that is a message to the model ([`Template::chat`]): such a
    /// task fails. See [`for_model`](Self::for_model).
    pub fn new(tokenizer: &'a Tokenizer<B>, template: Template) -> Self {
        Self { tokenizer, template, questions: None, max_tokens: usize::MAX }
    }

    /// A task by any template, with what this model's file says of conversations.
    ///
    /// # Errors
    /// [`Error::Chat`] if the template is a message to the model, and the file has no sound chat template.
    pub fn for_model(
        model: &Model,
        tokenizer: &'a Tokenizer<B>,
        template: Template,
    ) -> Result<Self> {
        let questions = template.chat.then(|| Questions::of(model, tokenizer)).transpose()?;
        Ok(Self { questions, ..Self::new(tokenizer, template) })
    }

    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Seeds the choices, if the template draws tokens.
    pub fn set_seed(&mut self, seed: u64) {
        self.template.sampler.seed = seed;
    }

    /// Lets the result of a part have at most `max_tokens` tokens, whatever the template says: a limit to the
    /// time that somebody else's template takes.
    pub fn set_max_tokens(&mut self, max_tokens: usize) {
        self.max_tokens = max_tokens;
    }

    /// The tokens that a text is put to the model as, if it is not cut, in a context of so many positions.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn prompt_tokens(&self, text: &str, context: usize) -> Result<Vec<u32>> {
        self.prompt(text.trim(), &Room::in_context(context, Default::default()))
    }

    /// Carries the task out on a text, handing the result to `on_text` as it is made. What the session
    /// holds is replaced, but for the beginning that prompts have in common.
    ///
    /// If the session's flag ([`Session::cancel_by`]) is set meanwhile, the result is what there is by then,
    /// with [`StopReason::Cancelled`].
    ///
    /// # Errors
    /// [`Error::Task`] if the context is too small for the template; [`Error::TextTooLong`] or [`Error::Task`]
    /// for a text that must not be cut; those of [`generate_text`]; [`Error::Text`] if the vocabulary cannot
    /// express the text.
    pub fn run(
        &self,
        session: &mut Session,
        text: &str,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<TaskResult> {
        let start = Instant::now();
        let mut result = TaskResult::nothing();
        match self.run_parts(session, text.trim(), &mut result, &mut on_text) {
            Err(Error::Cancelled) => {
                session.clear_cancel();
                result.stop_reason = StopReason::Cancelled;
            }
            other => other?,
        }
        result.seconds = seconds_since(start);
        Ok(result)
    }

    fn run_parts(
        &self,
        session: &mut Session,
        text: &str,
        result: &mut TaskResult,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let Parts { ranges, split } = self.parts(text, &session.room_after(0))?;
        result.split = split;
        for (i, part) in ranges.iter().enumerate() {
            if i > 0 {
                let gap = gap_before(text, part.start);
                append(&mut result.text, gap)?;
                if on_text(gap).is_break() {
                    return Err(Error::Cancelled);
                }
            }
            self.part(session, text[part.clone()].trim(), result, on_text)?;
            if result.stop_reason == StopReason::Cancelled {
                break;
            }
        }
        Ok(())
    }

    /// One part: a prompt, and what the model makes of it.
    fn part(
        &self,
        session: &mut Session,
        text: &str,
        result: &mut TaskResult,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let question = self.question(text, &session.room_after(0))?;
        let prompt = &question.prompt;
        let kept = prompt.iter().zip(session.tokens()).take_while(|(a, b)| a == b).count();
        // The last token's logits are needed, so it is evaluated in any case.
        session.rewind(kept.min(prompt.len() - 1))?;
        let mut output = Output::new(self.template.sentences);
        let (rest, options) = (&prompt[session.position()..], &question.options);
        let mut taken = Ok(());
        let generation = generate_text(session, self.tokenizer.table(), rest, options, |piece| {
            match output.push(piece) {
                Ok("") => {}
                Ok(ready) if on_text(ready).is_continue() => {}
                Ok(_) => return ControlFlow::Break(()),
                Err(error) => {
                    taken = Err(error);
                    return ControlFlow::Break(());
                }
            }
            if output.is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        taken?;
        result.add(&question, &generation, &output)
    }

    /// What the model is asked of a part.
    fn question(&self, text: &str, room: &Room) -> Result<Question> {
        let text_tokens = self.encode(text, room)?.len();
        let options = GenerateOptions {
            max_tokens: self.result_tokens(text_tokens),
            sampler: self.template.sampler.try_clone()?,
            stop: copies(&self.template.stop)?,
            ignore_end_of_text: false,
        };
        Ok(Question { prompt: self.prompt(text, room)?, options, text_tokens })
    }

    /// The most tokens of the result of a text of `text_tokens` tokens.
    fn result_tokens(&self, text_tokens: usize) -> usize {
        let wanted = self.template.budget.tokens(text_tokens);
        wanted.min(self.template.most_tokens).min(self.max_tokens)
    }

    fn encode(&self, text: &str, room: &Room) -> Result<Vec<u32>> {
        self.tokenizer.encode_in(text, EncodeOptions::default(), room)
    }

    fn prompt(&self, text: &str, room: &Room) -> Result<Vec<u32>> {
        let whole = concat(&[&self.template.before, text, &self.template.after])?;
        if let Some(questions) = &self.questions {
            return questions.tokens(self.tokenizer, &[], &whole);
        }
        if self.template.chat {
            let detail = "the template is a message, and this task does not know the model's form for messages; \
                          make it with Task::for_model";
            return Err(Error::Chat(detail.into()));
        }
        let options = EncodeOptions::default().at_the_beginning();
        let tokens = self.tokenizer.encode_in(&whole, options, room)?;
        // Only a template that is nothing but a text can make an empty prompt, of an empty text.
        if tokens.is_empty() { Err(Error::NoTokens) } else { Ok(tokens) }
    }

    /// Whether a text's prompt and result fit into the context.
    fn fits(&self, text: &str, room: &Room) -> Result<bool> {
        // Before anything is copied.
        if self.tokenizer.is_surely_too_long(text, room.context())? {
            return Ok(false);
        }
        match self.positions(text, room) {
            Ok(positions) => Ok(positions <= room.context()),
            Err(Error::TextTooLong { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Positions that a text's prompt and result need.
    fn positions(&self, text: &str, room: &Room) -> Result<usize> {
        let text_tokens = match self.template.budget {
            Budget::Tokens(_) => 0,
            Budget::Times(_) => self.encode(text, room)?.len(),
        };
        Ok(self.prompt(text, room)?.len().saturating_add(self.result_tokens(text_tokens)))
    }

    /// The parts of a text that does not begin or end with white space.
    fn parts(&self, text: &str, room: &Room) -> Result<Parts> {
        let mut ranges = Vec::new();
        let mut wanted = 1;
        match self.template.split {
            _ if text.is_empty() => {}
            Split::Never => {
                if !self.fits(text, room)? {
                    return Err(self.too_long(text, room)?);
                }
                push(&mut ranges, 0..text.len())?;
            }
            Split::Fit => self.cut(text, 0..text.len(), room, &mut ranges)?,
            Split::Sentences => {
                wanted = 0;
                for sentence in sentences(text) {
                    self.cut(text, sentence, room, &mut ranges)?;
                    wanted += 1;
                }
            }
        }
        Ok(Parts { split: ranges.len() > wanted, ranges })
    }

    /// Cuts a range of the text into as few parts as fit: of each part the end is looked for among those of
    /// the sentences; if the first of them does not fit, among those of its words; and so on.
    fn cut(
        &self,
        text: &str,
        whole: Range<usize>,
        room: &Room,
        parts: &mut Vec<Range<usize>>,
    ) -> Result<()> {
        let mut levels = Unit::ALL.map(Ends::none);
        let mut start = whole.start;
        loop {
            // Where the part's text begins, after the space that is before it.
            let solid = whole.end - text[start..whole.end].trim_start().len();
            if solid == whole.end {
                return Ok(());
            }
            let mut until = whole.end;
            let mut found = None;
            for ends in &mut levels {
                ends.go_to(text, start..until)?;
                let fits = |end: usize| self.fits(text[start..end].trim(), room);
                found = ends.longest(fits)?.filter(|&end| end > solid);
                if found.is_some() {
                    break;
                }
                // The next smaller units are those of the first one here that is not a space alone.
                until = ends.first(|end| end > solid)?.unwrap_or(until);
            }
            let Some(end) = found else { return Err(self.too_long(&text[start..until], room)?) };
            push(parts, start..end)?;
            start = end;
        }
    }

    fn too_long(&self, text: &str, room: &Room) -> Result<Error> {
        let context = room.context();
        let count = |tokens| match tokens {
            Ok(tokens) => Ok(Vec::len(&tokens).to_string()),
            Err(Error::TextTooLong { tokens, .. }) => Ok(format!("at least {tokens}")),
            Err(error) => Err(error),
        };
        let template = count(self.prompt("", room))?;
        Ok(Error::Task(match self.template.split {
            Split::Never => {
                let tokens = count(self.encode(text, room))?;
                format!(
                    "the text has {tokens} tokens, and with the template's {template} and its \
                     result does not fit into a context of {context}; shorten it, or let the \
                     template split it"
                )
            }
            _ => format!(
                "a context of {context} leaves no room for a text beside the template's {template} \
                 tokens and a result; give a larger context or a shorter template"
            ),
        }))
    }
}

/// What a text is cut into.
struct Parts {
    ranges: Vec<Range<usize>>,
    /// Whether these are more than the template asks for.
    split: bool,
}

/// What a text is cut between, from large to small.
#[derive(Clone, Copy)]
enum Unit {
    Sentence,
    Word,
    /// What a reader takes for one character; it may have any number of code points.
    Cluster,
    Character,
}

impl Unit {
    const ALL: [Self; 4] = [Self::Sentence, Self::Word, Self::Cluster, Self::Character];

    /// The ends of the units of a range of a text.
    fn ends(self, text: &str, range: Range<usize>) -> Result<Box<dyn Iterator<Item = usize> + '_>> {
        let (text, start) = (&text[range.clone()], range.start);
        let from = move |end| start + end;
        Ok(match self {
            Self::Sentence => try_box(sentences(text).map(move |sentence| start + sentence.end))?,
            Self::Word => try_box(segments::word_ends(text).map(from))?,
            Self::Cluster => try_box(segments::cluster_ends(text).map(from))?,
            Self::Character => {
                try_box(text.char_indices().map(move |(at, c)| start + at + c.len_utf8()))?
            }
        })
    }
}

/// The ends of a range's units, found one after the other and each only once, however many parts the range
/// is cut into.
struct Ends<'t> {
    unit: Unit,
    /// Where the range ends.
    until: usize,
    rest: Box<dyn Iterator<Item = usize> + 't>,
    /// Ends after the place where the next part begins.
    ahead: VecDeque<usize>,
    /// How many units the last part had: where the search begins.
    last: usize,
}

impl<'t> Ends<'t> {
    fn none(unit: Unit) -> Self {
        let rest = Box::new(core::iter::empty());
        Self { unit, until: 0, rest, ahead: VecDeque::new(), last: 1 }
    }

    /// The next part begins at the range's start. A range that ends as the last one did goes on in it.
    fn go_to(&mut self, text: &'t str, range: Range<usize>) -> Result<()> {
        if self.until != range.end {
            self.rest = self.unit.ends(text, range.clone())?;
            self.until = range.end;
            self.ahead.clear();
        }
        while self.available(1)? == 1 && self.ahead[0] <= range.start {
            self.ahead.pop_front();
        }
        Ok(())
    }

    /// How many ends there are, at most `most`.
    fn available(&mut self, most: usize) -> Result<usize> {
        while self.ahead.len() < most
            && let Some(end) = self.rest.next()
        {
            let bytes = (self.ahead.len() + 1) * size_of::<usize>();
            self.ahead.try_reserve(1).map_err(|_| Error::OutOfMemory { bytes })?;
            self.ahead.push_back(end);
        }
        Ok(self.ahead.len().min(most))
    }

    /// The first end that will do.
    fn first(&mut self, mut will_do: impl FnMut(usize) -> bool) -> Result<Option<usize>> {
        let mut known = 0;
        while self.available(known + 1)? > known {
            if will_do(self.ahead[known]) {
                return Ok(Some(self.ahead[known]));
            }
            known += 1;
        }
        Ok(None)
    }

    /// The last end that fits, if the first does: found by doubled steps from where the last search ended,
    /// then by halving.
    fn longest(&mut self, fits: impl Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
        // `good` units fit, and `bad` units do not.
        let (mut good, mut bad) = (0, usize::MAX);
        let (mut units, mut step) = (self.last.max(1), 1);
        while bad - good > 1 {
            units = self.available(units)?;
            if units <= good {
                break;
            }
            match fits(self.ahead[units - 1])? {
                true => good = units,
                false => bad = units,
            }
            units = match (good, bad) {
                (_, usize::MAX) => good + step,
                (0, _) => (bad.saturating_sub(step)).max(1),
                _ => usize::midpoint(good, bad),
            };
            step *= 2;
        }
        self.last = good;
        Ok(good.checked_sub(1).map(|last| self.ahead[last]))
    }
}

/// What the model is asked of a part of a text.
struct Question {
    prompt: Vec<u32>,
    options: GenerateOptions,
    /// Tokens of the part, without the template.
    text_tokens: usize,
}

fn seconds_since(start: Instant) -> f64 {
    let _env = FpEnv::set_default();
    // Done before the guard goes, not where the result is used.
    black_box(start.elapsed().as_secs_f64())
}

impl TaskResult {
    /// Before the first part.
    fn nothing() -> Self {
        Self {
            text: String::new(),
            parts: 0,
            split: false,
            cut: 0,
            text_tokens: 0,
            prompt_tokens: 0,
            tokens: 0,
            stop_reason: StopReason::EndOfText,
            seconds: 0.0,
        }
    }

    /// Adds the result of the next part.
    fn add(&mut self, question: &Question, generation: &Generation, output: &Output) -> Result<()> {
        self.parts += 1;
        self.text_tokens += question.text_tokens;
        self.prompt_tokens += question.prompt.len();
        self.tokens += generation.tokens;
        self.stop_reason = match generation.stop_reason {
            StopReason::Cancelled if output.is_over => StopReason::StopString,
            reason => reason,
        };
        let is_cut = matches!(self.stop_reason, StopReason::MaxTokens | StopReason::ContextFull);
        self.cut += usize::from(is_cut);
        append(&mut self.text, output.text())
    }
}

/// Sentences (UAX #29), and lines, which end one too; none is blank, and together they are the text.
fn sentences(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    let mut ends = segments::sentence_ends(text).peekable();
    core::iter::from_fn(move || {
        loop {
            let end = ends.next()?;
            // What is blank goes with the sentence before it; at the beginning, with the next one.
            let next_is_blank = ends.peek().is_some_and(|&next| text[end..next].trim().is_empty());
            if !next_is_blank && !text[start..end].trim().is_empty() || ends.peek().is_none() {
                let range = start..end;
                start = end;
                return Some(range);
            }
        }
    })
}

/// What stands between the results of the parts before and after a place: line breaks as in the text,
/// or a space.
fn gap_before(text: &str, at: usize) -> &str {
    let before = &text[..at];
    let behind = text.len() - text[at..].trim_start().len();
    let gap = &text[before.trim_end().len()..behind];
    match (gap.find('\n'), gap.rfind('\n')) {
        (Some(first), Some(last)) => &gap[first..=last],
        _ => " ",
    }
}

/// A result: white space at its ends does not belong to it, nor what comes after the last of them that is wanted.
struct Output {
    /// All that was generated, without the space before it.
    all: String,
    /// How much of it was handed on.
    passed: usize,
    sentences: Option<usize>,
    is_over: bool,
}

impl Output {
    fn new(sentences: Option<usize>) -> Self {
        Self { all: String::new(), passed: 0, sentences, is_over: false }
    }

    /// Takes the next piece; returns what is certain to belong to the result.
    fn push(&mut self, piece: &str) -> Result<&str> {
        let piece = if self.all.is_empty() { piece.trim_start() } else { piece };
        append(&mut self.all, piece)?;
        let mut end = self.all.trim_end().len();
        if let Some(most) = self.sentences
            && let Some(last) = sentences(&self.all).nth(most - 1)
            && last.end < self.all.len()
        {
            end = end.min(self.all[..last.end].trim_end().len());
            self.is_over = true;
        }
        let from = self.passed;
        self.passed = end.max(from);
        Ok(&self.all[from..self.passed])
    }

    fn text(&self) -> &str {
        &self.all[..self.passed]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<&str> {
        sentences(text).map(|range| &text[range]).collect()
    }

    #[test]
    fn sentences_are_the_whole_text() {
        assert_eq!(
            cut("One. Two!  Is it?\nA line\n\n  Next"),
            ["One. ", "Two!  ", "Is it?\n", "A line\n\n", "  Next"]
        );
        assert_eq!(cut(" \n a"), [" \n a"]);
        assert_eq!(cut("3.5 of U.S. is"), ["3.5 of U.S. is"]);
        assert_eq!(cut(""), [""; 0]);
    }

    #[test]
    fn the_longest_that_fits_is_found() {
        for n in 0..20 {
            let text = "abc".repeat(n);
            for most in 0..20 {
                for last in [0, 1, 2, 7, 19, 100] {
                    let mut ends = Ends::none(Unit::Cluster);
                    ends.go_to(&text, 0..text.len()).unwrap();
                    ends.last = last;
                    let want = most.min(text.len());
                    let found = ends.longest(|end| Ok(end <= most)).unwrap();
                    assert_eq!(found, Some(want).filter(|&want| want > 0));
                    let found = found.unwrap_or(0);
                    ends.go_to(&text, found..text.len()).unwrap();
                    assert_eq!(
                        ends.first(|_| true).unwrap(),
                        Some(found + 1).filter(|&end| end <= text.len())
                    );
                }
            }
        }
    }

    #[test]
    fn gaps_keep_lines() {
        let text = "A. B.\n\n C. D";
        let gaps: Vec<_> = sentences(text).map(|part| gap_before(text, part.start)).collect();
        assert_eq!(gaps[1..], [" ", "\n\n", " "]);
    }

    #[test]
    fn an_output_ends_after_its_sentences_and_has_no_space_around() {
        let mut output = Output::new(Some(2));
        let mut passed = String::new();
        for piece in ["  ", " One", ".", " Two is", " it? ", "Three", "."] {
            passed += output.push(piece).unwrap();
            assert_eq!(
                output.is_over,
                passed.ends_with('?') && output.all.contains("Th"),
                "{piece}"
            );
            if output.is_over {
                break;
            }
        }
        assert_eq!((passed.as_str(), output.text()), ("One. Two is it?", "One. Two is it?"));
        let mut output = Output::new(None);
        assert_eq!(
            ["a\n", "\n", "b "].map(|piece| output.push(piece).unwrap().to_owned()),
            ["a", "", "\n\nb"]
        );
    }
}
