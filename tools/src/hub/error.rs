//! Why a model could not be had from the hub.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use cerebellum::terminal::{name as shown, quoted};

use crate::checkpoint;

/// Why a model could not be had from the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What follows `hf:` is no name.
    #[error("hf:{} is no name of a model: {detail}", shown(name))]
    Name {
        /// What follows `hf:`.
        name: String,
        /// What is wrong, and how to write it.
        detail: &'static str,
    },
    /// The hub has no such repository, or does not show it to whoever asks.
    #[error(
        "{endpoint} has no model {}, or it is private: check the name{}", shown(repository),
        if *with_token { ", and whether your token may read it" } else {
            "; for a private model set HF_TOKEN to a token that may read it"
        }
    )]
    NotFound {
        /// The hub.
        endpoint: String,
        /// `ORG/NAME`.
        repository: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The licence was not accepted.
    #[error(
        "{} is gated: accept its licence at {endpoint}/{repository}, then {}", shown(repository),
        if *with_token { "try again; the token must be one of the account that accepted it" } else {
            "set HF_TOKEN to a token of the account that accepted it (or write the token by `hf auth login`)"
        }
    )]
    Gated {
        /// The hub.
        endpoint: String,
        /// `ORG/NAME`.
        repository: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub does not know the token, or it may not do this.
    #[error(
        "{endpoint} refuses the token from {source_of_token}: {}; replace it, or take it away for models that \
         anybody may read",
        shown(detail)
    )]
    Token {
        /// The hub.
        endpoint: String,
        /// Where the token was found.
        source_of_token: String,
        /// What the hub says.
        detail: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error(
        "{} has no revision {}; its branches, tags and commits are at {endpoint}/{repository}/tree/main",
        shown(repository),
        quoted(revision)
    )]
    Revision {
        /// The hub.
        endpoint: String,
        /// `ORG/NAME`.
        repository: String,
        /// What was asked for.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{name} has no file {}{}", quoted(file), listed("; it has", alternatives))]
    File {
        /// The model.
        name: String,
        /// What was asked for.
        file: String,
        /// The files of this kind that are there.
        alternatives: Vec<String>,
    },
    /// The repository has no weights that are read.
    #[error(
        "{name} has neither safetensors, nor PyTorch's files, nor a GGUF file, so there is nothing to convert{}",
        listed("; its files are", files)
    )]
    NoWeights {
        /// The model.
        name: String,
        /// What is there.
        files: Vec<String>,
    },
    /// The repository has several files, each of them a model.
    #[error("{name} has several GGUF files; name one of them{}", listed(":", names))]
    SeveralModels {
        /// The repository.
        name: String,
        /// What to write for each.
        names: Vec<String>,
    },
    /// A GGUF file in parts.
    #[error(
        "{} is one of several parts, which are not read; take a GGUF file in one part, or the original model",
        shown(file)
    )]
    Part {
        /// The file.
        file: String,
    },
    /// The hub cannot be reached, or the connection broke too often.
    #[error(
        "cannot read {url}: {detail}{}{}", broken(*loaded),
        if *cached { "; the cache has this model, so --offline reads it from there" } else {
            "; check the connection, HF_ENDPOINT, and behind a proxy HTTPS_PROXY and SSL_CERT_FILE"
        }
    )]
    Network {
        /// What was asked for.
        url: String,
        /// What went wrong.
        detail: String,
        /// Bytes of the file that are there already.
        loaded: u64,
        /// Whether the model is in the cache.
        cached: bool,
    },
    /// The hub answers with an error of another kind.
    #[error("{url} answers {status}{}; try again later", explained(detail))]
    Status {
        /// What was asked for.
        url: String,
        /// The status code.
        status: u16,
        /// What the hub says.
        detail: String,
    },
    /// The answer is none that a hub gives.
    #[error("{url} does not answer as a hub does: {detail}; check HF_ENDPOINT")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// What came is not what the hub has.
    #[error(
        "{url} came with the digest {found}, but the hub says {expected}: the file was changed on the way or is \
         damaged there, so nothing of it was kept; try again, then ask the owner of the repository"
    )]
    Checksum {
        /// What was asked for.
        url: String,
        /// The digest of what came.
        found: String,
        /// The digest that the hub names.
        expected: String,
    },
    /// The model, or a part of it, is not in the cache.
    #[error(
        "{name} is not in the cache {}{}: run the command once without --offline and HF_HUB_OFFLINE", cache.display(),
        explained(detail)
    )]
    NotCached {
        /// The model.
        name: String,
        /// The directory of the cache.
        cache: PathBuf,
        /// What is missing of it.
        detail: String,
    },
    /// There is no place for the cache.
    #[error("there is no home directory for the cache: set HF_HOME or HF_HUB_CACHE to a directory")]
    NoHome,
    /// A file of the cache, of certificates or of a token cannot be read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file of certificates holds none.
    #[error("{} has no certificates in PEM form; it is named by {variable}", path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// The variable that names it.
        variable: &'static str,
    },
    /// The index of the weights is none.
    #[error(transparent)]
    Index(#[from] checkpoint::Error),
}

/// A result of asking the hub.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For what went wrong with a file: `map_err(Error::io("write", path))`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// At most this many names are listed.
const MOST_NAMES: usize = 20;

fn listed(before: &str, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let some = names.iter().take(MOST_NAMES).map(|it| shown(it).to_string()).collect::<Vec<_>>();
    let more = names.len() - some.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{before} {}{more}", some.join(", "))
}

fn explained(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({})", shown(detail)) }
}

fn broken(loaded: u64) -> String {
    match loaded {
        0 => String::new(),
        loaded => format!(", with {loaded} bytes of it loaded, from where the next run goes on"),
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "; make room, or set HF_HOME to a directory on another disk. What was loaded stays, and the next run goes \
             on from there"
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; set HF_HOME to a directory that you may write to"
        }
        _ => "",
    }
}
