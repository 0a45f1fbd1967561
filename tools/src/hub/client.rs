//! What is asked of the hub, over HTTP.
//!
//! Redirections are followed here and not by `ureq`, because the hub says what a file is in the answer that leads
//! on to the store, and because the token is for the hub alone.

use std::fmt::Write as _;
use std::io::Read;

use serde::Deserialize;
use ureq::config::Config;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, Proxy};

use super::error::{Error, Result};
use super::name::{Name, is_commit};
use super::places::Places;

/// A chain of redirections that is longer leads nowhere.
const MOST_HOPS: usize = 8;
/// The longest list of files, and the longest message, that is read.
const MAX_ANSWER_BYTES: u64 = 32 << 20;
const MAX_MESSAGE_BYTES: usize = 400;
const USER_AGENT: &str = concat!("cerebellum/", env!("CARGO_PKG_VERSION"));

pub(super) struct Client<'a> {
    agent: Agent,
    places: &'a Places,
}

/// The files of a revision.
pub(super) struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// What the hub says of a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Metadata {
    /// The name of its content in the cache: the SHA-256 of a large file, git's digest of a small one.
    pub etag: String,
    pub size: u64,
}

/// A part of a file, from `first` on.
pub(super) struct Part {
    pub first: u64,
    pub body: Box<dyn Read>,
}

#[derive(Deserialize)]
struct ModelAnswer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Get,
    Head,
}

impl<'a> Client<'a> {
    pub fn new(places: &'a Places) -> Result<Self> {
        let mut config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            // A length of the compressed text would be of no use.
            .accept_encoding("identity")
            .timeout_resolve(Some(places.patience))
            .timeout_connect(Some(places.patience))
            .timeout_recv_response(Some(places.patience))
            // Not of the whole body, which may take hours.
            .timeout_per_read(Some(places.patience));
        if is_local(&places.endpoint) {
            config = config.proxy(None::<Proxy>);
        }
        if let Some((file, variable)) = &places.certificates {
            let bytes = std::fs::read(file).map_err(Error::io("read the certificates in", file))?;
            let certificates: Vec<_> = parse_pem(&bytes)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect();
            if certificates.is_empty() {
                return Err(Error::Certificates { path: file.clone(), variable });
            }
            let roots = RootCerts::new_with_certs(&certificates);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self { agent: config.build().into(), places })
    }

    /// The commit that a revision is, and its files.
    pub fn list(&self, name: &Name) -> Result<Listing> {
        let (endpoint, revision) = (&self.places.endpoint, encode(&name.revision, ""));
        let url = format!("{endpoint}/api/models/{}/revision/{revision}", name.repository);
        let mut answer = self.ask(Method::Get, &url, 0, |_| false)?;
        self.check(&url, name, None, &mut answer)?;
        let wrong = |detail: String| Error::Answer { url: url.clone(), detail };
        let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let text = text.map_err(|error| network(&url, &error))?;
        let answer: ModelAnswer =
            serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        if !is_commit(&answer.sha) {
            return Err(wrong(format!("{:?} is no commit", answer.sha)));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        Ok(Listing { commit: answer.sha, files })
    }

    /// What a file of a commit is.
    pub fn metadata(&self, name: &Name, commit: &str, file: &str) -> Result<Metadata> {
        let url = self.file_url(name, commit, file);
        let (mut linked_etag, mut linked_size) = (None, None);
        // The answer that leads to the store knows more than the store.
        let mut answer = self.ask(Method::Head, &url, 0, |answer| {
            linked_etag = linked_etag.take().or(header(answer, "x-linked-etag"));
            linked_size = linked_size.take().or(header(answer, "x-linked-size"));
            linked_etag.is_some() && linked_size.is_some()
        })?;
        if !answer.status().is_redirection() {
            self.check(&url, name, Some(file), &mut answer)?;
        }
        let wrong = |detail: &str| Error::Answer { url: url.clone(), detail: detail.to_owned() };
        let etag = linked_etag.or(header(&answer, "etag"));
        let etag = etag.ok_or_else(|| wrong("it names no digest (ETag)"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        // It becomes the name of a file.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if etag.is_empty() || etag.len() > 128 || !etag.bytes().all(plain) {
            return Err(wrong("its digest (ETag) is none"));
        }
        let size = linked_size.or(header(&answer, "content-length"));
        let size = size.and_then(|size| size.parse().ok());
        Ok(Metadata { etag, size: size.ok_or_else(|| wrong("it does not say the file's size"))? })
    }

    /// A file of a commit, from byte `first` on, or from its beginning if the store has no parts of files.
    pub fn part(&self, name: &Name, commit: &str, file: &str, first: u64) -> Result<Part> {
        let url = self.file_url(name, commit, file);
        let mut answer = self.ask(Method::Get, &url, first, |_| false)?;
        let first = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = header(&answer, "content-range").unwrap_or_default();
                let begins = range.strip_prefix("bytes ").and_then(|range| range.split_once('-'));
                if begins.and_then(|(begin, _)| begin.parse().ok()) != Some(first) {
                    let detail =
                        format!("it was asked for bytes from {first} on and sends {range:?}");
                    return Err(Error::Answer { url, detail });
                }
                first
            }
            _ => {
                self.check(&url, name, Some(file), &mut answer)?;
                0
            }
        };
        Ok(Part { first, body: Box::new(answer.into_body().into_reader()) })
    }

    pub fn file_url(&self, name: &Name, commit: &str, file: &str) -> String {
        let (endpoint, repository) = (&self.places.endpoint, &name.repository);
        format!("{endpoint}/{repository}/resolve/{commit}/{}", encode(file, "/"))
    }

    /// Asks, and follows redirections until `enough` of an answer is known.
    fn ask(
        &self,
        method: Method,
        url: &str,
        first: u64,
        mut enough: impl FnMut(&Response<Body>) -> bool,
    ) -> Result<Response<Body>> {
        let mut at = url.to_owned();
        for _ in 0..MOST_HOPS {
            let mut request = match method {
                Method::Get => self.agent.get(&at),
                Method::Head => self.agent.head(&at),
            };
            if first > 0 {
                request = request.header("Range", format!("bytes={first}-"));
            }
            if let Some(token) = self.places.token.as_ref().filter(|_| self.is_hub(&at)) {
                request = request.header("Authorization", format!("Bearer {}", token.text));
            }
            let answer = request.call().map_err(|error| network(&at, &error))?;
            if !answer.status().is_redirection() || enough(&answer) {
                return Ok(answer);
            }
            let next = header(&answer, "location").and_then(|place| join(&at, &place));
            let safe = next.filter(|next| !at.starts_with("https:") || next.starts_with("https:"));
            at = safe.ok_or_else(|| {
                let detail = "it leads to no address, or to one without encryption".to_owned();
                Error::Answer { url: at.clone(), detail }
            })?;
        }
        let detail = format!("it leads on and on, {MOST_HOPS} times");
        Err(Error::Answer { url: url.to_owned(), detail })
    }

    /// Whether an address is at the hub itself.
    fn is_hub(&self, url: &str) -> bool {
        let rest = url.strip_prefix(self.places.endpoint.as_str());
        rest.is_some_and(|rest| rest.starts_with('/'))
    }

    /// Names what an answer other than success means.
    fn check(
        &self,
        url: &str,
        name: &Name,
        file: Option<&str>,
        answer: &mut Response<Body>,
    ) -> Result<()> {
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let code = header(answer, "x-error-code").unwrap_or_default();
        let mut detail = header(answer, "x-error-message").unwrap_or_default();
        if detail.is_empty() {
            let text = answer.body_mut().with_config().limit(1 << 16).read_to_string();
            detail = text.unwrap_or_default();
        }
        detail.truncate(detail.floor_char_boundary(MAX_MESSAGE_BYTES));
        let (endpoint, repository) = (self.places.endpoint.clone(), name.repository.clone());
        let token = self.places.token.as_ref();
        let with_token = token.is_some();
        Err(match (code.as_str(), status.as_u16(), token) {
            ("GatedRepo", ..) => Error::Gated { endpoint, repository, with_token },
            ("RevisionNotFound", ..) => {
                Error::Revision { endpoint, repository, revision: name.revision.clone() }
            }
            ("EntryNotFound", ..) => {
                let (name, file) = (name.to_string(), file.unwrap_or_default().to_owned());
                Error::File { name, file, alternatives: Vec::new() }
            }
            ("RepoNotFound", ..) => Error::NotFound { endpoint, repository, with_token },
            // What the hub says to whoever has no token, of models that are private or not there, and to a token
            // that it does not know.
            (_, 401, Some(token)) => {
                Error::Token { endpoint, source_of_token: token.source.clone(), detail }
            }
            (_, 401 | 404, _) => Error::NotFound { endpoint, repository, with_token },
            (_, 403, Some(token)) => {
                Error::Token { endpoint, source_of_token: token.source.clone(), detail }
            }
            (_, 403, None) => Error::Gated { endpoint, repository, with_token },
            (_, status, _) => Error::Status { url: url.to_owned(), status, detail },
        })
    }
}

impl Error {
    /// Whether the next attempt may succeed although this one failed.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Network { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 416 | 429 | 500..),
            _ => false,
        }
    }
}

pub(super) fn network(url: &str, error: &dyn std::fmt::Display) -> Error {
    let detail = error.to_string();
    Error::Network { url: url.to_owned(), detail, loaded: 0, cached: false }
}

fn header(answer: &Response<Body>, name: &str) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The address that a `Location` means.
fn join(at: &str, place: &str) -> Option<String> {
    if place.starts_with("https://") || place.starts_with("http://") {
        return Some(place.to_owned());
    }
    let (scheme, rest) = at.split_once("://")?;
    let host = rest.split('/').next()?;
    match place.strip_prefix("//") {
        Some(place) => Some(format!("{scheme}://{place}")),
        None => place.starts_with('/').then(|| format!("{scheme}://{host}{place}")),
    }
}

/// Whether an address is on this machine, which no proxy is asked for.
fn is_local(url: &str) -> bool {
    let host = url.split("://").nth(1).unwrap_or_default();
    ["localhost", "127.", "[::1]"].iter().any(|local| host.starts_with(local))
}

/// A text as a part of an address; characters of `kept` stay.
fn encode(text: &str, kept: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if plain || kept.as_bytes().contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("strings can grow");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_encoded_and_joined() {
        assert_eq!(encode("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(encode("a b/ü.gguf", "/"), "a%20b/%C3%BC.gguf");
        let at = "https://hub.example:8/a/b";
        assert_eq!(join(at, "/c?d").as_deref(), Some("https://hub.example:8/c?d"));
        assert_eq!(join(at, "//store/x").as_deref(), Some("https://store/x"));
        assert_eq!(join(at, "http://x/").as_deref(), Some("http://x/"));
        assert_eq!(join(at, "c"), None);
    }

    #[test]
    fn the_token_is_for_the_hub_alone() {
        let mut places = Places::with_cache("cache".into());
        places.endpoint = "https://hub.example".to_owned();
        let client = Client::new(&places).unwrap();
        assert!(client.is_hub("https://hub.example/api/models"));
        for other in ["https://hub.example.evil/api", "http://hub.example/api", "https://store/"] {
            assert!(!client.is_hub(other), "{other}");
        }
    }
}
