//! How models write that they call tools.
//!
//! Each family has a notation of its own, which its chat template knows: it writes the calls of earlier turns. So
//! the notation is found by letting the template write a call.

use serde_json::{Value, json};

use super::engine::Said;
use super::marks::Part;
use super::template::ChatTemplate;
use super::variables::ChatOptions;
use crate::error::Result;
use crate::text::{TokenTable, layout};

/// How a model writes that it calls a tool: what stands around the tool's name and its arguments, which are a JSON
/// object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallNotation {
    /// What the template writes before the mark, such as an empty thought. A text in which the model itself
    /// decides to call a tool may have something else there.
    pub(super) opening: Vec<CallPart>,
    pub(super) mark: CallMark,
    /// Between the mark and the name.
    pub(super) before: Vec<CallPart>,
    /// Between the name and the arguments.
    pub(super) between: String,
    /// Behind the arguments.
    pub(super) after: String,
}

/// A part of a notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallPart {
    Text(String),
    /// A special token, and its text.
    Token(u32, String),
}

impl CallPart {
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Token(_, text) => text,
        }
    }
}

/// What tells a call from other text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CallMark {
    /// A special token, or the text of another added token, such as `<tool_call>`, wherever it stands.
    Part(CallPart),
    /// Text with which an answer begins.
    Beginning(String),
}

const TOOL: &str = "name_of_a_tool";
const ARGUMENT: &str = "name_of_an_argument";
const VALUE: &str = "a value";
/// Some templates want nine letters or digits.
const CALL: &str = "call00001";
const END_OF_THOUGHT: &str = "</think>";

impl ChatTemplate {
    /// How the model writes calls. `None` if its template knows nothing of tools, or if a call is no JSON object of
    /// arguments behind a name.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory); [`Error::Threads`](crate::Error::Threads).
    pub fn call_notation<B: AsRef<[u8]>>(
        &self,
        table: &TokenTable<B>,
        options: ChatOptions,
    ) -> Result<Option<CallNotation>> {
        let Some(written) = self.example(options)? else { return Ok(None) };
        Ok(self.notation(table, &written))
    }

    /// What the template writes of an answer that calls a tool.
    fn example(&self, options: ChatOptions) -> Result<Option<String>> {
        let asked = json!({"role": "user", "content": "a question"});
        let properties = json!({ARGUMENT: {"type": "string", "description": "what it is for"}});
        let parameters =
            json!({"type": "object", "properties": properties, "required": [ARGUMENT]});
        let function =
            json!({"name": TOOL, "description": "what it does", "parameters": parameters});
        let tools = [json!({"type": "function", "function": function})];
        let function = json!({"name": TOOL, "arguments": {ARGUMENT: VALUE}});
        let call = json!({"id": CALL, "type": "function", "function": function});
        let answer = json!({"role": "assistant", "content": "", "tool_calls": [call]});
        let write = |messages: &[Value], prompt_answer| {
            match self.by_engine(&Said::Json(messages, &tools), prompt_answer, options) {
                Ok(text) => Ok(Some(text)),
                // It refuses what it does not know.
                Err(crate::Error::Chat(_)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let messages = [asked, answer];
        let (Some(before), Some(all)) = (write(&messages[..1], true)?, write(&messages, false)?)
        else {
            return Ok(None);
        };
        let written = all.strip_prefix(&before).filter(|_| before.contains(TOOL));
        Ok(written.map(str::to_owned))
    }

    fn notation<B: AsRef<[u8]>>(
        &self,
        table: &TokenTable<B>,
        written: &str,
    ) -> Option<CallNotation> {
        let (before, rest) = written.split_once(TOOL)?;
        let start = rest.find(&format!("{{\"{ARGUMENT}\""))?;
        let (between, arguments) = rest.split_at(start);
        let value = format!("\"{VALUE}\"");
        let end = arguments.find(&value)? + value.len();
        let after = arguments[end..].trim_start().strip_prefix('}')?;
        let parts = |text| self.parts(table, text);
        let only_text = |text| match &parts(text)[..] {
            [] => Some(String::new()),
            [CallPart::Text(text)] => Some(text.clone()),
            _ => None,
        };
        // The turn ends with a control token.
        let after = match parts(after).into_iter().next() {
            Some(CallPart::Text(text)) => text.trim_end().to_owned(),
            Some(CallPart::Token(..)) | None => String::new(),
        };
        let thought = before.rfind(END_OF_THOUGHT).map_or(0, |at| at + END_OF_THOUGHT.len());
        let thought = before.len() - before[thought..].trim_start().len();
        let (opening, before) = before.split_at(thought);
        let mut before = parts(before);
        if before.is_empty() {
            return None;
        }
        let mark = match before.remove(0) {
            CallPart::Text(text) => match added_token(table, &text) {
                Some(token) => {
                    let rest = text[token.len()..].to_owned();
                    if !rest.is_empty() {
                        before.insert(0, CallPart::Text(rest));
                    }
                    CallMark::Part(CallPart::Text(token))
                }
                None if before.is_empty() => CallMark::Beginning(text),
                None => return None,
            },
            token @ CallPart::Token(..) => CallMark::Part(token),
        };
        let (opening, between) = (parts(opening), only_text(between)?);
        (!between.is_empty()).then_some(CallNotation { opening, mark, before, between, after })
    }

    fn parts<B: AsRef<[u8]>>(&self, table: &TokenTable<B>, text: &str) -> Vec<CallPart> {
        let token_text =
            |id| String::from_utf8_lossy(table.token_bytes(id).unwrap_or_default()).into_owned();
        let part = |part| match part {
            Part::Control(id) => CallPart::Token(id, token_text(id)),
            Part::Text(text) => CallPart::Text(text.to_owned()),
        };
        self.controls().parts(text).map(part).collect()
    }
}

/// The longest token that was added to the vocabulary and is text, with which a text begins.
fn added_token<B: AsRef<[u8]>>(table: &TokenTable<B>, text: &str) -> Option<String> {
    let added = table.added_tokens().filter(|added| !added.has(layout::SPECIAL));
    let texts = added.filter_map(|added| str::from_utf8(table.token_bytes(added.id)?).ok());
    let begins = texts.filter(|token| token.len() > 1 && text.starts_with(token));
    begins.max_by_key(|token| token.len()).map(str::to_owned)
}

#[cfg(feature = "constraints")]
mod form {
    use serde_json::{Value, json};

    use super::{CallMark, CallNotation, CallPart};
    use crate::constraint::{Form, Mark};

    impl CallNotation {
        /// The form of an answer that calls one of these tools, each with its name and the JSON schema of its
        /// arguments; or, if `must_call` is false, of an answer that calls one of them or none.
        pub fn form(&self, tools: &[(String, Value)], must_call: bool) -> Form {
            let call = |(name, schema): &(String, Value)| {
                let name = format!("{name}{}", self.between);
                Form::Sequence(vec![Form::Choices(vec![name]), Form::JsonSchema(closed(schema))])
            };
            let mut forms: Vec<_> = self.before.iter().map(part).collect();
            forms.push(Form::AnyOf(tools.iter().map(call).collect()));
            if !self.after.is_empty() {
                forms.push(Form::Choices(vec![self.after.clone()]));
            }
            if must_call {
                let mark = match &self.mark {
                    CallMark::Part(mark) => part(mark),
                    CallMark::Beginning(mark) => Form::Choices(vec![mark.clone()]),
                };
                let opening = self.opening.iter().map(part);
                return Form::Sequence(opening.chain([mark]).chain(forms).collect());
            }
            let mark = match &self.mark {
                CallMark::Part(CallPart::Token(id, _)) => Mark::Token(*id),
                CallMark::Part(CallPart::Text(text)) => Mark::Text(text.clone()),
                CallMark::Beginning(text) => Mark::Beginning(text.clone()),
            };
            Form::Unless(mark, Box::new(Form::Sequence(forms)))
        }
    }

    fn part(part: &CallPart) -> Form {
        match part {
            CallPart::Text(text) => Form::Choices(vec![text.clone()]),
            CallPart::Token(id, _) => Form::Token(*id),
        }
    }

    /// The schema, without arguments that it does not name: a tool would not know them.
    fn closed(schema: &Value) -> Value {
        let mut schema = schema.clone();
        if let Value::Object(fields) = &mut schema {
            fields.entry("type").or_insert_with(|| json!("object"));
            fields.entry("properties").or_insert_with(|| json!({}));
            fields.entry("additionalProperties").or_insert(Value::Bool(false));
        }
        schema
    }
}
