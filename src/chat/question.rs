//! Single questions, as tasks put them to a model: in its chat form, without a conversation.

use super::date::Date;
use super::message::{Message, Role};
use super::template::ChatTemplate;
use super::variables::ChatOptions;
use crate::error::Result;
use crate::model::Model;
use crate::text::Tokenizer;

/// A model's chat form for questions that stand alone.
#[derive(Debug)]
pub(crate) struct Questions {
    template: ChatTemplate,
    options: ChatOptions,
}

impl Questions {
    /// Those of a model.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::of`].
    pub fn of<B: AsRef<[u8]>>(model: &Model, tokenizer: &Tokenizer<B>) -> Result<Self> {
        let template = ChatTemplate::of(model, tokenizer)?;
        // An answer without thoughts before it, where the template knows the difference and can be run.
        let thinks = template.format().template.as_ref();
        let thinks = thinks.is_some_and(|text| text.contains("enable_thinking"));
        let thinking = (thinks && cfg!(feature = "chat")).then_some(false);
        // The same answer every day.
        let date = Date::parse("2025-01-01");
        Ok(Self { template, options: ChatOptions { date, thinking } })
    }

    /// The tokens of a question, after such questions with their answers.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::tokens`].
    pub fn tokens<B: AsRef<[u8]>>(
        &self,
        tokenizer: &Tokenizer<B>,
        examples: &[(String, String)],
        question: String,
    ) -> Result<Vec<u32>> {
        let example = |(question, answer): &(String, String)| {
            [Message::new(Role::User, &**question), Message::new(Role::Assistant, &**answer)]
        };
        let mut messages: Vec<_> = examples.iter().flat_map(example).collect();
        messages.push(Message::new(Role::User, question));
        self.template.tokens(tokenizer, &messages, true, self.options)
    }

    /// The control token behind an answer, if there is one.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::text`].
    pub fn end_of_answer(&self) -> Result<Option<u32>> {
        self.template.end_of_answer(self.options)
    }
}
