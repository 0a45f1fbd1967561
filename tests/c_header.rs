//! `include/cerebellum.h` says what `src/ffi` does: it is generated from it, section by section.
//!
//! After a change to the interface: `UPDATE_HEADER=1 cargo test --test c_header`, and read the
//! difference. Signatures and numbers may be added; see "ABI" in `docs/embedding.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// The header's sections in order, simple first: files of `src/ffi`. The module comment of a section's
/// first file becomes its introduction.
const SECTIONS: [&[&str]; 17] = [
    &["version"],
    &["status", "status_text"],
    &["options/keys", "options/values", "options/handle", "options/setters"],
    &["model/open", "model/shared", "model/info", "model/weights"],
    &[
        "session/make",
        "session/state",
        "session/tokens",
        "session/cancel",
        "stop_reason",
        "session/stats",
    ],
    &["session/generate"],
    &["session/on_demand"],
    &["text"],
    &["score", "options/pooling"],
    &["classify", "options/classification"],
    &["template"],
    &["chat"],
    &["batch/make", "batch/state", "batch/sequences", "batch/cancel", "batch/generate"],
    &["batch/on_demand"],
    &["session/saved"],
    &["options/host", "host/log", "host/progress", "host/pool"],
    &["start"],
];

const INTRODUCTION: &str = include_str!("../src/ffi/introduction.txt");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(file: &str) -> PathBuf {
    root().join("src/ffi").join(file).with_extension("rs")
}

/// The types and functions of one section in C.
fn declarations(files: &[&str]) -> String {
    let config = cbindgen::Config::from_file(root().join("src/ffi/cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for path in files.iter().map(|file| source(file)) {
        // Those types too that no signature names, such as the values of options.
        for line in fs::read_to_string(&path).unwrap().lines() {
            let name = ["pub enum ", "pub struct ", "pub type "]
                .iter()
                .find_map(|it| line.strip_prefix(it))
                .filter(|name| name.starts_with("cbl_"));
            if let Some(name) = name {
                builder = builder.include_item(name.split([' ', ';', '=']).next().unwrap());
            }
        }
        builder = builder.with_src(path);
    }
    let mut bytes = Vec::new();
    builder.generate().unwrap().write(&mut bytes);
    compact(&plain_enumerations(String::from_utf8(bytes).unwrap().trim()))
}

/// An enumeration's values as plain constants of C and C++ alike, and its name as what goes over the
/// border: an int32_t, whatever a compiler makes of enumerations.
fn plain_enumerations(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some((before, enumeration)) = rest.split_once("\nenum ") {
        let (name, after) = enumeration.split_once('\n').unwrap();
        let (_, values) = after.split_once("\n {").unwrap();
        let (values, after) = values.split_once("\n};\n").unwrap();
        let (_, after) = after.split_once(&format!("typedef int32_t {name};\n")).unwrap();
        let (_, after) = after.split_once('\n').expect("#endif");
        let _ = write!(out, "{before}\ntypedef int32_t {name};\nenum {{{values}\n}};\n");
        rest = after;
    }
    out + rest
}

/// Comments of one line on one line.
fn compact(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let (mut out, mut at) = (String::new(), 0);
    while at < lines.len() {
        let line = lines[at];
        match (line.trim(), lines.get(at + 1), lines.get(at + 2)) {
            ("/**", Some(only), Some(end)) if end.trim() == "*/" => {
                let only = only.trim().trim_start_matches("* ");
                let _ = writeln!(out, "{line} {only} */");
                at += 3;
            }
            _ => {
                let _ = writeln!(out, "{line}");
                at += 1;
            }
        }
    }
    out.trim_end().to_owned()
}

/// A comment around the lines of a module's introduction.
fn comment(file: &str) -> String {
    let source = fs::read_to_string(source(file)).unwrap();
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    let mut lines = lines.map(|line| line.strip_prefix(' ').unwrap_or(line));
    let title = lines.next().expect("a title");
    let mut text = format!("/* ---- {title} {}\n", "-".repeat(85 - title.len()));
    for line in lines {
        text.push_str(format!(" * {line}").trim_end());
        text.push('\n');
    }
    text + " */"
}

fn header() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("#ifndef CEREBELLUM_H\n#define CEREBELLUM_H\n\n");
    text.push_str("#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n");
    text.push_str("#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    for section in SECTIONS {
        let _ = write!(text, "\n{}\n\n{}\n", comment(section[0]), declarations(section));
    }
    text.push_str("\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* CEREBELLUM_H */\n");
    text
}

#[test]
fn committed_header_is_the_generated_one() {
    let path = root().join("include/cerebellum.h");
    let (generated, committed) = (header(), fs::read_to_string(&path).unwrap_or_default());
    if std::env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, generated).unwrap();
    } else {
        assert!(
            generated == committed,
            "src/ffi and include/cerebellum.h differ: run UPDATE_HEADER=1 cargo test --test c_header"
        );
    }
}
