//! Answers that call tools.

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::server::{Server, Settings, quantized};

const HERMES: &str = include_str!("../../../tests/data/chat/tools-hermes.jinja");

fn tools() -> Value {
    let weather = json!({"type": "object", "required": ["city", "days"], "properties": {
        "city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
    }});
    let function = |name: &str, parameters: Value| json!({"type": "function", "function": {"name": name, "description": "it", "parameters": parameters}});
    json!([function("weather", weather), {"type": "function", "function": {"name": "clock"}}])
}

fn body(choice: &Value) -> Value {
    json!({
        "messages": [{"role": "user", "content": "What is the weather in Rome?"}],
        "tools": tools(), "tool_choice": choice, "max_tokens": 60, "temperature": 1,
    })
}

/// Puts the pieces of a streamed answer together, as clients do.
fn joined(events: &[String]) -> (Value, Value) {
    let mut message = json!({"role": null, "content": null});
    let mut reason = Value::Null;
    for event in &events[..events.len() - 1] {
        let event: Value = serde_json::from_str(event).unwrap();
        let Some(choice) = event["choices"].get(0) else { continue };
        let delta = &choice["delta"];
        if let Some(text) = delta["content"].as_str() {
            let before = message["content"].as_str().unwrap_or_default();
            message["content"] = format!("{before}{text}").into();
        }
        if let Some(role) = delta.get("role") {
            message["role"] = role.clone();
        }
        if let Some([call]) = delta["tool_calls"].as_array().map(Vec::as_slice) {
            assert_eq!(call["index"], 0);
            if call.get("id").is_some() {
                assert!(message.get("tool_calls").is_none(), "{event}");
                message["tool_calls"] = json!([{"id": call["id"], "type": call["type"],
                    "function": {"name": call["function"]["name"], "arguments": ""}}]);
            }
            let arguments = &mut message["tool_calls"][0]["function"]["arguments"];
            let more = call["function"]["arguments"].as_str().unwrap();
            *arguments = format!("{}{more}", arguments.as_str().unwrap()).into();
        }
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    (message, reason)
}

#[test]
fn answers_call_tools_as_their_schemas_say() {
    let directory = tempdir().unwrap();
    let file = quantized(directory.path(), HERMES);
    let server = Server::start(Settings { file: file.clone(), ..Settings::default() });
    let named = json!({"type": "function", "function": {"name": "clock"}});
    for (seed, choice) in [json!("required"), json!("required"), named].iter().enumerate() {
        let mut body = body(choice);
        body["seed"] = seed.into();
        body["receipt"] = true.into();
        let answer = server.ask("/v1/chat/completions", &body);
        let choice = &answer["choices"][0];
        let message = &choice["message"];
        assert_eq!(
            (&choice["finish_reason"], &message["content"]),
            (&"tool_calls".into(), &Value::Null)
        );
        let call = &message["tool_calls"][0];
        assert_eq!(
            (call["type"].as_str(), call["id"].as_str().unwrap().len()),
            (Some("function"), 9)
        );
        let arguments: Value =
            serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        match call["function"]["name"].as_str().unwrap() {
            "weather" => {
                assert!(["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()));
                assert!((1..=9).contains(&arguments["days"].as_i64().unwrap()));
            }
            name => assert_eq!((name, &arguments), ("clock", &json!({}))),
        }
        assert!(seed < 2 || call["function"]["name"] == "clock");
        // The same, piece by piece; another call has another id.
        body["stream"] = true.into();
        let (streamed, reason) = joined(&server.events("/v1/chat/completions", &body));
        assert_eq!(streamed["tool_calls"][0]["function"], call["function"]);
        assert_ne!(streamed["tool_calls"][0]["id"], call["id"]);
        assert_eq!((reason, &streamed["content"]), ("tool_calls".into(), &Value::Null));
        // The receipt holds for the answer as it was made.
        let receipt = directory.path().join("receipt.json");
        std::fs::write(&receipt, choice["receipt"].to_string()).unwrap();
        let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_cerebellum"));
        let checked = check.arg("check").arg(&receipt).args(["-m", &file]).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
    // A call that is cut short says so, with as much as there is.
    let mut cut = body(&json!({"type": "function", "function": {"name": "weather"}}));
    let whole = server.ask("/v1/chat/completions", &cut);
    let tokens = whole["usage"]["completion_tokens"].as_u64().unwrap();
    cut["max_tokens"] = (tokens - 24).into();
    let answer = server.ask("/v1/chat/completions", &cut);
    assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
    // The result goes back, and the model answers in words.
    let call = whole["choices"][0]["message"].clone();
    let mut next = body(&json!("auto"));
    next["messages"] = json!([next["messages"][0], call,
        {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "sunny"}]);
    let prompt =
        server.ask("/tokenize", &json!({"messages": next["messages"], "tools": next["tools"]}));
    let pieces: String =
        prompt["pieces"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let arguments = call["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    for part in ["<tools>\n{\"type\": \"function\"", arguments, "<tool_response>\nsunny\n"] {
        assert!(pieces.contains(part), "{part} in {pieces}");
    }
    let answer = server.ask("/v1/chat/completions", &next);
    let content = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    assert!(!content.is_empty() && answer["choices"][0]["message"].get("tool_calls").is_none());
    next["stream"] = true.into();
    assert_eq!(joined(&server.events("/v1/chat/completions", &next)).0["content"], content);
    // No call, and the tools are told of all the same.
    let none = server.ask("/v1/chat/completions", &body(&json!("none")));
    let auto = server.ask("/v1/chat/completions", &body(&json!("auto")));
    assert_eq!(none["usage"]["prompt_tokens"], auto["usage"]["prompt_tokens"]);
    // Another form cannot be had as well.
    let mut both = body(&json!("auto"));
    both["regex"] = "a".into();
    let (status, answer) = server.post("/v1/chat/completions", &both);
    assert_eq!((status, &answer["error"]["param"]), (400, &"tools".into()));
}
