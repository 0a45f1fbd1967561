//! `cerebellum quantize`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cerebellum::SessionOptions;
use cerebellum::format::{MAX_END_TOKENS, matrix_names};
use cerebellum::quant::Scheme;
use cerebellum::terminal::name;
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum_tools::calibrate::Calibration;
use cerebellum_tools::chat_template::{self, ImportedChat};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::own_text::{self, Form};
use cerebellum_tools::quantize::{MatrixFormat, Options, preview, quantize};
use cerebellum_tools::summary::Summary;
use cerebellum_tools::tokenizer::{self, ImportedTokenizer};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use super::context::{Context, Failure, Outcome, create_output};
use super::hub::HubArgs;
use super::inspect::tensor_table;
use super::kv::Kv;
use super::plan::MemoryReport;
use super::progress::Progress;
use super::report::ReportArgs;
use super::table::bytes;
use super::template;
use super::text_file::{self, Source};
use super::values::whole;

/// Turn a checkpoint into a model file.
///
/// All matrices become integers of 8 bits or fewer, embeddings and output head included; layer norms and biases
/// stay float32, positions become float16. All but int8 is calibrated: unless a text is given, the model writes
/// one itself first. The same checkpoint and options give the same bytes on any machine; calibrated, on any machine with
/// the same instruction sets.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Directory with config.json and the weights, as downloaded from Hugging Face; or a GGUF file; or a model
    /// on the hub: hf:ORG/NAME[@REVISION], hf:ORG/NAME/FILE.gguf[@REVISION]
    #[arg(value_name = "CHECKPOINT_DIR")]
    checkpoint: PathBuf,
    /// The model file to write
    #[arg(short, long, value_name = "FILE", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    /// How weights are stored
    #[arg(long, value_enum, default_value_t = Weights::Int4)]
    weights: Weights,
    /// Number of weights that share a scale [default: 64]
    #[arg(long, value_name = "N", value_parser = group_size_parser())]
    group_size: Option<usize>,
    /// A text of the kind that the model will get (UTF-8, about 100 kB): round weights so that the model's
    /// results on it change least. `own` is a text that the model writes itself (./own is a file), and the
    /// default for all but int8. Several texts share the windows
    #[arg(long, value_name = "TEXT|own")]
    calibration: Vec<PathBuf>,
    /// Round each weight to the nearest, which takes seconds: int4 then loses two to five times as much
    #[arg(long, conflicts_with_all = ["calibration", "bits"])]
    no_calibration: bool,
    /// Number of windows of min(positions, 512) tokens to calibrate on; of a TEXT they are spread over it
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "no_calibration", value_parser = whole(0..=usize::MAX))]
    calibration_windows: usize,
    /// The most bits per weight in FILE, on average, without the tokenizer: choose tc2, tc3, nl4 or int8 and the
    /// group size of each matrix by their loss on the text
    #[arg(long, value_name = "B", conflicts_with_all = ["weights", "group_size"])]
    bits: Option<f64>,
    /// Directory or GGUF file with the tokenizer, if it is not in CHECKPOINT_DIR
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Put a template into FILE (docs/templates.md), besides those in CHECKPOINT_DIR/templates; `NAME=`
    /// leaves out one of these
    #[arg(long, value_name = "NAME=FILE")]
    template: Vec<String>,
    /// The model's chat template, a text in the language Jinja, instead of the checkpoint's own, or if it has
    /// none (docs/chat.md)
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    /// Read no weights and write nothing: show what FILE would contain, and how much memory it would need
    #[arg(long)]
    dry_run: bool,
    /// Number of positions to plan for with --dry-run [default: all that the model has]
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = whole(1..=usize::MAX))]
    context: Option<usize>,
    /// Type of the cached keys and values to plan for with --dry-run
    #[arg(long, value_enum, default_value_t, requires = "dry_run")]
    kv: Kv,
    #[command(flatten)]
    report: ReportArgs,
    #[command(flatten)]
    hub: HubArgs,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum quantize Cerebras-GPT-111M -o 111m.cbl
  cerebellum quantize hf:HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.cbl
  cerebellum quantize Cerebras-GPT-111M -o 111m-int8.cbl --weights int8
  cerebellum quantize Cerebras-GPT-111M -o 111m.cbl --calibration letters.txt --calibration own
  cerebellum quantize Cerebras-GPT-111M -o 111m.cbl --no-calibration --force --json
  cerebellum quantize Cerebras-GPT-111M -o 111m.cbl --report 111m.html --report-text book.txt
  cerebellum quantize Cerebras-GPT-13B --dry-run --context 1024 --kv int8";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Weights {
    Int8,
    Int4,
    /// One of 16 levels: the bytes of int4, less loss, slower prompts
    Nl4,
    /// One of 16 levels in three bits, along paths
    Tc3,
    /// One of 8 levels in two bits: for parts of a model, as --bits chooses them
    Tc2,
}

fn group_size_parser() -> impl TypedValueParser<Value = usize> {
    PossibleValuesParser::new(["32", "64", "128"])
        .map(|size| size.parse().expect("one of the values above"))
}

impl Args {
    /// What may be named on the hub.
    pub fn checkpoints(&mut self) -> (&HubArgs, Vec<&mut PathBuf>) {
        (&self.hub, [&mut self.checkpoint].into_iter().chain(&mut self.tokenizer).collect())
    }

    /// All files that the command reads.
    fn inputs(&self, checkpoint: &Checkpoint) -> Result<Vec<PathBuf>, Failure> {
        let mut inputs = checkpoint.files();
        inputs.extend(tokenizer::files(self.tokenizer_directory()));
        inputs.extend(chat_template::files(self.tokenizer_directory()));
        inputs.extend(chat_template::files(&self.checkpoint));
        inputs.extend(template::files(&self.checkpoint, &self.template)?.into_values());
        inputs.extend(self.calibration.iter().filter(|text| !is_own(text)).cloned());
        inputs.extend(self.chat_template.clone());
        inputs.extend(self.report.input().map(Path::to_owned));
        Ok(inputs)
    }

    fn tokenizer_directory(&self) -> &Path {
        self.tokenizer.as_ref().unwrap_or(&self.checkpoint)
    }

    fn options(
        &self,
        calibration: Option<Calibration>,
        chat: &ImportedChat,
    ) -> Result<Options, Failure> {
        let scheme = match self.weights {
            Weights::Int8 => Scheme::Int8,
            Weights::Int4 => Scheme::Int4,
            Weights::Nl4 => Scheme::Nl4,
            Weights::Tc3 => Scheme::Tc3,
            Weights::Tc2 => Scheme::Tc2,
        };
        let mut format = MatrixFormat::new(scheme);
        format.group_size = self.group_size.unwrap_or(format.group_size);
        let templates = template::for_file(template::files(&self.checkpoint, &self.template)?)?;
        let (chat, end_tokens) = (chat.format.clone(), chat.end_tokens.clone());
        Ok(Options {
            calibration,
            bits: self.bits,
            templates,
            chat,
            end_tokens,
            ..Options::uniform(format)
        })
    }

    /// What the checkpoint says of conversations, and the directory of the tokenizer if that is another.
    fn chat(
        &self,
        checkpoint: &Checkpoint,
        tokenizer: Option<&ImportedTokenizer>,
    ) -> Result<ImportedChat, Failure> {
        let tables = tokenizer.map(|tokenizer| &tokenizer.blob[..]);
        let given = self.chat_template.as_deref().map(|path| {
            // As it is: white space at its end is part of what it makes.
            let text = std::fs::read_to_string(path);
            text.map_err(|e| format!("cannot read the chat template {}: {e}", path.display()))
        });
        let given = given.transpose()?;
        let import = |path: &Path| {
            chat_template::import_with(path, checkpoint.config(), tables, given.clone())
        };
        let mut chat = import(&self.checkpoint)?;
        if let Some(directory) = &self.tokenizer {
            let other = import(directory)?;
            if other.format.is_some() {
                (chat.format, chat.warnings) = (other.format, other.warnings);
            }
            let new = other.end_tokens.into_iter().filter(|it| !chat.end_tokens.contains(it));
            let room = MAX_END_TOKENS - chat.end_tokens.len();
            let new: Vec<_> = new.take(room).collect();
            chat.end_tokens.extend(new);
        }
        Ok(chat)
    }
}

/// The JSON object.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    output: String,
    #[serde(flatten)]
    summary: &'a Summary,
    seconds: f64,
    /// The most memory that this process has had at once, mapped pages of the checkpoint included; on
    /// Linux.
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
}

/// The JSON object of a dry run.
#[derive(Serialize)]
struct Preview<'a> {
    ok: bool,
    dry_run: bool,
    #[serde(flatten)]
    summary: &'a Summary,
    memory: MemoryReport,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let tokenizer = import_tokenizer(args, &checkpoint)?;
    let chat = args.chat(&checkpoint, tokenizer.as_ref())?;
    let inputs = args.inputs(&checkpoint)?;
    let output = match &args.output {
        Some(path) if !args.dry_run => create_output(path, args.force, &inputs)?,
        _ => return dry_run(args, &checkpoint, tokenizer.as_ref(), &chat, context),
    };
    let target = output.target().to_owned();
    let tables = tokenizer.as_ref().map(|tokenizer| &tokenizer.blob[..]);
    let report = args.report.prepare(args.force, &inputs, (&checkpoint, tables), context)?;
    warn(&checkpoint, tokenizer.as_ref(), &chat, context);
    let calibration = calibration(args, &checkpoint, (tokenizer.as_ref(), &chat), context)?;

    let name = target.display().to_string();
    let (options, progress) = (args.options(calibration, &chat)?, Progress::new(context));
    let started = Instant::now();
    let work = || quantize(&checkpoint, tables, &options, output, &progress);
    let summary = context.on_threads(work)??;
    drop(progress);
    let (seconds, peak_memory_bytes) = (started.elapsed().as_secs_f64(), peak_memory());
    if let Some(report) = report {
        let written = report.write(&target, &checkpoint, context);
        written.map_err(|e| format!("{name} is complete, but the report failed: {e}"))?;
    }
    let memory =
        peak_memory_bytes.map_or(String::new(), |peak| format!(", {} at most", bytes(peak)));
    let text = format!(
        "{}\n{name}: {}\n{seconds:.1} seconds{memory}",
        tensor_table(&summary),
        sizes(&summary)
    );
    let report = Report { ok: true, output: name, summary: &summary, seconds, peak_memory_bytes };
    context.print(text, &report)?;
    Ok(ExitCode::SUCCESS)
}

/// The most memory that this process has had at once, where Linux tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Says what would be written, and what running that would take.
fn dry_run(
    args: &Args,
    checkpoint: &Checkpoint,
    tokenizer: Option<&ImportedTokenizer>,
    chat: &ImportedChat,
    context: &Context,
) -> Outcome {
    warn(checkpoint, tokenizer, chat, context);
    let tables = tokenizer.map(|tokenizer| tokenizer.blob.len());
    let (summary, model) = preview(checkpoint, tables, &args.options(None, chat)?)?;
    let options = SessionOptions {
        context: args.context,
        kv: args.kv.into(),
        threads: context.session_threads(),
        ..SessionOptions::default()
    };
    let memory = MemoryReport::new(&model, &options, None)?;
    let (tensors, sizes) = (tensor_table(&summary), sizes(&summary));
    let text = format!("{tensors}\nwould write {sizes}\n\nto run it:\n{memory}");
    context.print(text, &Preview { ok: true, dry_run: true, summary: &summary, memory })?;
    Ok(ExitCode::SUCCESS)
}

/// The word for a text that the model writes itself.
const OWN: &str = "own";

/// Larger models are calibrated only if that is asked for: this many weights take more than half an hour on two cores.
const MOST_WEIGHTS: usize = 500_000_000;

fn is_own(text: &Path) -> bool {
    text == Path::new(OWN)
}

/// The windows to calibrate on, if the file is to be calibrated.
fn calibration(
    args: &Args,
    checkpoint: &Checkpoint,
    (tokenizer, chat): (Option<&ImportedTokenizer>, &ImportedChat),
    context: &Context,
) -> Result<Option<Calibration>, Failure> {
    let is_coarse = !matches!(args.weights, Weights::Int8) || args.bits.is_some();
    if args.no_calibration || args.calibration.is_empty() && !is_coarse {
        return Ok(None);
    }
    let tables = tokenizer.map(|tokenizer| &tokenizer.blob[..]);
    let form = || Form::new(checkpoint, tables, chat.format.as_ref(), &chat.end_tokens);
    let own = [PathBuf::from(OWN)];
    let mut sources = &args.calibration[..];
    if sources.is_empty() {
        let weights = weights(checkpoint);
        if args.bits.is_none() && weights > MOST_WEIGHTS {
            context.warn(format_args!(
                "not calibrated, which would take hours for {:.1} billion weights: this file loses more than it \
                 must; --calibration {OWN} calibrates it, --no-calibration says that it need not be",
                weights as f64 / 1e9
            ));
            return Ok(None);
        }
        if let (Err(error), None) = (form(), args.bits) {
            context.warn(format_args!("not calibrated: {error}"));
            return Ok(None);
        }
        sources = &own;
    }
    let (mut all, mut windows) = (None::<Calibration>, args.calibration_windows);
    for (number, text) in sources.iter().enumerate() {
        let share = windows.div_ceil(sources.len() - number);
        let new = if is_own(text) {
            write_calibration(args, checkpoint, &form()?, share, context)?
        } else {
            let tokenizer = tokenizer.ok_or(
                "a calibration text needs the model's tokenizer: put tokenizer.json beside the weights, or name \
                 its directory with --tokenizer",
            )?;
            read_calibration(text, share, (checkpoint, tokenizer), context)?
        };
        windows -= share;
        all = Some(match all {
            Some(all) => all.and(&new),
            None => new,
        });
    }
    Ok(all)
}

/// The number of weights in matrices.
fn weights(checkpoint: &Checkpoint) -> usize {
    matrix_names(checkpoint.config()).iter().map(|(_, [rows, cols])| rows * cols).sum()
}

/// Lets the model write so many windows.
fn write_calibration(
    args: &Args,
    checkpoint: &Checkpoint,
    form: &Form,
    windows: usize,
    context: &Context,
) -> Result<Calibration, Failure> {
    let mut draft = args.output.clone().unwrap_or_default().into_os_string();
    draft.push(".draft");
    let draft = Output::create(Path::new(&draft), true, &args.inputs(checkpoint)?)?;
    let progress = Progress::new(context);
    let write = || own_text::write(checkpoint, form, windows, draft, &progress);
    Ok(context.on_threads(write)??)
}

/// At most `windows` windows of a text.
pub fn read_calibration(
    path: &Path,
    windows: usize,
    (checkpoint, tokenizer): (&Checkpoint, &ImportedTokenizer),
    context: &Context,
) -> Result<Calibration, Failure> {
    let text = text_file::exact(Source::of(path), context)?;
    // A tokenizer that was converted wrongly is found here, on the text that it is to be used for.
    tokenizer::check_text(tokenizer, &text)?;
    let tokenizer = Tokenizer::parse(&tokenizer.blob[..])?;
    let tokens = tokenizer.encode(&text, EncodeOptions::PARSE_SPECIAL)?;
    let calibration = Calibration::new(&tokens, windows, checkpoint.config());
    let calibration = calibration.map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(calibration.beginning_with(tokenizer.table().begin_of_text()))
}

fn import_tokenizer(
    args: &Args,
    checkpoint: &Checkpoint,
) -> Result<Option<ImportedTokenizer>, Failure> {
    let vocab_size = u32::try_from(checkpoint.config().vocab_size)?;
    let tokenizer = tokenizer::import(args.tokenizer_directory(), vocab_size)?;
    match (&args.tokenizer, tokenizer) {
        (Some(directory), None) => {
            let directory = directory.display();
            Err(format!("no tokenizer.json, nor vocab.json and merges.txt, in {directory}").into())
        }
        (_, tokenizer) => Ok(tokenizer),
    }
}

/// Warns of what the checkpoint has and the file will not have.
fn warn(
    checkpoint: &Checkpoint,
    tokenizer: Option<&ImportedTokenizer>,
    chat: &ImportedChat,
    context: &Context,
) {
    /// A broken checkpoint may have thousands.
    const MOST_NAMES: usize = 20;
    let extra = checkpoint.extra_tensors();
    if !extra.is_empty() {
        let shown = extra.iter().take(MOST_NAMES).map(|it| name(it).to_string());
        let mut names = shown.collect::<Vec<_>>().join(", ");
        if extra.len() > MOST_NAMES {
            names += &format!(" and {} more", extra.len() - MOST_NAMES);
        }
        context.warn(format_args!(
            "the model does not use these tensors, so they are left out: {names}"
        ));
    }
    checkpoint.notes().iter().for_each(|note| context.warn(note));
    chat.warnings.iter().for_each(|warning| context.warn(warning));
    match tokenizer {
        Some(tokenizer) => tokenizer.warnings.iter().for_each(|warning| context.warn(warning)),
        None => context.warn(
            "the checkpoint has no tokenizer: the model file will work with token ids only; \
             to include a tokenizer, put tokenizer.json beside the weights or name its directory with --tokenizer",
        ),
    }
}

/// The file's size against the source's.
fn sizes(summary: &Summary) -> String {
    let source_bytes = summary.source.as_ref().map_or(0, |source| source.bytes);
    format!(
        "{}, {:.1} % of the checkpoint's {}; {:.3} bits per weight",
        bytes(summary.file_bytes),
        summary.file_bytes as f64 / source_bytes as f64 * 100.0,
        bytes(source_bytes),
        summary.bits_per_weight,
    )
}
