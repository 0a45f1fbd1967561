//! How a model is put conversations.

use super::date::Date;
use super::marks::{Controls, Part, unmark};
use super::message::{Message, Role};
use super::variables::{ChatOptions, Variables};
use crate::error::{Error, Result};
use crate::format::ChatFormat;
use crate::model::Model;
use crate::text::{EncodeOptions, Tokenizer};

/// How a model is put conversations: by its own template, or a simple form of it.
#[derive(Debug)]
pub struct ChatTemplate {
    format: ChatFormat,
    controls: Controls,
}

impl ChatTemplate {
    /// That of a model file.
    ///
    /// # Errors
    /// [`Error::Chat`] if the file has none, or one that is not sound.
    pub fn of<B: AsRef<[u8]>>(model: &Model, tokenizer: &Tokenizer<B>) -> Result<Self> {
        let none = || {
            Error::Chat(
                "the model file has none; the model may know no conversations; quantize it again from a \
                 checkpoint that has a template, or let it continue a text"
                    .into(),
            )
        };
        let chat = model.header().chat.as_ref().ok_or_else(none)?;
        Self::new(ChatFormat::parse(chat.text()).map_err(Error::Chat)?, tokenizer)
    }

    /// A template for texts of this tokenizer.
    ///
    /// # Errors
    /// [`Error::Chat`] if the vocabulary has a control token that texts cannot be kept from.
    pub fn new<B: AsRef<[u8]>>(format: ChatFormat, tokenizer: &Tokenizer<B>) -> Result<Self> {
        Ok(Self { format, controls: Controls::new(tokenizer.table())? })
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
        Ok(unmark(&self.render(messages, prompt_answer, options)?))
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
        let messages: Vec<_> = messages
            .iter()
            .map(|message| Message::new(message.role, self.controls.mark(&message.content)))
            .collect();
        let text = self.render(&messages, prompt_answer, options)?;
        let mut tokens = Vec::new();
        let begin = tokenizer.table().begin_of_text();
        for part in self.controls.parts(&text) {
            match part {
                Part::Control(id) => {
                    // Some templates leave it to the tokenizer.
                    tokens.extend(begin.filter(|&begin| tokens.is_empty() && begin != id));
                    tokens.push(id);
                }
                Part::Text(text) if !tokens.is_empty() => {
                    tokenizer.encode_behind_control(&unmark(text), &mut tokens)?;
                }
                Part::Text(text) => {
                    let options = EncodeOptions::default().at_the_beginning();
                    tokens.extend(tokenizer.encode(&unmark(text), options)?);
                }
            }
        }
        Ok(tokens)
    }

    /// The first control token behind an answer.
    pub(super) fn end_of_answer(&self, options: ChatOptions) -> Result<Option<u32>> {
        const ANSWER: &str = "an answer";
        let messages =
            [Message::new(Role::User, "a question"), Message::new(Role::Assistant, ANSWER)];
        let text = self.render(&messages, false, options)?;
        let behind = text.rfind(ANSWER).map_or("", |at| &text[at + ANSWER.len()..]);
        Ok(self.controls.parts(behind).into_iter().find_map(|part| match part {
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
        if let Some(text) = form.and_then(|form| form.render(messages, prompt_answer)) {
            return Ok(text);
        }
        let Some(template) = &self.format.template else {
            return Err(Error::Chat(
                "it has the messages of user and assistant in turn, perhaps after one of the system, \
                 and these are not so"
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
        "it needs the template engine, which this library was built without (feature `chat`), and the \
         messages fit into no simple form in the file"
            .into(),
    ))
}
