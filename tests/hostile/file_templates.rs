//! Templates in the header: bounded, each name once, and judged only when one is asked for.

use std::time::Duration;

use cerebellum::Model;
use cerebellum::format::{MAX_TEMPLATE_NAME_BYTES, MAX_TEMPLATES_BYTES, read_header};
use serde_json::{Value, json};

use crate::base::tiny;
use crate::class::{Class, MEMORY};
use crate::exercise::AlignedBytes;
use crate::parts::{Parts, assemble};

fn with_templates(templates: Value) -> Vec<u8> {
    let mut parts = Parts::of(tiny());
    parts.metadata["templates"] = templates;
    parts.file()
}

#[test]
fn templates_of_any_form() {
    let mut class = Class::with_bounds("templates in the header", MEMORY, Duration::from_secs(1));
    let long = "n".repeat(MAX_TEMPLATE_NAME_BYTES);
    // {"a":"..."} takes eight bytes more than the text.
    let fitting = "x".repeat(MAX_TEMPLATES_BYTES - 8);
    let many: serde_json::Map<_, _> = (0..5000).map(|i| (i.to_string(), "".into())).collect();
    for (templates, label) in [
        (json!({}), "runs"),
        (json!({ "translate": "no placeholder", "a-1": "\u{0}" }), "runs"),
        (json!({ &long: "" }), "runs"),
        (json!({ "a": fitting }), "runs"),
        (Value::Object(many), "runs"),
        (json!({ "a": format!("{fitting}x") }), "json"),
        (json!({ format!("{long}n"): "" }), "json"),
        (json!({ "": "" }), "json"),
        (json!({ "A": "" }), "json"),
        (json!({ "../a": "" }), "json"),
        (json!({ "a": 1 }), "json"),
        (json!({ "a": { "a": "" } }), "json"),
        (json!([]), "json"),
        (json!(null), "json"),
    ] {
        let case: String = templates.to_string().chars().take(60).collect();
        class.run(&case, &with_templates(templates)).expect(&case, &[label]);
    }
    let mut parts = Parts::of(tiny());
    parts.metadata["templates"] = json!({ "a": "", "b": "" });
    let twice = parts.json().replace(r#"\"b\""#, r#"\"a\""#);
    class.run("twice", &assemble(twice.as_bytes(), &parts.data)).expect("twice", &["json"]);
    class.print();
}

#[test]
fn a_template_is_judged_when_it_is_asked_for() {
    let file = with_templates(json!({ "bad": "no placeholder", "translate": "To: {text}\nFro:" }));
    assert_eq!(read_header(&file).unwrap().0.templates.len(), 2);
    let model = Model::borrow(AlignedBytes::copy(&file)).unwrap();
    assert!(model.template("bad").unwrap_err().to_string().contains("it has no {text}"));
    // The file's own comes before the built-in one.
    assert_eq!(model.template_text("translate").unwrap(), "To: {text}\nFro:");
    assert!(model.template("summarize").is_ok());
    let error = model.template("no-such").unwrap_err().to_string();
    assert!(error.contains("bad, translate, summarize"), "{error}");
}

/// A template in a small file that asks for a million tokens gets some thousand.
#[test]
fn a_template_may_not_keep_a_device_busy() {
    let text = "max-tokens: 1048576\n---\n{text}";
    let file = with_templates(json!({ "translate": text }));
    let model = Model::borrow(AlignedBytes::copy(&file)).unwrap();
    assert_eq!(model.template("translate").unwrap().most_tokens, 4096);
    // What the library has itself, and what the program asks for, is not limited.
    assert_eq!(model.template("summarize").unwrap().most_tokens, usize::MAX);
    let own: cerebellum::template::Template = text.parse().unwrap();
    assert_eq!(own.most_tokens, usize::MAX);
}
