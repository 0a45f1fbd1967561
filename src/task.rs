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
//! let task = Task::new(&tokenizer, model.template("translate")?);
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
//! A text that does not fit into the session's context with the prompt around it and its result behind
//! is cut into parts, between sentences where possible; the result is that of the parts, one after the
//! other.

mod many;

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use unicode_segmentation::UnicodeSegmentation;

use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Generation, StopReason, generate_text};
use crate::session::Session;
use crate::template::{Split, Template};
use crate::text::{EncodeOptions, Tokenizer};

/// A template with the tokenizer of the model it is for.
///
/// Can be shared between threads, each with a session of its own.
pub struct Task<'a, B> {
    tokenizer: &'a Tokenizer<B>,
    template: Template,
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
    /// A task by this template.
    pub fn new(tokenizer: &'a Tokenizer<B>, template: Template) -> Self {
        Self { tokenizer, template }
    }

    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// Seeds the choices, if the template draws tokens.
    pub fn set_seed(&mut self, seed: u64) {
        self.template.sampler.seed = seed;
    }

    /// Carries the task out on a text, handing the result to `on_text` as it is made. What the session
    /// holds is replaced, but for the beginning that prompts have in common.
    ///
    /// # Errors
    /// [`Error::Task`] if the context is too small for the template, or a text that must not be cut;
    /// those of [`generate_text`]; [`Error::Text`] if the vocabulary cannot express the text.
    pub fn run(
        &self,
        session: &mut Session,
        text: &str,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<TaskResult> {
        let start = Instant::now();
        let text = text.trim();
        let (parts, mut result) = self.begin(text, session.context())?;
        for (i, part) in parts.iter().enumerate() {
            if result.stop_reason == StopReason::Cancelled {
                break;
            }
            if i > 0 {
                let gap = gap_before(text, part.start);
                result.text.push_str(gap);
                if on_text(gap).is_break() {
                    result.stop_reason = StopReason::Cancelled;
                    break;
                }
            }
            self.part(session, text[part.clone()].trim(), &mut result, &mut on_text)?;
        }
        result.seconds = start.elapsed().as_secs_f64();
        Ok(result)
    }

    /// The parts of a text without white space around it, and a result without any of theirs.
    fn begin(&self, text: &str, context: usize) -> Result<(Vec<Range<usize>>, TaskResult)> {
        let parts = self.parts(text, context)?;
        let split = match self.template.split {
            Split::Sentences => parts.len() > sentences(text).count(),
            _ => parts.len() > 1,
        };
        let result = TaskResult {
            text: String::new(),
            parts: 0,
            split,
            cut: 0,
            text_tokens: 0,
            prompt_tokens: 0,
            tokens: 0,
            stop_reason: StopReason::EndOfText,
            seconds: 0.0,
        };
        Ok((parts, result))
    }

    /// One part: a prompt, and what the model makes of it.
    fn part(
        &self,
        session: &mut Session,
        text: &str,
        result: &mut TaskResult,
        on_text: &mut impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<()> {
        let question = self.question(text)?;
        let prompt = &question.prompt;
        let kept = prompt.iter().zip(session.tokens()).take_while(|(a, b)| a == b).count();
        // The last token's logits are needed, so it is evaluated in any case.
        session.rewind(kept.min(prompt.len() - 1))?;
        let mut output = Output::new(self.template.sentences);
        let (rest, options) = (&prompt[session.position()..], &question.options);
        let generation = generate_text(session, self.tokenizer.table(), rest, options, |piece| {
            let ready = output.push(piece);
            if !ready.is_empty() && on_text(ready).is_break() {
                return ControlFlow::Break(());
            }
            if output.is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        result.add(&question, &generation, &output);
        Ok(())
    }

    /// What the model is asked of a part.
    fn question(&self, text: &str) -> Result<Question> {
        let text_tokens = self.encode(text)?.len();
        let options = GenerateOptions {
            max_tokens: self.template.budget.tokens(text_tokens),
            sampler: self.template.sampler.clone(),
            stop: self.template.stop.clone(),
            ignore_end_of_text: false,
        };
        Ok(Question { prompt: self.prompt(text)?, options, text_tokens })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode(text, EncodeOptions::default())?)
    }

    fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = self.encode(&[&self.template.before, text, &self.template.after].concat())?;
        // Only a template that is nothing but a text can make an empty prompt, of an empty text.
        if tokens.is_empty() { Err(Error::NoTokens) } else { Ok(tokens) }
    }

    /// Whether a text's prompt and result fit into so many positions.
    fn fits(&self, text: &str, context: usize) -> Result<bool> {
        // Almost every token has fewer bytes than this, so a text that is far too long is not encoded.
        const MOST_BYTES: usize = 64;
        if text.len() > MOST_BYTES * context {
            return Ok(false);
        }
        let result = self.template.budget.tokens(self.encode(text)?.len());
        Ok(self.prompt(text)?.len() + result <= context)
    }

    /// The parts of a text that does not begin or end with white space.
    fn parts(&self, text: &str, context: usize) -> Result<Vec<Range<usize>>> {
        let mut parts = Vec::new();
        match self.template.split {
            _ if text.is_empty() => {}
            Split::Never => {
                if !self.fits(text, context)? {
                    return Err(self.too_long(text, context)?);
                }
                parts.push(0..text.len());
            }
            Split::Fit => self.cut(text, 0..text.len(), context, &mut parts)?,
            Split::Sentences => {
                for sentence in sentences(text) {
                    self.cut(text, sentence, context, &mut parts)?;
                }
            }
        }
        Ok(parts)
    }

    /// Cuts a range of the text into as few parts as fit.
    fn cut(
        &self,
        text: &str,
        whole: Range<usize>,
        context: usize,
        parts: &mut Vec<Range<usize>>,
    ) -> Result<()> {
        let mut start = whole.start;
        while start < whole.end {
            let rest = &text[start..whole.end];
            let fits = |end: usize| self.fits(rest[..end].trim(), context);
            let sentences = sentences(rest).map(|sentence| sentence.end).collect();
            let words = || rest.split_word_bound_indices().map(|(at, word)| at + word.len());
            let characters = || rest.grapheme_indices(true).map(|(at, c)| at + c.len());
            let len = match longest(sentences, &fits)? {
                Some(len) => len,
                None => match longest(words().collect(), &fits)? {
                    // Not the space alone that stands before a word which does not fit.
                    Some(len) if !rest[..len].trim().is_empty() => len,
                    _ => match longest(characters().collect(), &fits)? {
                        Some(len) => len,
                        None => return Err(self.too_long(rest, context)?),
                    },
                },
            };
            if !rest[..len].trim().is_empty() {
                parts.push(start..start + len);
            }
            start += len;
        }
        Ok(())
    }

    fn too_long(&self, text: &str, context: usize) -> Result<Error> {
        let template = self.prompt("")?.len();
        Ok(Error::Task(match self.template.split {
            Split::Never => {
                let tokens = self.encode(text)?.len();
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

/// What the model is asked of a part of a text.
struct Question {
    prompt: Vec<u32>,
    options: GenerateOptions,
    /// Tokens of the part, without the template.
    text_tokens: usize,
}

impl TaskResult {
    /// Adds the result of the next part.
    fn add(&mut self, question: &Question, generation: &Generation, output: &Output) {
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
        self.text.push_str(output.text());
    }
}

/// The last of the ends, ascending, that fits, if the first does: found by doubling, then by halving.
fn longest(ends: Vec<usize>, fits: &impl Fn(usize) -> Result<bool>) -> Result<Option<usize>> {
    let (mut good, mut bad) = (0, 1);
    while bad <= ends.len() && fits(ends[bad - 1])? {
        (good, bad) = (bad, if bad == ends.len() { bad + 1 } else { ends.len().min(2 * bad) });
    }
    while good + 1 < bad {
        let middle = usize::midpoint(good, bad);
        match fits(ends[middle - 1])? {
            true => good = middle,
            false => bad = middle,
        }
    }
    Ok(good.checked_sub(1).map(|last| ends[last]))
}

/// Sentences (UAX #29), and lines, which end one too; none is blank, and together they are the text.
fn sentences(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    let mut bounds = text.split_sentence_bound_indices().peekable();
    std::iter::from_fn(move || {
        loop {
            let (at, sentence) = bounds.next()?;
            let end = at + sentence.len();
            // What is blank goes with the sentence before it; at the beginning, with the next one.
            let next_is_blank = bounds.peek().is_some_and(|(_, next)| next.trim().is_empty());
            if !next_is_blank && !text[start..end].trim().is_empty() || bounds.peek().is_none() {
                let range = start..end;
                start = end;
                return Some(range);
            }
        }
    })
}

/// What stands between the results of the parts before and behind a place: line breaks as in the text,
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

/// A result: white space at its ends does not belong to it, nor what comes after so many sentences.
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
    fn push(&mut self, piece: &str) -> &str {
        match self.all.is_empty() {
            true => self.all.push_str(piece.trim_start()),
            false => self.all.push_str(piece),
        }
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
        &self.all[from..self.passed]
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
            for most in 0..20 {
                let ends: Vec<_> = (1..=n).map(|i| 3 * i).collect();
                let want = ends.iter().rev().find(|&&end| end <= most).copied();
                assert_eq!(longest(ends, &|end| Ok(end <= most)).unwrap(), want);
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
            passed += output.push(piece);
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
            ["a\n", "\n", "b "].map(|piece| output.push(piece).to_owned()),
            ["a", "", "\n\nb"]
        );
    }
}
