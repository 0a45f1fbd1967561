//! Text and tokens on the binary itself: `tokenize`, and the token that begins a text.

#[path = "common/command.rs"]
mod command;
mod common;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::OnceLock;

use command::{feed, ok, stderr, stdout};
use common::demo;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

fn run(arguments: &[&str]) -> Output {
    feed(arguments, b"")
}

fn json_of(arguments: &[&str]) -> Value {
    let output = ok(run(&[arguments, &["--json"]].concat()));
    serde_json::from_str(stdout(&output)).unwrap()
}

fn error(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success());
    stderr(&output).to_owned()
}

/// The bundled checkpoint, whose tokenizer wants `<|endoftext|>` before every text, or does not say so.
fn checkpoint(place: &Path, begins: Option<bool>) {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(demo().join(name), place.join(name)).unwrap();
    }
    if let Some(begins) = begins {
        let config = json!({"add_bos_token": begins, "bos_token": "<|endoftext|>"});
        fs::write(place.join("tokenizer_config.json"), config.to_string()).unwrap();
    }
}

struct Models {
    place: TempDir,
}

impl Models {
    fn path(&self, name: &str) -> String {
        self.place.path().join(name).to_str().unwrap().to_owned()
    }
}

/// The arguments that make a file of a checkpoint.
fn quantize<'a>(source: &'a Path, output: &'a str) -> [&'a str; 6] {
    ["quantize", "--no-calibration", source.to_str().unwrap(), "-o", output, "-q"]
}

/// Quantized once for all tests: `plain.cbl`, and `begun.cbl`, which wants a token before every text.
fn models() -> &'static Models {
    static MODELS: OnceLock<Models> = OnceLock::new();
    MODELS.get_or_init(|| {
        let models = Models { place: tempdir().unwrap() };
        for (name, begins) in [("plain.cbl", None), ("begun.cbl", Some(true))] {
            let source = tempdir().unwrap();
            checkpoint(source.path(), begins);
            let output = models.path(name);
            ok(run(&quantize(source.path(), &output)));
        }
        models
    })
}

fn plain() -> String {
    models().path("plain.cbl")
}

fn begun() -> String {
    models().path("begun.cbl")
}

#[test]
fn tokens_are_shown_one_by_one() {
    let model = plain();
    let output = ok(run(&["tokenize", "-m", &model, "a caf\u{e9} \u{1f980}\n<|endoftext|>"]));
    let table = stdout(&output);
    assert!(table.starts_with("at    id  piece\n 0  "), "{table}");
    assert!(table.contains("\"\\n\""), "{table}");
    // A crab is four bytes, and no token of this vocabulary.
    assert!(table.contains("\\xf0"), "{table}");
    assert!(table.contains("read as text (--parse-special)"), "{table}");
    let special = ["tokenize", "-m", &model, "--parse-special", "-p", "x<|endoftext|>"];
    let table = ok(run(&special));
    assert!(stdout(&table).ends_with("\"<|endoftext|>\"  special\n2 tokens, 14 bytes\n"));
    let report = json_of(&special);
    assert_eq!((&report["count"], &report["ids"][1]), (&json!(2), &json!(0)));
    assert_eq!(
        (&report["pieces"], &report["special"]),
        (&json!(["x", "<|endoftext|>"]), &json!([1]))
    );
    // A part of a character is bytes.
    let crab = json_of(&["tokenize", "-m", &model, "\u{1f980}"]);
    let bytes: Vec<u8> = crab["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|piece| match piece.as_array() {
            Some(bytes) => bytes.iter().map(|byte| byte.as_u64().unwrap() as u8).collect(),
            None => piece.as_str().unwrap().as_bytes().to_vec(),
        })
        .collect();
    assert_eq!(bytes, "\u{1f980}".as_bytes());
}

#[test]
fn ids_of_lines_become_the_lines_again() {
    let model = plain();
    let place = tempdir().unwrap();
    let [texts, ids] = ["texts", "ids"].map(|name| place.path().join(name));
    let lines = "Once upon a time\ncaf\u{e9} \u{1f980}  two\nlast\n";
    fs::write(&texts, lines).unwrap();
    let [texts, ids] = [&texts, &ids].map(|path| path.to_str().unwrap());
    let output = ok(run(&["tokenize", "-m", &model, "--file", texts]));
    assert!(stderr(&output).contains("3 texts, "), "{}", stderr(&output));
    fs::write(ids, &output.stdout).unwrap();
    assert_eq!(stdout(&ok(run(&["tokenize", "-m", &model, "--ids", ids]))), lines);
    // The same from standard input, and with JSON.
    let output = ok(feed(&["tokenize", "-m", &model, "--json"], lines.as_bytes()));
    let reports: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((reports.len(), &reports[2]["line"]), (3, &json!(3)));
    let list = reports[0]["ids"].to_string();
    let report = json_of(&["tokenize", "-m", &model, "--ids", &list]);
    assert_eq!((&report["text"], &report["ids"]), (&json!("Once upon a time"), &reports[0]["ids"]));
    assert_eq!(report["count"], reports[0]["count"]);
    // Half of a character is written as it is.
    let crab = json_of(&["tokenize", "-m", &model, "\u{1f980}"])["ids"][0].to_string();
    let half = ok(run(&["tokenize", "-m", &model, "--ids", &crab]));
    assert!("\u{1f980}".as_bytes().starts_with(half.stdout.strip_suffix(b"\n").unwrap()));
}

#[test]
fn wrong_ids_are_told_with_their_places() {
    let model = plain();
    let tokenize = |ids: &str| error(&["tokenize", "-m", &model, "--ids", ids]);
    assert!(tokenize("1,2,99999").contains("id number 3, 99999, is no token: the model has 4096"));
    assert!(tokenize("1,99999999999").contains("id number 2, \"99999999999\", is no whole number"));
    assert!(tokenize("1;2").contains("neither a list of ids"));
    let place = tempdir().unwrap();
    let file = place.path().join("ids");
    fs::write(&file, "1,2\n\n3 x\n").unwrap();
    let told = tokenize(file.to_str().unwrap());
    assert!(told.contains("ids, line 3: id number 2, \"x\""), "{told}");
    assert!(error(&["tokenize", "-m", &model, "--system", "a", "b"]).contains("--chat"));
    let told = error(&["tokenize", "-m", &model, "--chat", "b"]);
    assert!(told.contains("quantize it again"), "{told}");
}

/// `add_bos_token` decides, and every command that reads a text obeys.
#[test]
fn the_token_that_begins_a_text_is_there_once() {
    let (plain, begun) = (plain(), begun());
    let ids =
        |arguments: &[&str]| json_of(&[&["tokenize", "-m"], arguments].concat())["ids"].clone();
    let without = ids(&[&plain, "Once upon a time"]);
    let with = ids(&[&begun, "Once upon a time"]);
    assert_eq!(with[0], 0);
    assert_eq!(with.as_array().unwrap()[1..], without.as_array().unwrap()[..]);
    assert_eq!(ids(&[&begun, "--no-bos", "Once upon a time"]), without);
    let written = "<|endoftext|>Once upon a time";
    assert_eq!(ids(&[&begun, "--parse-special", written]), with);
    assert_eq!(ids(&[&plain, "--parse-special", written]), with);
    let table = ok(run(&["tokenize", "-m", &begun, "x"]));
    assert!(stdout(&table).contains("begins a text"));

    // The model that puts it there itself, and the one that is given it, compute the same.
    let same = |command: &[&str], fields: &[&str]| {
        let of = |model: &str, text: &str| {
            let arguments = command.iter().map(|&argument| match argument {
                "TEXT" => text,
                argument => argument,
            });
            let mut arguments: Vec<&str> = arguments.collect();
            arguments.extend(["-m", model]);
            json_of(&arguments)
        };
        let bare = of(&begun, "Once upon a time");
        for report in [of(&begun, written), of(&plain, written)] {
            for field in fields {
                assert_eq!(bare[field], report[field], "{command:?}: {field}");
            }
        }
        assert_ne!(bare, of(&plain, "Once upon a time"), "{command:?}");
    };
    let fields = ["text", "prompt_tokens", "tokens"];
    same(&["generate", "-n", "12", "--parse-special", "-p", "TEXT"], &fields);
    let score = ["score", "--parse-special", "-p", "TEXT", "-c", ", there", "-c", " king"];
    same(&score, &["prompt_tokens", "continuations"]);
    // A continuation that is a text of its own begins with it, too.
    let whole = |model: &str, prompt: &str| {
        let score = ["score", "-m", model, "--parse-special", "-p", prompt, "-c", "Once"];
        json_of(&score)["log_probability"].clone()
    };
    assert_eq!(whole(&begun, ""), whole(&plain, "<|endoftext|>"));

    // Commands that know no special tokens count it.
    let tokens =
        |model: &str| json_of(&["embed", "-m", model, "Once upon a time"])["tokens"].clone();
    assert_eq!(tokens(&begun).as_u64(), tokens(&plain).as_u64().map(|n| n + 1));
    let file = models().path("prompts.txt");
    fs::write(&file, "Once upon a time\n").unwrap();
    let lines = ["generate", "-m", &begun, "--file", &file, "-n", "12"];
    let one = json_of(&["generate", "-m", &begun, "-p", "Once upon a time", "-n", "12"]);
    assert_eq!(json_of(&lines)["text"], one["text"]);
    assert_eq!(json_of(&lines)["prompt_tokens"], one["prompt_tokens"]);
    let translated = |model: &str| {
        let result = json_of(&["translate", "-m", model, "I am hungry."]);
        result["prompt_tokens"].as_u64().unwrap()
    };
    assert_eq!(translated(&begun), translated(&plain) + 1);
    let classified = |model: &str| {
        json_of(&["classify", "-m", model, "-l", "alarm,timer", "wake me"])["probability"].clone()
    };
    assert_ne!(classified(&begun), classified(&plain));
}

/// What `eval` measures of a text begins with the token in every window, as if the text did.
#[test]
fn windows_begin_with_the_token() {
    let text = models().path("eval.txt");
    fs::write(&text, "The cat sat on the mat and looked at the moon. ".repeat(4)).unwrap();
    let eval = |model: &str| {
        json_of(&["eval", "-m", model, "--text", &text, "--window", "16"])["perplexity"].clone()
    };
    let (plain, begun) = (plain(), begun());
    assert_ne!(eval(&plain), eval(&begun));
}

#[test]
fn a_tokenizer_that_does_not_say_which_token_is_refused() {
    let source = tempdir().unwrap();
    checkpoint(source.path(), Some(true));
    let config = json!({"add_bos_token": true, "bos_token": "<s>"}).to_string();
    fs::write(source.path().join("tokenizer_config.json"), config).unwrap();
    let output = models().path("refused.cbl");
    let told = error(&quantize(source.path(), &output));
    assert!(told.contains("tokenizer_config.json") && told.contains("add_bos_token"), "{told}");
}
