//! What files and models say on a terminal: nothing that the terminal would obey. Into pipes go the bytes
//! themselves.

#![cfg(unix)]

mod common;
#[path = "../../tests/hostile/parts.rs"]
#[allow(dead_code)]
mod parts;
#[path = "../../tests/common/terminal.rs"]
mod terminal;

use std::fs;
use std::process::{Command, Output};
use std::sync::OnceLock;

use common::{Model, demo};
use parts::Parts;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use terminal::{first_obeyed, on_terminal};

/// Clears the screen, sets the title, turns the writing direction.
const ORDERS: &str = "\u{1b}[2J\u{9b}2J\u{1b}]0;title\u{7}\u{7f}\u{202e}\u{2066}";
const ESCAPED: &str = "\\u001b[2J\\u009b2J\\u001b]0;title\\u0007\\u007f\\u202e\\u2066";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
    command.args(arguments).args(["--color", "never", "-t", "1"]);
    command
}

fn piped(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// What the command writes on a terminal; it has to succeed.
#[track_caller]
fn shown(arguments: &[&str]) -> String {
    let (status, text) = on_terminal(command(arguments));
    assert!(status.success(), "{text}");
    assert_eq!(first_obeyed(&text), None, "{text:?}");
    text
}

/// The bundled model, quantized once for all tests.
fn model() -> &'static str {
    static MODEL: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, file) = MODEL.get_or_init(|| {
        let directory = tempdir().unwrap();
        let file = directory.path().join("demo.cbl").to_str().unwrap().to_owned();
        assert!(
            piped(&["quantize", "--no-calibration", demo().to_str().unwrap(), "-o", &file, "-q"])
                .status
                .success()
        );
        (directory, file)
    });
    file
}

/// The bundled model's file with other metadata.
fn with_metadata(change: impl FnOnce(&mut Value)) -> (TempDir, String) {
    let mut parts = Parts::of(&fs::read(model()).unwrap());
    change(&mut parts.metadata);
    let directory = tempdir().unwrap();
    let file = directory.path().join("changed.cbl");
    fs::write(&file, parts.file()).unwrap();
    (directory, file.to_str().unwrap().to_owned())
}

#[test]
fn a_digest_forges_no_line() {
    let digest = format!("blake3:{ORDERS}\nparameters                      7");
    let (_directory, file) =
        with_metadata(|metadata| metadata["source"]["digest"] = digest.clone().into());
    let text = shown(&["inspect", &file]);
    let line = format!("source                          blake3:{ESCAPED}\\u000aparameters");
    assert!(text.lines().any(|it| it.starts_with(&line)), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("parameters")).count(), 1, "{text}");

    let on_terminal: Value = serde_json::from_str(&shown(&["inspect", &file, "--json"])).unwrap();
    let in_pipe: Value =
        serde_json::from_slice(&piped(&["inspect", &file, "--json"]).stdout).unwrap();
    assert_eq!(on_terminal, in_pipe);
    assert_eq!(in_pipe["source"]["digest"], digest);
}

#[test]
fn what_the_model_makes_is_shown_and_not_obeyed() {
    let arguments = ["generate", "-m", model(), "-p", "Say:", "--choices", ORDERS, "-q"];
    assert_eq!(shown(&arguments), format!("Say: {ESCAPED}\n"));
    assert_eq!(stdout(&piped(&arguments)), format!("Say: {ORDERS}\n"));

    let json = [&arguments[..], &["--json"]].concat();
    let report: Value = serde_json::from_str(&shown(&json)).unwrap();
    assert_eq!(report["text"], format!(" {ORDERS}"));

    let labels = format!("{ORDERS},b");
    let classify = ["classify", "-m", model(), "-l", &labels, "wake me"];
    shown(&classify);
    let report: Value =
        serde_json::from_str(&shown(&[&classify[..], &["--json"]].concat())).unwrap();
    assert!(report["probabilities"].get(ORDERS).is_some(), "{report}");
}

#[test]
fn lines_are_shown_and_not_obeyed() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("lines.jsonl");
    let lines = [
        json!({ "text": "Say:\tit", "choices": [ORDERS] }),
        json!({ "text": "x", "regex": ORDERS.to_owned() + "(" }),
    ];
    fs::write(&file, lines.map(|line| line.to_string() + "\n").concat()).unwrap();
    let arguments = ["generate", "-m", model(), "--jsonl", "-q", "--file", file.to_str().unwrap()];
    let (status, text) = on_terminal(command(&arguments));
    assert_eq!(status.code(), Some(1));
    assert_eq!(first_obeyed(&text), None, "{text:?}");
    assert_eq!(text.lines().next(), Some(&*format!("Say:\tit {ESCAPED}")));
    let output = piped(&arguments);
    assert_eq!(stdout(&output).lines().next(), Some(&*format!("Say:\tit {ORDERS}")));
}

/// Messages are escaped wherever they go: a log is read on a terminal sooner or later.
#[test]
fn names_of_tensors_give_no_orders() {
    let name = format!("x{ORDERS}\nerror: forged {}", "long ".repeat(100));
    let directory = tempdir().unwrap();
    let mut model = Model::random(24, 5, 6, 5);
    model.add_extra(&name);
    model.write(directory.path());
    let arguments = ["quantize", directory.path().to_str().unwrap(), "--dry-run"];
    let warned = String::from_utf8(piped(&arguments).stderr).unwrap();
    assert_eq!(first_obeyed(&warned), None, "{warned:?}");
    assert!(warned.contains(&format!("x{ESCAPED}\\u000aerror: forged long long")), "{warned}");
    assert!(
        warned.contains('…') && warned.lines().all(|line| !line.starts_with("error")),
        "{warned}"
    );

    // As a layer too many it is an error.
    model.add_extra(&format!("h.7.{name}"));
    model.write(directory.path());
    let (status, text) = on_terminal(command(&arguments));
    assert_eq!(status.code(), Some(1));
    assert_eq!(first_obeyed(&text), None, "{text:?}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("tensor h.7.x{ESCAPED}\\u000aerror: forged")), "{text}");
}

/// A text that begins with a hyphen is taken for an option.
#[test]
fn wrong_usage_gives_no_orders() {
    let (status, text) = on_terminal(command(&["translate", &format!("--{ORDERS}")]));
    assert_eq!(status.code(), Some(2));
    assert_eq!(first_obeyed(&text), None, "{text:?}");
    // The parser leaves out the sequences that it knows itself.
    assert!(text.contains("\\u009b2J") && text.contains("\\u202e\\u2066"), "{text}");
    assert!(text.contains("Usage"), "{text}");
}

/// Each place of a checkpoint where a text may stand that a message shows.
#[test]
fn no_message_passes_a_name_on() {
    let directory = tempdir().unwrap();
    let path = directory.path();
    let sound = Model::random(24, 5, 6, 5);
    let evil = format!("{ORDERS}\n{}", "x".repeat(1000));
    let config = |field: &str| {
        let mut model = Model::random(24, 5, 6, 5);
        model.configure(field, evil.clone().into());
        model.write(path);
    };
    let refused = |case: &str| {
        let output = piped(&["quantize", path.to_str().unwrap(), "--dry-run"]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{case}: {message}");
        assert_eq!(first_obeyed(&message), None, "{case}: {message:?}");
        assert!(message.lines().count() == 1 && message.len() < 1000, "{case}: {message}");
        assert!(message.contains("u001b"), "{case}: {message}");
    };
    for field in
        ["model_type", "activation_function", "position_embedding_type", "n_embd", "n_head"]
    {
        config(field);
        refused(field);
    }
    sound.write(path);
    let weights = fs::read(path.join("model.safetensors")).unwrap();
    fs::remove_file(path.join("model.safetensors")).unwrap();
    let index = |map: Value| {
        let index = json!({ "weight_map": map }).to_string();
        fs::write(path.join("model.safetensors.index.json"), index).unwrap();
    };
    index(json!({ &evil: "a.safetensors" }));
    fs::write(path.join("a.safetensors"), &weights).unwrap();
    refused("a tensor in the index");
    index(json!({ "wte.weight": &evil }));
    refused("a shard");
    let twice = json!({ "weight_map": { &evil: "a", "twin": "b" } }).to_string();
    let twice = twice.replace("\"twin\"", &json!(evil).to_string());
    fs::write(path.join("model.safetensors.index.json"), twice).unwrap();
    refused("a tensor that is listed twice");
    fs::remove_file(path.join("model.safetensors.index.json")).unwrap();

    fs::write(path.join("pytorch_model.bin"), pickle_of_class(&evil.replace('\n', ""))).unwrap();
    refused("a class");
    fs::write(path.join("model.safetensors"), &weights).unwrap();
    let tokenizer = |json: Value| fs::write(path.join("tokenizer.json"), json.to_string()).unwrap();
    tokenizer(json!({ "pre_tokenizer": { "type": &evil }, "model": {} }));
    refused("a kind of pre-tokenizer");
    let byte_level = json!({ "type": "ByteLevel" });
    tokenizer(json!({ "pre_tokenizer": &byte_level, "model": { "type": &evil } }));
    refused("a kind of model");
    tokenizer(
        json!({ "pre_tokenizer": &byte_level, "model": { "vocab": { &evil: 0 }, "merges": [] } }),
    );
    refused("a token");
    tokenizer(
        json!({ "pre_tokenizer": &byte_level, "model": { "vocab": { "a": 0 }, "merges": [&evil] } }),
    );
    refused("a merge");
}

/// An old container whose state dict names this class.
fn pickle_of_class(class: &str) -> Vec<u8> {
    let prefix: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}U\rlittle_endian\x88s.";
    [prefix, b"\x80\x02c", class.as_bytes(), b"\nname\n."].concat()
}

/// The record may be any JSON, and what is not as the quantizer writes it is shown as it is.
#[test]
fn any_record_of_the_quantizer_is_shown() {
    let directory = tempdir().unwrap();
    let text = directory.path().join("text.txt");
    fs::write(&text, "Once upon a time there was a king. ".repeat(20)).unwrap();
    let html = directory.path().join("report.html");
    let tensor = "h.0.attn.c_attn.weight";
    let records = [
        json!([]),
        json!([{ "options": 1 }]),
        json!("text"),
        json!(7),
        json!(null),
        json!(true),
        json!({ "options": [] }),
        json!({ "options": "choices" }),
        json!({ "options": { "choices": 3 } }),
        json!({ "options": { "choices": [3, [], { "tensor": 5 }, { "tensor": tensor }] } }),
        json!({ "options": { "choices": [{ "tensor": tensor, "kl": ORDERS }] } }),
        // Replaced by what no number holds: the record is then a text.
        json!("here"),
    ];
    for record in records {
        let (_directory, file) = if record == "here" {
            let mut parts = Parts::of(&fs::read(model()).unwrap());
            parts.metadata["quantizer"] = record.clone();
            let json = parts.json().replacen(r#"\"here\""#, "1e999999", 1);
            let directory = tempdir().unwrap();
            let file = directory.path().join("big.cbl");
            fs::write(&file, parts::assemble(json.as_bytes(), &parts.data)).unwrap();
            (directory, file.to_str().unwrap().to_owned())
        } else {
            with_metadata(|metadata| metadata["quantizer"] = record.clone())
        };
        let text_argument = text.to_str().unwrap();
        let html_argument = html.to_str().unwrap();
        let inspected = shown(&["inspect", &file]);
        let report: Value = serde_json::from_str(&shown(&["inspect", &file, "--json"])).unwrap();
        if record == "here" {
            assert_eq!(report["quantizer"], "1e999999");
        } else {
            assert_eq!(report["quantizer"], record);
        }
        if !record.is_object() && record != "here" {
            assert!(inspected.contains(&format!("{:<32}{record}\n", "quantizer")), "{inspected}");
        }
        shown(&["verify", &file]);
        let arguments = ["eval", "-m", &file, "--text", text_argument, "--window", "16", "--html"];
        shown(&[&arguments[..], &[html_argument, "--force", "-q"]].concat());
    }
}
