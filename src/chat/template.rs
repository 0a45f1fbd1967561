//! How a model is put conversations.

use std::sync::Arc;

use super::date::Date;
use super::marks::{Controls, Part, remove_marks, unmark};
use super::message::{Message, Role};
use super::variables::{ChatOptions, Variables};
use crate::error::{Error, Result};
use crate::format::ChatFormat;
use crate::memory::{extend, push};
use crate::model::Model;
use crate::text::{EncodeOptions, Tokenizer};

/// How a model is put conversations: by its own template, or a simple form of it.
#[derive(Debug)]
pub struct ChatTemplate {
    format: Arc<ChatFormat>,
    controls: Controls,
}

impl ChatTemplate {
    /// That of a model file.
    ///
    /// # Errors
    /// [`Error::Chat`] if the file has none, or one that is not sound; [`Error::OutOfMemory`].
    pub fn of<B: AsRef<[u8]>>(model: &Model, tokenizer: &Tokenizer<B>) -> Result<Self> {
        let none = || {
            Error::Chat(
                "the model file has none; quantize it again from a checkpoint that has one, or with \
                 --chat-template, or let the model continue a text instead"
                    .into(),
            )
        };
        Self::new(model.chat_format()?.ok_or_else(none)?, tokenizer)
    }

    /// A template for texts of this tokenizer.
    ///
    /// # Errors
    /// [`Error::Chat`] if the vocabulary has a control token that texts cannot be kept from;
    /// [`Error::OutOfMemory`].
    pub fn new<B: AsRef<[u8]>>(
        format: impl Into<Arc<ChatFormat>>,
        tokenizer: &Tokenizer<B>,
    ) -> Result<Self> {
        Ok(Self { format: format.into(), controls: Controls::new(tokenizer.table())? })
    }

    /// What the file says.
    pub fn format(&self) -> &ChatFormat {
        &self.format
    }

    /// The text of a conversation, as `transformers` makes it from the same template.
    ///
    /// # Errors
    /// [`Error::Chat`] if the template refuses the messages or needs more than it may; if only a simple form
    /// is at hand, and the messages do not fit into it. [`Error::OutOfMemory`]; [`Error::Threads`].
    pub fn text(
        &self,
        messages: &[Message],
        prompt_answer: bool,
        options: ChatOptions,
    ) -> Result<String> {
        let mut text = self.render(messages, prompt_answer, options)?;
        remove_marks(&mut text);
        Ok(text)
    }

    /// The tokens of a conversation. Only what the template itself writes becomes control tokens.
    ///
    /// # Errors
    /// Those of [`text`](Self::text), and of [`Tokenizer::encode`].
    pub fn tokens<B: AsRef<[u8]>>(
        &self,
        tokenizer: &Tokenizer<B>,
        messages: &[Message],
        prompt_answer: bool,
        options: ChatOptions,
    ) -> Result<Vec<u32>> {
        let messages = messages.iter().map(|message| (message.role, message.content.as_str()));
        self.tokens_of(tokenizer, messages, prompt_answer, options)
    }

    /// As [`tokens`](Self::tokens), of messages that lie anywhere.
    pub(super) fn tokens_of<'m, B: AsRef<[u8]>>(
        &self,
        tokenizer: &Tokenizer<B>,
        messages: impl Iterator<Item = (Role, &'m str)>,
        prompt_answer: bool,
        options: ChatOptions,
    ) -> Result<Vec<u32>> {
        let mut marked = Vec::new();
        for (role, content) in messages {
            push(&mut marked, Message { role, content: self.controls.mark(content)? })?;
        }
        let text = self.render(&marked, prompt_answer, options)?;
        drop(marked);
        let mut tokens = Vec::new();
        let begin = tokenizer.table().begin_of_text();
        for part in self.controls.parts(&text) {
            match part {
                Part::Control(id) => {
                    // Some templates leave it to the tokenizer.
                    if let Some(begin) = begin.filter(|&it| tokens.is_empty() && it != id) {
                        push(&mut tokens, begin)?;
                    }
                    push(&mut tokens, id)?;
                }
                Part::Text(text) if !tokens.is_empty() => {
                    tokenizer.encode_behind_control(&unmark(text)?, &mut tokens)?;
                }
                Part::Text(text) => {
                    let options = EncodeOptions::default().at_the_beginning();
                    let more = tokenizer.encode(&unmark(text)?, options)?;
                    extend(&mut tokens, more.into_iter())?;
                }
            }
        }
        Ok(tokens)
    }

    /// The first control token behind an answer.
    pub(super) fn end_of_answer(&self, options: ChatOptions) -> Result<Option<u32>> {
        const ANSWER: &str = "an answer";
        let messages =
            [Message::copy(Role::User, "a question")?, Message::copy(Role::Assistant, ANSWER)?];
        let text = self.render(&messages, false, options)?;
        let behind = text.rfind(ANSWER).map_or("", |at| &text[at + ANSWER.len()..]);
        Ok(self.controls.parts(behind).find_map(|part| match part {
            Part::Control(id) => Some(id),
            Part::Text(_) => None,
        }))
    }

    fn render(
        &self,
        messages: &[Message],
        prompt_answer: bool,
        options: ChatOptions,
    ) -> Result<String> {
        let form = self.format.form.as_ref().filter(|_| options.thinking.is_none());
        let text = form.map(|form| form.render(messages, prompt_answer)).transpose()?;
        if let Some(text) = text.flatten() {
            return Ok(text);
        }
        let Some(template) = &self.format.template else {
            return Err(Error::Chat(
                "the model file has only a simple form, which takes messages of user and assistant in \
                 turn, perhaps after one of the system; put the messages in that order"
                    .into(),
            ));
        };
        let variables = Variables {
            prompt_answer,
            beginning_token: &self.format.beginning_token,
            end_token: &self.format.end_token,
            date: options.date.unwrap_or_else(Date::today),
            thinking: options.thinking,
        };
        by_engine(template, messages, &variables)
    }
}

#[cfg(feature = "chat")]
fn by_engine(template: &str, messages: &[Message], variables: &Variables) -> Result<String> {
    super::engine::render(template, messages, variables)
}

#[cfg(not(feature = "chat"))]
fn by_engine(_: &str, _: &[Message], _: &Variables) -> Result<String> {
    Err(Error::Chat(
        "these messages need the template engine, and this library was built without it; build it with \
         the feature `chat`, or give messages of user and assistant in turn"
            .into(),
    ))
}
