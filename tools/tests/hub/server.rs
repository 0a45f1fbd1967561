//! A hub in miniature on this machine: the files of repositories at one address, its store of large files at
//! another. It speaks as much of the interface as `cerebellum` uses, and has faults to order.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

/// The commit that `main` is, and the one that `v1` is.
pub const MAIN: &str = "1111111111111111111111111111111111111111";
pub const V1: &str = "2222222222222222222222222222222222222222";

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    pub to_store: bool,
}

/// What goes wrong.
#[derive(Clone, Default)]
pub struct Faults {
    /// Status, `X-Error-Code` and message of the hub's answers to everything.
    pub refuse: Option<(u16, &'static str, &'static str)>,
    /// The same for files only.
    pub refuse_files: Option<(u16, &'static str, &'static str)>,
    /// So many answers are 503.
    pub busy: usize,
    /// The store ends so many connections after this number of bytes of a body.
    pub breaks: usize,
    pub break_after: usize,
    /// The store sends files from the beginning, whatever part is asked for.
    pub whole_only: bool,
    /// The store answers 206 with another part than was asked for.
    pub wrong_part: bool,
    /// The store changes a byte.
    pub damaged: bool,
    /// The store waits before it answers.
    pub slow: Option<Duration>,
    /// In place of the digest.
    pub etag: Option<&'static str>,
    /// In place of the commit.
    pub commit: Option<&'static str>,
    /// The hub leads everything to itself.
    pub circle: bool,
}

#[derive(Default)]
struct State {
    /// Files by `ORG/NAME/PATH`.
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    faults: Mutex<Faults>,
    requests: Mutex<Vec<Request>>,
}

pub struct Server {
    state: Arc<State>,
    hub: SocketAddr,
}

impl Server {
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, store) = (listen(), listen());
        let [hub_address, store_address] = [&hub, &store].map(|it| it.local_addr().unwrap());
        for (listener, is_store) in [(hub, false), (store, true)] {
            let state = Arc::clone(&state);
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let state = Arc::clone(&state);
                    // A client that goes away is no fault of the server.
                    thread::spawn(move || state.serve(&stream.unwrap(), is_store, store_address));
                }
            });
        }
        Self { state, hub: hub_address }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    pub fn add(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.state.files.lock().unwrap().insert(path.to_owned(), content.into());
    }

    /// Adds the files of a directory to a repository.
    pub fn add_directory(&self, repository: &str, directory: &std::path::Path) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            self.add(&format!("{repository}/{name}"), std::fs::read(&path).unwrap());
        }
    }

    pub fn remove(&self, path: &str) {
        self.state.files.lock().unwrap().remove(path).unwrap();
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.state.faults.lock().unwrap()
    }

    /// All requests since the last call.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent.
    sent: usize,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: Vec::new(), sent: body.len(), body }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn refused((status, code, message): (u16, &str, &str)) -> Self {
        Self::new(status, message).with("X-Error-Code", code).with("X-Error-Message", message)
    }
}

impl State {
    fn serve(&self, stream: &TcpStream, to_store: bool, store: SocketAddr) {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let Some(first) = lines.next() else { return };
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let (mut range, mut token) = (None, None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap();
            match name.to_ascii_lowercase().as_str() {
                "range" => range = Some(value.to_owned()),
                "authorization" => token = Some(value.to_owned()),
                _ => {}
            }
        }
        let request = Request { method, path, range, token, to_store };
        self.requests.lock().unwrap().push(request.clone());
        let answer = if to_store { self.store(&request) } else { self.hub(&request, store) };
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
        head += &format!("Content-Length: {}\r\n", answer.body.len());
        for (name, value) in answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut stream = stream;
        let _ = stream.write_all(format!("{head}\r\n").as_bytes());
        if request.method == "GET" {
            let _ = stream.write_all(&answer.body[..answer.sent]);
        }
    }

    fn hub(&self, request: &Request, store: SocketAddr) -> Answer {
        let mut faults = self.faults.lock().unwrap();
        if let Some(refusal) = faults.refuse {
            return Answer::refused(refusal);
        }
        if faults.busy > 0 {
            faults.busy -= 1;
            return Answer::new(503, "busy");
        }
        if faults.circle {
            return Answer::new(302, "").with("Location", request.path.clone());
        }
        let files = self.files.lock().unwrap();
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        match parts[..] {
            ["api", "models", owner, name, "revision", revision] => {
                let repository = format!("{owner}/{name}/");
                let of_repository = files.keys().filter_map(|path| path.strip_prefix(&repository));
                let siblings: Vec<_> =
                    of_repository.map(|path| serde_json::json!({ "rfilename": path })).collect();
                if siblings.is_empty() {
                    return Answer::refused((404, "RepoNotFound", "Repository not found"));
                }
                let commit = match revision {
                    "main" | MAIN => MAIN,
                    "v1" | V1 | "refs%2Fpr%2F1" => V1,
                    _ => return Answer::refused((404, "RevisionNotFound", "Invalid rev id")),
                };
                let commit = faults.commit.unwrap_or(commit);
                let body =
                    serde_json::json!({ "sha": commit, "siblings": siblings, "private": false });
                Answer::new(200, body.to_string())
            }
            [owner, name, "resolve", commit, ..] => {
                if let Some(refusal) = faults.refuse_files {
                    return Answer::refused(refusal);
                }
                let path = format!("{owner}/{name}/{}", parts[4..].join("/"));
                let Some(content) = files.get(&path) else {
                    return Answer::refused((404, "EntryNotFound", "Entry not found"));
                };
                let etag = faults.etag.map_or_else(|| etag(&path, content), str::to_owned);
                let answer = Answer::new(302, "moved").with("X-Repo-Commit", commit);
                if is_large(&path) {
                    let size = content.len().to_string();
                    let answer = answer.with("X-Linked-Size", size);
                    let answer = answer.with("X-Linked-Etag", format!("\"{etag}\""));
                    return answer.with("Location", format!("http://{store}/{path}?signed=1"));
                }
                // As the hub has it of late: small files are at another address of its own.
                answer.with("Location", format!("/api/resolve-cache/{commit}/{path}"))
            }
            ["api", "resolve-cache", commit, ..] => {
                let path = parts[3..].join("/");
                let etag = faults.etag.map_or_else(|| etag(&path, &files[&path]), str::to_owned);
                let answer = Answer::new(200, files[&path].clone()).with("X-Repo-Commit", commit);
                answer.with("ETag", format!("\"{etag}\""))
            }
            _ => Answer::new(404, "no such page"),
        }
    }

    fn store(&self, request: &Request) -> Answer {
        let slow = self.faults.lock().unwrap().slow;
        slow.into_iter().for_each(thread::sleep);
        let mut faults = self.faults.lock().unwrap();
        let path = request.path.trim_start_matches('/').trim_end_matches("?signed=1");
        let mut content = self.files.lock().unwrap()[path].clone();
        let size = content.len();
        if faults.damaged {
            content[size / 2] ^= 1;
        }
        let first = request.range.as_deref().filter(|_| !faults.whole_only).map(|range| {
            let first = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
            first.unwrap().parse::<usize>().unwrap()
        });
        let mut answer = match first {
            Some(first) if first >= size => return Answer::new(416, "no such part"),
            Some(first) => {
                let said = if faults.wrong_part { first + 1 } else { first };
                let range = format!("bytes {said}-{}/{size}", size - 1);
                Answer::new(206, &content[first..]).with("Content-Range", range)
            }
            None => Answer::new(200, content),
        };
        if faults.breaks > 0 {
            faults.breaks -= 1;
            answer.sent = answer.sent.min(faults.break_after);
        }
        answer
    }
}

/// Whether a file is in the store of large files.
fn is_large(path: &str) -> bool {
    [".safetensors", ".gguf", ".bin"].iter().any(|end| path.ends_with(end))
}

/// What the hub names a content by.
pub fn etag(path: &str, content: &[u8]) -> String {
    if is_large(path) {
        return hexadecimal(&SHA256, content);
    }
    let head = format!("blob {}\0", content.len());
    hexadecimal(&SHA1_FOR_LEGACY_USE_ONLY, &[head.as_bytes(), content].concat())
}

fn hexadecimal(algorithm: &'static Algorithm, bytes: &[u8]) -> String {
    digest(algorithm, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
