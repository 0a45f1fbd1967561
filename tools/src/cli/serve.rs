//! `cerebellum serve`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cerebellum::Model;
use cerebellum::batch::MAX_SEQUENCES;
use cerebellum_tools::serve::Bound;
use cerebellum_tools::serve::engine::{EngineOptions, EnginePlan};
use cerebellum_tools::serve::http::{Access, ServerOptions, Stop};
use cerebellum_tools::serve::memory;
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::interrupt::Cancellable;
use super::session::ModelArgs;
use super::table::{Table, bytes};
use super::values::whole;

/// Let other programs use a model, over HTTP in the form of OpenAI's interface.
///
/// Only programs of this machine reach it, unless --address says otherwise. SIGTERM ends it: what is on its way
/// has --grace seconds to end.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Address and port; port 0 is any that is free. One that other machines reach needs --api-key-file or
    /// --without-key
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    address: SocketAddr,
    /// A file with a key on each line, one of which every request must have
    #[arg(long, value_name = "FILE", env = "CEREBELLUM_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// Let whoever reaches the address use the model, and the machine's processors with it
    #[arg(long, conflicts_with = "api_key_file")]
    without_key: bool,
    /// A page of this origin, such as https://example.org, may ask from a browser. May be given several times
    #[arg(long, value_name = "ORIGIN", value_parser = origin)]
    cors_origin: Vec<String>,
    /// A name by which browsers may call a server without keys, besides its addresses and localhost. May be given
    /// several times
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// What the model is called [default: the name of its file]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The most texts that are made at a time; each has a cache of its own
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole(1..=MAX_SEQUENCES))]
    parallel: usize,
    /// Memory of the cache of prompts, in MiB: what requests begin alike is evaluated once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = whole(0..=1_usize << 24))]
    cache_mb: usize,
    /// The most texts that wait; a request for more is told to come again
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = whole(1..=1_000_000usize))]
    queue: usize,
    /// The most seconds that a request may take, waiting included
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = whole(1..=1_000_000u64))]
    deadline: u64,
    /// How many seconds requests on their way have to end when the server is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = whole(0..=1_000_000u64))]
    grace: u64,
    /// The longest body of a request, in KiB
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = whole(1..=1_usize << 20))]
    max_body_kb: usize,
    /// The most connections; more have to wait
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = whole(1..=100_000usize))]
    max_connections: usize,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum serve -m smollm2.cbl
  cerebellum serve -m smollm2.cbl --context 2048 --parallel 8 --cache-mb 512
  cerebellum serve -m smollm2.cbl --address 0.0.0.0:8080 --api-key-file keys.txt
  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once upon a time\"}'";

fn origin(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' '])) {
        true => Ok(text.to_owned()),
        false => {
            Err("this is no origin; write one as https://example.org, without a path".to_owned())
        }
    }
}

/// The JSON object, once the port is open.
#[derive(Serialize)]
struct Report {
    ok: bool,
    address: SocketAddr,
    model: String,
    #[serde(flatten)]
    memory: MemoryReport,
}

/// What the server needs.
#[derive(Serialize)]
struct MemoryReport {
    context: usize,
    parallel: usize,
    weights_bytes: usize,
    texts_bytes: usize,
    scores_bytes: usize,
    cache_bytes: usize,
    total_private_bytes: usize,
}

impl MemoryReport {
    fn table(&self) -> String {
        let mut table = Table::new(&["what", "bytes", ""]);
        for (name, size) in [
            ("weights (mapped, shared, evictable)", self.weights_bytes),
            ("texts that are made", self.texts_bytes),
            ("scores, classes and embeddings", self.scores_bytes),
            ("cache of prompts, at most", self.cache_bytes),
            ("private memory, at most", self.total_private_bytes),
        ] {
            table.push([name.to_owned(), size.to_string(), bytes(size as u64)]);
        }
        let Self { context, parallel, .. } = self;
        format!("{table}\nfor {parallel} texts at a time, each of {context} positions")
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let keys = args.keys()?;
    let model = args.model.open()?;
    let engine = EngineOptions {
        session: args.model.options(context)?,
        parallel: args.parallel,
        cache_bytes: args.cache_mb << 20,
        queue: args.queue,
    };
    let memory = plan(&model, &engine)?;
    context.note(memory.table());
    check(&memory)?;
    let name = args.name.clone().unwrap_or_else(|| name_of(args.model.file()));
    let options = ServerOptions {
        name: name.clone(),
        model_file: args.model.file().to_owned(),
        access: Access { keys, origins: args.cors_origin.clone(), hosts: args.allow_host.clone() },
        max_body: args.max_body_kb << 10,
        max_connections: args.max_connections,
        deadline: Duration::from_secs(args.deadline),
        grace: Duration::from_secs(args.grace),
    };
    let bound = Bound::new(model, engine, options, args.address)?;
    let address = bound.address()?;
    let (stop, stopped) = Stop::new();
    let _cancellable = Cancellable::calling(move || stop.stop());
    let report = Report { ok: true, address, model: name, memory };
    context.print(format_args!("listening on http://{address}"), &report)?;
    if !bound.run(stopped)? {
        context.warn("requests on their way did not end in time, and were given up");
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// The keys; none for a server that asks for none.
    fn keys(&self) -> Result<Vec<String>, Failure> {
        let Some(path) = &self.api_key_file else {
            if !self.address.ip().is_loopback() && !self.without_key {
                let address = self.address;
                return Err(format!(
                    "other machines reach {address}; give a file with keys by --api-key-file, or \
                     --without-key if everybody may use the model"
                )
                .into());
            }
            return Ok(Vec::new());
        };
        read_keys(path)
    }
}

fn read_keys(path: &Path) -> Result<Vec<String>, Failure> {
    let name = path.display();
    let text = fs::read_to_string(path);
    let text = text.map_err(|error| format!("cannot read the keys {name}: {error}"))?;
    let keys: Vec<String> = text.lines().map(str::trim).map(str::to_owned).collect();
    let keys: Vec<String> = keys.into_iter().filter(|key| !key.is_empty()).collect();
    if keys.is_empty() {
        return Err(format!("{name} has no key; write one on each line").into());
    }
    let is_visible = |key: &String| key.bytes().all(|byte| byte.is_ascii_graphic());
    if !keys.iter().all(is_visible) {
        return Err(
            format!("a key in {name} has other characters than letters, digits and signs").into()
        );
    }
    Ok(keys)
}

fn plan(model: &Model, options: &EngineOptions) -> Result<MemoryReport, Failure> {
    let plan = EnginePlan::new(model, options)?;
    Ok(MemoryReport {
        context: plan.batch.context,
        parallel: options.parallel,
        weights_bytes: plan.batch.weights_bytes,
        texts_bytes: plan.batch.total_private_bytes,
        scores_bytes: plan.session.total_private_bytes,
        cache_bytes: plan.cache_bytes,
        total_private_bytes: plan.private_bytes(),
    })
}

/// Fails if the machine does not have that much memory.
fn check(memory: &MemoryReport) -> Result<(), Failure> {
    let Some(available) = memory::available() else { return Ok(()) };
    if memory.total_private_bytes <= available {
        return Ok(());
    }
    Err(format!(
        "the server would need up to {}, and {} are free; choose a smaller --context, --parallel or --cache-mb, \
         or --kv int8",
        bytes(memory.total_private_bytes as u64),
        bytes(available as u64)
    )
    .into())
}

/// The name of a file, without its folders and its ending.
fn name_of(file: &Path) -> String {
    file.file_stem().map_or_else(|| "model".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
