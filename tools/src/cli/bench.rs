//! `cerebellum bench`.

use std::process::ExitCode;

use cerebellum_tools::bench::{Measurement, Work, measure};
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::session::ModelArgs;
use super::table::Table;
use super::values::whole;

/// Measure the speed of a model file on this machine, and compare it with the machine's limits.
///
/// The limits are the rates of reading as many bytes over and over, and of multiplying 8-bit integers and
/// floats, measured right before and after with the same number of threads. Close other programs first.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Lengths of prompts
    #[arg(short, long, value_name = "N,..", value_delimiter = ',', default_value = "512", value_parser = whole(0..=usize::MAX))]
    prompt: Vec<usize>,
    /// Number of tokens to decode one by one; 0: do not measure decoding
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64, value_parser = whole(0..=usize::MAX))]
    tokens: usize,
    /// Number of tokens in the cache before decoding
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "0", value_parser = whole(0..=usize::MAX))]
    depth: Vec<usize>,
    /// Also decode in batches of N sequences
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    batch: Vec<u16>,
    /// Measure each figure N times and take the median
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    repetitions: u16,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum bench -m 111m.cbl
  cerebellum bench -m 111m.cbl -p 128,512 -n 64 -t 1,2 --depth 0,1024 --json
  cerebellum bench -m 111m.cbl -p 0 --batch 1,8";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    isa: &'static str,
    results: Vec<Measurement>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    // A token decoded is a pass measured.
    let base = cerebellum::SessionOptions { draft: 0, ..args.model.options(context)? };
    let works = works(args, base.context.unwrap_or(model.config().n_positions))?;
    let isa = base.isa.unwrap_or_else(cerebellum::kernels::Isa::best);
    let mut results = Vec::new();
    for threads in context.thread_counts() {
        for &work in &works {
            let options = cerebellum::SessionOptions { threads, ..base.clone() };
            let repetitions = usize::from(args.repetitions);
            results.push(measure(&model, &options, work, repetitions)?);
        }
    }
    let report = Report { ok: true, isa: isa.name(), results };
    context.print(describe(&report), &report)?;
    Ok(ExitCode::SUCCESS)
}

/// What to measure, checked against the context before anything long is started.
fn works(args: &Args, context: usize) -> Result<Vec<Work>, Failure> {
    let prompts = args.prompt.iter().filter(|&&n| n > 0).map(|&tokens| Work::Prompt { tokens });
    let depths = args.depth.iter().filter(|_| args.tokens > 0);
    let decodes = depths.map(|&depth| Work::Decode { tokens: args.tokens, depth });
    let batches = args.batch.iter().filter(|_| args.tokens > 0);
    let batches = batches.map(|&n| Work::Batch { sequences: n.into(), tokens: args.tokens });
    let works: Vec<_> = prompts.chain(decodes).chain(batches).collect();
    for work in &works {
        let (Work::Prompt { tokens } | Work::Decode { tokens, .. } | Work::Batch { tokens, .. }) =
            *work;
        let depth = if let Work::Decode { depth, .. } = *work { depth } else { 0 };
        if depth.saturating_add(tokens) > context {
            let needs =
                format!("{tokens} tokens after {depth} others do not fit into {context} positions");
            return Err(needs.into());
        }
    }
    Ok(works)
}

fn describe(report: &Report) -> String {
    let mut table = Table::new(&[
        "what",
        "threads",
        "tokens/s",
        "MB/token",
        "GB/s (limit)",
        "int GMAC/s (limit)",
        "of the limit",
    ]);
    for r in &report.results {
        let what = match r.kind {
            "prompt" => format!("prompt {}", r.tokens),
            "batch" => format!("batch of {}, decode {}", r.sequences, r.tokens / r.sequences),
            _ => format!("decode {} at {}", r.tokens, r.depth),
        };
        let fraction = r.fraction_of_limit.map(|f| format!("{:.0} %", 100.0 * f));
        let most = r.limits.int8_gmac_per_second.map(|most| format!(" ({most:.0})"));
        table.push([
            what,
            r.threads.to_string(),
            format!("{:.1}", r.tokens_per_second),
            format!("{:.2}", r.bytes_per_token / 1e6),
            format!("{:.1} ({:.1})", r.gb_per_second, r.limits.memory_gb_per_second),
            format!("{:.1}{}", r.gmac_per_second, most.unwrap_or_default()),
            fraction.unwrap_or_default(),
        ]);
    }
    let text = table.to_string();
    text + &format!("\ninstruction set: {}", report.isa)
}
