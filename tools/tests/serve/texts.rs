//! Texts: the same as without a server, whatever else it does.

use std::ops::ControlFlow;

use cerebellum::SessionOptions;
use cerebellum::generate::{GenerateOptions, generate_text};
use cerebellum::sampler::SamplerOptions;
use cerebellum::text::EncodeOptions;
use serde_json::{Value, json};

use crate::server::{Server, Settings, model};

const PROMPT: &str = "Once upon a time there was a king who lived in a castle by the sea. One day";

/// What a session makes of a prompt.
fn alone(prompt: &str, options: &GenerateOptions) -> (String, usize) {
    let model = model();
    let mut session = model.session(&SessionOptions::default()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let tokens = session.encode(&tokenizer, prompt, EncodeOptions::default()).unwrap();
    let mut text = String::new();
    let made = generate_text(&mut session, tokenizer.table(), &tokens, options, |piece| {
        text.push_str(piece);
        ControlFlow::Continue(())
    });
    (text, made.unwrap().tokens)
}

#[test]
fn a_completion_is_the_text_that_a_session_makes() {
    let server = Server::start(Settings::default());
    let sampler = SamplerOptions { temperature: 0.9, seed: 7, ..Default::default() };
    for (options, more) in [
        (GenerateOptions { max_tokens: 16, ..Default::default() }, json!({})),
        (
            GenerateOptions { max_tokens: 30, sampler: sampler.clone(), ..Default::default() },
            json!({"temperature": 0.9, "seed": 7, "max_tokens": 30}),
        ),
        (
            GenerateOptions { max_tokens: 40, stop: vec![" the".to_owned()], ..Default::default() },
            json!({"max_tokens": 40, "stop": " the"}),
        ),
        (GenerateOptions { max_tokens: 0, ..Default::default() }, json!({"max_tokens": 0})),
    ] {
        let (text, tokens) = alone(PROMPT, &options);
        let mut body = json!({"model": "demo", "prompt": PROMPT});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.ask("/v1/completions", &body);
        assert_eq!(answer["choices"][0]["text"], text, "{body}");
        assert_eq!(answer["object"], "text_completion");
        let usage = &answer["usage"];
        assert_eq!(usage["completion_tokens"], tokens);
        let sum = usage["prompt_tokens"].as_u64().unwrap() + tokens as u64;
        assert_eq!(usage["total_tokens"], sum);
        // The same, piece by piece.
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        let events = server.events("/v1/completions", &body);
        assert_eq!(events.last().unwrap(), "[DONE]");
        let pieces: Vec<Value> =
            events[..events.len() - 1].iter().map(|it| serde_json::from_str(it).unwrap()).collect();
        let (last, pieces) = pieces.split_last().unwrap();
        assert_eq!((&last["choices"], &last["usage"]["total_tokens"]), (&json!([]), &sum.into()));
        let streamed: String =
            pieces.iter().map(|piece| piece["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(streamed, text);
        let reason = &pieces.last().unwrap()["choices"][0]["finish_reason"];
        assert_eq!(reason, &answer["choices"][0]["finish_reason"]);
    }
}

#[test]
fn several_prompts_and_texts_of_each() {
    let server = Server::start(Settings::default());
    let body = json!({
        "prompt": [PROMPT, "The"], "n": 3, "temperature": 1, "seed": 5, "max_tokens": 12,
    });
    let answer = server.ask("/v1/completions", &body);
    let choices = answer["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 6);
    for (index, choice) in choices.iter().enumerate() {
        let seed = 5 + index as u64 % 3;
        let sampler = SamplerOptions { temperature: 1.0, seed, ..Default::default() };
        let options = GenerateOptions { max_tokens: 12, sampler, ..Default::default() };
        let prompt = if index < 3 { PROMPT } else { "The" };
        assert_eq!(choice["index"], index);
        assert_eq!(choice["text"], alone(prompt, &options).0, "{index}");
    }
}

/// A request and its answer, without what is another each time.
fn answer(server: &Server, body: &Value) -> (Value, u64) {
    let answer = server.ask("/v1/completions", body);
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    (answer["choices"].clone(), cached.as_u64().unwrap())
}

#[test]
fn the_same_bits_hot_and_cold_alone_and_together() {
    let prompts: Vec<String> = (0..10)
        .map(|i| match i % 3 {
            0 => format!("{PROMPT} number {i}"),
            1 => format!("{} number {i}", PROMPT.repeat(6)),
            _ => format!("{i} utterances"),
        })
        .collect();
    let bodies: Vec<Value> = (0..10)
        .map(|i| {
            json!({"prompt": prompts[i], "temperature": 1, "seed": i, "max_tokens": 8 + i, "logprobs": 3,
                "ignore_eos": true})
        })
        .collect();
    // Cold: a server without a cache, one sequence, one request at a time.
    let cold = Server::start(Settings {
        parallel: 1,
        cache_bytes: 0,
        session: SessionOptions { threads: 1, chunk: 500, ..Default::default() },
        ..Settings::default()
    });
    let wanted: Vec<Value> = bodies.iter().map(|body| answer(&cold, body).0).collect();
    let server = Server::start(Settings::default());
    for round in 0..3 {
        let answers: Vec<(Value, u64)> = std::thread::scope(|scope| {
            let asked = bodies.iter().map(|body| scope.spawn(|| answer(&server, body)));
            let asked: Vec<_> = asked.collect();
            asked.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (i, (got, cached)) in answers.iter().enumerate() {
            // Log-probabilities as they are printed are float64 to the last bit.
            assert_eq!(got, &wanted[i], "round {round}, request {i}");
            let long = i % 3 == 1 && round > 0;
            assert!(!long || *cached >= 64, "request {i} found {cached} tokens");
        }
    }
    assert!(server.count("cached_tokens_total") > 500);
    assert!(server.count("cache_bytes") > 0);
}

#[test]
fn a_full_cache_changes_nothing() {
    let server =
        Server::start(Settings { parallel: 1, cache_bytes: 400 << 10, ..Settings::default() });
    let bodies: Vec<Value> =
        (0..8).map(|i| json!({"prompt": format!("{i} {PROMPT}"), "logprobs": 2})).collect();
    let first: Vec<Value> = bodies.iter().map(|body| answer(&server, body).0).collect();
    for (body, first) in bodies.iter().zip(&first).rev() {
        assert_eq!(&answer(&server, body).0, first);
    }
    assert!(server.count("cache_bytes") <= 400 << 10);
    assert!(server.count("cache_bytes") > 100 << 10);
}

#[test]
fn an_echo_tells_how_probable_the_prompt_was() {
    let server = Server::start(Settings::default());
    let body = json!({"prompt": PROMPT, "echo": true, "logprobs": 1, "max_tokens": 2});
    let answer = server.ask("/v1/completions", &body);
    let choice = &answer["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert!(text.starts_with(PROMPT) && text.len() > PROMPT.len());
    let logprobs = &choice["logprobs"];
    let of = |field: &str| logprobs[field].as_array().unwrap().clone();
    let count = answer["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(of("tokens").len(), count + 2);
    assert_eq!(of("token_logprobs")[0], Value::Null);
    // `/score` says the same of the prompt behind its first word.
    let (first, rest) = PROMPT.split_at(4);
    let scored = server.ask("/score", &json!({"prompt": first, "continuations": [rest, " x"]}));
    let scores = scored["continuations"][0]["token_log_probabilities"].as_array().unwrap();
    assert_eq!(of("token_logprobs")[1..count], scores[..]);
    let offsets = of("text_offset");
    assert_eq!((&offsets[0], &offsets[1]), (&0.into(), &4.into()));
    // Token ids in place of the text, and nothing made.
    let ids = of("token_ids")[..count].to_vec();
    let body = json!({"prompt": [ids], "echo": true, "logprobs": 1, "max_tokens": 0});
    let again = server.ask("/v1/completions", &body);
    let again = &again["choices"][0];
    assert_eq!(again["text"], PROMPT);
    assert_eq!(
        again["logprobs"]["token_logprobs"].as_array().unwrap()[..],
        of("token_logprobs")[..count]
    );
}

#[test]
fn answers_in_conversations() {
    let server = Server::start(Settings::default());
    let options = GenerateOptions { max_tokens: 20, ..Default::default() };
    let (text, _) = alone("system: Be short.\nuser: Hello\nassistant:", &options);
    let mut body = json!({
        "model": "demo", "max_completion_tokens": 20, "logprobs": true, "top_logprobs": 2,
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
        ],
    });
    let answer = server.ask("/v1/chat/completions", &body);
    let message = &answer["choices"][0]["message"];
    assert_eq!(
        (&message["role"], &message["content"]),
        (&"assistant".into(), &text.clone().into())
    );
    let logprobs = answer["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(logprobs.len() as u64, answer["usage"]["completion_tokens"].as_u64().unwrap());
    assert_eq!(logprobs[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(logprobs[0]["token"], logprobs[0]["top_logprobs"][0]["token"]);
    body["stream"] = true.into();
    let events = server.events("/v1/chat/completions", &body);
    let mut streamed = String::new();
    let mut tokens = 0;
    for event in &events[..events.len() - 1] {
        let event: Value = serde_json::from_str(event).unwrap();
        let choice = &event["choices"][0];
        streamed.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        tokens += choice["logprobs"]["content"].as_array().map_or(0, Vec::len);
    }
    assert_eq!((streamed, tokens), (text, logprobs.len()));
    // An answer that has begun goes on.
    let begun = json!({"max_tokens": 8, "messages": [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": " The"},
    ]});
    let answer = server.ask("/v1/chat/completions", &begun);
    let options = GenerateOptions { max_tokens: 8, ..Default::default() };
    let (text, _) = alone("user: Hello\nassistant: The", &options);
    assert_eq!(answer["choices"][0]["message"]["content"], text);
}

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let server = Server::start(Settings::default());
    let schema = json!({
        "type": "object", "properties": {"age": {"type": "integer"}, "ok": {"type": "boolean"}},
        "required": ["age", "ok"], "additionalProperties": false,
    });
    let body = json!({
        "messages": [{"role": "user", "content": "How old?"}], "max_tokens": 60,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": schema}},
    });
    let answer = server.ask("/v1/chat/completions", &body);
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let object: Value = serde_json::from_str(text).unwrap();
    assert!(object["age"].is_i64() && object["ok"].is_boolean(), "{text}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let body = json!({"prompt": "Is it? Answer:", "choices": ["yes", "no"], "n": 2, "logprobs": 0});
    let answer = server.ask("/v1/completions", &body);
    let text = answer["choices"][1]["text"].as_str().unwrap();
    assert!(["yes", "no"].contains(&text.trim()), "{text}");
}
