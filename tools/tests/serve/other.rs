//! What the server does besides texts.

use cerebellum::classify::{Classifier, ClassifierOptions, Template};
use cerebellum::text::EncodeOptions;
use cerebellum::{LogitsFor, Pooling, SessionOptions};
use cerebellum_tools::receipt::{Receipt, Verdict, model_digest};
use serde_json::{Value, json};

use crate::server::{Server, Settings, file, model};

#[test]
fn tokens_of_texts_and_back() {
    let server = Server::start(Settings::default());
    let text = "Once upon a time… äöü 😀";
    let tokenizer = model().tokenizer().unwrap();
    let wanted = tokenizer.encode(text, EncodeOptions::default()).unwrap();
    let answer = server.ask("/tokenize", &json!({"text": text}));
    assert_eq!((&answer["tokens"], &answer["count"]), (&json!(wanted), &wanted.len().into()));
    assert_eq!(answer["pieces"].as_array().unwrap().len(), wanted.len());
    let answer = server.ask("/detokenize", &json!({"tokens": wanted}));
    assert_eq!(answer["text"], text);
    let answer = server.ask("/tokenize", &json!({"messages": [{"role": "user", "content": "Hi"}]}));
    let wanted = tokenizer.encode("user: Hi\nassistant:", EncodeOptions::default()).unwrap();
    assert_eq!(answer["tokens"], json!(wanted));
    let (status, answer) = server.post("/detokenize", &json!({"tokens": [1 << 30]}));
    assert_eq!((status, &answer["error"]["param"]), (400, &"tokens".into()));
}

#[test]
fn classes_and_embeddings_are_those_of_the_library() {
    let server = Server::start(Settings::default());
    let model = model();
    let tokenizer = model.tokenizer().unwrap();
    let options = SessionOptions { logits: LogitsFor::All, ..Default::default() };
    let mut session = model.session(&options).unwrap();
    let labels = ["alarm", "timer", "weather"];
    let template = "Utterance: {text}\nIntent: {label}";
    let how =
        ClassifierOptions { template: Template::parse(template).unwrap(), ..Default::default() };
    let classifier = Classifier::new(&tokenizer, &labels, &how).unwrap();
    let texts = ["set an alarm for six", "how warm is it"];
    let body = json!({"text": texts, "labels": labels, "template": template});
    let answer = server.ask("/classify", &body);
    for (i, text) in texts.iter().enumerate() {
        let wanted = classifier.classify(&mut session, text).unwrap();
        let got = &answer["results"][i];
        assert_eq!(got["label"], labels[wanted.label]);
        let got: Vec<&Value> =
            got["probabilities"].as_array().unwrap().iter().map(|it| &it["probability"]).collect();
        let wanted: Vec<Value> = wanted.probabilities.iter().map(|&p| p.into()).collect();
        assert_eq!(got, wanted.iter().collect::<Vec<_>>());
    }
    for (pooling, name) in [(Pooling::Mean, "mean"), (Pooling::Last, "last")] {
        let mut wanted = vec![0.0; model.config().n_embd];
        session.reset();
        let tokens = session.encode(&tokenizer, texts[0], EncodeOptions::default()).unwrap();
        session.embed(&tokens, pooling, &mut wanted).unwrap();
        let body = json!({"input": [texts[0], "x"], "pooling": name});
        let answer = server.ask("/v1/embeddings", &body);
        let got: Vec<f32> = serde_json::from_value(answer["data"][0]["embedding"].clone()).unwrap();
        assert_eq!(got, wanted);
        assert_eq!(answer["usage"]["prompt_tokens"].as_u64().unwrap(), tokens.len() as u64 + 1);
        let body = json!({"input": texts[0], "pooling": name, "encoding_format": "base64"});
        let answer = server.ask("/v1/embeddings", &body);
        let text = answer["data"][0]["embedding"].as_str().unwrap();
        assert_eq!(text.len(), (wanted.len() * 4).div_ceil(3) * 4);
    }
}

#[test]
fn what_it_says_of_itself() {
    let server = Server::start(Settings::default());
    let (status, text) = server.get("/v1/models");
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &answer["data"][0]["id"]), (200, &"demo".into()));
    assert_eq!(answer["data"][0]["has_chat_template"], true);
    assert_eq!(server.get("/v1/models/demo").0, 200);
    assert_eq!(server.get("/v1/models/other").0, 404);
    assert_eq!(server.get("/health"), (200, r#"{"status":"ok"}"#.to_owned()));
    assert!(server.count("requests_answered_total") >= 3);
}

#[test]
fn texts_come_with_receipts() {
    let server = Server::start(Settings::default());
    let digest = model_digest(file().as_ref()).unwrap();
    let model = model();
    let check = |choice: &Value, text: &Value| {
        let receipt: Receipt = serde_json::from_value(choice["receipt"].clone()).unwrap();
        let verdict = receipt.check(&model, &digest, &SessionOptions::default()).unwrap();
        assert_eq!(verdict, Verdict::Same, "{text}: {choice}");
        let tokens: Vec<u32> =
            serde_json::from_value(choice["receipt"]["output_tokens"].clone()).unwrap();
        let mut bytes = Vec::new();
        model.tokenizer().unwrap().table().decode_into(&tokens, &mut bytes);
        assert_eq!(String::from_utf8_lossy(&bytes), text.as_str().unwrap());
    };
    let body = json!({
        "prompt": ["Once upon a time", "The"], "n": 2, "temperature": 1, "seed": 9, "receipt": true,
    });
    let answer = server.ask("/v1/completions", &body);
    for choice in answer["choices"].as_array().unwrap() {
        check(choice, &choice["text"]);
    }
    let mut body = json!({
        "messages": [{"role": "user", "content": "Is it?"}], "choices": ["yes", "no"], "receipt": true,
    });
    let answer = server.ask("/v1/chat/completions", &body);
    let text = &answer["choices"][0]["message"]["content"];
    check(&answer["choices"][0], text);
    body["stream"] = true.into();
    let events = server.events("/v1/chat/completions", &body);
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    check(&last["choices"][0], text);
    body.as_object_mut().unwrap().remove("receipt");
    let answer = server.ask("/v1/chat/completions", &json!({"messages": body["messages"]}));
    assert!(answer["choices"][0].get("receipt").is_none());
}

#[test]
fn answers_in_the_newer_form() {
    let server = Server::start(Settings::default());
    let messages = json!([
        {"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"},
    ]);
    let body = json!({"messages": messages, "max_tokens": 9});
    let wanted = server.ask("/v1/chat/completions", &body);
    let wanted = &wanted["choices"][0]["message"]["content"];
    let mut body = json!({
        "model": "demo", "instructions": "Be short.", "input": "Hello", "max_output_tokens": 9,
    });
    let answer = server.ask("/v1/responses", &body);
    assert_eq!(&answer["output"][0]["content"][0]["text"], wanted);
    assert_eq!((&answer["object"], &answer["store"]), (&"response".into(), &false.into()));
    let tokens = answer["usage"]["output_tokens"].as_u64().unwrap();
    assert_eq!(answer["status"], if tokens == 9 { "incomplete" } else { "completed" });
    body["input"] = json!([
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ]);
    body["stream"] = true.into();
    let (_, text) = server.post_text("/v1/responses", &body.to_string());
    let mut streamed = String::new();
    let mut last = Value::Null;
    for (number, event) in text.split_terminator("\n\n").enumerate() {
        let (name, data) =
            event.split_once('\n').unwrap_or_else(|| panic!("{event:?} in {text:?}"));
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap())
            .unwrap_or_else(|e| panic!("{e}: {data:?}"));
        assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
        assert_eq!(data["sequence_number"], number);
        streamed.push_str(data["delta"].as_str().unwrap_or_default());
        last = data;
    }
    assert_eq!(streamed, wanted.as_str().unwrap());
    assert_eq!(&last["response"]["output"][0]["content"][0]["text"], wanted);
    assert_eq!(last["response"]["usage"]["output_tokens"], tokens);
    let schema = json!({
        "type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
        "additionalProperties": false,
    });
    let body = json!({
        "input": "Is it?", "text": {"format": {"type": "json_schema", "name": "a", "schema": schema}},
    });
    let answer = server.ask("/v1/responses", &body);
    let text = answer["output"][0]["content"][0]["text"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap()["ok"].is_boolean(), "{text}");
    for param in ["previous_response_id", "store", "n", "max_tokens", "receipt"] {
        let (status, answer) = server.post("/v1/responses", &json!({"input": "x", param: true}));
        assert_eq!((status, &answer["error"]["param"]), (400, &param.into()), "{answer}");
    }
}

/// Every path and parameter that is described is there, and the other way round.
#[test]
fn the_description_is_that_of_this_server() {
    let server = Server::start(Settings::default());
    let (status, text) = server.get("/openapi.json");
    let description: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &description["openapi"]), (200, &"3.1.0".into()));
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, methods) in description["paths"].as_object().unwrap() {
        if methods.get("get").is_some() {
            assert_eq!(server.get(&path.replace("{name}", "demo")).0, 200, "{path}");
            continue;
        }
        let schema = &methods["post"]["requestBody"]["content"]["application/json"]["schema"];
        let parameters = schema["properties"].as_object().unwrap();
        for parameter in parameters.keys() {
            // Of no parameter this is a value, so that each is refused, but not as one that is not known.
            let mut body = json!({});
            for needed in schema["required"].as_array().unwrap() {
                body[needed.as_str().unwrap()] = match needed.as_str().unwrap() {
                    "messages" => json!([{"role": "user", "content": "x"}]),
                    "labels" | "continuations" => json!(["x"]),
                    "tokens" => json!([1]),
                    _ => json!("x"),
                };
            }
            body[parameter] = json!({"no": [{"such": "value"}]});
            let (status, answer) = server.post(path, &body);
            if parameter != "user" {
                assert_eq!(
                    (status, &answer["error"]["param"]),
                    (400, &parameter.clone().into()),
                    "{path}: {answer}"
                );
            }
            assert_ne!(answer["error"]["code"], "unknown_parameter", "{path} {parameter}");
        }
    }
}

#[test]
fn the_page_runs_nothing_but_its_own() {
    let server = Server::start(Settings::default());
    let head = server.raw(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let (head, page) = head.split_once("\r\n\r\n").unwrap();
    let policy =
        head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'nonce-") && !policy.contains("unsafe")
    );
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!((nonce.len(), page.matches(&format!("nonce=\"{nonce}\"")).count()), (32, 2));
    for foreign in
        ["http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", " onclick=", " style="]
    {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let again = server.raw(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(!again.contains(nonce));
}
