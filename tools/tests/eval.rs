//! The commands `logits` and `eval`, on the binary itself.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Model, demo};
use safetensors::SafeTensors;
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

/// The JSON of a command that must succeed without a warning.
fn json(arguments: &[&str]) -> Value {
    let output = cerebellum(&[arguments, &["--json"]].concat());
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
}

/// The message of a command that must fail.
fn failure(arguments: &[&str]) -> String {
    let output = cerebellum(arguments);
    assert_eq!(code(&output), 1, "{arguments:?}");
    stderr(&output)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn row(row: &Value) -> Vec<f32> {
    row.as_array().unwrap().iter().map(|logit| logit.as_f64().unwrap() as f32).collect()
}

fn rows(logits: &Value) -> Vec<Vec<f32>> {
    logits.as_array().unwrap().iter().map(row).collect()
}

/// The demo model in int4, and a short text.
struct Place {
    directory: TempDir,
    file: PathBuf,
    text: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        let file = directory.path().join("demo.cbl");
        assert_eq!(code(&cerebellum(&["quantize", text(&demo()), "-o", text(&file)])), 0);
        // 1500 bytes, some 400 tokens, end-of-text tokens among them.
        let stories = fs::read(repository("tests/data/text/stories.txt")).unwrap();
        let path = directory.path().join("text.txt");
        fs::write(&path, &stories[1900..3400]).unwrap();
        Self { directory, file, text: path }
    }

    fn eval<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let arguments = ["eval", "-m", text(&self.file), "--text", text(&self.text)];
        [&arguments, more].concat()
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// The text's tokens by the tokenizers library from `tokenizer.json`.
    fn tokens(&self) -> Vec<u32> {
        let tokenizer = tokenizers::Tokenizer::from_file(demo().join("tokenizer.json")).unwrap();
        let content = fs::read_to_string(&self.text).unwrap();
        tokenizer.encode(content, false).unwrap().get_ids().to_vec()
    }
}

/// Sums in another order differ by rounding.
fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 2e-4, "{found} {expected}");
    }
}

/// Against the transformers library's logits.
#[test]
fn logits_of_a_checkpoint_are_the_golden_ones() {
    let case = repository("tests/data/golden/cerebras-odd-inner");
    let golden = fs::read(case.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&golden).unwrap();
    let ids = golden.tensor("ids.2").unwrap();
    let ids: Vec<String> =
        ids.data().as_chunks().0.iter().map(|&id| i64::from_le_bytes(id).to_string()).collect();
    let expected = golden.tensor("logits.2").unwrap();
    let expected: Vec<f32> =
        expected.data().as_chunks().0.iter().map(|&z| f32::from_le_bytes(z)).collect();

    let arguments = ["logits", "--checkpoint", text(&case), "--tokens", &ids.join(",")];
    let all = rows(&json(&[&arguments[..], &["--all"]].concat())["logits"]);
    assert_eq!(all.len(), ids.len());
    assert_close(&all.concat(), &expected);
    let last = row(&json(&arguments)["logits"]);
    assert_close(&last, all.last().unwrap());
    let plain = String::from_utf8(cerebellum(&arguments).stdout).unwrap();
    let plain: Vec<f32> = plain.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(plain, last);
}

#[test]
fn logits_of_a_file_depend_on_nothing_but_the_cache() {
    let place = Place::new();
    let arguments = ["logits", "-m", text(&place.file), "--tokens", "11,22,33,44"];
    let with = |more: &[&str]| row(&json(&[&arguments[..], more].concat())["logits"]);
    let logits = with(&[]);
    assert_eq!(logits.len(), 4096);
    assert_eq!(with(&["-t", "1"]), logits);
    assert_eq!(rows(&json(&[&arguments[..], &["--all"]].concat())["logits"])[3], logits);
    assert_ne!(with(&["--kv", "int8"]), logits);
    let scalar = Command::new(env!("CARGO_BIN_EXE_cerebellum"))
        .args(arguments)
        .arg("--json")
        .env("CEREBELLUM_ISA", "scalar")
        .output()
        .unwrap();
    let scalar: Value = serde_json::from_slice(&scalar.stdout).unwrap();
    assert_eq!((row(&scalar["logits"]), &scalar["isa"]), (logits, &"scalar".into()));
}

#[test]
fn bad_tokens_are_told() {
    let place = Place::new();
    let demo = demo();
    for source in [["-m", text(&place.file)], ["--checkpoint", text(&demo)]] {
        let [option, path] = source;
        let message = failure(&["logits", option, path, "--tokens", "1,4096"]);
        assert!(message.contains("4096"), "{message}");
        let many = vec!["7"; 513].join(",");
        let message = failure(&["logits", option, path, "--tokens", &many]);
        assert!(message.contains("513") && message.contains("512"), "{message}");
    }
    let usage = [
        &["logits", "-m", "x.cbl"][..],
        &["logits", "--tokens", "1"],
        &["logits", "-m", "x.cbl", "--checkpoint", "x", "--tokens", "1"],
        &["logits", "-m", "x.cbl", "--tokens", "1,-2"],
        &["logits", "--checkpoint", "x", "--tokens", "1", "--kv", "int8"],
    ];
    for arguments in usage {
        assert_eq!(code(&cerebellum(arguments)), 2, "{arguments:?}");
    }
}

/// Every number again, by the textbook formulas from what `logits --all` prints.
#[test]
fn eval_agrees_with_the_printed_logits() {
    let place = Place::new();
    let demo = demo();
    let window = 100;
    let report = json(&place.eval(&["--window", "100", "--reference", text(&demo)]));
    let tokens = place.tokens();
    assert_eq!(report["text_tokens"], tokens.len());

    let (mut nll, mut reference_nll, mut kl, mut same) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for window in tokens.chunks_exact(window) {
        let ids: Vec<String> = window.iter().map(u32::to_string).collect();
        let logits = |option: &str, path: &Path| {
            let arguments = ["logits", option, text(path), "--tokens", &ids.join(","), "--all"];
            rows(&json(&arguments)["logits"])
        };
        let (q, p) = (logits("-m", &place.file), logits("--checkpoint", &demo));
        for (i, &target) in window[1..].iter().enumerate() {
            let (q, p) = (softmax(&q[i]), softmax(&p[i]));
            nll.push(-q[target as usize].ln());
            reference_nll.push(-p[target as usize].ln());
            kl.push(p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>());
            let top = |p: &[f64]| (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b]));
            same += usize::from(top(&p) == top(&q));
        }
    }
    let n = nll.len();
    assert!(n >= 3 * 99, "{n}");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / n as f64;
    kl.sort_by(f64::total_cmp);
    let expected = [
        ("perplexity", mean(&nll).exp()),
        ("reference_perplexity", mean(&reference_nll).exp()),
        ("perplexity_ratio", (mean(&nll) - mean(&reference_nll)).exp()),
        ("kl_mean", mean(&kl)),
        ("kl_p95", kl[(n * 95).div_ceil(100) - 1]),
        ("kl_p99", kl[(n * 99).div_ceil(100) - 1]),
        ("kl_max", kl[n - 1]),
        ("top1_agreement", same as f64 / n as f64),
        ("tokens", n as f64),
        ("windows", (n / 99) as f64),
    ];
    for (field, expected) in expected {
        let found = report[field].as_f64().unwrap();
        // The float reference sums in another order in windows of its own threads.
        assert!((found / expected - 1.0).abs() < 1e-5, "{field}: {found} {expected}");
    }
    assert!(report["kl_mean"].as_f64().unwrap() > 0.001, "int4 costs something");
    assert_eq!(report["file_bytes"], fs::metadata(&place.file).unwrap().len());
    assert!((4.0..5.0).contains(&report["bits_per_weight"].as_f64().unwrap()));

    let alone = ["eval", "--checkpoint", text(&demo), "--text", text(&place.text)];
    let alone = json(&[&alone[..], &["--window", "100"]].concat());
    assert_eq!(alone["perplexity"], report["reference_perplexity"]);
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|&z| f64::from(z).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|e| e / sum).collect()
}

#[test]
fn no_number_depends_on_the_threads() {
    let place = Place::new();
    let demo = demo();
    let report = |threads: &str| {
        let mut report =
            json(&place.eval(&["--window", "50", "--reference", text(&demo), "-t", threads]));
        for field in ["seconds", "threads"] {
            report.as_object_mut().unwrap().remove(field).unwrap();
        }
        report
    };
    assert_eq!(report("1"), report("3"));
}

#[test]
fn the_text_output_has_the_numbers() {
    let place = Place::new();
    let demo = demo();
    let output = cerebellum(&place.eval(&["--window", "30", "--reference", text(&demo)]));
    let output = String::from_utf8(output.stdout).unwrap();
    for word in ["perplexity", "of the reference", "KL", "top-1", "int", "confidence"] {
        assert!(output.contains(word), "{output}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_told_at_once() {
    let place = Place::new();
    let eval = |file: &Path, content: &Path, more: &[&str]| {
        let arguments = ["eval", "-m", text(file), "--text", text(content)];
        failure(&[&arguments, more].concat())
    };
    let short = place.write("short.txt", b"Once upon a time");
    let message = eval(&place.file, &short, &[]);
    assert!(message.contains("less than a window of 512"), "{message}");
    let message = eval(&place.file, &place.write("empty.txt", b""), &[]);
    assert!(message.contains("0 tokens"), "{message}");
    let latin = place.write("latin1.txt", b"caf\xe9 noir");
    let message = eval(&place.file, &latin, &[]);
    assert!(message.contains("latin1.txt") && message.contains("byte 3"), "{message}");
    let message = eval(&place.file, Path::new("/no/such/text"), &[]);
    assert!(message.contains("/no/such/text"), "{message}");

    let other = repository("tests/data/golden/cerebras-17-heads");
    let message = eval(&place.file, &place.text, &["--reference", text(&other)]);
    assert!(message.contains("vocab_size 503 instead of 4096"), "{message}");
    let message = failure(&["eval", "--checkpoint", text(&other), "--text", text(&place.text)]);
    assert!(message.contains("no tokenizer.json"), "{message}");

    let bare = place.directory.path().join("bare.cbl");
    assert_eq!(code(&cerebellum(&["quantize", text(&other), "-o", text(&bare), "-q"])), 0);
    let message = eval(&bare, &place.text, &[]);
    assert!(message.contains("no tokenizer") && message.contains("bare.cbl"), "{message}");

    let usage = [["--window", "1"], ["--kv", "int3"], ["--checkpoint", "x"]];
    for more in usage {
        assert_eq!(code(&cerebellum(&place.eval(&more))), 2, "{more:?}");
    }
}

/// Another training run of the same shape is worth a warning, no more.
#[test]
fn a_reference_with_other_weights_is_warned_of() {
    let place = Place::new();
    let checkpoint = place.directory.path().join("checkpoint");
    let mut model = Model::random(4096, 64, 12, 20);
    model.write(&checkpoint);
    let file = place.directory.path().join("tiny.cbl");
    let tokenizer = demo();
    let arguments = ["quantize", text(&checkpoint), "-o", text(&file)];
    let output = cerebellum(&[&arguments[..], &["--tokenizer", text(&tokenizer)]].concat());
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    model.values("ln_f.bias")[0] += 0.5;
    model.write(&checkpoint);
    let arguments = ["eval", "-m", text(&file), "--text", text(&place.text), "--reference"];
    let output = cerebellum(&[&arguments[..], &[text(&checkpoint)]].concat());
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("was not made from the weights"), "{}", stderr(&output));
}
