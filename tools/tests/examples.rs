//! The Rust examples, each run on the bundled model as a reader of `examples/rust` would.
//!
//! `cargo test --workspace` has built them; alone, build them first: `cargo build --workspace --examples`.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::demo;
use tempfile::tempdir;

/// Each example, and what it must say.
const EXAMPLES: [(&str, &str); 6] = [
    ("batch", "tokens per second"),
    ("classify", "\"will it rain in paris tomorrow\" is about weather"),
    ("constrain", "\"intent\""),
    ("score", "\" time there was a king\""),
    ("similar", "set an alarm for six"),
    ("translate", " parts, "),
];

#[test]
fn every_rust_example_runs() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/rust");
    let mut names: Vec<String> = fs::read_dir(sources)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.iter().eq(EXAMPLES.iter().map(|(name, _)| name)), "{names:?}");

    let place = tempdir().unwrap();
    fs::create_dir(place.path().join("target")).unwrap();
    let cerebellum = Path::new(env!("CARGO_BIN_EXE_cerebellum"));
    let quantized = Command::new(cerebellum)
        .args(["quantize", "--no-calibration", "--quiet", "-o", "target/demo.cbl"])
        .arg(demo())
        .current_dir(place.path())
        .status();
    assert!(quantized.unwrap().success());
    for (name, says) in EXAMPLES {
        let example = cerebellum.with_file_name("examples").join(name);
        let output = Command::new(&example).current_dir(place.path()).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(says), "{name}: {output:?}");
    }
}
