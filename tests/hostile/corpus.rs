//! Files that were once a fault, or that a fuzzer started from.

use std::fs;
use std::path::{Path, PathBuf};

use crate::base::tiny;
use crate::class::Class;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile").join(name)
}

#[test]
fn replayed() {
    let mut class = Class::new("corpus");
    for entry in fs::read_dir(directory("model")).unwrap() {
        let path = entry.unwrap().path();
        class.run(path.display(), &fs::read(&path).unwrap());
    }
    assert!(class.cases() > 0);
    class.print();
}

/// The fuzzers' first file and Miri's only one: `tests/data/hostile/model/tiny.cbl`.
#[test]
#[ignore = "writes into the repository"]
fn write_tiny() {
    fs::create_dir_all(directory("model")).unwrap();
    fs::write(directory("model").join("tiny.cbl"), tiny()).unwrap();
}
