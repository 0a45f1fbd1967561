//! When the system refuses threads, commands go on with fewer, say so, and give the same results.
//!
//! `strace` makes the calls that start a thread fail, from one on. Where it is missing, a test says on standard
//! error that it was not run.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use common::Model;
use tempfile::{TempDir, tempdir};

const BINARY: &str = env!("CARGO_BIN_EXE_cerebellum");

fn can_trace(test: &str) -> bool {
    let works = Command::new("strace").args(["-f", "true"]).output();
    let works = works.is_ok_and(|output| output.status.success());
    if !works {
        let _ = writeln!(std::io::stderr(), "\n*** NOT RUN: {test}: strace is missing ***");
    }
    works
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo")
}

/// The demo model, quantized once, and a text of some lines.
fn files() -> &'static (TempDir, String, String) {
    static FILES: OnceLock<(TempDir, String, String)> = OnceLock::new();
    FILES.get_or_init(|| {
        let directory = tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let (model, lines) = (path("model.cbl"), path("lines.txt"));
        let demo = demo();
        let arguments =
            ["quantize", "--no-calibration", demo.to_str().unwrap(), "-o", &model, "-q"];
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(
            &lines,
            "set an alarm for six\nwill it rain today\nplay some music\nstop\n".repeat(20),
        )
        .unwrap();
        (directory, model, lines)
    })
}

/// The command with the n-th thread and all after it refused; with 0, none is.
fn run(arguments: &[&str], refused_from: usize) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=clone,clone3"]);
    if refused_from > 0 {
        // Each thread counts its own calls; the first one starts all others.
        command.args(["-e", &format!("inject=clone,clone3:error=EAGAIN:when={refused_from}+")]);
    }
    command.arg(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs the command with all threads and with ever fewer. `result` is what must be the same.
fn goes_on(test: &str, arguments: &[&str], result: impl Fn(&Output) -> String) {
    goes_on_without(&[1, 2, 3, 4, 5, 6], test, arguments, result);
}

/// As [`goes_on`], with threads refused from each of these on.
fn goes_on_without(
    refused: &[usize],
    test: &str,
    arguments: &[&str],
    result: impl Fn(&Output) -> String,
) {
    if !can_trace(test) {
        return;
    }
    let arguments = [arguments, &["-t", "4"]].concat();
    let whole = run(&arguments, 0);
    let message = String::from_utf8_lossy(&whole.stderr).into_owned();
    assert!(whole.status.success() && !message.contains("refused"), "{message}");
    let mut told = 0;
    for &refused_from in refused {
        let output = run(&arguments, refused_from);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{refused_from}: {}: {message}", output.status);
        assert!(!message.contains("panicked"), "{refused_from}: {message}");
        assert_eq!(result(&output), result(&whole), "{refused_from}");
        told += usize::from(message.contains("instead of 4 do the work"));
    }
    // At least where the threads for work were refused.
    assert!(2 * told >= refused.len(), "told {told} times");
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn classify() {
    let (_, model, lines) = files();
    let arguments = ["classify", "-m", model, "-l", "alarm,weather,music", "--file", lines];
    goes_on("classify", &arguments, stdout);
}

#[test]
fn classify_one_text() {
    let (_, model, _) = files();
    let arguments = ["classify", "-m", model, "-l", "alarm,weather", "set an alarm for six"];
    goes_on("classify one text", &arguments, stdout);
}

#[test]
fn embed() {
    let (_, model, lines) = files();
    goes_on("embed", &["embed", "-m", model, "--file", lines], stdout);
}

#[test]
fn generate() {
    let (_, model, lines) = files();
    goes_on("generate", &["generate", "-m", model, "-p", "Once upon a time", "-n", "8"], stdout);
    let arguments = ["generate", "-m", model, "--file", lines, "-n", "3"];
    goes_on("generate --file", &arguments, stdout);
}

#[test]
fn eval() {
    let (_, model, lines) = files();
    let arguments = ["eval", "-m", model, "--text", lines, "--window", "32", "--json"];
    goes_on("eval", &arguments, |output| {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["perplexity"].to_string()
    });
}

#[test]
fn bench() {
    let (_, model, _) = files();
    let arguments = ["bench", "-m", model, "-p", "16", "-n", "4", "-r", "1", "--json"];
    // Limits take seconds to measure.
    goes_on_without(&[1, 3], "bench", &arguments, |output| {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        report["results"].as_array().unwrap().len().to_string()
    });
}

#[test]
fn quantize() {
    let directory = tempdir().unwrap();
    let checkpoint = directory.path().join("checkpoint");
    Model::random(97, 5, 48, 70).write(&checkpoint);
    let target = directory.path().join("model.cbl");
    let (checkpoint, target) = (checkpoint.to_str().unwrap(), target.to_str().unwrap());
    let arguments = ["quantize", "--no-calibration", checkpoint, "-o", target, "--force"];
    goes_on("quantize", &arguments, |_| blake3::hash(&fs::read(target).unwrap()).to_string());
}

#[test]
fn logits_of_the_reference() {
    let demo = demo();
    let arguments = ["logits", "--checkpoint", demo.to_str().unwrap(), "--tokens", "5,6,7"];
    goes_on("logits of the reference", &arguments, stdout);
}
