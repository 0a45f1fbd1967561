//! `hf:ORG/NAME@REVISION`.

use std::fmt;
use std::path::{Component, Path};

use super::error::{Error, Result};

/// What every name of a model on the hub begins with.
const PREFIX: &str = "hf:";
/// The branch that every repository of the hub has.
const MAIN: &str = "main";
const GGUF: &str = ".gguf";

/// A model on the hub: `hf:ORG/NAME`, or one file of it, `hf:ORG/NAME/FILE.gguf`; both with `@REVISION` for a
/// branch, tag or commit other than `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `ORG/NAME`.
    pub(super) repository: String,
    /// Its path in the repository, with slashes.
    pub(super) file: Option<String>,
    pub(super) revision: String,
}

impl Name {
    /// The name that an argument is, if it begins with `hf:`; everything else is a path. (`./hf:…` is one.)
    ///
    /// # Errors
    /// [`Error::Name`] if what follows is no name.
    pub fn of(argument: &Path) -> Option<Result<Self>> {
        let name = argument.to_str()?.strip_prefix(PREFIX)?;
        Some(Self::parse(name).map_err(|detail| Error::Name { name: name.to_owned(), detail }))
    }

    fn parse(name: &str) -> std::result::Result<Self, &'static str> {
        // `hf://` is how some programs write it.
        let name = name.strip_prefix("//").unwrap_or(name);
        let (path, revision) = name.split_once('@').unwrap_or((name, MAIN));
        if revision.to_ascii_lowercase().ends_with(GGUF) {
            return Err("the revision comes last: write hf:ORG/NAME/FILE.gguf@REVISION");
        }
        if !is_relative(revision) {
            return Err("what follows the @ is no branch, tag or commit");
        }
        let mut parts = path.splitn(3, '/');
        let (Some(owner), Some(model)) = (parts.next(), parts.next()) else {
            return Err("write hf:ORG/NAME, such as hf:HuggingFaceTB/SmolLM2-135M-Instruct");
        };
        if !is_word(owner) || !is_word(model) {
            return Err("names on the hub have letters, digits, \"-\", \"_\" and \".\" only");
        }
        let file = parts.next().map(str::to_owned);
        let is_gguf =
            |file: &String| is_relative(file) && file.to_ascii_lowercase().ends_with(GGUF);
        if !file.as_ref().is_none_or(is_gguf) {
            return Err("of a single file only GGUF is read: write hf:ORG/NAME for the model, or \
                 hf:ORG/NAME/FILE.gguf");
        }
        let (repository, revision) = (format!("{owner}/{model}"), revision.to_owned());
        Ok(Self { repository, file, revision })
    }

    /// The folder of the repository in the cache.
    pub(super) fn folder(&self) -> String {
        format!("models--{}", self.repository.replace('/', "--"))
    }

    /// Whether the revision is a commit, which never changes.
    pub(super) fn is_commit(&self) -> bool {
        is_commit(&self.revision)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.repository)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision == MAIN { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether a text is a commit's full name: 40 hexadecimal digits.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hexadecimal(text)
}

pub(super) fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text is a path that stays inside the directory it is joined to.
pub(super) fn is_relative(path: &str) -> bool {
    let inside = |component| matches!(component, Component::Normal(_));
    !path.is_empty()
        && !path.contains(|c: char| c.is_control() || c == '\\')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && Path::new(path).components().all(inside)
}

/// Whether a text may be an owner or a model. The hub allows neither `..` nor `--`, which the folder's name in the
/// cache could not tell from a slash.
fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let outer = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-' && byte != b'.');
    text.bytes().all(allowed)
        && outer(text.bytes().next())
        && outer(text.bytes().last())
        && !text.contains("..")
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Result<Name>> {
        Name::of(Path::new(text))
    }

    #[test]
    fn names_have_a_repository_a_file_and_a_revision() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for (text, repository, file, revision) in [
            ("hf:a/b", "a/b", None, "main"),
            ("hf://a/b", "a/b", None, "main"),
            ("hf:Org_1/x.y-z@v1.0", "Org_1/x.y-z", None, "v1.0"),
            ("hf:a/b@refs/pr/1", "a/b", None, "refs/pr/1"),
            ("hf:a/b/c.gguf", "a/b", Some("c.gguf"), "main"),
            ("hf:a/b/d/C.GGUF@x", "a/b", Some("d/C.GGUF"), "x"),
            (&format!("hf:a/b@{commit}"), "a/b", None, commit),
        ] {
            let name = parse(text).unwrap().unwrap();
            assert_eq!(name.repository, repository, "{text}");
            assert_eq!(name.file.as_deref(), file, "{text}");
            assert_eq!(name.revision, revision, "{text}");
            assert_eq!(name.is_commit(), revision == commit, "{text}");
            assert_eq!(
                name.to_string().replace("hf:", ""),
                text.replace("hf:", "").replace("//", "")
            );
        }
        assert_eq!(parse("hf:a/b").unwrap().unwrap().folder(), "models--a--b");
    }

    #[test]
    fn paths_are_no_names() {
        for path in ["", "a/b", "./hf:a/b", "HF:a/b", "/hf:a/b"] {
            assert!(parse(path).is_none(), "{path}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "hf:",
            "hf:gpt2",
            "hf:/b",
            "hf:a/",
            "hf:a/b@",
            "hf:../b",
            "hf:a/..",
            "hf:a/b--c",
            "hf:a/b@../x",
            "hf:a/b@/x",
            "hf:a/b@x\u{7}",
            "hf:a/b/c.bin",
            "hf:a/b/../c.gguf",
            "hf:a/b//c.gguf",
            "hf:a/b/",
            "hf:a/b@main/c.gguf",
            "hf:a b/c",
            "hf:a/b/c\\d.gguf",
        ] {
            assert!(matches!(parse(text), Some(Err(Error::Name { .. }))), "{text}");
        }
    }
}
