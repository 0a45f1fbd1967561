//! Where the hub and the cache are, and who asks: the environment variables of Python's `huggingface_hub`.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, Result};

const ENDPOINT: &str = "https://huggingface.co";
const TOKENS: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
const CERTIFICATES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
/// How long the hub may send nothing. Python's default of 10 seconds is short for a busy hub.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What sends a user's name along.
#[derive(Clone)]
pub struct Token {
    pub(super) text: String,
    /// Where it was found.
    pub(super) source: String,
}

/// Without the token itself, so that no log shows it.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Token from {}", self.source)
    }
}

/// Where things are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Places {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// The directory of the cache.
    pub cache: PathBuf,
    /// Who asks.
    pub token: Option<Token>,
    /// Whether to read the cache only.
    pub offline: bool,
    /// How long the hub may send nothing.
    pub patience: Duration,
    /// The wait before the first of several new attempts; each further one is twice as long.
    pub pause: Duration,
    /// A file of certificates to trust instead of Mozilla's, and the variable that names it.
    pub(super) certificates: Option<(PathBuf, &'static str)>,
}

impl Places {
    /// The default hub, with a cache in that directory.
    pub fn with_cache(cache: PathBuf) -> Self {
        Self {
            endpoint: ENDPOINT.to_owned(),
            cache,
            token: None,
            offline: false,
            patience: PATIENCE,
            pause: FIRST_PAUSE,
            certificates: None,
        }
    }

    /// As the environment says: `HF_ENDPOINT`; `HF_HUB_CACHE`, `HF_HOME` and `XDG_CACHE_HOME`; `HF_TOKEN`,
    /// `HF_TOKEN_PATH` and the file `token` in `HF_HOME`, unless `HF_HUB_DISABLE_IMPLICIT_TOKEN`; `HF_HUB_OFFLINE`;
    /// `HF_HUB_DOWNLOAD_TIMEOUT`; `SSL_CERT_FILE`.
    ///
    /// # Errors
    /// [`Error::NoHome`], and [`Error::Io`] if a file with a token is there and cannot be read.
    pub fn from_environment() -> Result<Self> {
        let path = |variable| set(variable).map(|value| expand(value.into()));
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| env::home_dir().map(|home| home.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")));
        let mut places = Self::with_cache(cache.ok_or(Error::NoHome)?);
        if let Some(endpoint) = text("HF_ENDPOINT") {
            places.endpoint = endpoint.trim_end_matches('/').to_owned();
        }
        if !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            let file = path("HF_TOKEN_PATH").or_else(|| home.map(|home| home.join("token")));
            places.token = match TOKENS.iter().find_map(|name| Some((text(name)?, *name))) {
                Some((text, name)) => Some(Token { text, source: name.to_owned() }),
                None => file.map(|file| token_in(&file)).transpose()?.flatten(),
            };
        }
        places.offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE");
        if let Some(seconds) = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.parse().ok()) {
            places.patience = Duration::from_secs(seconds).max(Duration::from_secs(1));
        }
        places.certificates = CERTIFICATES.iter().find_map(|name| Some((path(name)?, *name)));
        Ok(places)
    }

    /// Sends this token along.
    pub fn set_token(&mut self, token: &str) {
        self.token = Some(Token { text: token.to_owned(), source: "the program".to_owned() });
    }
}

/// What a variable holds, unless that is nothing.
fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

fn text(variable: &str) -> Option<String> {
    let value = set(variable)?.into_string().ok()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn is_true(variable: &str) -> bool {
    let value = text(variable).unwrap_or_default().to_ascii_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

/// With the home directory for a `~` at the beginning: a variable from a file has no shell to do it.
fn expand(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

fn token_in(file: &Path) -> Result<Option<Token>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(file).map_err(Error::io("read the token in", file))?;
    let (text, source) = (text.trim().to_owned(), file.display().to_string());
    Ok((!text.is_empty()).then_some(Token { text, source }))
}
