//! Messages of a conversation, and the prompt that they become.

use cerebellum::TokenizerBytes;
use cerebellum::chat::{ChatOptions, ChatTemplate, Conversation, Message, Role};
use cerebellum::text::{EncodeOptions, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};

use super::prompt::check_length;
use crate::serve::refusal::Refusal;

/// A message.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireMessage {
    role: String,
    /// An answer that calls a tool may have none.
    #[serde(default)]
    content: Option<Content>,
    /// The calls of an answer.
    #[serde(default)]
    tool_calls: Option<Vec<WireCall>>,
    /// Of which call this is the result.
    #[serde(default)]
    tool_call_id: Option<String>,
    /// Of which tool.
    #[serde(default)]
    name: Option<String>,
    /// What a request that goes on from an answer repeats of it, as long as it says nothing.
    #[serde(default)]
    refusal: Option<()>,
    #[serde(default)]
    audio: Option<()>,
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

/// A call of a tool.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireCall {
    id: String,
    r#type: String,
    function: WireFunction,
    /// A stream numbers them.
    #[serde(default, rename = "index")]
    _index: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireFunction {
    name: String,
    /// A JSON object, as text.
    arguments: String,
}

impl Content {
    fn text(self) -> Result<String, Refusal> {
        let parts = match self {
            Self::Text(text) => return Ok(text),
            Self::Parts(parts) => parts,
        };
        let mut content = String::new();
        for part in parts {
            match (part.r#type.as_str(), part.text) {
                ("text" | "input_text" | "output_text", Some(text)) => content.push_str(&text),
                (kind, _) => {
                    return Err(Refusal::bad(format!(
                        "content of type {}: this model reads text only",
                        cerebellum::terminal::name(kind)
                    )));
                }
            }
        }
        Ok(content)
    }
}

impl WireCall {
    /// As templates take it.
    fn json(self) -> Result<Value, Refusal> {
        let Self { id, r#type, function: WireFunction { name, arguments }, .. } = self;
        let arguments: Value = serde_json::from_str(&arguments).map_err(|error| {
            let name = cerebellum::terminal::name(&name);
            Refusal::bad(format!("the arguments of the call of {name} are no JSON: {error}"))
        })?;
        let function = json!({"name": name, "arguments": arguments});
        Ok(json!({"id": id, "type": r#type, "function": function}))
    }
}

/// What a message says, and who says it.
enum Said {
    Plain(Message),
    /// A call of a tool, or its result.
    Tool(Value),
}

impl WireMessage {
    /// The message, if the model can be given it.
    fn said(self) -> Result<Said, Refusal> {
        let Self {
            role,
            content,
            tool_calls,
            tool_call_id,
            name,
            refusal,
            audio,
            function_call,
            annotations,
            r#type,
        } = self;
        // Types that hold nothing but null.
        let _ = (refusal, audio, function_call, annotations);
        if r#type.as_deref().is_some_and(|it| it != "message") {
            return Err(Refusal::bad("only items of type `message` are supported"));
        }
        let calls = tool_calls.filter(|calls| !calls.is_empty());
        let content = content.map(Content::text).transpose()?;
        let missing = || Refusal::bad("a message has no content");
        if role == "tool" {
            let content = content.ok_or_else(missing)?;
            let id = tool_call_id
                .ok_or_else(|| Refusal::bad("a message of a tool has no tool_call_id"))?;
            let mut said = json!({"role": "tool", "content": content, "tool_call_id": id});
            if let Some(name) = name {
                said["name"] = name.into();
            }
            return Ok(Said::Tool(said));
        }
        for (field, is_there) in
            [("tool_call_id", tool_call_id.is_some()), ("name", name.is_some())]
        {
            if is_there {
                let message = format!("{field} is for messages of the role tool; leave it out");
                return Err(Refusal::bad(message));
            }
        }
        let role = match role.as_str() {
            "developer" => Role::System,
            name => Role::named(name).ok_or_else(|| {
                Refusal::bad(format!(
                    "role {}: give system (or developer), user, assistant or tool",
                    cerebellum::terminal::name(name)
                ))
            })?,
        };
        let Some(calls) = calls else {
            return Ok(Said::Plain(Message::new(role, content.ok_or_else(missing)?)));
        };
        if role != Role::Assistant {
            return Err(Refusal::bad("only an assistant's message has tool_calls"));
        }
        let calls: Vec<Value> = calls.into_iter().map(WireCall::json).collect::<Result<_, _>>()?;
        let content = content.unwrap_or_default();
        Ok(Said::Tool(json!({"role": role.name(), "content": content, "tool_calls": calls})))
    }
}

/// A conversation as the model's template is given it.
pub enum Spoken {
    /// Messages of the user and the assistant.
    Plain(Vec<Message>),
    /// A conversation with tools.
    WithTools {
        /// All messages but an answer that has begun.
        messages: Vec<Value>,
        /// What the model may call.
        tools: Vec<Value>,
        /// The text of an answer that has begun.
        begun: Option<String>,
    },
}

impl Spoken {
    /// A conversation of these messages, with these tools.
    ///
    /// # Errors
    /// If there is no message, or one of a role or with a part that the model does not know.
    pub fn new(wire: Vec<WireMessage>, tools: Vec<Value>) -> Result<Self, Refusal> {
        if wire.is_empty() {
            return Err(Refusal::bad("the list is empty; give a message"));
        }
        let mut said = wire.into_iter().map(WireMessage::said).collect::<Result<Vec<_>, _>>()?;
        let has_calls = said.iter().any(|said| matches!(said, Said::Tool(_)));
        if !has_calls && tools.is_empty() {
            let plain = said.into_iter().filter_map(|said| match said {
                Said::Plain(message) => Some(message),
                Said::Tool(_) => None,
            });
            return Ok(Self::Plain(plain.collect()));
        }
        let is_begun =
            |last: &mut Said| matches!(last, Said::Plain(it) if it.role == Role::Assistant);
        let begun = match said.pop_if(is_begun) {
            Some(Said::Plain(message)) => Some(message.content),
            _ => None,
        };
        let messages = said.into_iter().map(|said| match said {
            Said::Plain(message) => {
                json!({"role": message.role.name(), "content": message.content})
            }
            Said::Tool(said) => said,
        });
        Ok(Self::WithTools { messages: messages.collect(), tools, begun })
    }

    /// Whether the template has to know of tools.
    pub fn needs_tools(&self) -> bool {
        matches!(self, Self::WithTools { .. })
    }

    /// The tokens of the conversation, and of what asks for an answer. If the last message is the assistant's, the
    /// answer goes on from it.
    ///
    /// # Errors
    /// If the model's template refuses them; if they do not fit into `context` positions: none is left out.
    pub fn prompt(
        self,
        template: &ChatTemplate,
        tokenizer: &Tokenizer<TokenizerBytes>,
        options: ChatOptions,
        context: usize,
    ) -> Result<Vec<u32>, Refusal> {
        let (mut tokens, begun) = match self {
            Self::Plain(mut messages) => {
                let begun = messages.pop_if(|last| last.role == Role::Assistant);
                let tokens = template.tokens(tokenizer, &messages, true, options)?;
                (tokens, begun.map(|message| message.content))
            }
            Self::WithTools { messages, tools, begun } => {
                let said = Conversation { messages: &messages, tools: &tools };
                (template.tokens_of_json(tokenizer, said, true, options)?, begun)
            }
        };
        if let Some(begun) = begun {
            let begun = tokenizer.encode(&begun, EncodeOptions::default());
            tokens.extend(begun.map_err(cerebellum::Error::from)?);
        }
        check_length(tokens.len(), context)?;
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(messages: &Value) -> Result<Spoken, Refusal> {
        Spoken::new(serde_json::from_value(messages.clone()).unwrap(), Vec::new())
    }

    #[test]
    fn calls_and_results_reach_the_template() {
        let call = json!({"id": "c1", "type": "function", "index": 0,
            "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [2]}"}});
        let messages = json!([
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "3"}]},
            {"role": "assistant", "content": "It is"},
        ]);
        let Ok(Spoken::WithTools { messages, begun, .. }) = spoken(&messages) else {
            panic!("no tools")
        };
        let function = json!({"name": "f", "arguments": {"b": 1, "a": [2]}});
        let call = json!({"id": "c1", "type": "function", "function": function});
        let wanted = json!([
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "3", "tool_call_id": "c1"},
        ]);
        assert_eq!((Value::from(messages), begun.as_deref()), (wanted, Some("It is")));
    }

    #[test]
    fn what_is_wrong_with_a_message_is_said() {
        let call = |arguments: &str| json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}});
        for (message, detail) in [
            (json!({"role": "user"}), "has no content"),
            (json!({"role": "tool", "content": "x"}), "no tool_call_id"),
            (json!({"role": "user", "content": "x", "tool_call_id": "c"}), "tool_call_id is for"),
            (json!({"role": "user", "content": "x", "name": "me"}), "name is for messages"),
            (json!({"role": "user", "content": "x", "tool_calls": [call("{}")]}), "only an assist"),
            (json!({"role": "assistant", "tool_calls": [call("{")]}), "the call of f are no JSON"),
            (json!({"role": "judge", "content": "x"}), "user, assistant or tool"),
        ] {
            let Err(refusal) = spoken(&json!([message])) else { panic!("{message}") };
            assert!(refusal.message.contains(detail), "{message}: {}", refusal.message);
        }
    }
}
