//! The commands that put tasks to a model, on the binary itself.

#[path = "common/command.rs"]
mod command;
mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use command::{feed, ok, stderr, stdout};
use common::demo;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

const INTENT: &str = "Utterance: set an alarm for six\nIntent:";

fn cerebellum(arguments: &[&str]) -> Output {
    feed(arguments, b"")
}

fn json_lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The bundled model, quantized once for all tests.
fn model() -> &'static str {
    static MODEL: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, file) = MODEL.get_or_init(|| {
        let directory = tempdir().unwrap();
        let file = directory.path().join("demo.cbl").to_str().unwrap().to_owned();
        ok(cerebellum(&[
            "quantize",
            "--no-calibration",
            demo().to_str().unwrap(),
            "-o",
            &file,
            "-q",
        ]));
        (directory, file)
    });
    file
}

#[test]
fn lines_with_errors_do_not_disturb_the_others() {
    let input =
        b"{\"text\": \"set an alarm for six\"}\n{\"text\": 7}\nnonsense\n\"will it rain\"\n\xff\n";
    let arguments = ["classify", "-m", model(), "-l", "alarm,weather,timer", "--jsonl", "--json"];
    let output = feed(&arguments, input);
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&output);
    let state: Vec<_> = lines.iter().map(|line| (&line["line"], &line["ok"])).collect();
    let want = [(1, true), (2, false), (3, false), (4, true), (5, false)];
    let want = want.map(|(line, ok)| (Value::from(line), Value::from(ok)));
    assert!(state.iter().zip(&want).all(|(a, b)| (a.0, a.1) == (&b.0, &b.1)), "{state:?}");
    assert_eq!(lines.len(), want.len());
    assert_eq!((&lines[0]["label"], &lines[3]["label"]), (&"alarm".into(), &"weather".into()));
    assert!(lines[2]["error"]["message"].as_str().unwrap().starts_with("not JSON"));
    assert!(lines[0]["probabilities"].as_object().unwrap().len() == 3);
    // One thread or many, from a file or not: the same lines.
    let place = tempdir().unwrap();
    let file = place.path().join("texts").to_str().unwrap().to_owned();
    fs::write(&file, input).unwrap();
    let without_times = |output: &Output| {
        let mut lines = json_lines(output);
        lines
            .iter_mut()
            .for_each(|line| drop(line.as_object_mut().unwrap().remove("milliseconds")));
        lines
    };
    let again = cerebellum(&[&arguments[..], &["--file", &file, "-t", "3"]].concat());
    assert_eq!(without_times(&again), without_times(&output));
}

#[test]
fn labels_may_be_long_beginnings_of_others_or_in_a_file() {
    let place = tempdir().unwrap();
    let labels = place.path().join("labels.txt").to_str().unwrap().to_owned();
    fs::write(&labels, "alarm\nalarm clock\nal\n\nweather\n").unwrap();
    let text = "set an alarm for six";
    let output = ok(cerebellum(&["classify", "-m", model(), "-l", &labels, text]));
    assert!(stdout(&output).starts_with("alarm\t"), "{}", stdout(&output));
    for calibration in ["content-free", "mutual-information"] {
        for normalization in ["sum", "mean"] {
            let output = ok(cerebellum(&[
                "classify",
                "-m",
                model(),
                "-l",
                &labels,
                "--calibration",
                calibration,
                "--normalization",
                normalization,
                text,
            ]));
            assert!(stdout(&output).starts_with("alarm"), "{}", stdout(&output));
        }
    }
    let examples = place.path().join("examples.tsv").to_str().unwrap().to_owned();
    fs::write(&examples, "weather\twill it rain today\nalarm\twake me at five\n").unwrap();
    let output =
        ok(cerebellum(&["classify", "-m", model(), "-l", &labels, "--examples", &examples, text]));
    assert!(stdout(&output).starts_with("alarm\t"), "{}", stdout(&output));
    for (labels, part) in [
        ("", "number 1 is empty"),
        ("a,,b", "number 2 is empty"),
        ("a,a", "twice"),
        ("no/file", "no file"),
    ] {
        let output = cerebellum(&["classify", "-m", model(), "-l", labels, text]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(part), "{labels}: {}", stderr(&output));
    }
    fs::write(&labels, "\n").unwrap();
    let output = cerebellum(&["classify", "-m", model(), "-l", &labels, text]);
    assert!(stderr(&output).contains("there are no labels"), "{}", stderr(&output));
    let output =
        cerebellum(&["classify", "-m", model(), "-l", "a,b", "--template", "{text} only", text]);
    assert!(
        stderr(&output).contains("must have {text}, and {label} behind it"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_demo_model_translates_with_its_own_template() {
    let output = ok(cerebellum(&["translate", "-m", model(), "I am here."]));
    assert_eq!(stdout(&output), "Je suis là.\n");
    let inspected = ok(cerebellum(&["inspect", model(), "--json"]));
    let inspected: Value = serde_json::from_str(stdout(&inspected)).unwrap();
    assert_eq!(inspected["templates"], json!(["classify", "translate"]));
    let two = ok(feed(&["translate", "-m", model(), "-q"], b"I am here.\n\nI am here.\n"));
    assert_eq!(stdout(&two), "Je suis là.\n\nJe suis là.\n");
    let whole =
        ok(feed(&["translate", "-m", model(), "--whole", "--json"], b"I am here.\nI am here."));
    let whole = &json_lines(&whole)[0];
    assert_eq!((&whole["text"], &whole["parts"]), (&"Je suis là.\nJe suis là.".into(), &2.into()));
    let lines = ok(feed(&["translate", "-m", model(), "--json"], b"I am here.\nWhere is Tom?\n"));
    let lines = json_lines(&lines);
    assert_eq!((lines.len(), &lines[1]["line"], &lines[1]["ok"]), (2, &2.into(), &true.into()));
    let other = cerebellum(&["translate", "-m", model(), "--to", "xx", "I am here."]);
    assert!(stderr(&other).contains("translate-en-xx"), "{}", stderr(&other));
    assert_eq!(other.status.code(), Some(1));
    let few =
        ok(cerebellum(&["translate", "-m", model(), "--from", "fr", "--to", "en", "Je suis là."]));
    assert!(!stdout(&few).trim().is_empty());
}

#[test]
fn a_long_text_is_summarized_in_parts_and_that_is_said() {
    let text = "There was a king who had three sons. He went to the wood to hunt. ".repeat(60);
    let output = ok(feed(&["summarize", "-m", model()], text.as_bytes()));
    assert!(!stdout(&output).trim().is_empty());
    assert!(stderr(&output).contains("was cut into"), "{}", stderr(&output));
    let report = ok(feed(&["summarize", "-m", model(), "--json"], text.as_bytes()));
    assert!(json_lines(&report)[0]["parts"].as_u64().unwrap() > 1);
    let lines =
        ok(feed(&["summarize", "-m", model(), "--by-line", "--json"], b"A king.\nA wood.\n"));
    assert_eq!(json_lines(&lines).len(), 2);
}

#[test]
fn templates_are_read_and_refused_before_anything_is_written() {
    let place = tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("good.txt"), "stop: \"\\n\"\n---\nUtterance: {text}\nIntent:").unwrap();
    fs::write(path("bad.txt"), "stop: \"\\n\"\n---\nUtterance:").unwrap();
    let demo = demo();
    let quantize = |templates: &[&str]| {
        let file = path("out.cbl");
        let mut arguments = vec![
            "quantize",
            "--no-calibration",
            demo.to_str().unwrap(),
            "-o",
            &file,
            "-q",
            "--force",
        ];
        arguments.extend(templates.iter().flat_map(|template| ["--template", template]));
        cerebellum(&arguments)
    };
    let good = format!("intent={}", path("good.txt"));
    ok(quantize(&[&good, "classify="]));
    let file = path("out.cbl");
    let output =
        ok(cerebellum(&["translate", "-m", &file, "--template", "intent", "set an alarm for six"]));
    assert_eq!(stdout(&output), "alarm\n");
    let output = ok(cerebellum(&[
        "translate",
        "-m",
        model(),
        "--template",
        &path("good.txt"),
        "set an alarm for six",
    ]));
    assert_eq!(stdout(&output), "alarm\n");
    fs::remove_file(&file).unwrap();
    for (template, part) in [
        (format!("intent={}", path("bad.txt")), "it has no {text}"),
        (format!("In={}", path("good.txt")), "lower-case"),
        ("intent=no-such-file".to_owned(), "no-such-file"),
        ("intent".to_owned(), "has no \"=\""),
    ] {
        let output = quantize(&[&template]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
        assert!(!fs::exists(&file).unwrap());
    }
    let output = cerebellum(&["translate", "-m", model(), "--template", "Into French:", "x"]);
    assert!(stderr(&output).contains("has no {text}"), "{}", stderr(&output));
}

#[test]
fn generated_text_takes_the_form_that_is_asked_for() {
    let place = tempdir().unwrap();
    let schema = place.path().join("schema.json").to_str().unwrap().to_owned();
    fs::write(&schema, r#"{"type": "object", "properties": {"n": {"type": "integer", "maximum": 99, "minimum": 10}},
        "required": ["n"], "additionalProperties": false}"#).unwrap();
    let generate = |more: &[&str]| {
        let arguments = ["generate", "-m", model(), "-p", INTENT, "--json", "--temperature", "1"];
        cerebellum(&[&arguments[..], more].concat())
    };
    let report =
        &json_lines(&ok(generate(&["--choices", "weather,alarm clock", "--seed", "3"])))[0];
    assert!(["weather", "alarm clock"].contains(&report["text"].as_str().unwrap().trim_start()));
    assert_eq!(report["stop_reason"], "complete");
    let report = &json_lines(&ok(generate(&["--regex", "[0-9]{3}"])))[0];
    assert_eq!(report["text"].as_str().unwrap().len(), 3);
    let report = &json_lines(&ok(generate(&["--json-schema", &schema])))[0];
    let value: Value = serde_json::from_str(report["text"].as_str().unwrap()).unwrap();
    assert!((10..100).contains(&value["n"].as_i64().unwrap()));
    let report = &json_lines(&ok(generate(&["--json-schema", &schema, "-n", "2"])))[0];
    assert_eq!(report["stop_reason"], "incomplete");
    fs::write(&schema, "{").unwrap();
    for (arguments, part) in [
        (["--json-schema", &schema], "is not valid JSON"),
        (["--json-schema", "no-such.json"], "no-such.json"),
        (["--json-schema", "{\"type\": \"object\"}"], "give a file that holds it"),
        (["--regex", "(a"], "regular expression cannot be used"),
        (["--choices", "a,,b"], "none may be empty"),
        (["--logit-bias", "king:inf"], "in -1000..=1000"),
        (["--logit-bias", "king"], "a token, a colon and a number"),
        (["--logit-bias", "the king is:1"], "not one token"),
    ] {
        let output = generate(&arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(part), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(generate(&["--regex", "a", "--choices", "a"]).status.code(), Some(2));
    assert_eq!(generate(&["--regex", "a", "--stop", "a"]).status.code(), Some(2));
}

#[test]
fn biases_and_probabilities_of_tokens() {
    let arguments = ["generate", "-m", model(), "-p", INTENT, "--json", "--top-logprobs", "3"];
    let report = &json_lines(&ok(cerebellum(&arguments)))[0];
    let tokens = report["token_log_probabilities"].as_array().unwrap();
    assert_eq!(tokens.len() as u64, report["tokens"].as_u64().unwrap());
    let first = &tokens[0];
    assert_eq!((&first["text"], &first["top"][0]["id"]), (&" alarm".into(), &first["id"]));
    assert_eq!(first["log_probability"], first["top"][0]["log_probability"]);
    assert_eq!(first["top"].as_array().unwrap().len(), 3);
    let score = ok(cerebellum(&["score", "-m", model(), "-p", INTENT, "-c", " alarm", "--json"]));
    assert_eq!(json_lines(&score)[0]["log_probability"], first["log_probability"]);
    let banned = [&arguments[..], &["--logit-bias", " alarm:-100"]].concat();
    let report = &json_lines(&ok(cerebellum(&banned)))[0];
    let other = &report["token_log_probabilities"][0];
    assert_ne!(other["text"], " alarm");
    // What is told is the model's own view.
    assert_eq!(other["top"][0]["text"], " alarm");
}

#[test]
fn embeddings_of_lines() {
    let lines = feed(&["embed", "-m", model(), "--json"], b"a king\n\na queen\n");
    // An empty line has no embedding.
    assert_eq!(lines.status.code(), Some(1));
    let lines = json_lines(&lines);
    assert_eq!((lines.len(), &lines[1]["ok"]), (3, &false.into()));
    assert_eq!(lines[0]["embedding"].as_array().unwrap().len(), 256);
    let one = json_lines(&ok(cerebellum(&["embed", "-m", model(), "a queen", "--json"])));
    assert_eq!(one[0]["embedding"], lines[2]["embedding"]);
}

#[test]
fn prompts_on_lines_are_continued_together_each_in_its_form() {
    let lines = [
        json!({"text": INTENT, "choices": ["weather", "alarm clock"]}),
        json!("The king"),
        json!({"text": INTENT, "regex": "[0-9]{3}"}),
        json!({"text": INTENT, "regex": "("}),
        json!({"text": INTENT, "json_schema": {"type": "integer", "minimum": 10, "maximum": 99}}),
        json!({"text": INTENT, "regex": "a", "choices": ["a"]}),
        json!({"text": INTENT, "choices": "a"}),
        json!({"prompt": "The king"}),
        json!("The king ".repeat(600)),
    ];
    let mut input = lines.map(|line| line.to_string()).join("\n").into_bytes();
    input.extend(b"\nnonsense\n\"\xff\"\n");
    let arguments =
        ["generate", "-m", model(), "--file", "-", "--jsonl", "--json", "-n", "8", "-q"];
    let output = feed(&arguments, &input);
    assert_eq!(output.status.code(), Some(1));
    let reports = json_lines(&output);
    let numbers: Vec<_> = reports.iter().map(|report| report["line"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
    let text = |i: usize| reports[i]["text"].as_str().unwrap();
    assert!(["weather", "alarm clock"].contains(&text(0).trim_start()));
    assert!(text(2).len() == 3 && text(2).parse::<u32>().is_ok(), "{}", text(2));
    assert!((10..100).contains(&text(4).trim_start().parse().unwrap()), "{}", text(4));
    assert_eq!(reports[4]["stop_reason"], "complete");
    for (i, part) in [
        (3, "regular expression cannot be used"),
        (5, "more than one of"),
        (6, "not a list of strings"),
        (7, "an object whose field `text` is a string"),
        (8, "--context"),
        (9, "not JSON"),
        (10, "not UTF-8"),
    ] {
        let message = reports[i]["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{i}: {message}");
    }
    // The same text as alone, and with one form for all lines.
    let alone = ok(cerebellum(&["generate", "-m", model(), "-p", "The king", "--json", "-n", "8"]));
    assert_eq!(json_lines(&alone)[0]["text"], reports[1]["text"]);
    let arguments = ["generate", "-m", model(), "-f", "-", "--regex", "[a-c]{2}", "-q", "-t", "3"];
    let output = ok(feed(&arguments, b"A\n\nB\n"));
    let texts: Vec<_> = stdout(&output).lines().collect();
    assert!(texts.len() == 3 && texts[0].starts_with('A') && texts[1].len() == 2, "{texts:?}");
}

/// A program that asks line by line gets each answer before it asks the next.
#[test]
fn an_answer_does_not_wait_for_the_next_line() {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(env!("CARGO_BIN_EXE_cerebellum"))
        .args(["translate", "-m", model(), "-q", "-t", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        input.write_all(b"I am here.\n").unwrap();
        assert_eq!(answers.next().unwrap().unwrap(), "Je suis là.");
    }
    drop(input);
    assert!(answers.next().is_none() && child.wait().unwrap().success());
}

#[test]
fn what_cannot_be_continued_is_not_repeated() {
    for (arguments, code, part) in [
        (["--top-p", "7"], 2, "--top-p"),
        (["--context", "2"], 1, "3 tokens do not fit into a context with room for 2"),
    ] {
        let arguments = [&["generate", "-m", model(), "-p", "a b c"], &arguments[..]].concat();
        let output = cerebellum(&arguments);
        assert_eq!((output.status.code(), stdout(&output)), (Some(code), ""));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
}

/// What editors and systems put into files beside the text: a mark at the beginning, CR at line ends.
fn marked(text: &str) -> String {
    format!("\u{feff}{}", text.replace('\n', "\r\n"))
}

#[test]
fn marks_of_files_change_nothing_in_formats_of_our_own() {
    let place = tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let labels = "alarm\nweather\ntimer\n";
    let template = "Utterance: {text}\nIntent: {label}\n";
    let examples = "alarm\twake me\nweather\tis it cold\n";
    let lines = "set an alarm for six\nwill it rain\n";
    let classify = |mark: fn(&str) -> String| {
        let labels = file("labels.txt", &mark(labels));
        let (template, examples) = (file("t.txt", &mark(template)), file("e.tsv", &mark(examples)));
        let lines = file("lines.txt", &mark(lines));
        let mut arguments = vec!["classify", "-m", model(), "-l", &labels, "--template", &template];
        arguments.extend(["--examples", &examples, "--file", &lines]);
        stdout(&ok(cerebellum(&arguments))).to_owned()
    };
    let plain = classify(str::to_owned);
    assert!(plain.starts_with("alarm\t") && plain.contains("\nweather\t"), "{plain}");
    assert_eq!(classify(marked), plain);
    let generate = |mark: fn(&str) -> String| {
        let (choices, lines) = (file("c.txt", &mark(labels)), file("p.txt", &mark(lines)));
        let mut arguments = vec!["generate", "-m", model(), "--file", &lines, "-n", "4"];
        arguments.extend(["--choices", &choices]);
        stdout(&ok(cerebellum(&arguments))).to_owned()
    };
    assert_eq!(generate(marked), generate(str::to_owned));
}

#[test]
fn texts_that_are_kept_are_warned_of() {
    let arguments = ["generate", "-m", model(), "-n", "1", "-p", "-"];
    let output = ok(feed(&arguments, marked("Once\nupon\n").as_bytes()));
    for part in ["standard input begins with a byte order mark", "2 lines that end in CR LF"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert!(stdout(&output).starts_with("\u{feff}Once\r\nupon"), "{}", stdout(&output));
    assert!(!stderr(&ok(feed(&arguments, b"Once upon\n"))).contains("warning"));
    let output = feed(&arguments, b"\xff\xfeO\0n\0");
    assert!(stderr(&output).contains("iconv"), "{}", stderr(&output));
    let space = ok(cerebellum(&["generate", "-m", model(), "-n", "1", "-p", "Once upon a "]));
    assert!(stderr(&space).contains("ends in a space"), "{}", stderr(&space));
}

#[test]
fn a_dash_is_standard_input() {
    let text = "set an alarm for six";
    for command in [
        &["classify", "-m", model(), "-l", "alarm,weather"][..],
        &["embed", "-m", model()],
        &["translate", "-m", model(), "-n", "5"],
    ] {
        let dash = [command, &["-"]].concat();
        let from_input = ok(feed(&dash, format!("{text}\r\n").as_bytes()));
        let given = ok(cerebellum(&[command, &[text]].concat()));
        assert_eq!(stdout(&from_input), stdout(&given), "{command:?}");
    }
}

#[test]
fn what_looks_like_a_path_must_be_one() {
    for name in ["missing.csv", "no/such", "LABELS.TXT"] {
        for arguments in [
            &["classify", "-m", model(), "-l", name, "a text"][..],
            &["generate", "-m", model(), "-p", "Once", "--choices", name],
        ] {
            let output = cerebellum(arguments);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
            assert!(stderr(&output).contains(&format!("there is no file {name}")), "{output:?}");
        }
    }
    ok(cerebellum(&["classify", "-m", model(), "-l", "a.txt,b.txt", "a text"]));
}

#[test]
fn a_line_that_is_far_too_long_fails_by_itself() {
    let place = tempdir().unwrap();
    let lines = place.path().join("lines.txt");
    let long = "the king ".repeat(4_000_000);
    let fits_no_context = "the king ".repeat(400_000);
    fs::write(&lines, format!("Once upon\n{long}\n{fits_no_context}\nThe cat\n")).unwrap();
    let arguments = ["generate", "-m", model(), "-n", "1", "--json", "-t", "1", "--file"];
    let output = cerebellum(&[&arguments[..], &[lines.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(1));
    let lines = json_lines(&output);
    let error = |line: usize| lines[line]["error"]["message"].as_str().unwrap_or_default();
    assert_eq!((&lines[0]["ok"], &lines[3]["ok"]), (&true.into(), &true.into()));
    assert!(error(1).contains("36000000 bytes, and 16777216 are the most"), "{}", error(1));
    assert!(
        error(2).contains("of a text of 3600000 bytes (at least 257143) do not fit"),
        "{}",
        error(2)
    );
}

#[test]
fn a_chat_goes_on_after_a_line_that_is_not_text() {
    let output = feed(&["chat", "-m", model(), "-n", "2"], b"Once\n\xff\xfe\nThe cat\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("a line was left out"), "{}", stderr(&output));
    assert_eq!(stdout(&output).lines().count(), 2, "{}", stdout(&output));
}
