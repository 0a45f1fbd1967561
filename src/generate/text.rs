//! Generation of text.

use alloc::borrow::Cow;
use core::ops::ControlFlow;

use super::constraint::{Constraint, boxed};
use super::options::GenerateOptions;
use super::outcome::{Generation, Step, StopReason};
use super::progress::Progress;
use super::text_stream::TextBuffer;
use crate::error::Result;
use crate::session::Session;
use crate::text::TokenTable;

/// A token of a text, and the text that has become certain with it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct TextStep<'a> {
    /// Whole characters, and nothing that may be the beginning of a stop string. Often empty.
    pub text: &'a str,
    /// The token. None if this is text that was held back, after the last token.
    pub step: Option<Step<'a>>,
}

impl TextBuffer {
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

/// Generates text piece by piece, as [`Generator`](super::Generator) does tokens, with stop strings.
///
/// Allocates only when it is made, unless its constraint allocates.
pub struct TextGenerator<'a, B> {
    session: &'a mut Session,
    table: &'a TokenTable<B>,
    progress: Progress<'a>,
    buffer: TextBuffer,
}

impl<'a, B: AsRef<[u8]>> TextGenerator<'a, B> {
    /// As [`Generator::new`](super::Generator::new). `table` has the bytes of each token.
    ///
    /// # Errors
    /// Those of [`Generator::new`](super::Generator::new) and
    /// [`TextStream::new`](super::TextStream::new).
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

    /// The next token with its text. At the end, the text that was held back, if it belongs to the
    /// text. None after that, and after an error.
    ///
    /// # Errors
    /// Those of [`Generator::next_step`](super::Generator::next_step).
    pub fn next_step(&mut self) -> Result<Option<TextStep<'_>>> {
        self.buffer.next(&mut self.progress, self.session, self.table)
    }

    /// The next text that is not empty.
    ///
    /// # Errors
    /// Those of [`Generator::next_step`](super::Generator::next_step).
    pub fn next_text(&mut self) -> Result<Option<&str>> {
        while let Some(step) = self.buffer.next(&mut self.progress, self.session, self.table)? {
            if !step.text.is_empty() {
                return Ok(Some(self.buffer.text()));
            }
        }
        Ok(None)
    }

    /// As [`Generator::stop_reason`](super::Generator::stop_reason). Text that was held back may still
    /// follow.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.progress.stop_reason()
    }

    /// As [`Generator::end`](super::Generator::end).
    pub fn end(self) -> Generation {
        self.progress.generation()
    }
}

/// Continues a prompt of token ids. Passes text to `on_text` as soon as it is certain: whole
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

/// As [`generate_text`], within a constraint if one is given. `on_text` is called for each token with
/// the text that has become certain, which may be empty. If text is left at the end, `on_text` is
/// called once more without a token. A stop string may cut a text before it has the form that the
/// constraint asks for.
///
/// # Errors
/// Those of [`generate_steps`](super::generate_steps) and [`TextStream::new`](super::TextStream::new).
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
        // Text without a token is the last piece, so its answer does not matter.
        if on_text(text, step).is_break() && step.is_some() {
            progress.stop(StopReason::Cancelled)?;
        }
    }
    Ok(progress.generation())
}
