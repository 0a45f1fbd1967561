//! Conversations without a template engine.

use alloc::string::String;

use super::message::{Message, Role};
use crate::error::Result;
use crate::format::{Around, ChatForm};
use crate::memory::append;

/// The end of what a model thinks before it answers.
const END_OF_THOUGHT: &str = "</think>";

impl ChatForm {
    /// The text of a conversation, with what asks for an answer if `prompt_answer`; `None` if the form has no
    /// place for these messages in this order.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn render(&self, messages: &[Message], prompt_answer: bool) -> Result<Option<String>> {
        let mut text = String::new();
        let (mut turns, mut bare) = (messages, false);
        match messages {
            [Message { role: Role::System, content }, rest @ ..] => {
                let Some(system) = &self.system else { return Ok(None) };
                system.put(content, false, &mut text)?;
                (turns, bare) = (rest, self.system_in_user);
            }
            _ => append(&mut text, &self.opening)?,
        }
        if turns.is_empty() {
            return Ok(None);
        }
        for (i, message) in turns.iter().enumerate() {
            let (role, around) = match i % 2 {
                0 => (Role::User, &self.user),
                _ => (Role::Assistant, &self.assistant),
            };
            if message.role != role {
                return Ok(None);
            }
            let content = match role {
                Role::Assistant if self.drop_thinking => without_thoughts(&message.content),
                _ => &message.content,
            };
            around.put(content, bare && i == 0, &mut text)?;
        }
        let last = turns.last().map(|message| message.role);
        match (prompt_answer, last) {
            (true, Some(Role::User)) => append(&mut text, &self.answer)?,
            (false, _) => {}
            _ => return Ok(None),
        }
        Ok(Some(text))
    }
}

impl Around {
    fn put(&self, content: &str, bare: bool, text: &mut String) -> Result<()> {
        if !bare {
            append(text, &self.before)?;
        }
        append(text, if self.trim { content.trim() } else { content })?;
        append(text, &self.after)
    }
}

fn without_thoughts(content: &str) -> &str {
    match content.rfind(END_OF_THOUGHT) {
        Some(at) => content[at + END_OF_THOUGHT.len()..].trim_start_matches('\n'),
        None => content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(before: &str, after: &str, trim: bool) -> Around {
        Around { before: before.into(), after: after.into(), trim }
    }

    #[test]
    fn texts_stand_between_the_markers() {
        let form = ChatForm {
            opening: "<s>".into(),
            system: Some(around("<s>[S]", "\n\n", true)),
            system_in_user: true,
            user: around("[U]", "[/U]", false),
            assistant: around("", "</s>", true),
            answer: ">".into(),
            drop_thinking: true,
        };
        let message = |role, content: &str| Message::new(role, content);
        let (system, user) = (message(Role::System, " s "), message(Role::User, " u "));
        let assistant = message(Role::Assistant, "<think>a</think>\n\n a ");
        let render = |messages: &[&Message], answer| {
            let messages: Vec<_> = messages.iter().map(|&it| it.clone()).collect();
            form.render(&messages, answer).unwrap()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(render(&[&user], true), some("<s>[U] u [/U]>"));
        assert_eq!(
            render(&[&system, &user, &assistant, &user], true),
            some("<s>[S]s\n\n u [/U]a</s>[U] u [/U]>")
        );
        assert_eq!(render(&[&user, &assistant], false), some("<s>[U] u [/U]a</s>"));
        for other in [&[][..], &[&system], &[&assistant], &[&user, &user], &[&user, &system]] {
            assert_eq!(render(other, true), None);
        }
        assert_eq!(render(&[&user, &assistant], true), None);
    }
}
