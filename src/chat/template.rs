//! How a model is put conversations.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

#[cfg(feature = "chat")]
use serde_json::Value as Json;

#[cfg(feature = "chat")]
use super::date::Date;
#[cfg(feature = "chat")]
use super::engine::{Said, render_said};
use super::marks::{Controls, Part, remove_marks, unmark};
use super::message::{Message, Role};
use super::variables::ChatOptions;
#[cfg(feature = "chat")]
use super::variables::Variables;
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
        self.encode(tokenizer, &text)
    }

    /// The tokens of what the template made of marked messages.
    fn encode<B: AsRef<[u8]>>(&self, tokenizer: &Tokenizer<B>, text: &str) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        let begin = tokenizer.table().begin_of_text();
        for part in self.controls.parts(text) {
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
        #[cfg(feature = "chat")]
        return self.by_engine(&Said::Messages(messages), prompt_answer, options);
        #[cfg(not(feature = "chat"))]
        Err(Error::Chat(match self.format.template {
            None => ONLY_A_FORM.into(),
            Some(_) => "these messages need the template engine, and this library was built without it; build it \
                        with the feature `chat`, or give messages of user and assistant in turn"
                .into(),
        }))
    }
}

const ONLY_A_FORM: &str = "the model file has only a simple form, which takes messages of user and assistant in turn, \
                           perhaps after one of the system; put the messages in that order";

#[cfg(feature = "chat")]
impl ChatTemplate {
    /// The tokens of a conversation in JSON, for messages and tools that [`tokens`](Self::tokens) does not know.
    /// Only what the template itself writes becomes control tokens.
    ///
    /// # Errors
    /// Those of [`tokens`](Self::tokens); [`Error::Chat`] if the file has no template but a simple form.
    pub fn tokens_of_json<B: AsRef<[u8]>>(
        &self,
        tokenizer: &Tokenizer<B>,
        conversation: Conversation,
        prompt_answer: bool,
        options: ChatOptions,
    ) -> Result<Vec<u32>> {
        let mark = |all: &[Json]| all.iter().map(|it| self.mark(it)).collect::<Result<Vec<_>>>();
        let (messages, tools) = (mark(conversation.messages)?, mark(conversation.tools)?);
        let text = self.by_engine(&Said::Json(&messages, &tools), prompt_answer, options)?;
        self.encode(tokenizer, &text)
    }

    /// JSON with marks in its texts.
    fn mark(&self, json: &Json) -> Result<Json> {
        Ok(match json {
            Json::String(text) => Json::String(self.controls.mark(text)?),
            Json::Array(items) => {
                Json::Array(items.iter().map(|item| self.mark(item)).collect::<Result<_>>()?)
            }
            Json::Object(fields) => {
                let field = |(name, value): (&String, &Json)| {
                    Ok((self.controls.mark(name)?, self.mark(value)?))
                };
                Json::Object(fields.iter().map(field).collect::<Result<_>>()?)
            }
            other => other.clone(),
        })
    }

    pub(super) fn controls(&self) -> &Controls {
        &self.controls
    }

    pub(super) fn by_engine(
        &self,
        said: &Said,
        prompt_answer: bool,
        options: ChatOptions,
    ) -> Result<String> {
        let Some(template) = &self.format.template else {
            return Err(Error::Chat(ONLY_A_FORM.into()));
        };
        let variables = Variables {
            prompt_answer,
            beginning_token: &self.format.beginning_token,
            end_token: &self.format.end_token,
            date: options.date.unwrap_or_else(Date::today),
            thinking: options.thinking,
        };
        render_said(template, said, &variables)
    }
}

/// A conversation in JSON, as `transformers`' `apply_chat_template` takes it and OpenAI's interface writes it.
#[cfg(feature = "chat")]
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// What was said: objects with a `role` and a `content`, perhaps with `tool_calls`, whose `arguments` are objects.
    pub messages: &'a [Json],
    /// The tools that the model may call: objects with the `type` `function` and a `function` with `name`,
    /// `description` and `parameters`, a JSON schema.
    pub tools: &'a [Json],
}
