//! Keeps the files that are tried, so that other projects can try theirs with them (`tests/data/hostile/README.md`):
//! `HOSTILE_EXPORT=DIRECTORY cargo test --test hostile`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

/// Of each class so many: mutations and payload bits by the ten thousand say no more.
const MOST: usize = 100;

/// How many files of each class there are.
static FILES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// Writes a file of `class` below the directory, and a line about it to `files.tsv` there: its path, what became of
/// it here, and what it is.
pub fn keep(class: &str, case: &str, outcome: &str, bytes: &[u8]) {
    let Some(directory) = std::env::var_os("HOSTILE_EXPORT") else { return };
    if bytes.is_empty() {
        return;
    }
    let mut files = FILES.lock().unwrap();
    let number = files.entry(class.to_owned()).or_default();
    if *number >= MOST {
        return;
    }
    let directory = Path::new(&directory);
    let name = class.replace([' ', ':', ','], "-").replace("--", "-");
    let path = Path::new(&name).join(format!("{number:03}.{}", extension(bytes)));
    fs::create_dir_all(directory.join(&name)).unwrap();
    fs::write(directory.join(&path), bytes).unwrap();
    *number += 1;
    let list = OpenOptions::new().create(true).append(true).open(directory.join("files.tsv"));
    let line = format!("{}\t{outcome}\t{}\n", path.display(), case.escape_debug());
    list.unwrap().write_all(line.as_bytes()).unwrap();
}

/// By what the file begins with.
fn extension(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'G', b'G', b'U', b'F', ..] => "gguf",
        [b'P', b'K', ..] | [0x80, 2, ..] => "pt",
        [b'{' | b'[', ..] => "json",
        // Model files are of this format, too.
        [_, _, _, _, _, 0, 0, 0, b'{', ..] => "safetensors",
        _ => "bin",
    }
}
