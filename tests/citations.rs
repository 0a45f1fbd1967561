//! Sections of `docs/numbers.md` that comments and other documents cite exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const CITED: &str = "numbers.md";
const ENDINGS: [&str; 8] = ["rs", "md", "h", "hpp", "c", "py", "txt", "toml"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Text files below a directory, but what is built or hidden.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, files);
        } else if ENDINGS.iter().any(|ending| path.extension().is_some_and(|it| it == *ending)) {
            files.push(path);
        }
    }
}

/// The sections that a text cites: the numbers that come after the document's name and "section" or
/// "sections", with at most a few marks between. A line may end anywhere.
fn citations(text: &str) -> Vec<u32> {
    let mut cited = Vec::new();
    for (at, _) in text.match_indices(CITED) {
        let rest = &text[at + CITED.len()..];
        let mut words = rest
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
            .filter(|word| !word.is_empty() && *word != CITED)
            .take(4);
        match words.next() {
            Some("section" | "sections") => {}
            // "`docs/numbers.md` 1.4": a rule of a section.
            Some(rule) => {
                let section =
                    rule.split_once('.').and_then(|(section, _)| section.parse::<u32>().ok());
                cited.extend(section);
                continue;
            }
            None => continue,
        }
        let mut number = || words.next()?.split('.').next()?.parse().ok();
        let first: Option<u32> = number();
        let last = words.next().filter(|word| ["to", "and"].contains(word));
        cited.extend(first);
        cited.extend(last.and_then(|_| words.next()?.split('.').next()?.parse::<u32>().ok()));
    }
    // A link has the name twice.
    cited.dedup();
    cited
}

#[test]
fn cited_sections_exist() {
    let numbers = fs::read_to_string(root().join("docs").join(CITED)).unwrap();
    let headings = numbers.lines().filter_map(|line| line.strip_prefix("## ")?.split_once(". "));
    let sections: BTreeSet<u32> = headings.map(|(number, _)| number.parse().unwrap()).collect();
    let mut files = Vec::new();
    sources(root(), &mut files);
    let (mut count, mut missing) = (0, Vec::new());
    for file in files.iter().filter(|file| !file.ends_with(file!())) {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let cited = citations(&text);
        count += cited.len();
        let unknown = cited.into_iter().filter(|section| !sections.contains(section));
        missing.extend(unknown.map(|section| format!("{}: section {section}", file.display())));
    }
    assert!(count >= 25, "only {count} citations were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn citations_are_found() {
    assert_eq!(citations("(`docs/numbers.md` section 7, x)"), [7]);
    assert_eq!(citations("(`docs/numbers.md` sections 2 to 4) and"), [2, 4]);
    assert_eq!(citations("[numbers.md](numbers.md) section 10."), [10]);
    assert_eq!(citations("docs/numbers.md, section 1), only"), [1]);
    assert_eq!(citations("[numbers.md](numbers.md) section 2, -18..=6"), [2]);
    assert_eq!(citations("`docs/numbers.md` 1.4: a"), [1]);
    assert_eq!(citations("numbers.md has 3 of them"), [0; 0]);
}
