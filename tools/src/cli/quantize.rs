//! `cerebellum quantize`.

use std::path::PathBuf;
use std::process::ExitCode;

use cerebellum::quant::Scheme;
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use cerebellum_tools::summary::Summary;
use cerebellum_tools::tokenizer::{self, ImportedTokenizer};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::inspect::tensor_table;
use super::progress::Progress;
use super::table::bytes;
use super::{Context, Failure, Outcome};

/// Turn a checkpoint into a model file.
///
/// All matrices become int4 or int8, embeddings and output head included; layer norms and biases stay
/// float32, positions float16. The same checkpoint and options give the same bytes on any machine.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Directory with config.json and the weights, as downloaded from Hugging Face; or a GGUF file
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
    /// Directory with the tokenizer, if it is not in CHECKPOINT_DIR
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
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
    let tokenizer = import_tokenizer(args, &checkpoint)?;
    let mut inputs = checkpoint.files();
    inputs.extend(tokenizer.iter().map(|tokenizer| tokenizer.source.clone()));
    let output = Output::create(&args.output, args.force, &inputs)?;
    warn(&checkpoint, tokenizer.as_ref(), context);

    let tables = tokenizer.as_ref().map(|tokenizer| &tokenizer.blob[..]);
    let (options, progress) = (args.options(), Progress::new(context));
    let work = || quantize(&checkpoint, tables, &options, output, &progress);
    let summary = context.on_threads(work)??;
    drop(progress);
    let output = args.output.display().to_string();
    let text = format!("{}\n{}", tensor_table(&summary), sizes(&output, &summary));
    context.print(text, &Report { ok: true, output, summary: &summary })?;
    Ok(ExitCode::SUCCESS)
}

fn import_tokenizer(
    args: &Args,
    checkpoint: &Checkpoint,
) -> Result<Option<ImportedTokenizer>, Failure> {
    let vocab_size = u32::try_from(checkpoint.config().vocab_size)?;
    let directory = args.tokenizer.as_ref().unwrap_or(&args.checkpoint);
    let tokenizer = tokenizer::import(directory, vocab_size)?;
    match (&args.tokenizer, tokenizer) {
        (Some(directory), None) => {
            let directory = directory.display();
            Err(format!("no tokenizer.json, nor vocab.json and merges.txt, in {directory}").into())
        }
        (_, tokenizer) => Ok(tokenizer),
    }
}

/// Says what of the checkpoint does not make it into the file.
fn warn(checkpoint: &Checkpoint, tokenizer: Option<&ImportedTokenizer>, context: &Context) {
    if !checkpoint.extra_tensors().is_empty() {
        let names = checkpoint.extra_tensors().join(", ");
        context.warn(format_args!("left out, since the model does not use them: {names}"));
    }
    checkpoint.notes().iter().for_each(|note| context.warn(note));
    match tokenizer {
        Some(tokenizer) => tokenizer.warnings.iter().for_each(|warning| context.warn(warning)),
        None => context.warn(
            "the checkpoint has no tokenizer: the file will take and give token ids only; \
             to include one, put tokenizer.json beside the weights or name its directory with --tokenizer",
        ),
    }
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
