//! Quantizing with a calibration text: files made with one, and what it takes to be one.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as Finished};

use cerebellum::format::{read_header, verify};
use cerebellum::quant::Scheme;
use cerebellum_tools::calibrate::Calibration;
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{Error, MatrixFormat, Options, Result, quantize};
use cerebellum_tools::summary::Summary;
use common::demo;
use tempfile::tempdir;

/// The file made of a checkpoint with so many windows of pseudo-random tokens.
fn file_of(directory: &Path, windows: usize, threads: usize) -> Vec<u8> {
    try_file_of(directory, windows, threads, None).unwrap()
}

fn try_file_of(
    directory: &Path,
    windows: usize,
    threads: usize,
    bits: Option<f64>,
) -> Result<Vec<u8>> {
    let checkpoint = Checkpoint::open(directory).unwrap();
    let vocab_size = checkpoint.config().vocab_size;
    let tokens: Vec<u32> =
        (0..6000).map(|i| (i * i * 7 + i * 13) as u32 % vocab_size as u32).collect();
    let calibration = Calibration::new(&tokens, windows, checkpoint.config()).unwrap();
    let options = Options {
        calibration: Some(calibration),
        bits,
        ..Options::uniform(MatrixFormat::new(Scheme::Int4))
    };
    let place = tempdir().unwrap();
    let target = place.path().join("model.cbl");
    let output = Output::create(&target, false, &checkpoint.files()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| quantize(&checkpoint, None, &options, output, &()))?;
    Ok(fs::read(target).unwrap())
}

/// The text is longer than what is held of a matrix's inputs at once, which is 4096 tokens.
#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    let on = |threads| file_of(&golden("cerebras-17-heads"), 66, threads);
    let one = on(1);
    for threads in [2, 3] {
        assert!(on(threads) == one, "{threads} threads give another file");
    }
}

/// Costs are measured before formats are chosen.
#[test]
fn choices_do_not_depend_on_the_number_of_threads() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
    let case = golden.join("cerebras-17-heads");
    let Error::Budget { least, most, .. } = try_file_of(&case, 1, 1, Some(0.0)).unwrap_err() else {
        panic!("a budget of nothing is met")
    };
    for (bits, more) in [(0.7 * least + 0.3 * most, &[2, 3][..]), (most, &[3])] {
        let on = |threads| try_file_of(&case, 4, threads, Some(bits)).unwrap();
        let one = on(1);
        for &threads in more {
            assert!(on(threads) == one, "{threads} threads give another file of {bits} bits");
        }
    }
}

#[test]
fn every_kind_of_model_can_be_calibrated() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
    // Untied head; gate, ALiBi and muP's multipliers; widths that fill no group.
    for case in ["untied-bin-sharded", "btlm-6-heads", "cerebras-odd-inner"] {
        let file = file_of(&golden.join(case), 8, 2);
        let (header, layout) = read_header(&file).unwrap();
        assert_eq!(verify(&file, &layout), [], "{case}");
        for (name, info) in header.tensors.iter() {
            let error = info.relative_error.unwrap();
            assert!(error < 0.5, "{case} {name}: {error}");
        }
        let record = &header.quantizer.value()["options"]["calibration"];
        assert_eq!(record["windows"], 8, "{case}");
        assert!(record["tokens"].as_str().unwrap().starts_with("blake3:"), "{case}");
    }
}

#[test]
fn a_budget_is_spent_and_kept() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
    // A gate must have its companion's groups, or the file could not be read.
    for case in ["cerebras-17-heads", "btlm-6-heads"] {
        let error = try_file_of(&golden.join(case), 1, 1, Some(0.0)).unwrap_err();
        let Error::Budget { least, most, .. } = error else { panic!("{case}: {error}") };
        for extreme in [least, most] {
            try_file_of(&golden.join(case), 1, 1, Some(extreme)).unwrap();
        }
        let bits = 0.5 * (least + most);
        let file = try_file_of(&golden.join(case), 2, 2, Some(bits)).unwrap();
        let (header, layout) = read_header(&file).unwrap();
        let summary = Summary::new(&header, &layout, file.len() as u64);
        let spent = summary.bits_per_weight;
        assert!(spent <= bits && spent > bits - 0.4, "{case}: {spent} of {bits}");
        let record = &header.quantizer.value()["options"];
        let choices = record["choices"].as_array().unwrap();
        assert_eq!((record["bits"].as_f64(), choices.len()), (Some(bits), header.tensors.len()));
        for choice in choices {
            let info = header.tensors.get(choice["tensor"].as_str().unwrap()).unwrap();
            assert_eq!(choice["weights"], info.scheme.name(), "{case}");
            assert_eq!(choice["group_size"], info.group_size, "{case}");
            assert!(choice["kl"].as_f64().unwrap() > 0.0, "{case}: {choice}");
        }
    }
}

#[test]
fn budgets_that_cannot_be_met_are_refused() {
    for bits in [1.0, 2.0, 9.9, f64::NAN] {
        let error = try_file_of(&demo(), 1, 1, Some(bits)).unwrap_err();
        assert!(
            matches!(error, Error::Budget { least, most, .. } if least > 2.1 && least < 2.6 && most > 8.7)
        );
    }
}

fn cerebellum(place: &Path, arguments: &[&str]) -> Finished {
    let demo = demo();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
    command.current_dir(place).arg("quantize").arg(demo).args(arguments);
    command.args(["-o", "model.cbl"]).output().unwrap()
}

#[test]
fn texts_that_cannot_serve_are_refused_before_the_work() {
    let place = tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 3] = [
        ("short", b"Once upon a time", "has 4 tokens, less than one window of 512"),
        ("empty", b"", "has 0 tokens"),
        ("latin-1", b"un \xe9t\xe9", "is not UTF-8 text: byte 3"),
    ];
    for (name, text, message) in cases {
        fs::write(place.path().join(name), text).unwrap();
        let finished = cerebellum(place.path(), &["--calibration", name]);
        let error = String::from_utf8_lossy(&finished.stderr).into_owned();
        assert!(!finished.status.success() && error.contains(message), "{name}: {error}");
        assert!(!place.path().join("model.cbl").exists(), "{name}");
    }
    let finished = cerebellum(place.path(), &["--calibration-windows", "0"]);
    assert!(String::from_utf8_lossy(&finished.stderr).contains("needs at least one window"));
    let finished = cerebellum(place.path(), &["--calibration", "missing"]);
    assert!(String::from_utf8_lossy(&finished.stderr).contains("cannot read missing"));
}

#[test]
fn a_budget_out_of_reach_says_what_is_in_reach() {
    let place = tempdir().unwrap();
    let text = demo().join("calibration.txt");
    for bits in ["2", "9"] {
        let text = text.to_str().unwrap();
        let finished = cerebellum(place.path(), &["--calibration", text, "--bits", bits]);
        let error = String::from_utf8_lossy(&finished.stderr).into_owned();
        let message =
            format!("{bits} bits per weight cannot be met: choose a budget from 2.54 (tc2");
        assert!(!finished.status.success() && error.contains(&message), "{error}");
        assert!(!place.path().join("model.cbl").exists(), "{bits}");
    }
}

/// What `quantize` said on standard error, and the file's record of its calibration.
fn quantized(source: &Path, arguments: &[&str]) -> (String, serde_json::Value) {
    let place = tempdir().unwrap();
    let file = place.path().join("model.cbl");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
    command.arg("quantize").arg(source).args(arguments).arg("-o").arg(&file);
    let finished = command.output().unwrap();
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert!(finished.status.success(), "{said}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "a draft was left");
    let (header, _) = read_header(&fs::read(&file).unwrap()).unwrap();
    let record: serde_json::Value = serde_json::from_str(header.quantizer.text()).unwrap();
    (said, record["options"]["calibration"].clone())
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden").join(name)
}

/// Int4 is calibrated by itself, on the same text for any number of threads.
#[test]
fn without_a_text_the_model_writes_one() {
    let small = golden("cerebras-odd-inner");
    let of = |more: &[&str]| quantized(&small, &[&["--calibration-windows", "9"], more].concat()).1;
    let own = of(&[]);
    assert_eq!((&own["windows"], &own["window"]), (&9.into(), &96.into()));
    assert_eq!(of(&["-t", "3", "--calibration", "own"]), own);
}

#[test]
fn texts_share_the_windows() {
    let text = demo().join("calibration.txt");
    let both = ["--calibration", text.to_str().unwrap(), "--calibration", "own"];
    let record = quantized(&demo(), &[&both[..], &["--calibration-windows", "2"]].concat()).1;
    assert_eq!(record["windows"], 2);
}

#[test]
fn what_is_not_calibrated_by_itself() {
    let source = golden("cerebras-odd-inner");
    for arguments in [&["--no-calibration"][..], &["--weights", "int8"]] {
        assert_eq!(quantized(&source, arguments).1, serde_json::Value::Null);
    }
    // Nothing says how a text of this model begins.
    let place = tempdir().unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
    }
    let config = place.path().join("config.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&config).unwrap()).unwrap();
    json.as_object_mut().unwrap().retain(|name, _| !name.ends_with("_token_id"));
    fs::write(&config, json.to_string()).unwrap();
    let (said, record) = quantized(place.path(), &[]);
    assert_eq!(record, serde_json::Value::Null);
    assert!(said.contains("not calibrated: the model cannot write a text"), "{said}");
    // With a token that ends a text, it is.
    json["eos_token_id"] = 1.into();
    fs::write(&config, json.to_string()).unwrap();
    assert_eq!(quantized(place.path(), &["--calibration-windows", "2"]).1["windows"], 2);
}
