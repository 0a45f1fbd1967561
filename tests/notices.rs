//! `packaging/THIRD-PARTY.txt`, which `packaging/install.sh` installs, holds the licences of all packages whose
//! code is in the library.
//!
//! After a change of dependencies: `UPDATE_NOTICES=1 cargo test --test notices`, and read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// Systems that `packaging/install.sh` builds for, of each kind one: their packages differ a little.
const TARGETS: [&str; 5] = [
    "x86_64-unknown-linux-gnu",
    "aarch64-linux-android",
    "aarch64-apple-darwin",
    "aarch64-apple-ios",
    "x86_64-unknown-freebsd",
];

const HEAD: &str = "\
Third-party notices of Cerebellum

Cerebellum itself is under Apache-2.0 OR MIT, at your option: LICENSE-APACHE, LICENSE-MIT.

The library holds code of the Rust standard library, too, which is under MIT OR Apache-2.0. What that is made
of, and under which licences, says rust-standard-library.html beside this file; it comes with the compiler, and
is missing if the compiler had none.

And it holds code of the packages below: of all of them if it was built with text and constraints, else of some.
The numbers are those of the texts that follow.
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(arguments: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO")).args(arguments).arg("--locked").current_dir(root()).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("names are text")
}

/// Names and versions of the packages that are linked into the library, ours not. Procedural macros are not
/// linked.
fn linked() -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for target in TARGETS {
        let tree = cargo(&[
            "tree",
            "--package",
            "cerebellum",
            "--all-features",
            "--target",
            target,
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--no-dedupe",
        ]);
        for line in tree.lines() {
            let mut words = line.split(' ');
            let (name, version) = (words.next().unwrap(), words.next().unwrap());
            if !name.starts_with("cerebellum") {
                all.insert((name.to_owned(), version.trim_start_matches('v').to_owned()));
            }
        }
    }
    all
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
}

/// Licences and notices in `directory` and below it, but for what is only there to test.
fn texts_below(directory: &Path) -> Vec<String> {
    let mut entries: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut texts = Vec::new();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().to_lowercase();
        if path.is_dir() {
            if !["benches", "examples", "tests"].contains(&name.as_str()) {
                texts.extend(texts_below(&path));
            }
        } else if ["licen", "copying", "copyright", "notice", "unlicense"]
            .iter()
            .any(|start| name.starts_with(start))
        {
            texts.push(String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned());
        }
    }
    texts
}

/// What two copies of one licence agree in.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Texts, each once, and the packages that have them.
#[derive(Default)]
struct Texts {
    numbers: BTreeMap<String, usize>,
    texts: Vec<(String, Vec<String>)>,
}

impl Texts {
    /// Returns the text's number, from 1.
    fn add(&mut self, text: &str, package: &str) -> usize {
        let number = *self.numbers.entry(words(text)).or_insert_with(|| {
            self.texts.push((text.to_owned(), Vec::new()));
            self.texts.len()
        });
        let packages = &mut self.texts[number - 1].1;
        if packages.last().is_none_or(|last| last != package) {
            packages.push(package.to_owned());
        }
        number
    }
}

fn notices() -> String {
    let metadata = cargo(&["metadata", "--format-version", "1", "--all-features"]);
    let metadata: Metadata = serde_json::from_str(&metadata).unwrap();
    let mut known: BTreeMap<_, _> =
        metadata.packages.into_iter().map(|p| ((p.name.clone(), p.version.clone()), p)).collect();
    let mut texts = Texts::default();
    let mut notices = HEAD.to_owned();
    for name in linked() {
        let package = known.remove(&name).expect("a package of the lock file");
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.expect("an expression of licences");
        let mut numbers: Vec<_> = texts_below(package.manifest_path.parent().unwrap())
            .iter()
            .map(|text| texts.add(text, &name).to_string())
            .collect();
        assert!(!numbers.is_empty(), "{name} has no text of its licence {licence}: add it by hand");
        numbers.dedup();
        let place = package.repository.unwrap_or_default();
        writeln!(notices, "\n{name}: {licence}; {}\n  {place}", numbers.join(", ")).unwrap();
    }
    for (index, (text, packages)) in texts.texts.iter().enumerate() {
        let rule = "-".repeat(80);
        writeln!(notices, "\n{rule}\n{}: {}\n{rule}\n", index + 1, packages.join(", ")).unwrap();
        for line in text.trim_matches(['\n', '\r']).lines() {
            writeln!(notices, "{}", line.trim_end()).unwrap();
        }
    }
    notices
}

#[test]
fn third_party_notices_are_of_all_that_is_linked() {
    let path = root().join("packaging/THIRD-PARTY.txt");
    let expected = notices();
    if std::env::var_os("UPDATE_NOTICES").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(
        found == expected,
        "{} is out of date, first in {differs:?}: UPDATE_NOTICES=1 cargo test --test notices",
        path.display()
    );
}
