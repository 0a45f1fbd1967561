//! `cerebellum eval`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cerebellum::kernels::Isa;
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{Access, KvType, LogitsFor, Model, Session, SessionOptions};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::eval::{self, Metrics, TokenScore, Windows};
use cerebellum_tools::quantize::Observer;
use cerebellum_tools::summary::Summary;
use cerebellum_tools::tokenizer;
use clap::value_parser;
use serde::Serialize;

use super::kv::Kv;
use super::progress::Progress;
use super::session::open;
use super::table::bytes;
use super::{Context, Failure, Outcome};

/// Measure a model on a text: perplexity, and the distance from the float reference.
///
/// The text is tokenized whole, special tokens included, and cut into windows without overlap. Every
/// token of a window but its first is scored; what does not fill the last window is left out. The
/// environment variable CEREBELLUM_ISA chooses the kernels.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,
    /// The text, a UTF-8 file
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// The checkpoint that FILE was made from: also measure the distance from it
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoint")]
    reference: Option<PathBuf>,
    /// Tokens in a window; at most the model's number of positions
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = value_parser!(u32).range(2..))]
    window: u32,
    /// Type of the cached keys and values
    #[arg(long, value_enum, default_value_t, conflicts_with = "checkpoint")]
    kv: Kv,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Subject {
    /// The model file to measure
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A checkpoint's directory: measure the float32 reference itself
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum eval -m 111m.cbl --text book.txt
  cerebellum eval -m 111m.cbl --text book.txt --reference Cerebras-GPT-111M --json
  cerebellum eval -m 111m.cbl --text book.txt --reference Cerebras-GPT-111M --kv int8
  cerebellum eval --checkpoint Cerebras-GPT-111M --text book.txt";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    #[serde(flatten)]
    metrics: Metrics,
    /// Tokens of the whole text, those left out included.
    text_tokens: usize,
    seconds: f64,
    threads: usize,
    #[serde(flatten)]
    file: Option<FileReport>,
}

/// What is reported of a model file.
#[derive(Serialize)]
struct FileReport {
    isa: &'static str,
    kv: &'static str,
    bits_per_weight: f64,
    file_bytes: u64,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let text = read_text(&args.text)?;
    let report = match (&args.subject.model, &args.subject.checkpoint) {
        (Some(path), _) => of_model(path, &text, args, context)?,
        (None, Some(path)) => of_reference(path, &text, args, context)?,
        (None, None) => unreachable!("clap requires one of them"),
    };
    context.print(describe(&report), &report)?;
    Ok(ExitCode::SUCCESS)
}

pub fn read_text(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(String::from_utf8(text).map_err(|e| {
        let (path, offset) = (path.display(), e.utf8_error().valid_up_to());
        format!("{path} is not UTF-8 text: byte {offset} begins no character; convert it first")
    })?)
}

/// Everything that can be wrong is found before the long work: the reference is loaded last.
fn of_model(path: &Path, text: &str, args: &Args, context: &Context) -> Result<Report, Failure> {
    let model = open(path, Access::Map)?;
    let checkpoint = args.reference.as_deref().map(Checkpoint::open).transpose()?;
    if let Some(checkpoint) = &checkpoint
        && !eval::is_source(checkpoint, &model)?
    {
        context.warn(format_args!(
            "{} was not made from the weights in {}, by its record of them",
            path.display(),
            checkpoint.path().display()
        ));
    }
    let tokenizer = model.tokenizer().map_err(|e| format!("{}: {e}", path.display()))?;
    let windows = cut(&tokenizer, text, model.config().n_positions, args)?;
    let kv = args.kv.into();
    let sessions = sessions(&model, kv, &windows, context)?;
    let isa = sessions[0].isa().name();
    let reference = checkpoint.as_ref().map(eval::load_reference).transpose()?;

    let score =
        |advance: &(dyn Fn() + Sync)| eval::score(sessions, reference.as_ref(), &windows, advance);
    let summary = Summary::new(model.header(), model.layout(), model.file_bytes() as u64);
    let file = FileReport {
        isa,
        kv: kv.name(),
        bits_per_weight: summary.bits_per_weight,
        file_bytes: summary.file_bytes,
    };
    measure(&windows, context, Some(file), score)
}

fn of_reference(
    path: &Path,
    text: &str,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let checkpoint = Checkpoint::open(path)?;
    let config = checkpoint.config();
    let tokenizer =
        tokenizer::import(path, u32::try_from(config.vocab_size)?)?.ok_or_else(|| {
            format!("no tokenizer.json, nor vocab.json and merges.txt, in {}", path.display())
        })?;
    let tokenizer = Tokenizer::parse(tokenizer.blob)?;
    let windows = cut(&tokenizer, text, config.n_positions, args)?;
    let reference = eval::load_reference(&checkpoint)?;
    let threads = context.thread_count();
    let score =
        |advance: &(dyn Fn() + Sync)| eval::score_reference(&reference, &windows, threads, advance);
    measure(&windows, context, None, score)
}

/// The text's windows.
fn cut<B: AsRef<[u8]>>(
    tokenizer: &Tokenizer<B>,
    text: &str,
    n_positions: usize,
    args: &Args,
) -> Result<Windows, Failure> {
    let tokens = tokenizer.encode(text, EncodeOptions { parse_special: true })?;
    Ok(Windows::new(tokens, n_positions.min(args.window as usize))?)
}

/// One session for each thread that has a window to work on.
fn sessions(
    model: &Model,
    kv: KvType,
    windows: &Windows,
    context: &Context,
) -> Result<Vec<Session>, Failure> {
    let options = SessionOptions {
        context: Some(windows.length()),
        kv,
        logits: LogitsFor::All,
        isa: Isa::from_environment()?,
        ..SessionOptions::default()
    };
    let count = context.thread_count().min(windows.count());
    Ok((0..count).map(|_| model.session(&options)).collect::<cerebellum::Result<_>>()?)
}

/// Runs `score` with a progress bar and a clock.
fn measure(
    windows: &Windows,
    context: &Context,
    file: Option<FileReport>,
    score: impl FnOnce(&(dyn Fn() + Sync)) -> eval::Result<Vec<TokenScore>>,
) -> Result<Report, Failure> {
    let (progress, started) = (Progress::new(context), Instant::now());
    progress.begin(windows.count() as u64);
    progress.turn_to("windows");
    let scores = score(&|| progress.advance(1))?;
    Ok(Report {
        ok: true,
        metrics: Metrics::new(&scores, windows.length()),
        text_tokens: windows.text_tokens(),
        seconds: started.elapsed().as_secs_f64(),
        threads: context.thread_count().min(windows.count()),
        file,
    })
}

fn describe(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<24}{value}").expect("strings can grow");
    };
    let metrics = &report.metrics;
    let percent = |ratio: f64| 100.0 * (ratio - 1.0);
    let interval = |ends: Option<[f64; 2]>, show: &dyn Fn(f64) -> String| {
        ends.map_or(String::new(), |[low, high]| format!("  ({} to {})", show(low), show(high)))
    };
    let fixed = |value: f64| format!("{value:.3}");
    let perplexity = interval(metrics.perplexity_interval, &fixed);
    line("perplexity", format!("{:.3}{perplexity}", metrics.perplexity));
    if let Some(comparison) = &metrics.comparison {
        let signed = |ratio: f64| format!("{:+.2} %", percent(ratio));
        let ratio = interval(comparison.perplexity_ratio_interval, &signed);
        let small = |value: f64| format!("{value:.5}");
        let kl = interval(comparison.kl_mean_interval, &small);
        line("of the reference", fixed(comparison.reference_perplexity));
        line("difference", format!("{}{ratio}", signed(comparison.perplexity_ratio)));
        line("KL divergence, mean", format!("{}{kl}", small(comparison.kl_mean)));
        line("KL divergence, 95 %", small(comparison.kl_p95));
        line("KL divergence, 99 %", small(comparison.kl_p99));
        line("top-1 agreement", format!("{:.2} %", 100.0 * comparison.top1_agreement));
    }
    line("tokens", format!("{} in {} windows", metrics.tokens, metrics.windows));
    if let Some(file) = &report.file {
        let FileReport { bits_per_weight, file_bytes, isa, kv } = file;
        line("file", format!("{}, {bits_per_weight:.3} bits per weight", bytes(*file_bytes)));
        line("kernels, cache", format!("{isa}, {kv}"));
    }
    line("seconds", format!("{:.1}", report.seconds));
    if metrics.perplexity_interval.is_some() {
        text += "In brackets: 95 % confidence intervals.";
    }
    text.trim_end().to_owned()
}
