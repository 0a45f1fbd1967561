//! Receipts: made by `generate`, checked by `check`.

mod common;

use std::fs;
use std::process::{Command, Output};

use common::demo;
use serde_json::{Value, json};
use tempfile::tempdir;

fn cerebellum(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cerebellum")).args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_receipt_says_what_a_model_said_and_nothing_else() {
    let directory = tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (model, other, receipt) = (path("demo.cbl"), path("other.cbl"), path("receipt.json"));
    let checkpoint = demo();
    let checkpoint = checkpoint.to_str().unwrap();
    for (weights, file) in [("int4", &model), ("int8", &other)] {
        let output = cerebellum(&[
            "quantize",
            "--no-calibration",
            checkpoint,
            "-q",
            "--weights",
            weights,
            "-o",
            file,
        ]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    // Whatever evaluates it: threads, chunks, and guesses.
    let check = |model: &str| {
        let output =
            cerebellum(&["check", &receipt, "-m", model, "--json", "-t", "2", "--chunk", "7"]);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", stderr(&output)));
        assert_eq!(report["ok"] == true, output.status.success());
        report
    };
    let schema = path("schema.json");
    fs::write(
        &schema,
        r#"{"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}"#,
    )
    .unwrap();
    let cases: [&[&str]; 9] = [
        &["-p", "Once upon a time", "-n", "24"],
        &["-p", "Utterance: set an alarm for six\nIntent:"],
        &[
            "-p",
            "The",
            "-n",
            "40",
            "--temperature",
            "0.9",
            "--top-p",
            "0.9",
            "--seed",
            "5",
            "--ignore-eos",
        ],
        &[
            "-p",
            "The",
            "--repetition-penalty",
            "1.3",
            "--repetition-window",
            "9",
            "--logit-bias",
            "12:2.5",
        ],
        &["-p", "The king", "-n", "60", "--stop", " the"],
        &["-p", "A person:", "--json-schema", &schema, "-n", "40", "--temperature", "1"],
        &["-p", "Is it? Answer:", "--choices", "yes,no"],
        &["-p", "In ", "--regex", "[0-9]{40}", "-n", "9", "--kv", "int8"],
        &["-n", "0"],
    ];
    for case in cases {
        let _ = fs::remove_file(&receipt);
        let all = [&["generate", "-m", &model, "-q", "--receipt", &receipt], case].concat();
        let output = cerebellum(&all);
        assert!(output.status.success(), "{case:?}: {}", stderr(&output));
        let report = check(&model);
        assert_eq!(report["ok"], true, "{case:?}: {report}");
        assert!(check(&other)["message"].as_str().unwrap().contains("another model"));
        let made: Value = serde_json::from_slice(&fs::read(&receipt).unwrap()).unwrap();
        let count = made["output_tokens"].as_array().unwrap().len();
        assert_eq!(report["tokens"], count);
        let change = |field: &str, value: Value| {
            let mut changed = made.clone();
            changed[field] = value;
            fs::write(&receipt, changed.to_string()).unwrap();
            check(&model)
        };
        let digest = format!("blake3:{}", "0".repeat(64));
        let report = change("logits", digest.into());
        assert!(
            report["message"].as_str().unwrap().contains("probabilities"),
            "{case:?}: {report}"
        );
        for at in [0, count / 2, count.wrapping_sub(1)].into_iter().filter(|&at| at < count) {
            let mut tokens = made["output_tokens"].clone();
            tokens[at] = (tokens[at].as_u64().unwrap() ^ 1).into();
            let report = change("output_tokens", tokens);
            assert_eq!(report["parts_at"], at, "{case:?}: {report}");
        }
        if count > 1 {
            let mut tokens = made["output_tokens"].as_array().unwrap().clone();
            tokens.pop();
            assert_eq!(change("output_tokens", json!(tokens))["ok"], false, "{case:?}");
        }
        assert_eq!(
            change("stop_reason", "stop_string".into())["ok"],
            made["stop_reason"] == "stop_string"
        );
    }
    fs::write(&receipt, "{}").unwrap();
    let output = cerebellum(&["check", &receipt, "-m", &model]);
    assert!(
        !output.status.success() && stderr(&output).contains("is no receipt"),
        "{}",
        stderr(&output)
    );
}
