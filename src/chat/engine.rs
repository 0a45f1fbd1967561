//! The model's own template, in the language Jinja, as `transformers` sets Jinja up.
//!
//! A template comes from a file that nobody vouches for. It computes with the messages and nothing else: it
//! can reach no file, no network and no environment. Its steps and the bytes that it makes are counted, and
//! it ends in an error when they are used up.

use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Kwargs, Object, Rest};
use minijinja::{Environment, Error as EngineError, ErrorKind, UndefinedBehavior, Value};
use serde_json::Value as Json;

use super::message::Message;
use super::template::Conversation;
use super::variables::Variables;
use crate::error::{Error, Result};
use crate::memory;
use crate::terminal;
use crate::threads::on_stack_of;

/// What a template may use up, whatever the messages are; each unit is a step, or 64 bytes. Templates of
/// models use some hundred.
const FUEL: u64 = 200_000;

/// For each message, besides.
const FUEL_PER_MESSAGE: u64 = 2000;

/// For each byte of the messages, besides: a template may copy a text 64 times.
const FUEL_PER_BYTE: u64 = 1;

/// The most bytes of text that are made besides those of the messages.
const MAX_EXTRA: usize = 1 << 20;

/// How deeply macros and other parts may be nested.
const MAX_DEPTH: usize = 64;

/// The most bytes of a tag, without its strings, and the most uses of `elif`: the engine calls itself for each
/// operator of an expression and for each `elif`. Templates of models have tags of some hundred bytes.
const MAX_TAG: usize = 2048;
const MAX_ELIFS: usize = 512;

/// The stack that the engine has: address space, of which only the pages that are used take memory. For each unit of
/// fuel it has more, because a template may put a list into a list some thousand times, and the engine calls itself
/// for each level when it shows, compares or frees it. A level costs at least 8 units.
const STACK: u64 = 8 << 20;
const STACK_PER_FUEL: u64 = 128;

/// What the engine asks of the system's memory at most, for a unit of fuel: half as much again as a unit of text,
/// because a text that grows moves to a larger place.
const BYTES_PER_FUEL: u64 = 96;

/// The text of a conversation by `template`.
///
/// # Errors
/// [`Error::Chat`] with the engine's message; [`Error::OutOfMemory`]; [`Error::Threads`].
pub fn render(template: &str, messages: &[Message], variables: &Variables) -> Result<String> {
    render_said(template, &Said::Messages(messages), variables)
}

/// As [`render`], of a conversation in JSON.
///
/// # Errors
/// Those of [`render`].
pub fn render_json(
    template: &str,
    conversation: Conversation,
    variables: &Variables,
) -> Result<String> {
    let Conversation { messages, tools } = conversation;
    render_said(template, &Said::Json(messages, tools), variables)
}

/// What is said in a conversation.
pub(super) enum Said<'a> {
    Messages(&'a [Message]),
    /// In JSON, as [`Conversation`](super::Conversation) has it.
    Json(&'a [Json], &'a [Json]),
}

impl Said<'_> {
    /// Messages and tools.
    fn parts(&self) -> usize {
        match self {
            Self::Messages(messages) => messages.len(),
            Self::Json(messages, tools) => messages.len() + tools.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Messages(messages) => messages.iter().map(|it| it.content.len()).sum(),
            Self::Json(messages, tools) => messages.iter().chain(*tools).map(json_bytes).sum(),
        }
    }

    fn values(&self) -> (Value, Value) {
        match self {
            // `transformers` defines the tools, too, where there are none.
            Self::Messages(messages) => {
                (messages.iter().map(message_value).collect(), Value::from(()))
            }
            Self::Json(messages, []) => {
                (messages.iter().map(json_value).collect(), Value::from(()))
            }
            Self::Json(messages, tools) => {
                let values = |it: &[Json]| it.iter().map(json_value).collect();
                (values(messages), values(tools))
            }
        }
    }
}

/// As [`render`], of what is said in either form.
pub(super) fn render_said(template: &str, said: &Said, variables: &Variables) -> Result<String> {
    check_depth(template)?;
    let (parts, bytes) = (said.parts() as u64, said.bytes());
    let fuel = FUEL + parts * FUEL_PER_MESSAGE + bytes as u64 * FUEL_PER_BYTE;
    // The engine ends the process if it gets no memory.
    memory::probe(usize::try_from(fuel * BYTES_PER_FUEL).unwrap_or(usize::MAX))?;
    let most = 4 * bytes + MAX_EXTRA;
    // All of it: less of the caller's stack would not do.
    let stack = usize::try_from(STACK + fuel * STACK_PER_FUEL).unwrap_or(usize::MAX);
    let rendered = on_stack_of(stack, stack, || run(template, said, variables, fuel))?;
    let text = rendered.map_err(|error| Error::Chat(describe(&error)))?;
    match text.len() <= most {
        true => Ok(text),
        false => Err(Error::Chat(format!(
            "it makes a text of {} bytes of these messages, and {most} are allowed; shorten the messages, or give \
             the file another template",
            text.len()
        ))),
    }
}

/// Refuses what would take more stack than there is. It ends tags where the engine ends them, or later.
fn check_depth(template: &str) -> Result<()> {
    let refuse = |detail| Err(Error::Chat(detail));
    if template.matches("elif").count() > MAX_ELIFS {
        return refuse(format!("it has `elif` more than {MAX_ELIFS} times; nest fewer conditions"));
    }
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let begin = rest.as_bytes().get(at + 1).copied();
        rest = rest.get(at + 2..).unwrap_or_else(|| &rest[at + 1..]);
        let end = match begin {
            Some(b'#') => rest.find("#}").map(|at| at + 2),
            Some(b'{') => end_of_tag(rest, b"}}"),
            Some(b'%') => end_of_tag(rest, b"%}"),
            // Perhaps the beginning of a tag is there.
            Some(_) => Some(0),
            None => None,
        };
        match end {
            Some(end) => rest = &rest[end..],
            None if begin == Some(b'#') || rest.len() <= MAX_TAG => return Ok(()),
            None => {
                return refuse(format!(
                    "a tag has more than {MAX_TAG} bytes beside its strings; cut it into several"
                ));
            }
        }
    }
    Ok(())
}

/// Where a tag ends, if it has no more than [`MAX_TAG`] bytes beside its strings.
fn end_of_tag(tag: &str, end: &[u8; 2]) -> Option<usize> {
    let bytes = tag.as_bytes();
    // What follows is text, and quotation marks in it are none.
    let is_raw = tag.trim_start_matches(['-', '+']).trim_start().starts_with("raw");
    let (mut at, mut depth, mut beside) = (0, 0_isize, 0);
    while !is_raw && beside <= MAX_TAG {
        let byte = *bytes.get(at)?;
        if depth == 0 && bytes[at..].starts_with(end) {
            return Some(at + 2);
        }
        (at, beside) = (at + 1, beside + 1);
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            b'"' | b'\'' => {
                while *bytes.get(at)? != byte {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            _ => {}
        }
    }
    None
}

fn run(
    template: &str,
    said: &Said,
    variables: &Variables,
    fuel: u64,
) -> Result<String, EngineError> {
    let mut environment = environment(variables)?;
    environment.set_fuel(Some(fuel));
    let template = without_generation_tags(template);
    let (messages, tools) = said.values();
    let mut context = vec![
        ("messages", messages),
        ("add_generation_prompt", Value::from(variables.prompt_answer)),
        ("bos_token", Value::from(variables.beginning_token)),
        ("eos_token", Value::from(variables.end_token)),
        ("tools", tools),
        // `transformers` defines them, too.
        ("documents", Value::from(())),
    ];
    if let Some(thinking) = variables.thinking {
        context.push(("enable_thinking", Value::from(thinking)));
    }
    environment.render_str(&template, Value::from_pairs(context))
}

fn message_value(message: &Message) -> Value {
    let field = |name: &str, text: &str| (name.into(), Value::from(text));
    let fields = [field("role", message.role.name()), field("content", &message.content)];
    Value::from_object(Fields(fields.into()))
}

/// Fields of a JSON object, which stay in their order, as in Python: templates write them down.
#[derive(Debug)]
struct Fields(Vec<(Arc<str>, Value)>);

impl Object for Fields {
    fn get_value(self: &Arc<Self>, name: &Value) -> Option<Value> {
        let name = name.as_str()?;
        self.0.iter().find(|(it, _)| **it == *name).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.iter().map(|(name, _)| Value::from(Arc::clone(name))).collect())
    }
}

fn json_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            (None, None) => Value::from(number.as_f64()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(json_value).collect(),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, it)| (name.as_str().into(), json_value(it)));
            Value::from_object(Fields(fields.collect()))
        }
    }
}

/// About how many bytes it has as text.
fn json_bytes(json: &Json) -> usize {
    match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 8,
        Json::String(text) => 2 + text.len(),
        Json::Array(items) => 2 + items.iter().map(|item| 2 + json_bytes(item)).sum::<usize>(),
        Json::Object(fields) => {
            2 + fields.iter().map(|(name, it)| 6 + name.len() + json_bytes(it)).sum::<usize>()
        }
    }
}

fn environment(variables: &Variables) -> Result<Environment<'static>, EngineError> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, EngineError> {
        Err(EngineError::new(ErrorKind::InvalidOperation, message))
    });
    let date = variables.date;
    environment.add_function(
        "strftime_now",
        move |format: String| -> Result<String, EngineError> {
            date.format(&format).ok_or_else(|| {
                let detail = format!("strftime_now: the format {format:?} is not known");
                EngineError::new(ErrorKind::InvalidOperation, detail)
            })
        },
    );
    // As `transformers` writes JSON: without escapes for HTML.
    environment.add_filter("tojson", to_json);
    Ok(environment)
}

/// The most spaces of a level.
const MAX_INDENT: usize = 16;

/// JSON as `json.dumps` writes it, in one line or with an indent.
fn to_json(value: &Value, _: Rest<Value>, options: Kwargs) -> Result<String, EngineError> {
    let indent: Option<usize> = options.get("indent")?;
    let mut json = JsonWriter { text: String::new(), indent: indent.map(|it| it.min(MAX_INDENT)) };
    json.write(value, 0)?;
    Ok(json.text)
}

struct JsonWriter {
    text: String,
    indent: Option<usize>,
}

impl JsonWriter {
    fn write(&mut self, value: &Value, depth: usize) -> Result<(), EngineError> {
        use minijinja::value::ValueKind;
        match value.kind() {
            ValueKind::None | ValueKind::Undefined => self.text.push_str("null"),
            ValueKind::Bool | ValueKind::Number => {
                self.text.push_str(&value.to_string().to_ascii_lowercase());
            }
            ValueKind::String => {
                let text = serde_json::to_string(value.as_str().unwrap_or_default());
                self.text.push_str(&text.unwrap_or_default());
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.text.push('[');
                let mut is_empty = true;
                for item in value.try_iter()? {
                    self.before_item(is_empty, depth);
                    is_empty = false;
                    self.write(&item, depth + 1)?;
                }
                self.close(']', is_empty, depth);
            }
            ValueKind::Map => {
                self.text.push('{');
                let mut is_empty = true;
                for key in value.try_iter()? {
                    self.before_item(is_empty, depth);
                    is_empty = false;
                    self.write(&Value::from(key.to_string()), depth + 1)?;
                    self.text.push_str(": ");
                    self.write(&value.get_item(&key)?, depth + 1)?;
                }
                self.close('}', is_empty, depth);
            }
            kind => {
                let detail = format!("tojson: {kind} is no JSON");
                return Err(EngineError::new(ErrorKind::InvalidOperation, detail));
            }
        }
        Ok(())
    }

    fn before_item(&mut self, is_first: bool, depth: usize) {
        match (is_first, self.indent) {
            (true, None) => {}
            (false, None) => self.text.push_str(", "),
            (true, Some(_)) => self.line(depth + 1),
            (false, Some(_)) => {
                self.text.push(',');
                self.line(depth + 1);
            }
        }
    }

    fn close(&mut self, end: char, is_empty: bool, depth: usize) {
        if self.indent.is_some() && !is_empty {
            self.line(depth);
        }
        self.text.push(end);
    }

    fn line(&mut self, depth: usize) {
        self.text.push('\n');
        let spaces = depth * self.indent.unwrap_or(0);
        self.text.extend(std::iter::repeat_n(' ', spaces));
    }
}

/// The template with blocks that always apply in the place of `generation` blocks. `transformers` has these
/// to mark answers for training; the engine does not know them.
fn without_generation_tags(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        let sign = tag.len() - tag.trim_start_matches(['-', '+']).len();
        let space = tag[sign..].len() - tag[sign..].trim_start().len();
        let (lead, name) = tag.split_at(sign + space);
        text.push_str(lead);
        rest = name;
        for (old, new) in [("generation", "if true"), ("endgeneration", "endif")] {
            if let Some(after) = name.strip_prefix(old)
                && after.trim_start().trim_start_matches(['-', '+']).starts_with("%}")
            {
                text.push_str(new);
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// One line that says what the template could not do.
fn describe(error: &EngineError) -> String {
    let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    format!("{line}{}", terminal::text(&detail))
}

#[cfg(test)]
mod tests {
    use super::super::date::Date;
    use super::super::message::Role;
    use super::*;

    fn render_with(template: &str, content: &str) -> Result<String> {
        let variables = Variables {
            prompt_answer: true,
            beginning_token: "<s>",
            end_token: "</s>",
            date: Date::new(2024, 7, 26).unwrap(),
            thinking: Some(false),
        };
        render(template, &[Message::new(Role::User, content)], &variables)
    }

    #[test]
    fn hostile_templates_end_in_errors() {
        let deep = format!("{}x{}", "(".repeat(20_000), ")".repeat(20_000));
        let nested = "{% if true %}".repeat(5000) + &"{% endif %}".repeat(5000);
        for template in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{% for a in range(9999999999) %}x{% endfor %}",
            "{% set ns = namespace(s='x' * 64) %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "{{ 'x' * 99999999999 }}",
            "{{ messages[0].content * 1000000 }}",
            "{% macro f(x) %}{{ f(x) }}{{ f(x) }}{% endmacro %}{{ f(1) }}",
            "{{ missing.field }}",
            "{{ missing() }}",
            "{{ messages[9].content }}",
            "{{ 1 / 0 }}",
            "{% include '/etc/passwd' %}",
            "{% import 'os' as os %}{{ os }}",
            "{{ ''.__class__.__mro__ }}",
            "{{ strftime_now('%Q') }}",
            "{{ raise_exception('no') }}",
            "{% unknown %}",
            "{{ 'x' | unknown }}",
            &format!("{{{{ {deep} }}}}"),
            &nested,
            // What the engine's parser or compiler calls itself for without counting.
            &format!("{{{{ a{} }}}}", "+a".repeat(32_000)),
            &format!("{{{{ a{} }}}}", "|a".repeat(32_000)),
            &format!("{{{{ {{'a': {{}}}}, a{} }}}}", "+a".repeat(32_000)),
            &format!("{{% raw %}}{{{{ ' {{% endraw %}}{{{{ a{} }}}}", "+a".repeat(32_000)),
            &format!("{{% if a %}}{}{{% endif %}}", "{%elif a%}".repeat(6500)),
            "{{ 'x' | replace('', 'y' * 1000000) * 1000 }}",
            "{{ range(100000) | list | tojson * 1000 }}",
        ] {
            let start = std::time::Instant::now();
            let result = render_with(template, &"z".repeat(1000));
            let shown: String = template.chars().take(80).collect();
            assert!(matches!(result, Err(Error::Chat(_))), "{shown}: {result:?}");
            // A second is a hundred times what the slowest takes.
            assert!(start.elapsed().as_secs() < 30, "{shown}");
        }
    }

    #[test]
    fn templates_compute_as_those_of_python() {
        for (template, text) in [
            ("{{ bos_token }}{{ messages[0]['content'].strip() }}{{ eos_token }}", "<s>a<b</s>"),
            ("{{ missing }}{{ missing is defined }}{{ tools is none }}", "FalseTrue"),
            ("{% if not enable_thinking %}no{% endif %}", "no"),
            ("{{ messages | tojson }}", r#"[{"role": "user", "content": " a<b "}]"#),
            ("{% generation %}\nx{%- endgeneration -%} y", "xy"),
            ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
            (
                "{% for x in [1, 2, 3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
                "13",
            ),
            ("{{ '<' ~ 1 }}", "<1"),
            (
                "{{ {'a': {'b': 1}}['a']['b'] }}{# {{ ' #}{ {{ '}}\\'' }}{% raw %}{{{% endraw %}",
                "1{ }}'{{",
            ),
            (&format!("{{{{ '{}' | length }}}}", "long".repeat(2000)), "8000"),
        ] {
            assert_eq!(render_with(template, " a<b ").unwrap(), text, "{template}");
        }
    }
}
