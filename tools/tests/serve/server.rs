//! A server of the bundled model in this process, and a client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cerebellum::{Access as FileAccess, Model, SessionOptions};
use cerebellum_tools::serve::Bound;
use cerebellum_tools::serve::engine::EngineOptions;
use cerebellum_tools::serve::http::{Access, ServerOptions, Stop};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::common::demo;

/// Simple enough to foresee.
pub const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                            {% if add_generation_prompt %}assistant:{% endif %}";

/// The bundled model's file, quantized once for all tests, with a chat template.
pub fn file() -> &'static str {
    static FILE: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, file) = FILE.get_or_init(|| {
        let directory = tempdir().unwrap();
        let file = quantized(directory.path(), TEMPLATE);
        (directory, file)
    });
    file
}

/// The bundled model, quantized into a directory with this chat template.
pub fn quantized(directory: &Path, template: &str) -> String {
    let file = directory.join("demo.cbl").to_str().unwrap().to_owned();
    let path = directory.join("chat.jinja");
    std::fs::write(&path, template).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cerebellum"));
    command.arg("quantize").arg(demo()).args(["--no-calibration", "-q", "-o", &file]);
    let output = command.arg("--chat-template").arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

pub fn model() -> Model {
    open(file())
}

fn open(file: &str) -> Model {
    Model::open(file, FileAccess::Map).unwrap()
}

/// How a test's server differs from the usual.
pub struct Settings {
    pub file: String,
    pub parallel: usize,
    pub cache_bytes: usize,
    pub queue: usize,
    pub session: SessionOptions,
    pub options: ServerOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            file: file().to_owned(),
            parallel: 3,
            cache_bytes: 64 << 20,
            queue: 64,
            session: SessionOptions { threads: 2, chunk: 32, ..Default::default() },
            options: ServerOptions {
                name: "demo".to_owned(),
                model_file: file().into(),
                access: Access::default(),
                max_body: 64 << 10,
                max_connections: 64,
                deadline: Duration::from_secs(60),
                grace: Duration::from_secs(20),
            },
        }
    }
}

/// A server on a port of its own.
pub struct Server {
    pub address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<bool>>,
}

impl Server {
    pub fn start(settings: Settings) -> Self {
        let Settings { file, parallel, cache_bytes, queue, session, options } = settings;
        let options = ServerOptions { model_file: file.clone().into(), ..options };
        let engine = EngineOptions { session, parallel, cache_bytes, queue };
        let bound =
            Bound::new(open(&file), engine, options, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address().unwrap();
        let (stop, stopped) = Stop::new();
        let thread = std::thread::spawn(move || bound.run(stopped).unwrap());
        Self { address, stop, thread: Some(thread) }
    }

    /// Asks it to stop, and waits. Whether all requests ended in time.
    pub fn stop(&mut self) -> bool {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The status and the body of an answer.
    pub fn post_text(&self, path: &str, body: &str) -> (u16, String) {
        let request = agent().post(self.url(path)).header("content-type", "application/json");
        let mut response = request.send(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// The status and the JSON of an answer.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.post_text(path, &body.to_string());
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The JSON of an answer to a request that is right.
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut response = agent().get(self.url(path)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// The events of an answer that comes piece by piece.
    pub fn events(&self, path: &str, body: &Value) -> Vec<String> {
        let (status, text) = self.post_text(path, &body.to_string());
        assert_eq!(status, 200, "{text}");
        let events = text.split_terminator("\n\n");
        events.map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
    }

    /// A number that the server counts.
    pub fn count(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cerebellum_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until it has counted so far.
    pub fn wait_for(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        let start = Instant::now();
        while !wanted(self.count(name)) {
            assert!(start.elapsed() < Duration::from_secs(20), "{name} is {}", self.count(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends bytes as they are, and returns what comes back until the server closes the connection.
    pub fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may close the connection before all is written.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A request whose answer comes piece by piece, once the first text of it is there.
    pub fn begin(&self, body: &Value) -> BufReader<TcpStream> {
        let mut stream = self.send("/v1/completions", body);
        let mut line = String::new();
        while !line.contains("\"text\":") {
            line.clear();
            assert!(stream.read_line(&mut line).unwrap() > 0, "the answer ended");
        }
        stream
    }

    /// A request whose answer nobody has read yet.
    pub fn send(&self, path: &str, body: &Value) -> BufReader<TcpStream> {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        BufReader::new(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.timeout_global(Some(Duration::from_secs(60))).build().into()
}
