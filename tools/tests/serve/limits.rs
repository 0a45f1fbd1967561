//! What the server refuses, and what it does when clients behave badly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use cerebellum_tools::serve::http::{Access, ServerOptions};
use serde_json::{Value, json};

use crate::server::{Server, Settings, file};

/// A text that takes a while.
fn long() -> Value {
    json!({"prompt": "Once", "max_tokens": 100_000, "ignore_eos": true, "temperature": 1, "stream": true})
}

#[test]
fn what_is_wrong_is_said_in_the_form_of_openai() {
    let server = Server::start(Settings::default());
    let far_too_long = "word ".repeat(5000);
    for (path, body, status, param, code) in [
        ("/v1/completions", json!({"promt": "x"}), 400, json!("promt"), json!("unknown_parameter")),
        (
            "/v1/completions",
            json!({"suffix": "x"}),
            400,
            json!("suffix"),
            json!("unsupported_parameter"),
        ),
        ("/v1/completions", json!({"logprobs": 100}), 400, json!("logprobs"), json!(null)),
        ("/v1/completions", json!({"prompt": [-1]}), 400, json!("prompt"), json!(null)),
        ("/v1/completions", json!({"prompt": [1 << 30]}), 400, json!(null), json!(null)),
        ("/v1/completions", json!({"prompt": []}), 400, json!("prompt"), json!(null)),
        (
            "/v1/completions",
            json!({"prompt": far_too_long}),
            400,
            json!("prompt"),
            json!("context_length_exceeded"),
        ),
        ("/v1/completions", json!({"temperature": 101}), 400, json!("temperature"), json!(null)),
        (
            "/v1/completions",
            json!({"model": "gpt-4"}),
            404,
            json!("model"),
            json!("model_not_found"),
        ),
        (
            "/v1/completions",
            json!({"logit_bias": {"1000000": 1}}),
            400,
            json!("logit_bias"),
            json!(null),
        ),
        ("/v1/completions", json!({"n": 65}), 400, json!(null), json!(null)),
        ("/v1/chat/completions", json!({}), 400, json!("messages"), json!(null)),
        ("/v1/chat/completions", json!({"messages": []}), 400, json!("messages"), json!(null)),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            400,
            json!("messages"),
            json!(null),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "x", "name": "y"}]}),
            400,
            json!("messages"),
            json!(null),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "x"}], "tools": [{}]}),
            400,
            json!("tools"),
            json!(null),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "x"}],
                "tools": [{"type": "function", "function": {"name": "f"}}]}),
            400,
            json!("tools"),
            json!("unsupported_parameter"),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}),
            400,
            json!("messages"),
            json!("unsupported_parameter"),
        ),
        ("/score", json!({"continuations": []}), 400, json!("continuations"), json!(null)),
        ("/classify", json!({"text": "x", "labels": []}), 400, json!("labels"), json!(null)),
        ("/v1/embeddings", json!({"input": ""}), 400, json!("input"), json!(null)),
        ("/v1/nothing", json!({}), 404, json!(null), json!("not_found")),
        ("/health", json!({}), 405, json!(null), json!("wrong_method")),
    ] {
        let shown: String = body.to_string().chars().take(80).collect();
        let (got, answer) = server.post(path, &body);
        let error = &answer["error"];
        assert_eq!(
            (got, &error["param"], &error["code"]),
            (status, &param, &code),
            "{path} {shown}: {answer}"
        );
        assert_eq!(error["type"], "invalid_request_error", "{path} {shown}");
        let message = error["message"].as_str().unwrap();
        assert!(
            !message.is_empty() && !message.contains('/') || message.contains("GET /"),
            "{message}"
        );
    }
    let (status, text) = server.post_text("/v1/completions", "{");
    assert!(status == 400 && text.contains("not a JSON object"), "{text}");
    let (status, text) = server.post_text("/v1/completions", &" ".repeat(70_000));
    assert!(status == 413 && text.contains("body_too_large"), "{text}");
    // It is as if nothing had been.
    assert_eq!(server.count("texts_running") + server.count("texts_waiting"), 0);
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "Once"})).0, 200);
}

#[test]
fn a_client_that_goes_away_ends_its_text() {
    let server = Server::start(Settings { parallel: 1, ..Settings::default() });
    let first = server.begin(&long());
    // One that waits, and one that asks for a whole answer.
    let second = server.send("/v1/completions", &long());
    let mut whole = long();
    whole["stream"] = false.into();
    let third = server.send("/v1/completions", &whole);
    server.wait_for("texts_waiting", |waiting| waiting == 2);
    // Those that wait are gone at once, though the first goes on.
    drop((second, third));
    server.wait_for("texts_waiting", |waiting| waiting == 0);
    assert_eq!((server.count("texts_running"), server.count("texts_cancelled_total")), (1, 2));
    drop(first);
    server.wait_for("texts_cancelled_total", |cancelled| cancelled == 3);
    assert_eq!(server.count("texts_running") + server.count("texts_waiting"), 0);
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "Once"})).0, 200);
}

#[test]
fn a_full_queue_sends_clients_away() {
    let server = Server::start(Settings { parallel: 1, queue: 1, ..Settings::default() });
    let running = server.begin(&long());
    let waiting = server.send("/v1/completions", &long());
    server.wait_for("texts_waiting", |waiting| waiting == 1);
    let answer = server.raw(
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
    );
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n") && answer.contains("queue_full"), "{answer}");
    drop((running, waiting));
    server.wait_for("texts_cancelled_total", |cancelled| cancelled == 2);
    assert_eq!(server.count("requests_turned_away_total"), 1);
    assert_eq!(server.post("/v1/completions", &json!({})).0, 200);
}

#[test]
fn time_runs_out() {
    let options =
        ServerOptions { deadline: Duration::from_millis(300), ..Settings::default().options };
    let server = Server::start(Settings { parallel: 1, options, ..Settings::default() });
    let mut body = json!({"prompt": "x", "n": 50, "temperature": 1, "max_tokens": 100_000, "ignore_eos": true});
    let (status, answer) = server.post("/v1/completions", &body);
    assert_eq!((status, &answer["error"]["type"]), (504, &"timeout_error".into()), "{answer}");
    server.wait_for("texts_running", |running| running == 0);
    body["stream"] = true.into();
    let events = server.events("/v1/completions", &body);
    assert!(events.iter().any(|event| event.contains("timeout_error")));
    server.wait_for("texts_running", |running| running == 0);
}

#[test]
fn keys_are_asked_for() {
    let access = Access { keys: vec!["secret".to_owned()], ..Default::default() };
    let options = ServerOptions { access, ..Settings::default().options };
    let server = Server::start(Settings { options, ..Settings::default() });
    let (status, answer) = server.post("/v1/completions", &json!({}));
    assert_eq!((status, &answer["error"]["type"]), (401, &"authentication_error".into()));
    let with = |key: &str| {
        server.raw(
            format!(
                "POST /v1/completions HTTP/1.1\r\nhost: any.name\r\nauthorization: Bearer {key}\r\n\
                 connection: close\r\ncontent-length: 2\r\n\r\n{{}}"
            )
            .as_bytes(),
        )
    };
    assert!(with("secret").starts_with("HTTP/1.1 200 "));
    assert!(with("secre").starts_with("HTTP/1.1 401 "));
    assert_eq!(server.get("/health").0, 200);
    assert_eq!(server.get("/metrics").0, 401);
}

#[test]
fn pages_and_names_that_are_not_known_are_refused() {
    let server = Server::start(Settings::default());
    let ask = |headers: &str| {
        server.raw(
            format!(
                "POST /v1/completions HTTP/1.1\r\n{headers}\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
            )
            .as_bytes(),
        )
    };
    assert!(ask("host: 127.0.0.1").starts_with("HTTP/1.1 200 "));
    assert!(ask("host: evil.example").contains("unknown_host"));
    let cross = ask("host: 127.0.0.1\r\norigin: https://evil.example");
    assert!(
        cross.starts_with("HTTP/1.1 403 ") && !cross.contains("access-control-allow-origin"),
        "{cross}"
    );
}

#[test]
fn requests_that_are_none_do_no_harm() {
    let server = Server::start(Settings::default());
    let many = "x: y\r\n".repeat(1000);
    let large = "z".repeat(64 << 10);
    for bytes in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {large}\r\n\r\n"),
        format!("GET /{large} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n".to_owned(),
    ] {
        let answer = server.raw(bytes.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    assert_eq!(server.get("/health").0, 200);
}

#[test]
fn a_server_that_is_stopped_ends_what_it_has_begun() {
    let mut server = Server::start(Settings::default());
    let address = server.address;
    let mut body = long();
    body["max_tokens"] = 40.into();
    let mut answer = server.begin(&body);
    assert!(server.stop());
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("[DONE]"), "{rest}");
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn what_does_not_end_in_time_is_given_up() {
    let options = ServerOptions { grace: Duration::ZERO, ..Settings::default().options };
    let mut server = Server::start(Settings { parallel: 1, options, ..Settings::default() });
    let mut body = long();
    body["n"] = 60.into();
    let mut answer = server.begin(&body);
    assert!(!server.stop());
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"stopping\""), "{rest}");
}

/// The command itself: it says where it listens, and on SIGTERM ends what it has begun.
#[cfg(unix)]
#[test]
fn the_command_ends_on_a_signal() {
    let arguments =
        ["serve", "-m", file(), "--address", "127.0.0.1:0", "--json", "--cache-mb", "8"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
    let command = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&report["ok"], &report["model"]), (&true.into(), &"demo".into()));
    assert_eq!(report["cache_bytes"], 8 << 20);
    let mut stream = TcpStream::connect(report["address"].as_str().unwrap()).unwrap();
    let mut body = long();
    body["max_tokens"] = 60.into();
    let body = body.to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}",
        body.len()
    );
    write!(stream, "{head}\r\n\r\n{body}").unwrap();
    let mut first = [0; 1];
    stream.read_exact(&mut first).unwrap();
    let id = server.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("[DONE]"), "{rest}");
    let output = server.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("private memory, at most") && !errors.contains("given up"), "{errors}");
}

#[test]
fn what_is_not_safe_has_to_be_asked_for() {
    let run = |arguments: &[&str]| {
        let all = [&["serve", "-m", file(), "-q"], arguments].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_cerebellum")).args(all).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let error = run(&["--address", "0.0.0.0:0"]);
    assert!(error.contains("other machines reach") && error.contains("--api-key-file"), "{error}");
    let error = run(&["--address", "[::]:0", "--api-key-file", "/nothing/there"]);
    assert!(error.contains("cannot read the keys"), "{error}");
    let error = run(&["--cors-origin", "*"]);
    assert!(error.contains("this is no origin"), "{error}");
    // More than any machine has.
    let error = run(&["--cache-mb", "16000000"]);
    assert!(error.contains("choose a smaller"), "{error}");
}
