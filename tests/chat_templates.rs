//! Conversations by templates of the forms that models have, against what `transformers` makes of them.
//!
//! `tests/data/chat` has the templates and the texts (its README says where they come from). For other
//! templates, name a directory of the same kind in CEREBELLUM_CHAT_TEMPLATES.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cerebellum::chat::{
    Conversation, Date, Message, Role, Variables, render_json_template, render_template,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    messages: Vec<Value>,
    /// `None`: the messages have roles and contents only.
    tools: Option<Vec<Value>>,
    prompt: bool,
    bos: String,
    eos: String,
    /// None if the template refuses the messages.
    text: Option<String>,
}

fn directory() -> PathBuf {
    let other = std::env::var_os("CEREBELLUM_CHAT_TEMPLATES").map(PathBuf::from);
    other.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/chat").into())
}

#[test]
fn texts_are_those_of_transformers() {
    let directory = directory();
    let mut cases: Vec<Case> = Vec::new();
    for file in ["expected.json", "expected-tools.json"] {
        let Ok(expected) = std::fs::read_to_string(directory.join(file)) else { continue };
        cases.extend(serde_json::from_str::<Vec<Case>>(&expected).unwrap());
    }
    let mut templates = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let (same, all) = templates.entry(&case.template).or_insert((0, 0));
        *all += 1;
        let path = directory.join(format!("{}.jinja", case.template));
        let template = std::fs::read_to_string(path).unwrap();
        let variables = Variables {
            prompt_answer: case.prompt,
            beginning_token: &case.bos,
            end_token: &case.eos,
            date: Date::new(2024, 7, 26).unwrap(),
            thinking: None,
        };
        let text = match &case.tools {
            Some(tools) => {
                let conversation = Conversation { messages: &case.messages, tools };
                render_json_template(&template, conversation, &variables)
            }
            None => {
                let text = |message: &Value, field| message[field].as_str().unwrap().to_owned();
                let message = |it: &Value| {
                    Message::new(Role::named(&text(it, "role")).unwrap(), text(it, "content"))
                };
                let messages: Vec<_> = case.messages.iter().map(message).collect();
                render_template(&template, &messages, &variables)
            }
        };
        match (text, &case.text) {
            (Ok(text), Some(expected)) if text == *expected => *same += 1,
            (Err(_), None) => *same += 1,
            (text, expected) => wrong.push(format!(
                "{}, {}, prompt {}: {text:?} instead of {expected:?}",
                case.template, case.conversation, case.prompt
            )),
        }
    }
    println!("{templates:?}");
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert!(cases.len() >= 200 && templates.len() >= 8, "{templates:?}");
}
