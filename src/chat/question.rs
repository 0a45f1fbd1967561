//! Single questions, as tasks put them to a model: in its chat form, without a conversation.

use alloc::string::String;
use alloc::vec::Vec;

use super::date::Date;
use super::message::Role;
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
        question: &str,
    ) -> Result<Vec<u32>> {
        let examples = examples.iter().flat_map(|(question, answer)| {
            [(Role::User, question.as_str()), (Role::Assistant, answer.as_str())]
        });
        let messages = examples.chain([(Role::User, question)]);
        self.template.tokens_of(tokenizer, messages, true, self.options)
    }

    /// The control token behind an answer, if there is one.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::text`].
    pub fn end_of_answer(&self) -> Result<Option<u32>> {
        self.template.end_of_answer(self.options)
    }
}
