//! The commands that run a model file, on the binary itself.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use common::demo;
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const INTENT: &str = "Utterance: set an alarm for six\nIntent:";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
    command.args(arguments);
    command
}

fn cerebellum(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
}

/// The bundled model, quantized once for all tests.
fn model() -> &'static str {
    static MODEL: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, file) = MODEL.get_or_init(|| {
        let directory = tempdir().unwrap();
        let file = directory.path().join("demo.cbl").to_str().unwrap().to_owned();
        let checkpoint = demo();
        let output = cerebellum(&["quantize", checkpoint.to_str().unwrap(), "-o", &file, "-q"]);
        assert!(output.status.success(), "{}", stderr(&output));
        (directory, file)
    });
    file
}

#[test]
fn text_goes_to_standard_output_and_figures_to_standard_error() {
    let output = cerebellum(&["generate", "-m", model(), "-p", INTENT]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("{INTENT} alarm\n\n"));
    assert!(stderr(&output).contains("tokens") && stderr(&output).contains("private memory"));
    let quiet = cerebellum(&["generate", "-m", model(), "-p", INTENT, "-q", "--no-echo"]);
    assert_eq!((stdout(&quiet), stderr(&quiet)), (" alarm\n\n", ""));
}

#[test]
fn json_has_the_documented_fields() {
    let output = cerebellum(&["generate", "-m", model(), "-p", INTENT, "--json"]);
    let report = json(&output);
    assert_eq!(
        (&report["text"], &report["stop_reason"]),
        (&" alarm\n".into(), &"end_of_text".into())
    );
    assert_eq!(report["tokens"], 2);
    assert!(report["prompt_tokens"].as_u64().unwrap() > 5);
    for speed in ["prompt_tokens_per_second", "decode_tokens_per_second"] {
        assert!(report[speed].as_f64().unwrap() > 0.0);
    }
    let output = cerebellum(&["plan", model(), "--context", "64", "--kv", "int8", "--json"]);
    let plan = json(&output);
    let of = |field: &str| plan[field].as_u64().unwrap();
    // [6 layers, 4 heads, 64 positions]: 64 dimensions and a scale, of keys and of values.
    assert_eq!(of("kv_bytes"), 6 * 4 * 64 * (64 + 4) * 2);
    assert_eq!(of("total_private_bytes"), of("kv_bytes") + of("scratch_bytes"));
    assert_eq!(of("weights_bytes"), fs::metadata(model()).unwrap().len());
    let doctor = json(&cerebellum(&["doctor", model(), "--json"]));
    let available = doctor["isa_available"].as_array().unwrap();
    assert!(available.contains(&doctor["isa"]) && available.contains(&"scalar".into()));
    assert_eq!(doctor["file"]["has_tokenizer"], true);
    if cfg!(target_os = "linux") {
        // It has just been written, and read.
        assert_eq!(doctor["file"]["cached_bytes"], doctor["file"]["file_bytes"]);
    }
}

#[test]
fn the_prompt_may_come_from_standard_input() {
    let mut child = command(&["generate", "-m", model(), "-p", "-", "-q", "--stop", "\n"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(child.stdin.take().unwrap(), "{INTENT}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(stdout(&output), format!("{INTENT} alarm\n"));
}

#[test]
fn the_same_seed_gives_the_same_text_on_every_instruction_set() {
    let sampled = ["generate", "-m", model(), "-n", "12", "--temperature", "0.9", "--seed", "4"];
    let doctor = json(&cerebellum(&["doctor", "--json"]));
    let want = cerebellum(&sampled).stdout;
    for isa in doctor["isa_available"].as_array().unwrap() {
        for threads in ["1", "2"] {
            let mut command = command(&sampled);
            command.args(["-t", threads]).env("CEREBELLUM_ISA", isa.as_str().unwrap());
            assert_eq!(command.output().unwrap().stdout, want, "{isa}, {threads} threads");
        }
    }
    let mut other = command(&sampled);
    other.args(["--seed", "5"]);
    assert!(other.output().unwrap().status.code() == Some(2), "a seed twice is wrong usage");
}

#[test]
fn what_cannot_be_is_said_and_exits_with_1() {
    let cases: [(&[&str], &str); 6] = [
        (&["generate", "-m", "no-such.cbl"], "no-such.cbl"),
        (&["generate", "-m", model(), "--context", "9999"], "1..=512"),
        (&["generate", "-m", model(), "--context", "3", "-p", INTENT], "context full"),
        (&["generate", "-m", model(), "--temperature", "nan"], "temperature"),
        (&["generate", "-m", model(), "--stop", ""], "stop string"),
        (&["plan", model(), "--chunk", "0"], "chunk"),
    ];
    for (arguments, part) in cases {
        let output = cerebellum(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
    }
    let output = command(&["doctor"]).env("CEREBELLUM_ISA", "abacus").output().unwrap();
    assert!(stderr(&output).contains("abacus") && output.status.code() == Some(1));
}

#[test]
fn a_reader_that_leaves_ends_the_generation_quietly() {
    let mut child = command(&["generate", "-m", model(), "-n", "400", "--ignore-end-of-text"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(141), ""));
}

#[test]
fn a_file_without_a_tokenizer_says_what_is_missing() {
    let place = tempdir().unwrap();
    let checkpoint = place.path().join("checkpoint");
    common::Model::random(97, 5, 48, 70).write(&checkpoint);
    let file = place.path().join("ids.cbl");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let quantized = cerebellum(&["quantize", &path(&checkpoint), "-o", &path(&file)]);
    assert!(stderr(&quantized).contains("token ids only"));
    let output = cerebellum(&["generate", "-m", &path(&file), "-p", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("holds no tokenizer"), "{}", stderr(&output));
}

#[test]
fn the_demo_quantizes_and_tells_a_story() {
    let place = tempdir().unwrap();
    let file = place.path().join("demo.cbl");
    let arguments = ["demo", "-o", file.to_str().unwrap()];
    let output = cerebellum(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("Once upon a time") && stdout(&output).len() > 100);
    assert!(stderr(&output).contains("bits per weight"));
    // Again, over the file that is there now: the same story.
    assert_eq!(cerebellum(&arguments).stdout, output.stdout);
    let report = json(&cerebellum(&[&arguments[..], &["--json"]].concat()));
    assert!(stdout(&output).contains(report["text"].as_str().unwrap()));
}
