//! `cerebellum eval`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cerebellum::KvType;
use cerebellum::text::Tokenizer;
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::eval::{self, Comparison, Metrics, Predictor, Windows};
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::Observer;
use cerebellum_tools::report::{self, Step};
use cerebellum_tools::summary::TensorSummary;
use cerebellum_tools::tokenizer;
use clap::value_parser;
use serde::Serialize;

use super::context::{Context, Failure, Outcome, create_output};
use super::hub::HubArgs;
use super::kv::Kv;
use super::measure::{
    Measurement, Measurements, Plan, Subject, check_reference, describe_text, encode, write_page,
};
use super::progress::Progress;
use super::table::{Table, bytes};
use super::text_file;

/// Measure models on a text: perplexity, and the difference from the float32 reference.
///
/// The command encodes the whole text, special tokens included, and cuts the tokens into windows that do not
/// overlap. Every token except the first of a window gets a score. Tokens at the end that do not fill a window
/// get none. If the model wants a token before every text, this token replaces the first one of each window.
/// Several model files are measured on the same windows. The environment variable CEREBELLUM_ISA chooses the
/// kernels.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    what: What,
    /// The text, a UTF-8 file
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// The checkpoint from which the files were made (a directory, a GGUF file, or hf:ORG/NAME): also measure
    /// the difference from it
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoint")]
    reference: Option<PathBuf>,
    /// Compare with the reference even if a file was made from other weights
    #[arg(long, requires = "reference")]
    any_weights: bool,
    /// Also measure the loss by the weights alone, then with int8 activations, then with an int8 cache
    #[arg(long, requires = "reference")]
    ablation: bool,
    /// Number of tokens in a window; at most the model's number of positions
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = value_parser!(u32).range(2..))]
    window: u32,
    /// Type of the cached keys and values
    #[arg(long, value_enum, default_value_t, conflicts_with = "checkpoint")]
    kv: Kv,
    /// Write a report with plots: one HTML file that needs no other file
    #[arg(long, value_name = "FILE", conflicts_with = "checkpoint")]
    html: Option<PathBuf>,
    /// Replace the report if it exists
    #[arg(long, requires = "html")]
    force: bool,
    #[command(flatten)]
    hub: HubArgs,
}

impl Args {
    /// What may be named on the hub.
    pub fn checkpoints(&mut self) -> (&HubArgs, Vec<&mut PathBuf>) {
        (&self.hub, self.reference.iter_mut().chain(&mut self.what.checkpoint).collect())
    }
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// The model file to measure; give -m several times to compare files
    #[arg(short, long = "model", value_name = "FILE")]
    models: Vec<PathBuf>,
    /// A checkpoint, likewise: measure the float32 reference itself
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum eval -m 111m.cbl --text book.txt
  cerebellum eval -m 111m.cbl --text book.txt --reference Cerebras-GPT-111M --json
  cerebellum eval -m int4.cbl -m int8.cbl --text book.txt --reference Cerebras-GPT-111M \\
    --ablation --html report.html
  cerebellum eval --checkpoint Cerebras-GPT-111M --text book.txt";

/// The JSON object of one model, and of each one of several.
#[derive(Serialize)]
struct ModelReport<'a> {
    #[serde(flatten)]
    metrics: &'a Metrics,
    #[serde(flatten)]
    file: Option<FileReport<'a>>,
}

/// What is reported of a model file.
#[derive(Serialize)]
struct FileReport<'a> {
    model: String,
    kv: &'static str,
    bits_per_weight: f64,
    file_bytes: u64,
    schemes: String,
    /// The quantized matrices.
    tensors: Vec<&'a TensorSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ablation: Vec<StepReport<'a>>,
}

/// A step away from float32.
#[derive(Serialize)]
struct StepReport<'a> {
    step: Step,
    #[serde(flatten)]
    metrics: &'a Metrics,
}

/// The JSON object: one model's fields, or `results` of several.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    #[serde(flatten)]
    single: Option<&'a ModelReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<&'a [ModelReport<'a>]>,
    #[serde(flatten)]
    run: Run,
}

/// What is the same for all models of a run.
#[derive(Serialize)]
struct Run {
    /// Tokens of the whole text, those left out included.
    text_tokens: usize,
    seconds: f64,
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    isa: Option<&'static str>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let text = text_file::exact(text_file::Source::of(&args.text), context)?;
    match &args.what.checkpoint {
        Some(path) => of_reference(path, &text, args, context),
        None => of_models(&text, args, context),
    }
}

/// Everything that can be wrong is found before the long work.
fn of_models(text: &str, args: &Args, context: &Context) -> Outcome {
    let paths = &args.what.models;
    let subjects = paths.iter().map(|path| Subject::open(path));
    let subjects: Vec<Subject> = subjects.collect::<Result<_, _>>()?;
    let checkpoint = args.reference.as_deref().map(Checkpoint::open).transpose()?;
    let page = page_output(args, checkpoint.as_ref())?;
    if let Some(checkpoint) = &checkpoint {
        for subject in &subjects {
            check_reference(checkpoint, subject, args.any_weights, context)?;
        }
    }
    let windows = cut(shared_tokens(&subjects, text)?, &subjects, args)?;

    let kv: KvType = args.kv.into();
    let plan = Plan {
        subjects: &subjects,
        kv,
        reference: checkpoint.as_ref(),
        ablation: args.ablation,
        windows: &windows,
    };
    let measurements = plan.run(context)?;
    print(&subjects, &measurements, kv, &windows, context)?;
    if let Some(output) = page {
        let models = subjects.iter().zip(measurements.of_subjects);
        let models = models.map(|(subject, measured)| subject.measured(kv, Some(measured)));
        let models = models.collect::<Result<_, _>>()?;
        let text = Some(describe_text(&args.text, text, &windows));
        write_page(output, &report::Report { text, models }.html())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the report goes; never onto an input.
fn page_output(args: &Args, checkpoint: Option<&Checkpoint>) -> Result<Option<Output>, Failure> {
    let mut inputs = args.what.models.clone();
    inputs.push(args.text.clone());
    inputs.extend(checkpoint.iter().flat_map(|checkpoint| checkpoint.files()));
    let create = |path: &PathBuf| create_output(path, args.force, &inputs);
    args.html.as_ref().map(create).transpose()
}

/// The text's tokens, which must be the same for all files.
fn shared_tokens(subjects: &[Subject], text: &str) -> Result<Vec<u32>, Failure> {
    let tokens = subjects[0].encode(text)?;
    for other in &subjects[1..] {
        if other.encode(text)? != tokens {
            return Err(format!(
                "{} and {} have different tokenizers, so their results cannot be compared: measure \
                 each file by itself",
                subjects[0].path.display(),
                other.path.display()
            )
            .into());
        }
    }
    Ok(tokens)
}

/// The windows, no longer than any model takes.
fn cut(tokens: Vec<u32>, subjects: &[Subject], args: &Args) -> Result<Windows, Failure> {
    let positions = subjects.iter().map(|subject| subject.model.config().n_positions);
    let positions = positions.min().unwrap_or(usize::MAX);
    let windows = Windows::new(tokens, positions.min(args.window as usize))?;
    Ok(windows.beginning_with(subjects[0].tokenizer()?.table().begin_of_text()))
}

/// Measures a checkpoint in float32.
fn of_reference(path: &Path, text: &str, args: &Args, context: &Context) -> Outcome {
    let checkpoint = Checkpoint::open(path)?;
    let config = checkpoint.config();
    let tokenizer =
        tokenizer::import(path, u32::try_from(config.vocab_size)?)?.ok_or_else(|| {
            format!("no tokenizer.json, nor vocab.json and merges.txt, in {}", path.display())
        })?;
    let tokenizer = Tokenizer::parse(tokenizer.blob)?;
    let tokens = encode(&tokenizer, text)?;
    let windows = Windows::new(tokens, config.n_positions.min(args.window as usize))?
        .beginning_with(tokenizer.table().begin_of_text());
    let reference = eval::load_reference(&checkpoint)?;

    let threads = context.thread_count().min(windows.count());
    let workers = (0..threads).map(|_| vec![Predictor::Float(&reference)]).collect();
    let (progress, started) = (Progress::new(context), Instant::now());
    progress.begin(windows.count() as u64);
    progress.turn_to("windows");
    let scores = eval::score(workers, None, &windows, &|| progress.advance(1))?;
    drop(progress);
    let metrics = Metrics::new(&scores[0], windows.length());
    let run = Run {
        text_tokens: windows.text_tokens(),
        seconds: started.elapsed().as_secs_f64(),
        threads,
        isa: None,
    };
    print_reports(&[ModelReport { metrics: &metrics, file: None }], run, context)
}

fn print(
    subjects: &[Subject],
    measurements: &Measurements,
    kv: KvType,
    windows: &Windows,
    context: &Context,
) -> Result<(), Failure> {
    let summaries: Vec<_> = subjects.iter().map(Subject::summary).collect();
    let files = subjects.iter().zip(&summaries).zip(&measurements.of_subjects);
    let reports = files.map(|((subject, summary), Measurement { metrics, ablation, .. })| {
        let file = FileReport {
            model: subject.path.display().to_string(),
            kv: kv.name(),
            bits_per_weight: summary.bits_per_weight,
            file_bytes: summary.file_bytes,
            schemes: report::schemes(summary),
            tensors: summary.tensors.iter().filter(|t| t.group_size.is_some()).collect(),
            ablation: ablation
                .iter()
                .map(|(step, metrics)| StepReport { step: *step, metrics })
                .collect(),
        };
        ModelReport { metrics, file: Some(file) }
    });
    let reports: Vec<_> = reports.collect();
    let run = Run {
        text_tokens: windows.text_tokens(),
        seconds: measurements.seconds,
        threads: measurements.threads,
        isa: Some(measurements.isa),
    };
    print_reports(&reports, run, context).map(drop)
}

fn print_reports(reports: &[ModelReport], run: Run, context: &Context) -> Outcome {
    let text = match reports {
        [one] => describe(one, &run),
        several => describe_several(several, &run),
    };
    let single = if let [one] = reports { Some(one) } else { None };
    let results = single.is_none().then_some(reports);
    context.print(text, &Report { ok: true, single, results, run })?;
    Ok(ExitCode::SUCCESS)
}

fn describe(report: &ModelReport, run: &Run) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<24}{value}").expect("strings can grow");
    };
    let metrics = report.metrics;
    let perplexity = interval(metrics.perplexity_interval, fixed);
    line("perplexity", format!("{:.3}{perplexity}", metrics.perplexity));
    if let Some(comparison) = &metrics.comparison {
        let ratio = interval(comparison.perplexity_ratio_interval, change);
        let kl = interval(comparison.kl_mean_interval, small);
        let top = interval(comparison.top1_agreement_interval, percent);
        line("of the reference", fixed(comparison.reference_perplexity));
        line("difference", format!("{}{ratio}", change(comparison.perplexity_ratio)));
        line("KL divergence, mean", format!("{}{kl}", small(comparison.kl_mean)));
        for (name, value, ends) in [
            ("KL divergence, 95 %", comparison.kl_p95, comparison.kl_p95_interval),
            ("KL divergence, 99 %", comparison.kl_p99, comparison.kl_p99_interval),
        ] {
            line(name, format!("{}{}", small(value), interval(ends, small)));
        }
        line("top-1 agreement", format!("{}{top}", percent(comparison.top1_agreement)));
    }
    line("tokens", format!("{} in {} windows", metrics.tokens, metrics.windows));
    if let Some(file) = &report.file {
        let FileReport { bits_per_weight, file_bytes, kv, .. } = file;
        line("file", format!("{}, {bits_per_weight:.3} bits per weight", bytes(*file_bytes)));
        line("kernels, cache", format!("{}, {kv}", run.isa.unwrap_or_default()));
    }
    line("seconds", format!("{:.1}", run.seconds));
    if metrics.perplexity_interval.is_some() {
        text += "In brackets: 95 % confidence intervals.\n";
    }
    if let Some(file) = report.file.as_ref().filter(|file| !file.ablation.is_empty()) {
        let mut table = comparison_table("quantized");
        for step in &file.ablation {
            push_comparison(&mut table, vec![step.step.label().to_owned()], step.metrics);
        }
        write!(text, "\n{table}").expect("strings can grow");
    }
    text.trim_end().to_owned()
}

/// A row for each model, and one for each step of its ablation.
fn describe_several(reports: &[ModelReport], run: &Run) -> String {
    let mut table = comparison_table("model");
    for report in reports {
        let Some(file) = &report.file else { continue };
        let name = Path::new(&file.model).file_name().unwrap_or_default().to_string_lossy();
        let size = format!("{}, {:.3} bits", bytes(file.file_bytes), file.bits_per_weight);
        push_comparison(&mut table, vec![format!("{name}: {size}")], report.metrics);
        for step in &file.ablation {
            push_comparison(&mut table, vec![format!("  {}", step.step.label())], step.metrics);
        }
    }
    let metrics = reports[0].metrics;
    let reference = metrics.comparison.as_ref().map_or(String::new(), |comparison| {
        format!("; the reference's perplexity is {:.3}", comparison.reference_perplexity)
    });
    format!(
        "{table}{} tokens in {} windows, {:.1} seconds{reference}",
        metrics.tokens, metrics.windows, run.seconds
    )
}

fn comparison_table(first: &str) -> Table {
    Table::new(&[first, "perplexity", "difference", "mean KL", "95 % KL", "99 % KL", "top-1"])
}

fn push_comparison(table: &mut Table, mut row: Vec<String>, metrics: &Metrics) {
    row.push(fixed(metrics.perplexity));
    row.extend(match &metrics.comparison {
        Some(Comparison { perplexity_ratio, kl_mean, kl_p95, kl_p99, top1_agreement, .. }) => [
            change(*perplexity_ratio),
            small(*kl_mean),
            small(*kl_p95),
            small(*kl_p99),
            percent(*top1_agreement),
        ],
        None => Default::default(),
    });
    table.push(row);
}

fn interval(ends: Option<[f64; 2]>, show: fn(f64) -> String) -> String {
    ends.map_or(String::new(), |[low, high]| format!("  ({} to {})", show(low), show(high)))
}

fn fixed(value: f64) -> String {
    format!("{value:.3}")
}

fn small(value: f64) -> String {
    format!("{value:.5}")
}

/// `+2.96 %`, of a ratio.
fn change(ratio: f64) -> String {
    format!("{:+.2} %", 100.0 * (ratio - 1.0))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}
