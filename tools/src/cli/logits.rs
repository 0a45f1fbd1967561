//! `cerebellum logits`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cerebellum::{Access, LogitsFor, SessionOptions};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::reference::Reference;
use cerebellum_tools::threads;
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::hub::HubArgs;
use super::kv::Kv;
use super::session::open;

/// Compute the logits of a sequence of token ids.
///
/// The runtime computes those of a model file, the float32 reference those of a checkpoint; compare either
/// with any other program. The environment variable CEREBELLUM_ISA chooses the runtime's kernels.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    source: Source,
    /// The token ids, separated by commas
    #[arg(long, value_name = "IDS", required = true, value_delimiter = ',')]
    tokens: Vec<u32>,
    /// Print the logits after every token, not only after the last one
    #[arg(long)]
    all: bool,
    /// Type of the cached keys and values
    #[arg(long, value_enum, default_value_t, conflicts_with = "checkpoint")]
    kv: Kv,
    #[command(flatten)]
    hub: HubArgs,
}

impl Args {
    /// What may be named on the hub.
    pub fn checkpoints(&mut self) -> (&HubArgs, Vec<&mut PathBuf>) {
        (&self.hub, self.source.checkpoint.iter_mut().collect())
    }
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The model file
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// A checkpoint (a directory, a GGUF file, or hf:ORG/NAME), for the float32 reference
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum logits -m 111m.cbl --tokens 464,3290 --json | jq '.logits | length'
  cerebellum logits --checkpoint Cerebras-GPT-111M --tokens 464,3290 --all --json
  CEREBELLUM_ISA=scalar cerebellum logits -m 111m.cbl --tokens 464,3290";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    /// Kernels of a model file's logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    isa: Option<&'static str>,
    logits: Logits,
}

/// Of the last token, or of each. In JSON a logit has the fewest digits that give the same float32.
#[derive(Serialize)]
#[serde(untagged)]
enum Logits {
    Last(Vec<f32>),
    All(Vec<Vec<f32>>),
}

/// As text: a logit on each line, or the logits of a token on each.
impl fmt::Display for Logits {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let write = |f: &mut fmt::Formatter, row: &[f32], separator| {
            row.iter().enumerate().try_for_each(|(i, logit)| {
                f.write_str(if i == 0 { "" } else { separator })?;
                write!(f, "{logit}")
            })
        };
        match self {
            Self::Last(row) => write(f, row, "\n"),
            Self::All(rows) => rows.iter().enumerate().try_for_each(|(i, row)| {
                f.write_str(if i == 0 { "" } else { "\n" })?;
                write(f, row, " ")
            }),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let report = match (&args.source.model, &args.source.checkpoint) {
        (Some(model), _) => of_model(model, args, context)?,
        (None, Some(checkpoint)) => context.on_threads(|| of_reference(checkpoint, args))??,
        (None, None) => unreachable!("clap requires one of them"),
    };
    context.print(&report.logits, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn of_model(path: &Path, args: &Args, context: &Context) -> Result<Report, Failure> {
    let model = open(path, Access::Map)?;
    let mut options = SessionOptions {
        context: Some(args.tokens.len().min(model.config().max_context())),
        kv: args.kv.into(),
        threads: context.session_threads(),
        logits: if args.all { LogitsFor::All } else { LogitsFor::Last },
        isa: cerebellum::isa_from_environment()?,
        ..SessionOptions::default()
    };
    let mut session = threads::with_fewer(&mut options, |options| model.session(options))?;
    let isa = Some(session.isa().name());
    let mut rows = Vec::new();
    session.evaluate_each(&args.tokens, |_, logits| rows.push(logits.to_vec()))?;
    let logits = match args.all {
        true => Logits::All(rows),
        false => Logits::Last(rows.pop().expect("an evaluation gives the last token's logits")),
    };
    Ok(Report { ok: true, isa, logits })
}

fn of_reference(path: &Path, args: &Args) -> Result<Report, Failure> {
    let reference = Reference::load(&Checkpoint::open(path)?)?;
    let logits = if args.all {
        let flat = reference.logits(&args.tokens)?; // (tokens, vocab_size)
        let rows = flat.chunks_exact(reference.config().vocab_size);
        Logits::All(rows.map(<[f32]>::to_vec).collect())
    } else {
        Logits::Last(reference.last_logits(&args.tokens)?)
    };
    Ok(Report { ok: true, isa: None, logits })
}
