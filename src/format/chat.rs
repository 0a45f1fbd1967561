//! What a file says of conversations: the model's template, and a simple form of it.

use alloc::string::{String, ToString};

use serde::Serialize;

use super::MAX_CHAT_TEMPLATE_BYTES;
use super::json::members;

/// How a model is put conversations.
///
/// Nothing vouches for it: what a template computes is bounded when it is used, and texts of messages never
/// become control tokens (`docs/chat.md`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChatFormat {
    /// The model's own template, in the language Jinja.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The same where it needs no template engine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<ChatForm>,
    /// The text of the token that begins a text, for the template.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub beginning_token: String,
    /// The text of the token that ends one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end_token: String,
}

/// A conversation without a template: what stands before and after the text of each message.
///
/// The messages are, perhaps, one of the system, then one of the user's and one of the assistant's in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChatForm {
    /// What a conversation without a system message begins with.
    pub opening: String,
    /// Around a system message, beginning of the conversation included; `None` if there can be none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<Around>,
    /// The system message belongs to the user's first turn, before which stands nothing more.
    #[serde(skip_serializing_if = "is_false")]
    pub system_in_user: bool,
    /// Around a message of the user's.
    pub user: Around,
    /// Around an answer.
    pub assistant: Around,
    /// What asks for an answer.
    pub answer: String,
    /// Of earlier answers only what is behind the last `</think>` stays.
    #[serde(skip_serializing_if = "is_false")]
    pub drop_thinking: bool,
}

/// What stands around the text of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Around {
    /// Before it.
    pub before: String,
    /// After it.
    pub after: String,
    /// White space at the text's ends is left out.
    #[serde(skip_serializing_if = "is_false")]
    pub trim: bool,
}

members!(ChatFormat {} or_default { template, form, beginning_token, end_token });
members!(ChatForm { user, assistant, answer } or_default { opening, system, system_in_user, drop_thinking });
members!(Around { before, after } or_default { trim });

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl ChatFormat {
    /// Reads what a header has, which is bounded already.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(json: &str) -> Result<Self, String> {
        let format: Self = super::json::read(json).map_err(|e| e.to_string())?;
        let bytes = format.template.as_ref().map_or(0, String::len);
        match bytes <= MAX_CHAT_TEMPLATE_BYTES {
            true => Ok(format),
            false => Err(format!(
                "it has {bytes} bytes, and {MAX_CHAT_TEMPLATE_BYTES} are allowed; quantize again with a shorter one"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::json;

    #[test]
    fn what_is_written_is_read_and_what_is_usual_is_left_out() {
        let around = |trim| Around { before: "<".into(), after: ">".into(), trim };
        for (trim, other) in [(false, true), (true, false)] {
            let form = ChatForm {
                system: Some(around(other)),
                system_in_user: trim,
                user: around(trim),
                assistant: around(other),
                answer: ">".into(),
                drop_thinking: other,
                ..ChatForm::default()
            };
            let written = serde_json::to_string(&form).unwrap();
            assert_eq!(json::read::<ChatForm>(&written).unwrap(), form);
            assert!(!written.contains("false"), "{written}");
        }
    }
}
