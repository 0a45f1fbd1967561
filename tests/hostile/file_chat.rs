//! What the header says of conversations: bounded, and judged only when it is asked for.

use std::time::Duration;

use cerebellum::Model;
use cerebellum::chat::{Chat, ChatOptions, Role};
use cerebellum::format::{MAX_CHAT_BYTES, MAX_CHAT_TEMPLATE_BYTES, MAX_END_TOKENS, read_header};
use serde_json::{Value, json};

use crate::base::tiny;
use crate::class::{Class, MEMORY};
use crate::exercise::AlignedBytes;
use crate::parts::Parts;

fn with(key: &str, value: Value) -> Vec<u8> {
    let mut parts = Parts::of(tiny());
    parts.metadata[key] = value;
    parts.file()
}

#[test]
fn chat_and_end_tokens_of_any_form() {
    let mut class = Class::with_bounds("chat in the header", MEMORY, Duration::from_secs(1));
    // {"template":"..."} takes 15 bytes more than the text.
    let fitting = "x".repeat(MAX_CHAT_BYTES - 15);
    let many = vec![0; MAX_END_TOKENS];
    for (key, value, label) in [
        ("chat", json!({}), "runs"),
        ("chat", json!({ "template": "{% for" }), "runs"),
        ("chat", json!({ "template": fitting }), "runs"),
        ("chat", json!({ "template": 7, "form": [] }), "runs"),
        ("chat", json!([[[]]]), "runs"),
        ("chat", json!({ "template": format!("{fitting}x") }), "json"),
        ("end_tokens", json!([]), "runs"),
        ("end_tokens", json!(many), "runs"),
        ("end_tokens", json!({}), "json"),
        ("end_tokens", json!([-1]), "json"),
        ("end_tokens", json!(7), "json"),
        ("end_tokens", json!([u32::MAX]), "configuration"),
        ("end_tokens", json!(vec![0; MAX_END_TOKENS + 1]), "configuration"),
    ] {
        let case: String = format!("{key} {value}").chars().take(60).collect();
        class.run(&case, &with(key, value)).expect(&case, &[label]);
    }
    class.print();
}

#[test]
fn a_chat_template_is_judged_when_it_is_asked_for() {
    for (chat, why) in [
        (json!({ "template": 7 }), "invalid type"),
        (json!({ "template": "x".repeat(MAX_CHAT_TEMPLATE_BYTES + 1) }), "65536 are allowed"),
        (json!({ "template": "{% for" }), "unexpected end"),
        (
            json!({ "template": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" }),
            "fuel",
        ),
        (json!({}), "in turn"),
    ] {
        let file = with("chat", chat);
        assert!(read_header(&file).is_ok());
        let model = Model::borrow(AlignedBytes::copy(&file)).unwrap();
        let text = Chat::new(&model, ChatOptions::default()).and_then(|mut chat| {
            chat.push(Role::User, "Hello")?;
            chat.text()
        });
        let error = text.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}
