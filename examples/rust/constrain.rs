//! JSON that is sure to follow a schema: `cargo run --release --features constraints --example constrain`
//!
//! Needs `target/demo.cbl`, which `cargo demo` makes.

use std::ops::ControlFlow;
use std::sync::Arc;

use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::{GenerateOptions, generate_text_steps};
use cerebellum::{Access, Model, SessionOptions};
use serde_json::json;

fn main() -> cerebellum::Result<()> {
    let model = Model::open("target/demo.cbl", Access::Map)?;
    let tokenizer = Arc::new(model.tokenizer()?);
    let vocabulary = Vocabulary::new(&model, Arc::clone(&tokenizer))?;
    let form = Form::JsonSchema(json!({
        "type": "object",
        "properties": {
            "intent": {"enum": ["alarm", "timer", "weather"]},
            "hour": {"type": "integer", "minimum": 0, "maximum": 23},
        },
        "required": ["intent", "hour"],
        "additionalProperties": false,
    }));
    let mut constraint = vocabulary.constrain(&form)?;

    let prompt =
        tokenizer.encode("Utterance: set an alarm for six\nIntent: ", Default::default())?;
    let mut session = model.session(&SessionOptions::default())?;
    let (table, options) = (tokenizer.table(), GenerateOptions::default());
    let mut text = String::new();
    let generation = generate_text_steps(
        &mut session,
        table,
        &prompt,
        &options,
        Some(&mut constraint),
        |piece, _| {
            text.push_str(piece);
            ControlFlow::Continue(())
        },
    )?;
    println!("{text}\n{}", generation.stop_reason.name());
    Ok(())
}
