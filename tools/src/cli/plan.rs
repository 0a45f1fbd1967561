//! `cerebellum plan`.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;

use cerebellum::format::Config;
use cerebellum::{Access, Model, SessionOptions};
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::session::{FileArgs, SessionArgs, open};
use super::table::{Table, bytes};
use super::values::whole;

/// Show how much memory a model file will need to run.
///
/// The numbers are exact. A session allocates the private part when it is made, and nothing later.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Plan for a batch of N sequences that are evaluated together, 1 to 1024
    #[arg(long, value_name = "N", value_parser = whole(1..=cerebellum::batch::MAX_SEQUENCES))]
    batch: Option<usize>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum plan 111m.cbl
  cerebellum plan 111m.cbl --context 512 --kv int8 --threads 1 --json";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    #[serde(flatten)]
    memory: MemoryReport,
}

/// What running a model takes.
#[derive(Serialize)]
pub struct MemoryReport {
    context: usize,
    /// Layers whose cache is a window, by its positions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    windowed_layers: BTreeMap<usize, usize>,
    #[serde(skip)]
    threads: usize,
    weights_bytes: usize,
    kv_bytes: usize,
    scratch_bytes: usize,
    total_private_bytes: usize,
}

impl MemoryReport {
    /// Plans a session of the model, or a batch of `batch` sequences.
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        batch: Option<usize>,
    ) -> Result<Self, Failure> {
        let plan = match batch {
            Some(sequences) => model.plan_batch(options, sequences)?,
            None => model.plan(options)?,
        };
        Ok(Self {
            context: plan.context,
            windowed_layers: windowed_layers(model.config(), plan.context),
            threads: options.threads,
            weights_bytes: plan.weights_bytes,
            kv_bytes: plan.kv_bytes,
            scratch_bytes: plan.scratch_bytes,
            total_private_bytes: plan.total_private_bytes,
        })
    }
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut table = Table::new(&["what", "bytes", ""]);
        for (name, size) in [
            ("weights (mapped, shared, evictable)", self.weights_bytes),
            ("key-value cache", self.kv_bytes),
            ("scratch", self.scratch_bytes),
            ("private memory", self.total_private_bytes),
        ] {
            table.push([name.to_owned(), size.to_string(), bytes(size as u64)]);
        }
        write!(f, "{table}\nfor {} positions and {} threads", self.context, self.threads)?;
        for (window, layers) in &self.windowed_layers {
            write!(f, "; in {layers} layers the cache has a window of {window} positions")?;
        }
        Ok(())
    }
}

/// How many layers see a window that is smaller than the context, by the window's positions.
fn windowed_layers(config: &Config, context: usize) -> BTreeMap<usize, usize> {
    let mut layers = BTreeMap::new();
    let windows = (0..config.n_layer).filter_map(|n| config.layer_kind(n).window);
    windows
        .filter(|window| *window < context)
        .for_each(|window| *layers.entry(window).or_default() += 1);
    layers
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = open(args.file.path(), Access::Map)?;
    let memory = MemoryReport::new(&model, &args.session.options(context)?, args.batch)?;
    context.print(memory.to_string(), &Report { ok: true, memory })?;
    Ok(ExitCode::SUCCESS)
}
