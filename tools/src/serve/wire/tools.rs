//! Tools that a model may call.

use cerebellum::constraint::Form;
use serde::Deserialize;
use serde_json::{Value, json};

use super::fields::Fields;
use crate::serve::refusal::Refusal;

/// Letters of a tool's name.
const MAX_NAME: usize = 64;
/// The most tools of a request.
const MAX_TOOLS: usize = 128;

/// The tools of a request.
#[derive(Debug, Default)]
pub struct Tools {
    /// As the template is given them.
    pub all: Vec<Value>,
    /// Those that the answer may call, each with its name and the schema of its arguments.
    pub callable: Vec<(String, Value)>,
    /// Whether the answer has to be a call.
    pub must_call: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool {
    r#type: String,
    function: Function,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Function {
    name: String,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    parameters: Option<Value>,
    /// Always.
    #[serde(default, rename = "strict")]
    _strict: Option<bool>,
}

/// Which of them the answer may call.
#[derive(Deserialize)]
#[serde(untagged)]
enum Choice {
    Word(String),
    Tool(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    r#type: String,
    function: Name,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Name {
    name: String,
}

impl Tools {
    /// Takes the parameters `tools`, `tool_choice` and `parallel_tool_calls`.
    ///
    /// # Errors
    /// If one is wrong, or asks for what there is not.
    pub fn take(fields: &mut Fields) -> Result<Self, Refusal> {
        let all: Vec<Value> = fields.take("tools")?.unwrap_or_default();
        let choice: Option<Choice> = fields.take("tool_choice")?;
        let one = "an answer has one call; send its result, and the model may call again";
        fields.refuse("parallel_tool_calls", &["false"], one)?;
        if all.len() > MAX_TOOLS {
            let message = format!("tools: {} are more than {MAX_TOOLS}", all.len());
            return Err(Refusal::param("tools", message));
        }
        let mut callable: Vec<(String, Value)> = Vec::new();
        for (i, tool) in all.iter().enumerate() {
            let (name, schema) = callable_tool(tool)
                .map_err(|detail| Refusal::param("tools", format!("tools[{i}]: {detail}")))?;
            if callable.iter().any(|(other, _)| *other == name) {
                let message = format!("tools[{i}]: there is another tool with the name {name}");
                return Err(Refusal::param("tools", message));
            }
            callable.push((name, schema));
        }
        let wrong = |message| Err(Refusal::param("tool_choice", message));
        let must_call = match choice {
            None => false,
            Some(Choice::Word(word)) => match word.as_str() {
                "auto" => false,
                "none" => {
                    callable.clear();
                    false
                }
                "required" if all.is_empty() => {
                    return wrong("tool_choice: there are no tools to call".to_owned());
                }
                "required" => true,
                _ => {
                    return wrong(
                        "tool_choice: give auto, none, required, or the name of a tool".to_owned(),
                    );
                }
            },
            Some(Choice::Tool(Named { r#type, function: Name { name } })) => {
                callable.retain(|(other, _)| *other == name);
                if r#type != "function" || callable.is_empty() {
                    let name = cerebellum::terminal::name(&name);
                    return wrong(format!("tool_choice: there is no function {name} in tools"));
                }
                true
            }
        };
        Ok(Self { all, callable, must_call })
    }
}

/// The name of a tool, and the schema of its arguments. An error says what is wrong with it.
fn callable_tool(tool: &Value) -> Result<(String, Value), String> {
    let Tool { r#type, function } = Tool::deserialize(tool).map_err(|error| error.to_string())?;
    if r#type != "function" {
        let kind = cerebellum::terminal::name(&r#type);
        return Err(format!("its type is {kind}; this server knows tools of type function"));
    }
    let Function { name, parameters, .. } = function;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !(1..=MAX_NAME).contains(&name.len()) || !name.chars().all(is_plain) {
        let shown = cerebellum::terminal::name(&name);
        return Err(format!(
            "its name is {shown}; a name has 1 to {MAX_NAME} letters, digits, _ and -"
        ));
    }
    let schema = parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    if !matches!(schema.get("type"), None | Some(Value::String(_))) || schema["type"] == "array" {
        return Err("its parameters are no schema of an object".to_owned());
    }
    match Form::JsonSchema(schema.clone()).check() {
        Ok(()) => Ok((name, schema)),
        Err(error) => Err(format!("its parameters: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(json: &Value) -> Result<Tools, Refusal> {
        let mut fields = Fields::parse(json.to_string().as_bytes()).unwrap();
        let tools = Tools::take(&mut fields)?;
        fields.finish().map(|()| tools)
    }

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "description": "d", "strict": true,
            "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}}}})
    }

    #[test]
    fn the_choice_says_which_tools_an_answer_may_call() {
        let of = |choice: Value| {
            let tools = take(&json!({"tools": [tool("a"), tool("b")], "tool_choice": choice,
                "parallel_tool_calls": false}))
            .unwrap();
            let names: String = tools.callable.into_iter().map(|(name, _)| name).collect();
            (tools.all.len(), names, tools.must_call)
        };
        assert_eq!(of(Value::Null), (2, "ab".to_owned(), false));
        assert_eq!(of(json!("auto")), (2, "ab".to_owned(), false));
        assert_eq!(of(json!("none")), (2, String::new(), false));
        assert_eq!(of(json!("required")), (2, "ab".to_owned(), true));
        let named = json!({"type": "function", "function": {"name": "b"}});
        assert_eq!(of(named), (2, "b".to_owned(), true));
        assert!(take(&json!({})).unwrap().all.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |field: &str, value: Value| {
            let mut tool = tool("a");
            tool["function"][field] = value;
            json!({"tools": [super::tests::tool("b"), tool]})
        };
        for (request, param, detail) in [
            (with("name", json!("a b")), "tools", "tools[1]: its name is"),
            (with("name", json!("b")), "tools", "tools[1]: there is another"),
            (with("parameters", json!({"type": 3})), "tools", "tools[1]: its parameters"),
            (with("parameters", json!({"type": "array"})), "tools", "tools[1]: its parameters"),
            (with("more", json!(1)), "tools", "tools[1]: unknown field `more`"),
            (json!({"tools": [{"type": "web_search"}]}), "tools", "tools[0]: "),
            (json!({"tools": [], "tool_choice": "required"}), "tool_choice", "no tools"),
            (json!({"tools": [tool("a")], "tool_choice": "a"}), "tool_choice", "give auto"),
            (
                json!({"tools": [tool("a")], "tool_choice": {"type": "function", "function": {"name": "c"}}}),
                "tool_choice",
                "no function c",
            ),
            (json!({"parallel_tool_calls": true}), "parallel_tool_calls", "one call"),
        ] {
            let refusal = take(&request).unwrap_err();
            assert_eq!(refusal.param.as_deref(), Some(param), "{request}");
            assert!(refusal.message.contains(detail), "{request}: {}", refusal.message);
        }
    }
}
