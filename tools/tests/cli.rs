//! The conventions of `docs/cli.md`, on the binary itself.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Model, demo};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

fn cerebellum(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cerebellum")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory with a small checkpoint, and a place for a model file.
struct Place {
    directory: TempDir,
    checkpoint: PathBuf,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        Self::with(&Model::random(97, 5, 48, 70))
    }

    fn with(model: &Model) -> Self {
        let directory = tempdir().unwrap();
        let checkpoint = directory.path().join("checkpoint");
        model.write(&checkpoint);
        let file = directory.path().join("out").join("model.cbl");
        fs::create_dir(file.parent().unwrap()).unwrap();
        Self { directory, checkpoint, file }
    }

    /// Makes the file of the bundled model instead, which has a tokenizer.
    #[cfg(unix)]
    fn quantize_demo(&self) {
        let demo = demo();
        let arguments = ["quantize", "--no-calibration", text(&demo), "-o", text(&self.file)];
        assert_eq!(code(&cerebellum(&arguments)), 0);
    }

    fn quantize(&self, more: &[&str]) -> Output {
        let arguments =
            ["quantize", "--no-calibration", text(&self.checkpoint), "-o", text(&self.file)];
        cerebellum(&[&arguments, more].concat())
    }

    /// Names in the directory of the model file.
    fn outputs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.file.parent().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn quantize_inspect_and_verify_agree() {
    let place = tempdir().unwrap();
    let file = place.path().join("demo.cbl");
    let quantized =
        cerebellum(&["quantize", "--no-calibration", text(&demo()), "-o", text(&file), "--json"]);
    assert_eq!((code(&quantized), stderr(&quantized).as_str()), (0, ""));
    let mut quantized = json(&quantized);
    let inspected = json(&cerebellum(&["inspect", text(&file), "--json"]));
    for of_the_run in ["output", "seconds", "peak_memory_bytes"] {
        quantized.as_object_mut().unwrap().remove(of_the_run);
    }
    let mut summary = inspected.clone();
    for of_texts in ["chat_form", "end_tokens", "begin_of_text"] {
        summary.as_object_mut().unwrap().remove(of_texts).expect(of_texts);
    }
    assert_eq!(quantized, summary);
    assert_eq!(inspected["file_bytes"], fs::metadata(&file).unwrap().len());
    assert_eq!(inspected["architecture"], "gpt2");
    assert_eq!(inspected["tensors"][0]["scheme"], "int4");
    assert_eq!(inspected["tensors"][0]["group_size"], 64);
    assert!(inspected["tokenizer_bytes"].as_u64().unwrap() > 0);

    let verified = cerebellum(&["--json", "verify", text(&file)]);
    assert_eq!(code(&verified), 0);
    assert_eq!(json(&verified)["ok"], true);
    assert_eq!(json(&verified)["parameters"], inspected["parameters"]);

    for command in ["inspect", "verify"] {
        let output = cerebellum(&[command, text(&file)]);
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
        assert!(!output.stdout.contains(&0x1b), "escape sequences in {command}'s output");
    }
}

#[test]
fn a_dry_run_tells_what_the_run_does() {
    let place = tempdir().unwrap();
    let file = place.path().join("demo.cbl");
    let demo = demo();
    for format in [&["--weights", "int4"][..], &["--weights", "int8", "--group-size", "64"]] {
        let dry = [&["quantize", text(&demo), "--dry-run", "--json"], format].concat();
        let output =
            cerebellum(&[&dry[..], &["--context", "300", "--kv", "int8", "-t", "2"]].concat());
        assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was written");
        let mut told = json(&output);

        let run = ["quantize", "--no-calibration", text(&demo), "-o", text(&file), "--json"];
        let mut done = json(&cerebellum(&[&run, format].concat()));
        let plan = ["plan", text(&file), "--context", "300", "--kv", "int8", "-t", "2", "--json"];
        let mut planned = json(&cerebellum(&plan));
        let reads = planned.as_object_mut().unwrap().remove("reads").unwrap();
        assert_eq!(planned, {
            let mut memory = told["memory"].take();
            memory["ok"] = true.into();
            memory
        });
        // Of the file all but the tokenizer, the checksums, and what is there for other tokens; the cache is full.
        let of = |name: &str| reads[name].as_u64().unwrap();
        let parts =
            ["embedding_bytes", "attention_bytes", "mlp_bytes", "vectors_bytes", "head_bytes"];
        let read: u64 = parts.map(of).iter().sum();
        let weights = planned["weights_bytes"].as_u64().unwrap();
        assert!(read < weights && read > weights / 2, "{reads} of {weights}");
        assert_eq!(of("cache_bytes"), planned["kv_bytes"].as_u64().unwrap() / 304 * 300, "{reads}");
        let flash = ["plan", text(&file), "--flash-mb-s", "10", "--ram", "1000"];
        let flash = String::from_utf8(cerebellum(&flash).stdout).unwrap();
        let most = format!("10 MB/s of flash allow {:.1} tokens/s at most", 1e7 / read as f64);
        assert!(flash.contains(&most), "{flash}");
        assert!(flash.contains(" bytes more than 1000: a smaller --context"), "{flash}");
        // Of a copy in what a session leaves: at most a matrix less than all of it.
        let (opening, private) = (1 << 16, planned["total_private_bytes"].as_u64().unwrap());
        let ram = (private + opening + 500_000).to_string();
        let fits = [&plan[..8], &["--flash-mb-s", "10", "--ram", &ram, "--json"]].concat();
        let fits = json(&cerebellum(&fits));
        let of = |name: &str| fits[name].as_u64().unwrap();
        let left = private + opening + 500_000 - of("opening_bytes") - private;
        assert_eq!(of("text_bytes"), 300 * 4 * 64 + (16 << 10));
        assert!(fits["fits_ram"] == true && of("copy_bytes") <= left, "{fits}");
        assert!(of("copy_bytes") > 250_000 && of("copy_saved_bytes") >= of("copy_bytes"), "{fits}");
        let rate = fits["copy_flash_tokens_per_second"].as_f64().unwrap();
        assert_eq!(rate, 1e7 / (read - of("copy_saved_bytes")) as f64);
        assert_eq!(told["dry_run"], true);
        assert_eq!(done["source"]["bytes"], told["source"]["bytes"]);
        for report in [&mut told, &mut done] {
            let report = report.as_object_mut().unwrap();
            let of_one_only =
                ["output", "source", "dry_run", "memory", "seconds", "peak_memory_bytes"];
            for key in of_one_only {
                report.remove(key);
            }
            for tensor in report["tensors"].as_array_mut().unwrap() {
                tensor.as_object_mut().unwrap().remove("relative_error");
            }
        }
        assert_eq!(told, done);
        fs::remove_file(&file).unwrap();
    }

    let place = Place::new();
    let with_output = place.quantize(&["--dry-run"]);
    assert_eq!((code(&with_output), place.outputs().len()), (0, 0));
    assert!(String::from_utf8(with_output.stdout).unwrap().contains("would write"));
    for wrong in [&[][..], &["--context", "5", "-o", text(&place.file)]] {
        let output = cerebellum(
            &[&["quantize", "--no-calibration", text(&place.checkpoint)], wrong].concat(),
        );
        assert_eq!(code(&output), 2, "{wrong:?}");
    }
}

#[test]
fn an_exported_checkpoint_can_be_quantized() {
    let place = tempdir().unwrap();
    let (gguf, file) = (place.path().join("demo.gguf"), place.path().join("demo.cbl"));
    let output = cerebellum(&["export-gguf", text(&demo()), "-o", text(&gguf), "--json"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("tanh approximation"), "{}", stderr(&output));
    assert_eq!(json(&output)["file_bytes"], fs::metadata(&gguf).unwrap().len());
    // Not over an existing file, nor over its own input.
    assert_ne!(code(&cerebellum(&["export-gguf", text(&demo()), "-o", text(&gguf)])), 0);
    let own = cerebellum(&["export-gguf", text(&gguf), "-o", text(&gguf), "--force"]);
    assert_ne!(code(&own), 0);

    // The demo's weights are float16, so nothing is lost on the way.
    let direct = place.path().join("direct.cbl");
    for (source, target) in [(&gguf, &file), (&demo(), &direct)] {
        let output = cerebellum(&[
            "quantize",
            "--no-calibration",
            text(source),
            "-o",
            text(target),
            "--quiet",
        ]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
    let logits = |file| {
        let output = cerebellum(&["logits", "-m", text(file), "--tokens", "1,2,3", "--json"]);
        json(&output)["logits"].clone()
    };
    assert_eq!(logits(&file), logits(&direct));
}

#[test]
fn groups_have_64_weights_unless_told() {
    let place = Place::new();
    for scheme in ["int8", "int4"] {
        for (more, group_size) in [(&[][..], 64), (&["--group-size", "128"], 128)] {
            let given = [&["--weights", scheme, "--json", "--force"], more].concat();
            let output = json(&place.quantize(&given));
            let tensors = output["tensors"].as_array().unwrap().iter();
            let mut matrices = tensors.filter(|tensor| tensor["group_size"].is_number()).peekable();
            assert!(matrices.peek().is_some());
            for tensor in matrices {
                let expected = (&scheme.into(), &group_size.into());
                let found = (&tensor["scheme"], &tensor["group_size"]);
                assert_eq!(found, expected, "{}", tensor["name"]);
            }
        }
    }
}

#[test]
fn what_is_left_out_is_warned_of() {
    let mut model = Model::random(97, 5, 48, 70);
    model.add_extra("score.weight");
    let place = Place::with(&model);
    let output = place.quantize(&[]);
    assert_eq!(code(&output), 0);
    let warnings = stderr(&output);
    assert!(warnings.contains("no tokenizer") && warnings.contains("score.weight"), "{warnings}");
    assert_eq!(stderr(&place.quantize(&["--force", "--quiet"])), "");
}

#[test]
fn a_tokenizer_may_come_from_elsewhere() {
    let place = Place::with(&Model::random(4096, 5, 12, 20));
    let output = place.quantize(&["--tokenizer", text(&demo()), "--json"]);
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    assert!(json(&output)["tokenizer_bytes"].as_u64().unwrap() > 0);
    let nowhere = text(place.directory.path());
    let output = place.quantize(&["--tokenizer", nowhere, "--force"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("no tokenizer.json"), "{}", stderr(&output));
}

#[test]
fn nothing_is_overwritten_without_force() {
    let place = Place::new();
    fs::write(&place.file, b"precious").unwrap();
    let output = place.quantize(&[]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    assert_eq!(fs::read(&place.file).unwrap(), b"precious");
    assert_eq!(code(&place.quantize(&["--force"])), 0);
    assert_ne!(fs::read(&place.file).unwrap(), b"precious");
    assert_eq!(place.outputs(), ["model.cbl"]);
}

#[test]
fn inputs_are_never_overwritten() {
    for name in ["model.safetensors", "config.json"] {
        let mut place = Place::new();
        place.file = place.checkpoint.join(name);
        let before = fs::read(&place.file).unwrap();
        let output = place.quantize(&["--force"]);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains("is an input"), "{}", stderr(&output));
        assert_eq!(fs::read(&place.file).unwrap(), before);
    }
}

#[test]
fn failures_are_one_json_object_too() {
    let place = Place::new();
    let missing = text(place.directory.path()).to_owned() + "/missing.cbl";
    let output = cerebellum(&["inspect", &missing, "--json"]);
    assert_eq!(code(&output), 1);
    let report = json(&output);
    assert_eq!(report["ok"], false);
    assert!(report["error"]["message"].as_str().unwrap().contains("missing.cbl"));
    assert!(stderr(&output).starts_with("error: "));
}

#[test]
fn wrong_usage_exits_with_2() {
    let place = Place::new();
    for arguments in [&["--group-size", "48"][..], &["--weights", "int3"], &["-t", "0"]] {
        assert_eq!(code(&place.quantize(arguments)), 2, "{arguments:?}");
    }
    assert_eq!(code(&cerebellum(&["no-such-command"])), 2);
}

#[test]
fn help_has_examples_and_exit_codes() {
    for command in ["quantize", "inspect", "verify"] {
        let help = String::from_utf8(cerebellum(&[command, "--help"]).stdout).unwrap();
        assert!(help.contains("Examples:"), "{command}");
    }
    let help = String::from_utf8(cerebellum(&["--help"]).stdout).unwrap();
    assert!(help.contains("Exit codes:"));
}

#[test]
fn verify_names_damaged_tensors() {
    let place = Place::new();
    assert_eq!(code(&place.quantize(&[])), 0);
    let whole = fs::read(&place.file).unwrap();
    let (_, layout) = cerebellum::format::read_header(&whole).unwrap();
    for tensor in layout.tensors().iter().filter(|tensor| tensor.name != "checksums") {
        let mut damaged = whole.clone();
        damaged[tensor.range.end - 1] ^= 0x10;
        fs::write(&place.file, damaged).unwrap();
        let output = cerebellum(&["verify", text(&place.file), "--json"]);
        assert_eq!(code(&output), 1);
        let report = json(&output);
        let tensors = report["tensors"].as_array().unwrap();
        let bad: Vec<_> = tensors.iter().filter(|t| t["ok"] == false).map(|t| &t["name"]).collect();
        assert_eq!(bad, [&Value::from(tensor.name.clone())]);
        assert_eq!(report["ok"], false);
    }
    let output = cerebellum(&["verify", text(&place.file)]);
    assert_eq!(code(&output), 1);
    assert!(String::from_utf8(output.stdout).unwrap().contains("wpe.weight"));
}

#[test]
fn a_damaged_header_is_an_error_of_every_command() {
    let place = Place::new();
    assert_eq!(code(&place.quantize(&[])), 0);
    let mut file = fs::read(&place.file).unwrap();
    file[100] ^= 1;
    fs::write(&place.file, file).unwrap();
    for command in ["inspect", "verify"] {
        let output = cerebellum(&[command, text(&place.file)]);
        assert_eq!(code(&output), 1);
        let message = stderr(&output);
        assert!(message.contains("checksum") && message.contains("model.cbl"), "{message}");
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let place = Place::new();
        assert_eq!(code(&place.quantize(&[])), 0);
        fs::set_permissions(&place.file, fs::Permissions::from_mode(0o604)).unwrap();
        assert_eq!(code(&place.quantize(&["--force"])), 0);
        assert_eq!(fs::metadata(&place.file).unwrap().permissions().mode() & 0o777, 0o604);
    }

    #[test]
    fn a_file_that_becomes_too_large_leaves_nothing() {
        let place = Place::new();
        let script = format!(
            "ulimit -f 8; exec {} quantize {} -o {}",
            env!("CARGO_BIN_EXE_cerebellum"),
            text(&place.checkpoint),
            text(&place.file)
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
        assert_eq!(place.outputs(), [""; 0]);
    }

    /// The program under one of the limits of `ulimit`.
    fn limited(option: &str, limit: usize, arguments: &[&str]) -> Output {
        let script = r#"ulimit "$0" "$1" && shift && exec "$@""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, option, &limit.to_string(), env!("CARGO_BIN_EXE_cerebellum")]);
        shell.args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Each command with each limit, from those with which the program only just starts.
    fn try_limits(option: &str, limits: impl Iterator<Item = usize> + Clone) {
        let place = Place::new();
        let lines = place.directory.path().join("lines.txt");
        fs::write(&lines, "Once upon a time\nThe cat\n").unwrap();
        place.quantize_demo();
        let other = place.file.with_file_name("other.cbl");
        let model = text(&place.file);
        let commands: [&[&str]; 8] = [
            &["inspect", model],
            &["verify", model],
            &["plan", model],
            &["generate", "-m", model, "-p", "hello", "-n", "4", "-t", "2"],
            &["generate", "-m", model, "-p", "hello", "-n", "4", "--regex", "[a-z]+"],
            &["generate", "-m", model, "--file", text(&lines), "-n", "4", "-t", "2"],
            &["classify", "-m", model, "-l", "alarm,timer", "wake me"],
            &[
                "quantize",
                "--no-calibration",
                text(&place.checkpoint),
                "-o",
                text(&other),
                "--force",
            ],
        ];
        for arguments in commands {
            let mut codes = Vec::new();
            for limit in limits.clone() {
                let output = limited(option, limit, arguments);
                let message = stderr(&output);
                if output.status.code() == Some(127) || message.contains("shared libraries") {
                    continue; // the system's loader did not come far
                }
                let code = output.status.code();
                assert!(
                    matches!(code, Some(0 | 1)),
                    "ulimit {option} {limit}: {arguments:?} ended with {}: {message}",
                    output.status
                );
                assert!(code == Some(0) || message.contains("error: "), "{message}");
                codes.push(code);
            }
            assert_eq!(codes.last(), Some(&Some(0)), "{arguments:?}: {codes:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn limits_on_addresses_end_in_errors() {
        // With less the system cannot even load the program.
        let starts = |limit: &usize| limited("-v", *limit, &["--version"]).status.success();
        let least = (20_000..100_000).step_by(1_000).find(starts).expect("a limit");
        try_limits("-v", (least..least + 70_000).step_by(5_000).chain([1_000_000]));
    }

    /// As a tree of values, 8 MB of JSON would take 400 MB at least.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_line_of_json_takes_little_memory() {
        let place = Place::new();
        let lines = place.directory.path().join("lines.jsonl");
        let list = "0,".repeat(4 << 20) + "0";
        let line = format!("{{\"other\": [{list}], \"text\": \"wake me\"}}\n[{list}]\n");
        fs::write(&lines, line).unwrap();
        place.quantize_demo();
        let arguments =
            ["classify", "-m", text(&place.file), "-l", "alarm,timer", "-t", "1", "-q", "--jsonl"];
        let output = limited("-v", 250_000, &[&arguments[..], &["--file", text(&lines)]].concat());
        let answers = String::from_utf8(output.stdout.clone()).unwrap();
        let answers: Vec<&str> = answers.lines().collect();
        assert_eq!(answers.len(), 2, "{answers:?} {}", stderr(&output));
        assert!(answers[0].starts_with("alarm\t"), "{answers:?}");
        assert!(answers[1].starts_with("error: line 2: neither a string"), "{answers:?}");
        assert_eq!(code(&output), 1);
    }

    #[test]
    fn limits_on_open_files_end_in_errors() {
        try_limits("-n", (3..12).chain([64]));
    }

    #[test]
    fn targets_that_cannot_be_written_are_told() {
        let place = Place::new();
        let out = place.file.parent().unwrap().to_owned();
        let targets = [
            (out.clone(), "is a directory"),
            (out.join("no/model.cbl"), "there is no directory"),
            (PathBuf::from("/dev/null"), "is not a regular file"),
            // Not even root may create files there.
            #[cfg(target_os = "linux")]
            (PathBuf::from("/proc/model.cbl"), "cannot write in /proc"),
        ];
        for (target, message) in targets {
            let arguments = [
                "quantize",
                "--no-calibration",
                text(&place.checkpoint),
                "-o",
                text(&target),
                "--force",
            ];
            let output = cerebellum(&arguments);
            assert_eq!(code(&output), 1);
            assert!(stderr(&output).contains(message), "{}", stderr(&output));
        }
        assert_eq!(place.outputs(), [""; 0]);
    }

    #[test]
    fn interruption_leaves_nothing() {
        interrupt_while_writing(Model::random(40_000, 5, 768, 12), &["--no-calibration"]);
    }

    /// The embedding is written first, with long work to come: nothing of it can be gone on with, and nothing
    /// stays.
    #[test]
    fn interrupted_calibration_leaves_nothing() {
        let demo = demo();
        let calibration = demo.join("calibration.txt");
        // Of the second, while the draft that is to write a text is made.
        for source in [text(&calibration), "own"] {
            let more = ["--calibration", source, "--tokenizer", text(&demo)];
            interrupt_while_writing(Model::random(40_000, 5, 768, 12), &more);
        }
    }

    fn interrupt_while_writing(model: Model, more: &[&str]) {
        let place = Place::with(&model);
        for signal in ["-INT", "-TERM"] {
            let child = Command::new(env!("CARGO_BIN_EXE_cerebellum"))
                .args(["quantize", text(&place.checkpoint), "-o", text(&place.file), "-t", "1"])
                .args(more)
                .stderr(Stdio::null())
                .spawn();
            let mut child = Started(child.unwrap());
            let started = Instant::now();
            // In the middle of writing.
            while written(&place) < 1 << 20 {
                assert!(started.elapsed() < Duration::from_secs(60), "nothing is written");
                assert!(child.0.try_wait().unwrap().is_none(), "ended before it was interrupted");
                std::thread::sleep(Duration::from_millis(2));
            }
            let id = child.0.id().to_string();
            assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
            assert_eq!(child.0.wait().unwrap().code(), Some(130));
            assert_eq!(place.outputs(), [""; 0]);
        }
    }

    /// A process that a failed test does not leave behind.
    struct Started(std::process::Child);

    impl Drop for Started {
        fn drop(&mut self) {
            // Most have ended long ago, which is no failure.
            let _ = self.0.kill();
        }
    }

    /// Bytes in the unfinished file.
    fn written(place: &Place) -> u64 {
        let entries = fs::read_dir(place.file.parent().unwrap()).unwrap();
        entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
    }

    #[test]
    fn a_closed_or_full_standard_output_is_no_crash() {
        let place = Place::new();
        assert_eq!(code(&place.quantize(&[])), 0);
        let inspect = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
            command.args(["inspect", text(&place.file)]).stdout(stdout).output().unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = inspect(writer.into());
        assert_eq!((code(&output), stderr(&output).as_str()), (141, ""));
        #[cfg(target_os = "linux")]
        {
            let output = inspect(fs::File::create("/dev/full").unwrap().into());
            assert_eq!(code(&output), 1);
            assert!(stderr(&output).contains("standard output"), "{}", stderr(&output));
        }
    }
}

#[test]
fn a_checkpoint_is_no_model_file_and_its_way_to_one_is_named() {
    let place = Place::new();
    let checkpoint = text(&place.checkpoint);
    for model in [checkpoint, "hf:Org/Model"] {
        let output = cerebellum(&["generate", "-p", "a", "-m", model]);
        assert_eq!(code(&output), 1, "{model}");
        assert!(stderr(&output).contains("is a checkpoint, no model file"), "{}", stderr(&output));
        assert!(stderr(&output).contains("cerebellum quantize"), "{}", stderr(&output));
    }
    for command in ["inspect", "verify", "plan", "doctor"] {
        let output = cerebellum(&[command, checkpoint]);
        assert!(stderr(&output).contains("is a checkpoint, no model file"), "{}", stderr(&output));
    }
}

#[test]
fn commands_about_a_file_take_it_by_an_option_too() {
    let place = Place::new();
    let file = text(&place.file);
    let arguments = ["quantize", "--no-calibration", text(&place.checkpoint), "-o", file];
    assert_eq!(code(&cerebellum(&arguments)), 0);
    for command in ["inspect", "verify", "plan", "doctor"] {
        let by_place = cerebellum(&[command, file]);
        assert_eq!(code(&by_place), 0, "{command}");
        let by_option = cerebellum(&[command, "-m", file]);
        assert_eq!(code(&by_option), 0, "{command}: {}", stderr(&by_option));
        assert_eq!(code(&cerebellum(&[command, "-m", file, file])), 2, "{command}");
    }
    for command in ["inspect", "verify", "plan"] {
        assert_eq!(code(&cerebellum(&[command])), 2, "{command}");
    }
}
