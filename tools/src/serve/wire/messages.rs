//! Messages of a conversation, and the prompt that they become.

use cerebellum::TokenizerBytes;
use cerebellum::chat::{ChatOptions, ChatTemplate, Message, Role};
use cerebellum::text::{EncodeOptions, Tokenizer};
use serde::Deserialize;

use super::prompt::check_length;
use crate::serve::refusal::Refusal;

/// A message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireMessage {
    role: String,
    content: Content,
    /// What a request that goes on from an answer repeats of it, as long as it says nothing.
    #[serde(default)]
    refusal: Option<()>,
    #[serde(default)]
    audio: Option<()>,
    #[serde(default)]
    tool_calls: Option<()>,
    #[serde(default)]
    function_call: Option<()>,
    #[serde(default)]
    annotations: Option<[(); 0]>,
    /// Messages of the interface for responses say what they are.
    #[serde(default)]
    r#type: Option<String>,
}

/// What a message says.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    #[serde(default)]
    text: Option<String>,
}

impl WireMessage {
    /// The message, if the model can be given it.
    ///
    /// # Errors
    /// If it is of a role or has a part that the model does not know.
    pub fn message(self) -> Result<Message, Refusal> {
        let Self { role, content, refusal, audio, tool_calls, function_call, annotations, r#type } =
            self;
        // Types that hold nothing but null.
        let _ = (refusal, audio, tool_calls, function_call, annotations);
        if r#type.as_deref().is_some_and(|it| it != "message") {
            return Err(Refusal::bad("only items of type `message` are supported"));
        }
        let role = match role.as_str() {
            "developer" => Role::System,
            name => Role::named(name).ok_or_else(|| {
                Refusal::bad(format!(
                    "role {}: give system (or developer), user or assistant",
                    cerebellum::terminal::name(name)
                ))
            })?,
        };
        let content = match content {
            Content::Text(text) => text,
            Content::Parts(parts) => {
                let mut content = String::new();
                for part in parts {
                    match (part.r#type.as_str(), part.text) {
                        ("text" | "input_text" | "output_text", Some(text)) => {
                            content.push_str(&text)
                        }
                        (kind, _) => {
                            return Err(Refusal::bad(format!(
                                "content of type {}: this model reads text only",
                                cerebellum::terminal::name(kind)
                            )));
                        }
                    }
                }
                content
            }
        };
        Ok(Message::new(role, content))
    }
}

/// All of them.
///
/// # Errors
/// Those of [`WireMessage::message`]; if there is none.
pub fn messages(wire: Vec<WireMessage>) -> Result<Vec<Message>, Refusal> {
    if wire.is_empty() {
        return Err(Refusal::bad("the list is empty; give a message"));
    }
    wire.into_iter().map(WireMessage::message).collect()
}

/// The tokens of a conversation, and of what asks for an answer. If the last message is the assistant's, the
/// answer goes on from it.
///
/// # Errors
/// If the model's template refuses them; if they do not fit into `context` positions: none is left out.
pub fn prompt(
    template: &ChatTemplate,
    tokenizer: &Tokenizer<TokenizerBytes>,
    mut messages: Vec<Message>,
    options: ChatOptions,
    context: usize,
) -> Result<Vec<u32>, Refusal> {
    let begun = messages.pop_if(|last| last.role == Role::Assistant);
    let mut tokens = template.tokens(tokenizer, &messages, true, options)?;
    if let Some(begun) = begun {
        tokens.extend(
            tokenizer
                .encode(&begun.content, EncodeOptions::default())
                .map_err(cerebellum::Error::from)?,
        );
    }
    check_length(tokens.len(), context)?;
    Ok(tokens)
}
