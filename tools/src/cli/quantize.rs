//! `cerebellum quantize`.

use std::path::PathBuf;
use std::process::ExitCode;

use cerebellum::quant::Scheme;
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use cerebellum_tools::summary::Summary;
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::inspect::tensor_table;
use super::progress::Progress;
use super::table::bytes;
use super::{Context, Outcome};

/// Turn a checkpoint into a model file.
///
/// All matrices become int4 or int8, embeddings and output head included; layer norms and biases stay
/// float32, positions float16. The same checkpoint and options give the same bytes on any machine.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Directory with config.json and the weights, as downloaded from Hugging Face
    #[arg(value_name = "CHECKPOINT_DIR")]
    checkpoint: PathBuf,
    /// The model file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t = Weights::Int4)]
    weights: Weights,
    /// Weights that share a scale [default: 64 for int4, 128 for int8]
    #[arg(long, value_name = "N", value_parser = group_size_parser())]
    group_size: Option<usize>,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum quantize Cerebras-GPT-111M -o 111m.cbl
  cerebellum quantize Cerebras-GPT-111M -o 111m-int8.cbl --weights int8
  cerebellum quantize Cerebras-GPT-111M -o 111m.cbl --group-size 32 --force --json";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Weights {
    Int8,
    Int4,
}

fn group_size_parser() -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["32", "64", "128"])
        .map(|size| size.parse().expect("one of the values above"))
}

impl Args {
    fn options(&self) -> Options {
        let mut format = MatrixFormat::new(match self.weights {
            Weights::Int8 => Scheme::Int8,
            Weights::Int4 => Scheme::Int4,
        });
        format.group_size = self.group_size.unwrap_or(format.group_size);
        Options::uniform(format)
    }
}

/// The JSON object.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    output: String,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    if !checkpoint.extra_tensors().is_empty() {
        let names = checkpoint.extra_tensors().join(", ");
        context
            .warn(format_args!("the model does not use these tensors, they are left out: {names}"));
    }
    let output = Output::create(&args.output, args.force, &checkpoint.files())?;
    let progress = Progress::new(context);
    let options = args.options();
    let summary =
        context.on_threads(|| quantize(&checkpoint, None, &options, output, &progress))??;
    drop(progress);
    let output = args.output.display().to_string();
    let text = format!("{}\n{}", tensor_table(&summary), sizes(&output, &summary));
    context.print(text, &Report { ok: true, output, summary: &summary })?;
    Ok(ExitCode::SUCCESS)
}

/// The file's size against the source's.
fn sizes(output: &str, summary: &Summary) -> String {
    let source_bytes = summary.source.as_ref().map_or(0, |source| source.bytes);
    format!(
        "{output}: {}, {:.1} % of the checkpoint's {}; {:.3} bits per weight",
        bytes(summary.file_bytes),
        summary.file_bytes as f64 / source_bytes as f64 * 100.0,
        bytes(source_bytes),
        summary.bits_per_weight,
    )
}
