//! The command `eval-task`, on the binary itself.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Model, demo};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

const COMMANDS: [&str; 12] = [
    "wake me up at six",
    "how much money is in my account",
    "translate bread into spanish",
    "will it rain tomorrow",
    "tell me a joke",
    "what time is it in paris",
    "turn the music up",
    "remind me to call my mother",
    "how do i say thank you in german",
    "my card was stolen",
    "flip a coin",
    "what is your name",
];

fn cerebellum(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cerebellum")).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = cerebellum(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
}

fn failure(arguments: &[&str]) -> String {
    let output = cerebellum(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The demo model in int4 and int8.
struct Place {
    directory: TempDir,
    files: [PathBuf; 2],
}

impl Place {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        let files = ["int4", "int8"].map(|weights| {
            let file = directory.path().join(format!("{weights}.cbl"));
            let demo = demo();
            let arguments = [
                "quantize",
                "--no-calibration",
                text(&demo),
                "-o",
                text(&file),
                "--weights",
                weights,
            ];
            assert_eq!(cerebellum(&arguments).status.code(), Some(0));
            file
        });
        Self { directory, files }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// What `generate` says to each command, up to the end of the line.
    fn answers(&self, file: &Path) -> Vec<String> {
        let answer = |command: &&str| {
            let prompt = format!("Utterance: {command}\nIntent:");
            let arguments = ["generate", "-m", text(file), "-p", &prompt, "-n", "64", "--no-echo"];
            let report = json(&arguments);
            let said = report["text"].as_str().unwrap();
            said.trim_start().lines().next().unwrap_or_default().trim_end().to_owned()
        };
        COMMANDS.iter().map(answer).collect()
    }
}

fn table(answers: &[String], spoil: impl Fn(usize) -> bool) -> String {
    let lines = COMMANDS.iter().zip(answers).enumerate().map(|(i, (command, answer))| {
        let answer = if spoil(i) { "something else" } else { answer };
        format!("{command}\t{answer}\tanother column\n")
    });
    lines.collect()
}

/// Answers in a batch are those of one text after another, and differences are paired.
#[test]
fn answers_are_those_of_generate() {
    let place = Place::new();
    let [int4, int8] = &place.files;
    let answers = place.answers(int8);
    let all = place.write("all.tsv", &table(&answers, |_| false));
    let half = place.write("half.tsv", &table(&answers, |i| i % 2 == 0));
    let run = |data: &Path, more: &[&str]| {
        let arguments = ["eval-task", "intents", "--data", text(data), "-m", text(int8)];
        json(&[&arguments[..], more].concat())
    };
    let report = run(&half, &[]);
    assert_eq!((&report["task"], &report["examples"]), (&"intents".into(), &12.into()));
    assert_eq!(report["results"][0]["accuracy"], 50.0);
    assert_eq!(run(&half, &["--limit", "1"])["results"][0]["accuracy"], 0.0);

    let demo = demo();
    let report = run(&all, &["-m", text(int4), "--reference", text(&demo), "-t", "3"]);
    let [float, first, second] = [0, 1, 2].map(|i| &report["results"][i]);
    assert_eq!(first["accuracy"], 100.0);
    // The table holds the answers of int8: the reference is right where the two say the same.
    assert_eq!(first["same_answers"], float["accuracy"]);
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&float["accuracy"]) > 80.0, "int8 changes few answers: {report}");
    let difference = number(&first["accuracy"]) - number(&float["accuracy"]);
    assert!((number(&first["accuracy_difference"]) - difference).abs() < 1e-9);
    assert!(first["accuracy_difference_interval"].is_array());
    let same = place.answers(int4).iter().zip(&answers).filter(|(a, b)| a == b).count();
    assert!((number(&second["accuracy"]) - 100.0 * same as f64 / 12.0).abs() < 1e-9);
    assert!(float.get("accuracy_difference").is_none() && float.get("chrf").is_none());
}

#[test]
fn translations_are_scored_by_what_they_share() {
    let place = Place::new();
    let data = "I am here.\tJe suis là.\tJe suis ici.\nThank you.\tMerci.\n";
    let data = place.write("translate.tsv", data);
    let file = text(&place.files[1]);
    let arguments = ["eval-task", "translate", "--data", text(&data), "-m", file];
    let report = json(&arguments);
    let score = &report["results"][0];
    let chrf = score["chrf"].as_f64().unwrap();
    assert!((30.0..=100.0).contains(&chrf), "{report}");
    assert!(score["accuracy_interval"].is_null(), "two examples say nothing of the spread");
    let output = String::from_utf8(cerebellum(&arguments).stdout).unwrap();
    assert!(output.contains("chrF") && output.contains("int8.cbl"), "{output}");
}

#[test]
fn what_cannot_be_asked_is_told_at_once() {
    let place = Place::new();
    let good = place.write("good.tsv", "hello\tgreeting\n");
    let file = text(&place.files[0]);
    let run = |data: &Path, more: &[&str]| {
        let arguments = ["eval-task", "intents", "--data", text(data), "-m", file];
        failure(&[&arguments[..], more].concat())
    };
    let message = run(&place.write("bad.tsv", "hello\tgreeting\nno tab\n"), &[]);
    assert!(message.contains("line 2") && message.contains("tab"), "{message}");
    assert!(run(&place.write("empty.tsv", "\n"), &[]).contains("no examples"));
    assert!(run(&good, &["--template", "Q:"]).contains("{text}"));
    let long = place.write("long.tsv", &format!("{}\tx\n", "word ".repeat(600)));
    let message = run(&long, &[]);
    assert!(message.contains("example 1") && message.contains("512"), "{message}");

    let checkpoint = place.directory.path().join("other");
    Model::random(4096, 64, 12, 20).write(&checkpoint);
    let message = run(&good, &["--reference", text(&checkpoint)]);
    assert!(message.contains("n_embd"), "{message}");
    let latin = place.directory.path().join("latin1.tsv");
    fs::write(&latin, b"caf\xe9\tx\n").unwrap();
    assert!(run(&latin, &[]).contains("not UTF-8"));
}
