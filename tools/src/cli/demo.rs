//! `cerebellum demo`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cerebellum::Access;
use cerebellum::generate::{GenerateOptions, Generation};
use cerebellum::quant::Scheme;
use cerebellum::sampler::SamplerOptions;
use cerebellum_tools::calibrate::Calibration;
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use cerebellum_tools::summary::Summary;
use cerebellum_tools::threads;
use cerebellum_tools::tokenizer::{self, ImportedTokenizer};
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::generate::{Stream, speeds};
use super::progress::Progress;
use super::quantize::read_calibration;
use super::session::open;
use super::table::bytes;
use super::template;
use super::values::whole;

/// Quantize the bundled model to int4, calibrated on a text that it wrote, and write a story.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The checkpoint to quantize; if it has a file calibration.txt, calibrate on this text
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/demo"), hide_default_value = true)]
    checkpoint: PathBuf,
    /// Number of windows of that text; 16 take about 15 seconds on two cores
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = whole(0..=usize::MAX))]
    calibration_windows: usize,
    /// The model file to write; an existing file is replaced
    #[arg(short, long, value_name = "FILE", default_value = "target/demo.cbl")]
    output: PathBuf,
    // The default breaks off within a sentence: after a whole one the model may end the text.
    /// The beginning of the story
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "Once upon a time there was a king who"
    )]
    prompt: String,
    /// Another seed tells another story
    #[arg(long, default_value_t = 5, value_name = "S", value_parser = whole(0..=u64::MAX))]
    seed: u64,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum demo
  cerebellum demo -p 'Far out in the ocean' --seed 2";

/// The JSON object.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    output: String,
    prompt: &'a str,
    text: &'a str,
    prompt_tokens_per_second: f64,
    decode_tokens_per_second: f64,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let summary = quantize_checkpoint(args, context)?;
    context.note(cost(args, &summary));
    let (stream, generation) = tell(args, context)?;
    if context.json {
        let report = Report {
            ok: true,
            output: args.output.display().to_string(),
            prompt: &args.prompt,
            text: &stream.text,
            prompt_tokens_per_second: generation.prompt_tokens_per_second(),
            decode_tokens_per_second: generation.decode_tokens_per_second(),
            summary: &summary,
        };
        context.print("", &report)?;
    }
    // As it was called: who built it by `cargo demo` has no `cerebellum` on the path.
    let program = std::env::args_os().next().unwrap_or_else(|| "cerebellum".into());
    let (program, output) = (Path::new(&program).display(), args.output.display());
    context.note(format_args!(
        "\nNow yours: {program} translate -m {output} 'Where is your brother?'"
    ));
    Ok(ExitCode::SUCCESS)
}

fn quantize_checkpoint(args: &Args, context: &Context) -> Result<Summary, Failure> {
    if !args.checkpoint.exists() {
        // The published package is too small for it.
        let path = args.checkpoint.display();
        let repository = env!("CARGO_PKG_REPOSITORY");
        return Err(format!(
            "there is no checkpoint {path}: the bundled model is in the repository, {repository}; or give \
             --checkpoint"
        )
        .into());
    }
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let vocab_size = u32::try_from(checkpoint.config().vocab_size)?;
    let tokenizer = tokenizer::import(&args.checkpoint, vocab_size)?;
    let tables = tokenizer.as_ref().map(|tokenizer| &tokenizer.blob[..]);
    if let Some(directory) = args.output.parent().filter(|d| *d == Path::new("target")) {
        std::fs::create_dir_all(directory)?;
    }
    let templates = template::files(&args.checkpoint, &[])?;
    let mut inputs = checkpoint.files();
    inputs.extend(tokenizer::files(&args.checkpoint));
    inputs.extend(templates.values().cloned());
    inputs.push(calibration_text(args));
    let output = Output::create(&args.output, true, &inputs)?;
    let calibration = calibration(args, &checkpoint, tokenizer.as_ref(), context)?;
    let templates = template::for_file(templates)?;
    let format = MatrixFormat::new(Scheme::Int4);
    let options = Options { calibration, templates, ..Options::uniform(format) };
    let progress = Progress::new(context);
    Ok(context.on_threads(|| quantize(&checkpoint, tables, &options, output, &progress))??)
}

fn calibration_text(args: &Args) -> PathBuf {
    args.checkpoint.join("calibration.txt")
}

/// The windows of the text beside the checkpoint, if there is one.
fn calibration(
    args: &Args,
    checkpoint: &Checkpoint,
    tokenizer: Option<&ImportedTokenizer>,
    context: &Context,
) -> Result<Option<Calibration>, Failure> {
    let path = calibration_text(args);
    match tokenizer.filter(|_| path.exists()) {
        Some(tokenizer) => {
            let windows = args.calibration_windows;
            Ok(Some(read_calibration(&path, windows, (checkpoint, tokenizer), context)?))
        }
        None => Ok(None),
    }
}

/// What the bundled model became.
fn cost(args: &Args, summary: &Summary) -> String {
    let source = summary.source.as_ref().map_or(0, |source| source.bytes);
    let calibration = |field| summary.option("calibration")?.get(field)?.as_u64();
    let calibrated = match (calibration("windows"), calibration("window")) {
        (Some(windows), Some(window)) => format!("; calibrated on {} tokens", windows * window),
        _ => String::new(),
    };
    format!(
        "{}: {} instead of {}, {:.2} bits per weight instead of {:.0}{calibrated}\n",
        args.output.display(),
        bytes(summary.file_bytes),
        bytes(source),
        summary.bits_per_weight,
        source as f64 * 8.0 / summary.parameters as f64,
    )
}

fn tell(args: &Args, context: &Context) -> Result<(Stream, Generation), Failure> {
    let model = open(&args.output, Access::Map)?;
    let tokenizer = model.tokenizer()?;
    let threads = context.session_threads();
    let isa = cerebellum::isa_from_environment()?;
    let mut options = cerebellum::SessionOptions { threads, isa, ..Default::default() };
    let mut session = threads::with_fewer(&mut options, |options| model.session(options))?;
    let mut stream = Stream { text: String::new(), to_stdout: !context.json, failure: None };
    stream.echo(&args.prompt)?;
    let story = GenerateOptions {
        max_tokens: 160,
        sampler: SamplerOptions {
            temperature: 0.7,
            top_p: 0.9,
            repetition_penalty: 1.1,
            seed: args.seed,
            ..Default::default()
        },
        ..Default::default()
    };
    let prompt = session.encode(&tokenizer, &args.prompt, Default::default())?;
    let generation = stream.run(&mut session, &tokenizer, &prompt, &story)?;
    context.note(format_args!("\n{}", speeds(&generation, &session, options.threads)));
    Ok((stream, generation))
}
