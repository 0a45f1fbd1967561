//! The device binary, as a user of it sees it.

mod common;
#[path = "hostile/parts.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod parts;
#[cfg(unix)]
#[path = "common/terminal.rs"]
mod terminal;

use std::process::{Command, Output};

use cerebellum::quant::Scheme;
use common::{demo, golden, quantize_to};
use tempfile::{TempDir, tempdir};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cerebellum-run")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn model(case: &std::path::Path) -> (TempDir, String) {
    let directory = tempdir().unwrap();
    let file = directory.path().join("model.cbl");
    quantize_to(&file, case, Scheme::Int4, 64);
    let file = file.to_str().unwrap().to_owned();
    (directory, file)
}

#[test]
#[cfg(feature = "text")]
fn continues_a_prompt() {
    let (_directory, file) = model(&demo());
    let prompt = "Utterance: set an alarm for six\nIntent:";
    let output = run(&[&file, prompt, "-n", "20", "-t", "1"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("{prompt} alarm\n\n"));
    assert!(stderr(&output).contains("private memory") && stderr(&output).contains("/s"));
}

/// What a terminal would obey is shown there, and passed on into a pipe.
#[test]
#[cfg(all(feature = "text", unix))]
fn a_terminal_gets_no_orders() {
    let (directory, file) = model(&demo());
    let prompt = "\u{1b}[2J\u{9b}m\u{202e}\tSay:";
    let arguments = [file.as_str(), prompt, "-n", "4", "-t", "1"];
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum-run"));
        command.args(arguments);
        command
    };
    let (status, shown) = terminal::on_terminal(command(&arguments));
    assert!(status.success() && shown.starts_with("\\u001b[2J\\u009bm\\u202e\tSay:"), "{shown:?}");
    assert_eq!(terminal::first_obeyed(&shown), None, "{shown:?}");
    assert!(stdout(&run(&arguments)).starts_with(prompt));

    // A header that does not parse, and says so with a text of the file's.
    let mut parts = parts::Parts::of(&std::fs::read(&file).unwrap());
    parts.metadata["config"]["mlp"]["activation"] = "\u{1b}[2J\nforged".into();
    let file = directory.path().join("forged.cbl");
    std::fs::write(&file, parts.file()).unwrap();
    let (status, shown) = terminal::on_terminal(command(&[file.to_str().unwrap(), "x"]));
    assert_eq!(status.code(), Some(1));
    assert_eq!(terminal::first_obeyed(&shown), None, "{shown:?}");
    assert!(shown.contains("\\u001b[2J\\u000aforged") && shown.lines().count() == 1, "{shown}");
}

/// As if it were not set.
#[test]
fn an_empty_instruction_set_is_none() {
    let (_directory, file) = model(&golden("cerebras-odd-inner"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum-run"));
    command.args([&file, "--tokens", "1,2", "--ids", "-n", "2"]);
    let output = command.env("CEREBELLUM_ISA", "").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn takes_and_gives_token_ids() {
    let (_directory, file) = model(&golden("cerebras-odd-inner"));
    let ids = |more: &[&str]| {
        let output = run(&[&[&file, "--tokens", "1,2, 3", "--ids", "-n", "5"], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let ids: Vec<u32> = stdout(&output).lines().map(|id| id.parse().unwrap()).collect();
        ids
    };
    let want = ids(&[]);
    assert!(!want.is_empty() && want.iter().all(|&id| id < 257));
    assert_eq!(ids(&["--read", "-t", "3", "--context", "10"]), want);

    let output = run(&[&file, "--tokens", "1,2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("holds no tokenizer"));
    let output = run(&[&file, "--tokens", "1,257", "--ids"]);
    assert!(stderr(&output).contains("257") && output.status.code() == Some(1));
}

#[test]
fn wrong_usage_exits_with_2_and_says_why() {
    for (arguments, part) in [
        (&[][..], "no model file"),
        (&["a.cbl", "--tempo", "1"], "--tempo"),
        (&["a.cbl", "-n"], "-n needs a value"),
        (&["a.cbl", "-n", "many"], "-n: \"many\" is not a whole number in 0..="),
        (&["a.cbl", "-n", "-1"], "-n: -1 is not in 0..="),
        (&["a.cbl", "-t", "65"], "-t: 65 is not in 1..=64"),
        (&["a.cbl", "--temperature", "101"], "--temperature: 101 is not in 0..=100"),
        (&["a.cbl", "two", "words"], "quote"),
        (&["a.cbl", "x", "--tokens", "1"], "not both"),
        (&["a.cbl", "--kv", "f8"], "f8"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
    }
    assert!(stdout(&run(&["--help"])).contains("usage"));
    assert!(stdout(&run(&["--version"])).contains("scalar"));
    let output = run(&["no-such.cbl"]);
    assert!(stderr(&output).contains("no-such.cbl") && output.status.code() == Some(1));
}

/// Every call that concerns the model's file fails once: an error that names it, or, where it does no
/// harm, the same tokens. Interrupted calls are repeated.
#[test]
#[cfg(target_os = "linux")]
fn every_call_on_the_model_fails_once() {
    let traces = Command::new("strace").args(["-f", "true"]).output();
    if !traces.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "*** NOT RUN: strace is missing or may not trace; install the package strace ***"
        );
        return;
    }
    let (directory, file) = model(&golden("cerebras-odd-inner"));
    let file = file.as_str();
    let log = directory.path().join("log");
    for access in [None, Some("--read")] {
        let traced = |expression: &str| {
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-P", file, "-e", expression, "-o"]).arg(&log);
            strace.arg(env!("CARGO_BIN_EXE_cerebellum-run")).args([file, "--tokens", "1,2"]);
            strace.args(["--ids", "-n", "2", "-t", "1"]).args(access).output().unwrap()
        };
        let sound = traced("trace=all");
        assert_eq!(sound.status.code(), Some(0), "{}", stderr(&sound));
        for (call, count) in calls(&std::fs::read_to_string(&log).unwrap()) {
            for (number, error) in
                (1..=count).flat_map(|n| ["EIO", "ENOMEM", "EINTR"].map(|e| (n, e)))
            {
                let output = traced(&format!("inject={call}:error={error}:when={number}"));
                let case = format!("{call} {number} {error} {access:?}: {}", stderr(&output));
                let repeated = error == "EINTR" && ["openat", "read", "pread64"].contains(&&*call);
                match output.status.code() {
                    Some(0) => assert_eq!(stdout(&output), stdout(&sound), "{case}"),
                    code => assert!(code == Some(1) && !repeated && case.contains(file), "{case}"),
                }
            }
        }
    }
}

/// The calls in a log of strace's, and how often each was made.
#[cfg(target_os = "linux")]
fn calls(log: &str) -> std::collections::BTreeMap<String, usize> {
    let mut calls = std::collections::BTreeMap::new();
    // `<thread> <call>(<arguments>) = <result>`
    let names = log.lines().filter_map(|line| line.split_once('(')?.0.split(' ').next_back());
    names.for_each(|name| *calls.entry(name.to_owned()).or_default() += 1);
    assert!(calls.contains_key("openat"), "nothing was traced");
    calls
}

/// `strace` refuses the second of three threads, once.
#[test]
#[cfg(target_os = "linux")]
fn goes_on_with_as_many_threads_as_are_to_be_had() {
    let (_directory, file) = model(&golden("cerebras-odd-inner"));
    let arguments = [&file, "--tokens", "1,2,3", "--ids", "-n", "5", "-t", "4"];
    let refuse = "inject=clone,clone3:error=EAGAIN:when=2";
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=clone,clone3", "-e", refuse])
        .arg(env!("CARGO_BIN_EXE_cerebellum-run"))
        .args(arguments)
        .output();
    let Ok(output) = traced else {
        eprintln!("*** NOT RUN: strace is missing ***");
        return;
    };
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), stdout(&run(&arguments)));
    let message = stderr(&output);
    assert!(message.contains("only 2 threads are to be had"), "{message}");
    assert!(message.contains(", 2 threads"), "{message}");
}

/// Under any limit on addresses that it can start with: the text, or an error.
#[test]
#[cfg(all(feature = "text", target_os = "linux"))]
fn limits_on_addresses_end_in_errors() {
    let (_directory, file) = model(&demo());
    let mut codes = Vec::new();
    for kib in (10_000..40_000).step_by(1_000).chain([1_000_000]) {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"ulimit -v "$0" && exec "$@""#, &kib.to_string()]);
        shell.args([
            env!("CARGO_BIN_EXE_cerebellum-run"),
            &file,
            "Once upon",
            "-n",
            "4",
            "-t",
            "2",
        ]);
        let output = shell.output().unwrap();
        if output.status.code() == Some(127) || stderr(&output).contains("shared libraries") {
            continue; // the system's loader did not come far
        }
        assert!(matches!(output.status.code(), Some(0 | 1)), "{kib} KiB: {output:?}");
        codes.push(output.status.code());
    }
    assert!(codes.contains(&Some(1)) && codes.last() == Some(&Some(0)), "{codes:?}");
}
