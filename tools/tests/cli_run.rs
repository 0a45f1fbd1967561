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
        let output = cerebellum(&[
            "quantize",
            "--no-calibration",
            checkpoint.to_str().unwrap(),
            "-o",
            &file,
            "-q",
        ]);
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

/// Runs a command with something on its standard input.
fn with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    write!(child.stdin.take().unwrap(), "{input}").unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_prompt_may_come_from_standard_input() {
    let arguments = ["generate", "-m", model(), "-p", "-", "-q", "--stop", "\n"];
    let output = with_input(&arguments, &format!("{INTENT}\n"));
    assert_eq!(stdout(&output), format!("{INTENT} alarm\n"));
}

#[test]
fn a_chat_answers_line_by_line() {
    let form = ["--template", "Utterance: {text}\\nIntent:", "--stop", "\\n", "--forget"];
    let chat = [&["chat", "-m", model()][..], &form].concat();
    let output = with_input(&chat, "set an alarm for six\n\nset an \\\nalarm");
    let answers: Vec<_> = stdout(&output).lines().collect();
    assert_eq!((output.status.code(), answers.len(), answers[0]), (Some(0), 2, " alarm"));
    // The file may be named by the environment; each line gives an object, a bad one too.
    let output = Command::new(env!("CARGO_BIN_EXE_cerebellum"))
        .args(["chat", "--json", "-n", "4"])
        .env("CEREBELLUM_MODEL", model())
        .stdin(Stdio::from(fs::File::open(lines("Once\n/nonsense\n//x\n").path()).unwrap()))
        .output()
        .unwrap();
    let reports: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ok: Vec<_> = reports.iter().map(|report| report["ok"].as_bool().unwrap()).collect();
    assert_eq!((ok, output.status.code()), (vec![true, false, true], Some(1)));
    assert_eq!(reports[2]["tokens"], 4);
}

fn lines(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// What was said before is part of the text, as if it had been the prompt, and can be taken back.
#[test]
fn a_chat_remembers() {
    let chat = ["chat", "-m", model(), "-n", "8", "--json"];
    let alone = |text: &str| {
        let generate = ["generate", "-m", model(), "-n", "8", "--no-echo", "-p", text];
        stdout(&cerebellum(&generate)).strip_suffix('\n').unwrap().to_owned()
    };
    let first = alone("The king");
    let second = alone(&format!("The king{first} and"));
    let output = with_input(&chat, "The king\nX\n/undo\n and\n/reset\nThe king\n/more\n");
    let answers: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<_> = answers.iter().map(|answer| answer["text"].as_str().unwrap()).collect();
    assert_eq!((texts[0], texts[2], texts[3]), (&first[..], &second[..], &first[..]));
    assert_eq!(texts[4], alone(&format!("The king{first}")));
}

/// A conversation that outgrows the context goes on with its end.
#[test]
fn a_chat_outlives_its_context() {
    let chat = ["chat", "-m", model(), "-n", "8", "--context", "24", "--json"];
    let output = with_input(&chat, &"He said: \"No.\"\n".repeat(5));
    assert_eq!((stdout(&output).lines().count(), output.status.code()), (5, Some(0)));
    assert!(stderr(&output).contains("no longer fit"), "{}", stderr(&output));
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let help = cerebellum(&["--help"]);
    let commands = stdout(&help).split_once("Commands:").unwrap().1.split_once("Options:").unwrap();
    // Descriptions that go on in another line are indented further.
    let lines = commands.0.lines().filter_map(|line| line.strip_prefix("  "));
    let names: Vec<_> = lines.filter_map(|line| line.split(' ').next()).collect();
    let names: Vec<_> = names.into_iter().filter(|name| !name.is_empty()).collect();
    assert!(names.contains(&"quantize") && names.contains(&"chat"));
    for shell in ["bash", "zsh", "fish"] {
        let script = cerebellum(&["completions", shell]);
        assert!(names.iter().all(|name| stdout(&script).contains(name)), "{shell}");
    }
    let place = tempdir().unwrap();
    let directory = place.path().join("man1");
    let arguments = ["man", directory.to_str().unwrap()];
    assert!(cerebellum(&arguments).status.success());
    for name in names.iter().filter(|&&name| name != "help") {
        let page = fs::read_to_string(directory.join(format!("cerebellum-{name}.1"))).unwrap();
        assert!(page.contains("Examples") || page.contains("EXTRA"), "{name}");
    }
    assert_eq!(cerebellum(&arguments).status.code(), Some(1), "pages are there already");
}

#[test]
fn version_and_colours_are_as_asked_for() {
    let version = cerebellum(&["--version"]);
    assert!(stdout(&version).starts_with(concat!("cerebellum ", env!("CARGO_PKG_VERSION"))));
    assert!(stdout(&version).contains("instruction sets: scalar"));
    let red = |arguments: &[&str], environment: Option<(&str, &str)>| {
        let mut command = command(arguments);
        let output = command.envs(environment).output().unwrap();
        stderr(&output).contains("\x1b[")
    };
    for wrong in [&["plan", "no-such.cbl"][..], &["no-such-command"]] {
        assert!(!red(wrong, None), "not on a terminal");
        assert!(red(&[wrong, &["--color", "always"]].concat(), None));
        assert!(red(wrong, Some(("CLICOLOR_FORCE", "1"))));
        assert!(!red(&[&["--color=never"], wrong].concat(), Some(("CLICOLOR_FORCE", "1"))));
    }
}

#[test]
fn wrong_usage_is_json_if_that_was_asked_for() {
    let output = cerebellum(&["generate", "-m", model(), "-n", "many", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(json(&output)["error"]["message"].as_str().unwrap().contains("many"));
    assert!(stderr(&output).contains("Usage") || stderr(&output).contains("--help"));
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
    let cases: [(&[&str], &str); 8] = [
        (&["generate", "-m", "no-such.cbl"], "no-such.cbl"),
        (&["generate", "-m", model(), "--context", "9999"], "1..=512"),
        (&["generate", "-m", model(), "--context", "3", "-p", INTENT], "give a larger --context"),
        (&["generate", "-m", model(), "--logit-bias", "4096:1"], "4096 is not below"),
        (&["generate", "-m", model(), "--logit-bias", "1:1001"], "1001 is not in -1000..=1000"),
        (&["generate", "-m", model(), "--regex", "(a"], "unclosed group, at character 1"),
        (&["generate", "-m", model(), "--regex", "a^"], "anchors"),
        (
            &["translate", "-m", model(), "--template", "temperature: 101\n---\n{text}", "a"],
            "line 1: \"temperature: 101\" cannot be used: 101 is not in 0..=100",
        ),
    ];
    for (arguments, part) in cases {
        let output = cerebellum(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
    }
    let output = command(&["doctor"]).env("CEREBELLUM_ISA", "abacus").output().unwrap();
    assert!(stderr(&output).contains("abacus") && output.status.code() == Some(1));
}

/// One style for all commands: what was given, and what may be.
#[test]
fn numbers_out_of_range_exit_with_2_and_say_the_range() {
    let most = u64::MAX;
    let generate = ["generate", "-m", model()];
    for (option, value, part) in [
        ("--seed", "-1", format!("-1 is not in 0..={most}")),
        ("-n", "-1", format!("-1 is not in 0..={most}")),
        ("-t", "0", "0 is not in 1..=1024".to_owned()),
        ("-t", "65", "65 is not in 1..=64".to_owned()),
        ("-t", "many", "\"many\" is not a whole number in 1..=1024".to_owned()),
        ("--chunk", "0", format!("0 is not in 1..={most}")),
        ("--draft", "16", "16 is not in 0..=15".to_owned()),
        ("--temperature", "nan", "\"nan\" is not a number".to_owned()),
        ("--temperature", "-0.5", "-0.5 is not in 0..=100".to_owned()),
        ("--top-p", "0", "0 is not over 0 and at most 1".to_owned()),
        ("--repetition-penalty", "1e38", "is not in 0.01..=100".to_owned()),
        ("--stop", "", "it is empty".to_owned()),
    ] {
        let output = cerebellum(&[&generate[..], &[option, value]].concat());
        assert_eq!(output.status.code(), Some(2), "{option} {value}");
        assert!(stderr(&output).contains(&part), "{option} {value}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    for command in ["translate", "chat", "bench", "embed"] {
        let output = cerebellum(&[command, "-m", model(), "-t", "65"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(stderr(&output).contains("65 is not in 1..=64"), "{}", stderr(&output));
    }
}

/// `\n` means the same to `generate` and `chat`.
#[test]
fn stop_strings_are_read_alike() {
    let prompt = "Utterance: wake me at six\nIntent:";
    let generate = [
        "generate",
        "-m",
        model(),
        "-q",
        "--no-echo",
        "--ignore-end-of-text",
        "-n",
        "30",
        "-p",
        prompt,
    ];
    let whole = cerebellum(&generate);
    let stopped = cerebellum(&[&generate[..], &["--stop", r"\n"]].concat());
    let first = stdout(&whole).split_once('\n').expect("a line break comes").0;
    assert_eq!(stdout(&stopped), format!("{first}\n"));
    let chat = with_input(
        &[
            "chat",
            "-m",
            model(),
            "-q",
            "-n",
            "30",
            "--stop",
            r"\n",
            "--template",
            r"{text}\nIntent:",
        ],
        "Utterance: wake me at six\n",
    );
    assert_eq!(stdout(&chat), stdout(&stopped));
}

/// Files whose options, logits and tokens made the program panic.
#[test]
fn hostile_files_give_texts_or_errors_that_name_them() {
    let hostile = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/hostile/model/");
    let file = |name: &str| format!("{hostile}{name}");
    let (panics, huge, long) =
        (file("filepanic.cbl"), file("hugelogit.cbl"), file("longtok5000.cbl"));
    for command in [&["translate", "-m", &panics, "the aa bb"][..], &["verify", &panics]] {
        let output = cerebellum(command);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let told = format!("{}{}", stdout(&output), stderr(&output));
        for part in ["filepanic.cbl", "translate", "repetition-penalty", "0.01..=100"] {
            assert!(told.contains(part), "{told}");
        }
    }
    let sampled =
        ["--temperature", "1", "--min-p", "0.05", "--repetition-penalty", "1.1", "-n", "4"];
    let output = cerebellum(&[&["generate", "-m", &huge], &sampled[..]].concat());
    assert_ne!(output.status.code(), Some(101), "{}", stderr(&output));
    let output =
        cerebellum(&["generate", "-m", &long, "-p", "a", "--regex", "a{1,3}", "--no-echo", "-q"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).trim_end().chars().all(|c| c == 'a'), "{}", stdout(&output));
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
fn what_was_said_is_saved_to_new_files_only() {
    let place = tempdir().unwrap();
    let [new, old] = ["new.txt", "old.txt"].map(|name| place.path().join(name));
    fs::write(&old, "mine").unwrap();
    let [new, old] = [new, old].map(|path| path.to_str().unwrap().to_owned());
    let save = |path: &str| {
        let mut chat = command(&["chat", "-m", model(), "-n", "2", "--prompt", "Once"]);
        let mut chat = chat
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(chat.stdin.take().unwrap(), "/save {path}").unwrap();
        chat.wait_with_output().unwrap()
    };
    let output = save(&new);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("saved to {new}")), "{}", stderr(&output));
    assert_eq!(fs::read(&new).unwrap(), b"Once");
    let model_file = model();
    for (path, part) in [
        (&*old, "exists; choose another name"),
        (model_file, "is an input of this command"),
        ("/dev/null", "is not a regular file"),
        ("-", "cannot go to standard output"),
    ] {
        let before = fs::metadata(path).ok().map(|metadata| metadata.len());
        let output = save(path);
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(stderr(&output).contains(part), "{path}: {}", stderr(&output));
        assert!(!stderr(&output).contains("--force"), "{path}: {}", stderr(&output));
        assert_eq!(fs::metadata(path).ok().map(|metadata| metadata.len()), before, "{path}");
    }
    let history = cerebellum(&["chat", "-m", model(), "--history", model()]);
    assert_eq!(history.status.code(), Some(1));
    assert!(stderr(&history).contains("is an input"), "{}", stderr(&history));
}

#[test]
fn a_file_without_a_tokenizer_says_what_is_missing() {
    let place = tempdir().unwrap();
    let checkpoint = place.path().join("checkpoint");
    common::Model::random(97, 5, 48, 70).write(&checkpoint);
    let file = place.path().join("ids.cbl");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let quantized =
        cerebellum(&["quantize", "--no-calibration", &path(&checkpoint), "-o", &path(&file)]);
    assert!(stderr(&quantized).contains("token ids only"));
    let output = cerebellum(&["generate", "-m", &path(&file), "-p", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("holds no tokenizer"), "{}", stderr(&output));
}

#[test]
fn the_demo_quantizes_and_tells_a_story() {
    let place = tempdir().unwrap();
    let file = place.path().join("demo.cbl");
    let arguments = ["demo", "-o", file.to_str().unwrap(), "--calibration-windows", "2"];
    let output = cerebellum(&arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).starts_with("Once upon a time") && stdout(&output).len() > 100);
    assert!(stderr(&output).contains("bits per weight"));
    // Again, over the file that is there now: the same story.
    let report = json(&cerebellum(&[&arguments[..], &["--json"]].concat()));
    let [prompt, text] = ["prompt", "text"].map(|field| report[field].as_str().unwrap());
    assert_eq!(stdout(&output).trim_end(), format!("{prompt}{text}").trim_end());
}
