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
        assert_eq!(
            code(&cerebellum(&["quantize", "--no-calibration", text(&demo()), "-o", text(&file)])),
            0
        );
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

/// `-` is standard input, as everywhere.
#[test]
fn a_text_comes_from_standard_input_too() {
    let place = Place::new();
    let input = fs::File::open(&place.text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cerebellum"))
        .args(["eval", "-m", text(&place.file), "--text", "-", "--json", "--window", "100"])
        .stdin(input)
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["perplexity"], json(&place.eval(&["--window", "100"]))["perplexity"]);

    let input = fs::File::open(&place.file).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cerebellum"))
        .args(["eval", "-m", text(&place.file), "--text", "-"])
        .stdin(input)
        .output()
        .unwrap();
    assert!(code(&output) == 1 && stderr(&output).contains("standard input is not UTF-8"));
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
    assert!(message.matches("instead of").count() <= 3, "{message}");
    let message = failure(&["eval", "--checkpoint", text(&other), "--text", text(&place.text)]);
    assert!(message.contains("no tokenizer.json"), "{message}");

    let bare = place.directory.path().join("bare.cbl");
    assert_eq!(
        code(&cerebellum(&["quantize", "--no-calibration", text(&other), "-o", text(&bare), "-q"])),
        0
    );
    let message = eval(&bare, &place.text, &[]);
    assert!(message.contains("no tokenizer") && message.contains("bare.cbl"), "{message}");

    let usage: [&[&str]; 5] = [
        &["--window", "1"],
        &["--kv", "int3"],
        &["--checkpoint", "x"],
        &["--ablation"],
        &["--any-weights"],
    ];
    for more in usage {
        assert_eq!(code(&cerebellum(&place.eval(more))), 2, "{more:?}");
    }
}

/// Another training run of the same shape: refused, unless one asks for it.
#[test]
fn a_reference_with_other_weights_is_refused() {
    let place = Place::new();
    let checkpoint = place.directory.path().join("checkpoint");
    let mut model = Model::random(4096, 64, 12, 20);
    model.write(&checkpoint);
    let file = place.directory.path().join("tiny.cbl");
    let tokenizer = demo();
    let arguments = ["quantize", "--no-calibration", text(&checkpoint), "-o", text(&file)];
    let output = cerebellum(&[&arguments[..], &["--tokenizer", text(&tokenizer)]].concat());
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    model.values("ln_f.bias")[0] += 0.5;
    model.write(&checkpoint);
    let arguments = ["eval", "-m", text(&file), "--text", text(&place.text), "--reference"];
    let arguments = [&arguments[..], &[text(&checkpoint)]].concat();
    let message = failure(&arguments);
    assert!(message.contains("was not made from the weights"), "{message}");
    assert!(message.contains("--any-weights"), "{message}");
    let output = cerebellum(&[&arguments[..], &["--any-weights"]].concat());
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("was not made from the weights"), "{}", stderr(&output));
}

/// Several files in one run have the numbers that each has alone, and each step of the ablation those
/// of its own run.
#[test]
fn several_files_and_their_ablation_are_measured_at_once() {
    let place = Place::new();
    let demo = demo();
    let int8 = place.directory.path().join("int8.cbl");
    let arguments = ["quantize", text(&demo), "-o", text(&int8), "--weights", "int8"];
    assert_eq!(code(&cerebellum(&arguments)), 0);
    let common = ["--window", "30", "--reference", text(&demo)];
    let both = json(&place.eval(&[&common[..], &["-m", text(&int8), "--ablation"]].concat()));
    let results = both["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    let alone = json(&place.eval(&common));
    let int8_cache = json(&place.eval(&[&common[..], &["--kv", "int8"]].concat()));
    let [low, high] = [0, 1].map(|i| alone["top1_agreement_interval"][i].as_f64().unwrap());
    let agreement = alone["top1_agreement"].as_f64().unwrap();
    assert!(0.0 <= low && low < agreement && agreement < high && high <= 1.0);
    for field in ["kl_mean", "kl_p95", "kl_p99"] {
        let [low, high] = [0, 1].map(|i| alone[format!("{field}_interval")][i].as_f64().unwrap());
        let value = alone[field].as_f64().unwrap();
        assert!(0.0 < low && low <= value && value <= high && low < high, "{field}");
    }

    let fields = ["perplexity", "kl_mean", "kl_p99", "top1_agreement", "kl_mean_interval"];
    let steps = results[0]["ablation"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["weights", "activations", "cache"]);
    for field in fields {
        assert_eq!(results[0][field], alone[field], "{field}");
        assert_eq!(steps[1][field], alone[field], "{field}");
        assert_eq!(steps[2][field], int8_cache[field], "{field}");
    }
    let kl = |step: &Value| step["kl_mean"].as_f64().unwrap();
    // Rounding the weights is what costs at four bits; activations come on top.
    assert!(kl(&steps[0]) > 0.5 * kl(&steps[1]) && kl(&steps[0]) != kl(&steps[1]));
    assert!(kl(&results[1]) < 0.3 * kl(&results[0]), "int8 is closer");
    assert_eq!(results[0]["tensors"].as_array().unwrap().len(), 25);
    assert_eq!(results[1]["schemes"], "int8 / 64");

    let output = cerebellum(&place.eval(&[&common[..], &["-m", text(&int8)]].concat()));
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("int8.cbl") && output.contains("demo.cbl"), "{output}");
}

/// Two files whose tokenizers differ see different texts.
#[test]
fn files_that_do_not_compare_are_told_apart() {
    let place = Place::new();
    let (checkpoint, tokenizer) =
        (place.directory.path().join("other"), place.directory.path().join("tokenizer"));
    Model::random(4096, 64, 12, 20).write(&checkpoint);
    fs::create_dir(&tokenizer).unwrap();
    let json = fs::read_to_string(demo().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    merges.reverse();
    fs::write(tokenizer.join("tokenizer.json"), json.to_string()).unwrap();
    let file = place.directory.path().join("other.cbl");
    let arguments = ["quantize", "--no-calibration", text(&checkpoint), "-o", text(&file), "-q"];
    assert_eq!(
        code(&cerebellum(&[&arguments[..], &["--tokenizer", text(&tokenizer)]].concat())),
        0
    );
    let message = failure(&place.eval(&["-m", text(&file), "--window", "30"]));
    assert!(message.contains("different tokenizers"), "{message}");
}

/// One page that needs nothing else, the same bytes for the same measurements, whatever names hold.
#[test]
fn the_page_is_whole_escaped_and_reproducible() {
    let place = Place::new();
    let demo = demo();
    let odd = place.directory.path().join("<b>&\"x.cbl");
    fs::copy(&place.file, &odd).unwrap();
    let page = place.directory.path().join("report.html");
    let write = |threads: &str, more: &[&str]| {
        let arguments = ["eval", "-m", text(&odd), "--text", text(&place.text)];
        let options = ["--window", "30", "--reference", text(&demo), "-t", threads];
        let output = ["--html", text(&page)];
        cerebellum(&[&arguments[..], &options, &output, more].concat())
    };
    assert_eq!(code(&write("1", &["--ablation"])), 0);
    let first = fs::read_to_string(&page).unwrap();
    let message = stderr(&write("2", &["--ablation"]));
    assert!(message.contains("--force"), "{message}");
    assert_eq!(code(&write("2", &["--ablation", "--force"])), 0);
    assert_eq!(fs::read_to_string(&page).unwrap(), first);

    assert!(!first.contains("<b>") && first.contains("&lt;b&gt;&amp;"), "names are escaped");
    for outside in ["<script", "http:", "https:", "@import", "url(", "src="] {
        assert!(!first.contains(outside), "{outside}");
    }
    assert!(!first.contains(text(place.directory.path())), "no place on this machine");
    let balanced = |tag: &str| {
        let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
        let opened = first.matches(&open).count();
        assert_eq!(opened, first.matches(&close).count(), "{tag}");
        opened
    };
    assert_eq!(balanced("table"), 2, "the ablation and the matrices");
    assert!(balanced("svg") > 25 && balanced("section") == 5);
    let report = json(&place.eval(&["--window", "30", "--reference", text(&demo)]));
    let agreement = format!("{:.2}\u{a0}%", 100.0 * report["top1_agreement"].as_f64().unwrap());
    for word in ["h.5.mlp.c_proj", "int4 / 64", "weights only", "+ int8 cache", &agreement] {
        assert!(first.contains(word), "{word}");
    }
}

/// A page may not replace what it is made from.
#[test]
fn a_page_never_replaces_an_input() {
    let place = Place::new();
    for input in [&place.file, &place.text] {
        let before = fs::read(input).unwrap();
        let message = failure(&place.eval(&["--window", "30", "--html", text(input), "--force"]));
        assert!(message.contains(text(input)), "{message}");
        assert_eq!(fs::read(input).unwrap(), before);
    }
}

/// `quantize --report` says what `eval` would say of the same file and text.
#[test]
fn quantizing_writes_a_report() {
    let place = Place::new();
    let demo = demo();
    let (file, page) =
        (place.directory.path().join("again.cbl"), place.directory.path().join("again.html"));
    let arguments =
        ["quantize", "--no-calibration", text(&demo), "-o", text(&file), "--report", text(&page)];
    let long =
        place.write("long.txt", &fs::read(repository("tests/data/text/stories.txt")).unwrap());
    let with_text = [&arguments[..], &["--report-text", text(&long)]].concat();
    assert_eq!(code(&cerebellum(&with_text)), 0);
    let found = fs::read_to_string(&page).unwrap();
    let eval = ["eval", "-m", text(&file), "--text", text(&long), "--reference", text(&demo)];
    let options = ["--ablation", "--html", text(&page), "--force"];
    assert_eq!(code(&cerebellum(&[&eval[..], &options].concat())), 0);
    assert_eq!(fs::read_to_string(&page).unwrap(), found);

    assert_eq!(code(&cerebellum(&[&arguments[..], &["--force"]].concat())), 0);
    let errors_alone = fs::read_to_string(&page).unwrap();
    assert!(errors_alone.contains("h.5.mlp.c_proj") && !errors_alone.contains("Ablation"));

    // What is wrong with the report is told before the work, which is not done then.
    fs::remove_file(&file).unwrap();
    let short = place.write("short.txt", b"Once upon a time");
    for (more, expected) in [
        (&["--report-text", text(&short), "--force"][..], "less than a window of 512"),
        (&["--report-text", "/no/such/text", "--force"], "/no/such/text"),
        (&[], "--force"),
    ] {
        let message = failure(&[&arguments[..], more].concat());
        assert!(message.contains(expected), "{message}");
        assert!(!file.exists());
    }
    let same =
        ["quantize", "--no-calibration", text(&demo), "-o", text(&file), "--report", text(&file)];
    assert!(failure(&same).contains("is to be written twice"));
}

/// A file that was made under a budget says by what its formats were chosen. A small model serves: to measure
/// what formats cost takes long.
#[test]
fn the_page_shows_what_formats_were_chosen_by() {
    let place = Place::new();
    let (demo, checkpoint) = (demo(), place.directory.path().join("checkpoint"));
    Model::random(4096, 64, 96, 192).write(&checkpoint);
    let (file, page) =
        (place.directory.path().join("mixed.cbl"), place.directory.path().join("mixed.html"));
    let paths = ["quantize", text(&checkpoint), "-o", text(&file), "--report", text(&page)];
    let options = ["--tokenizer", text(&demo), "--calibration", text(&place.text), "--bits", "7"];
    let report = json(&[&paths[..], &options].concat());
    let page = fs::read_to_string(&page).unwrap();
    for expected in ["KL\u{a0}alone", "nl4 / ", "int8 / "] {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(!page.contains("\"kl\""), "the record's choices are shown once");
    assert!(report["bits_per_weight"].as_f64().unwrap() <= 7.0);
}
