//! Conversations: messages of a system, a user and an assistant, put to the model in its own form.
//!
//! [`ChatTemplate`] makes text and tokens of messages. [`Chat`] holds a conversation, keeps it within the
//! context, and lets the model answer.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use cerebellum::chat::{Chat, ChatOptions, Role};
//! use cerebellum::generate::GenerateOptions;
//! use cerebellum::{Access, Model, SessionOptions};
//!
//! # fn main() -> cerebellum::Result<()> {
//! let model = Model::open("smollm2.cbl", Access::Map)?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let mut chat = Chat::new(&model, ChatOptions::default())?;
//! chat.push(Role::System, "Answer in one sentence.")?;
//! chat.push(Role::User, "What is the capital of France?")?;
//! chat.answer(&mut session, &GenerateOptions::default(), None, |text| {
//!     print!("{text}");
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "chat")]
mod call_reader;
#[cfg(feature = "chat")]
mod calls;
mod date;
#[cfg(feature = "chat")]
mod engine;
mod form;
mod marks;
mod message;
mod question;
mod template;
mod variables;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::ControlFlow;

#[cfg(feature = "chat")]
pub use call_reader::{AnswerPiece, CallReader};
#[cfg(feature = "chat")]
pub use calls::CallNotation;
pub use date::Date;
#[cfg(feature = "chat")]
pub use engine::{render as render_template, render_json as render_json_template};
pub use message::{Message, Role};
pub(crate) use question::Questions;
pub use template::ChatTemplate;
#[cfg(feature = "chat")]
pub use template::Conversation;
pub use variables::{ChatOptions, Variables};

use crate::error::{Error, Result};
use crate::generate::{Constraint, GenerateOptions, Generation, StopReason, generate_text_steps};
use crate::memory::{append, extend, push, try_vec};
use crate::model::{Model, TokenizerBytes};
use crate::session::Session;
use crate::text::{EncodeOptions, Tokenizer};

/// What a conversation is put to a session as.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prompt {
    /// All tokens, from the beginning of the context on.
    pub tokens: Vec<u32>,
    /// The number of messages that are left out because the context is full: the oldest ones after the
    /// system message.
    pub left_out: usize,
}

/// An answer that was generated. Its text is the conversation's last message.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// How it was generated. The prompt's tokens are those that were evaluated.
    pub generation: Generation,
    /// The number of the prompt's tokens that the session had evaluated before: those of earlier turns.
    pub reused_tokens: usize,
    /// As [`Prompt::left_out`].
    pub left_out: usize,
}

/// A conversation with a model.
///
/// It belongs to no session: what it has in common with the tokens that a session holds is not evaluated
/// again, so that each answer costs its own turn.
pub struct Chat {
    tokenizer: Arc<Tokenizer<TokenizerBytes>>,
    template: ChatTemplate,
    options: ChatOptions,
    messages: Vec<Message>,
}

impl Chat {
    /// A conversation in which nothing was said.
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`] and [`ChatTemplate::of`].
    pub fn new(model: &Model, options: ChatOptions) -> Result<Self> {
        Self::with_tokenizer(model, Arc::new(model.tokenizer()?), options)
    }

    /// As [`new`](Self::new), with the model's tokenizer.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::of`].
    pub fn with_tokenizer(
        model: &Model,
        tokenizer: Arc<Tokenizer<TokenizerBytes>>,
        options: ChatOptions,
    ) -> Result<Self> {
        let template = ChatTemplate::of(model, &tokenizer)?;
        Ok(Self { tokenizer, template, options, messages: Vec::new() })
    }

    /// How the model is put conversations.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer<TokenizerBytes> {
        &self.tokenizer
    }

    /// All that was said.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Adds a message.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn push(&mut self, role: Role, content: &str) -> Result<()> {
        push(&mut self.messages, Message::copy(role, content)?)
    }

    /// Takes the last message back.
    pub fn pop(&mut self) -> Option<Message> {
        self.messages.pop()
    }

    /// Forgets all but the system message.
    pub fn clear(&mut self) {
        self.messages.truncate(self.system());
    }

    /// 1 if there is a system message, otherwise 0.
    fn system(&self) -> usize {
        self.messages.first().map_or(0, |message| usize::from(message.role == Role::System))
    }

    /// The text that the model is put, all messages included, and what asks for an answer.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::text`].
    pub fn text(&self) -> Result<String> {
        let (messages, begun) = split(&self.messages);
        let mut text = self.template.text(messages, true, self.options)?;
        append(&mut text, begun.unwrap_or_default())?;
        Ok(text)
    }

    /// The tokens of [`text`](Self::text). If the last message is the assistant's, its text is the beginning
    /// of the answer.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::tokens`].
    pub fn tokens(&self) -> Result<Vec<u32>> {
        self.tokens_without(0)
    }

    /// As [`tokens`](Self::tokens), without so many messages behind the system's.
    fn tokens_without(&self, left_out: usize) -> Result<Vec<u32>> {
        let (system, turns) = self.messages.split_at(self.system());
        let (turns, begun) = split(&turns[left_out..]);
        let messages = system.iter().chain(turns);
        let messages = messages.map(|message| (message.role, message.content.as_str()));
        let mut tokens = self.template.tokens_of(&self.tokenizer, messages, true, self.options)?;
        if let Some(begun) = begun {
            let begun = self.tokenizer.encode(begun, EncodeOptions::default())?;
            extend(&mut tokens, begun.into_iter())?;
        }
        Ok(tokens)
    }

    /// What is put to a session with `context` positions that holds the tokens `held`. If not all fits together
    /// with an answer of `answer` tokens, or of half the context if that is less, the oldest turns are left out,
    /// whole; the system message and the last turn stay.
    ///
    /// Turns that are left out change the beginning, and all behind it is evaluated again. So where the session
    /// holds a beginning that still fits, that one is taken; otherwise so many turns are left out that a quarter
    /// of the context is free besides the answer, for the turns to come.
    ///
    /// # Errors
    /// Those of [`tokens`](Self::tokens); [`Error::ContextFull`] if the last turn does not fit.
    pub fn fit(&self, context: usize, answer: usize, held: &[u32]) -> Result<Prompt> {
        let most = context - answer.min(context / 2);
        let from =
            |left_out| Ok::<_, Error>(Prompt { tokens: self.tokens_without(left_out)?, left_out });
        let all = from(0)?;
        if all.tokens.len() <= most {
            return Ok(all);
        }
        // Where a later turn begins, counted in messages that are left out before it.
        let turns = self.messages[self.system()..].iter().enumerate().skip(1);
        let mut starts = try_vec(self.messages.len())?;
        let later = turns.filter(|(_, message)| message.role == Role::User);
        starts.extend(later.map(|(start, _)| start));
        let Some(&last) = starts.last() else { return only_turn(all, context) };
        // The fewer turns, the fewer tokens: the first that fits is found by halving.
        let (mut low, mut high) = (0, starts.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match from(starts[middle])?.tokens.len() <= most {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        for &start in &starts[low..] {
            let prompt = from(start)?;
            let kept = common_prefix(held, &prompt.tokens);
            if 2 * kept >= prompt.tokens.len() || prompt.tokens.len() <= most - context / 4 {
                return Ok(prompt);
            }
        }
        only_turn(from(last)?, context)
    }

    /// Lets the model answer, within a constraint if one is given, and adds the answer to the conversation.
    /// `on_text` is passed its text piece by piece. If the last message is the assistant's, the answer goes on
    /// in that.
    ///
    /// The session's other tokens are forgotten. What it holds of this conversation is not evaluated again.
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit) and [`generate_text_steps`]. Then the conversation is as before.
    pub fn answer(
        &mut self,
        session: &mut Session,
        options: &GenerateOptions,
        constraint: Option<&mut dyn Constraint>,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let prompt = self.fit(session.context(), options.max_tokens, session.tokens())?;
        let reused = common_prefix(session.tokens(), &prompt.tokens);
        session.rewind(reused)?;
        let (table, rest) = (self.tokenizer.table(), &prompt.tokens[reused..]);
        let (mut answer, mut added) = (String::new(), Ok(()));
        let generation =
            generate_text_steps(session, table, rest, options, constraint, |text, _| {
                added = append(&mut answer, text);
                match added {
                    Err(_) => ControlFlow::Break(()),
                    Ok(()) if text.is_empty() => ControlFlow::Continue(()),
                    Ok(()) => on_text(text),
                }
            })?;
        added?;
        let nothing = generation.stop_reason == StopReason::Cancelled && answer.is_empty();
        match self.messages.last_mut() {
            _ if nothing => {}
            Some(Message { role: Role::Assistant, content }) => append(content, &answer)?,
            _ => push(&mut self.messages, Message { role: Role::Assistant, content: answer })?,
        }
        Ok(Answer { generation, reused_tokens: reused, left_out: prompt.left_out })
    }
}

/// The last turn alone, which may take all of the context but one position.
fn only_turn(prompt: Prompt, context: usize) -> Result<Prompt> {
    match prompt.tokens.len() < context {
        true => Ok(prompt),
        false => Err(Error::ContextFull { position: 0, tokens: prompt.tokens.len(), context }),
    }
}

/// The messages before an answer that has begun, and the answer's text.
fn split(messages: &[Message]) -> (&[Message], Option<&str>) {
    match messages {
        [before @ .., Message { role: Role::Assistant, content }] => (before, Some(content)),
        messages => (messages, None),
    }
}

/// Tokens at the beginning that need not be evaluated again; the last one always is, for its logits.
fn common_prefix(evaluated: &[u32], tokens: &[u32]) -> usize {
    let common = evaluated.iter().zip(tokens).take_while(|(a, b)| a == b).count();
    common.min(tokens.len().saturating_sub(1))
}
