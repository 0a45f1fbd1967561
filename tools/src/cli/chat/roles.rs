//! A conversation by the model's own template.

use std::sync::Arc;

use cerebellum::Session;
use cerebellum::chat::{Chat, Role};
use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::{Constraint, GenerateOptions};

use super::super::context::Failure;
use super::super::generate::{Stream, Tokenizer};
use super::conversation::Answered;

/// Messages of the system, the user and the model.
pub struct Roles {
    session: Session,
    chat: Chat,
    /// The form that every answer must have.
    form: Option<(Arc<Vocabulary>, Form)>,
}

impl Roles {
    pub fn new(
        session: Session,
        chat: Chat,
        tokenizer: &Arc<Tokenizer>,
        form: Option<Form>,
    ) -> Result<Self, Failure> {
        let vocabulary = |form| -> Result<_, Failure> {
            Ok((Vocabulary::new(session.model(), Arc::clone(tokenizer))?.into(), form))
        };
        let form = form.map(vocabulary).transpose()?;
        Ok(Self { session, chat, form })
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What was said, for people.
    pub fn text(&self) -> String {
        let line = |message: &cerebellum::chat::Message| {
            format!("{}: {}\n", message.role.name(), message.content)
        };
        self.chat.messages().iter().map(line).collect()
    }

    pub fn clear(&mut self) {
        self.chat.clear();
    }

    pub fn say(&mut self, line: &str) -> Result<(), Failure> {
        Ok(self.chat.push(Role::User, line)?)
    }

    pub fn undo(&mut self) -> Result<(), Failure> {
        self.take_back_answer()?;
        self.take_back(Role::User);
        Ok(())
    }

    pub fn take_back_answer(&mut self) -> Result<(), Failure> {
        match self.take_back(Role::Assistant) {
            true => Ok(()),
            false => Err("the conversation has no message to answer".into()),
        }
    }

    /// Takes the last message back if it is of that role.
    fn take_back(&mut self, role: Role) -> bool {
        let is_last = self.chat.messages().last().is_some_and(|message| message.role == role);
        if is_last {
            self.chat.pop();
        }
        is_last
    }

    /// Lets the model answer, or go on with its answer.
    pub fn answer(
        &mut self,
        options: &GenerateOptions,
        stream: &mut Stream,
    ) -> Result<Answered, Failure> {
        if self.chat.messages().last().is_none_or(|message| message.role == Role::System) {
            return Err("the conversation has no message to answer".into());
        }
        let result = self.generate(options, stream);
        // What was not answered was not said: a template takes questions and answers in turn.
        self.take_back(Role::User);
        result
    }

    fn generate(
        &mut self,
        options: &GenerateOptions,
        stream: &mut Stream,
    ) -> Result<Answered, Failure> {
        let mut constraint = match &self.form {
            None => None,
            Some((vocabulary, form)) => Some(vocabulary.constrain(form)?),
        };
        let constraint = constraint.as_mut().map(|it| it as &mut dyn Constraint);
        let answer =
            self.chat.answer(&mut self.session, options, constraint, |text| stream.push(text));
        stream.end()?;
        let answer = answer?;
        let remark = "messages, the oldest ones, no longer fit and are left out";
        Ok(Answered {
            generation: answer.generation,
            reused_tokens: answer.reused_tokens,
            remark: (answer.left_out > 0).then(|| format!("({} {remark})", answer.left_out)),
        })
    }
}
