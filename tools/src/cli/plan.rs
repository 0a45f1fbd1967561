//! `cerebellum plan`.

use std::path::PathBuf;
use std::process::ExitCode;

use cerebellum::Access;
use serde::Serialize;

use super::session::{SessionArgs, open};
use super::table::{Table, bytes};
use super::{Context, Outcome};

/// Say how much memory running a model file will take.
///
/// Exact, and known before anything is allocated: a session allocates the private part when it is
/// made, and nothing later.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The model file
    file: PathBuf,
    #[command(flatten)]
    session: SessionArgs,
    /// For a batch of so many sequences that are evaluated together
    #[arg(long, value_name = "N")]
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
    context: usize,
    weights_bytes: usize,
    kv_bytes: usize,
    scratch_bytes: usize,
    total_private_bytes: usize,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = open(&args.file, Access::Map)?;
    let options = args.session.options(context)?;
    let plan = match args.batch {
        Some(sequences) => model.plan_batch(&options, sequences)?,
        None => model.plan(&options)?,
    };
    let report = Report {
        ok: true,
        context: options.context.unwrap_or(model.config().n_positions),
        weights_bytes: plan.weights_bytes,
        kv_bytes: plan.kv_bytes,
        scratch_bytes: plan.scratch_bytes,
        total_private_bytes: plan.total_private_bytes,
    };
    let mut table = Table::new(&["what", "bytes", ""]);
    for (name, size) in [
        ("weights (mapped, shared, evictable)", report.weights_bytes),
        ("key-value cache", report.kv_bytes),
        ("scratch", report.scratch_bytes),
        ("private memory", report.total_private_bytes),
    ] {
        table.push([name.to_owned(), size.to_string(), bytes(size as u64)]);
    }
    let (positions, threads) = (report.context, options.threads);
    context
        .print(format_args!("{table}\nfor {positions} positions and {threads} threads"), &report)?;
    Ok(ExitCode::SUCCESS)
}
