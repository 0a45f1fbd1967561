//! `cerebellum export-gguf`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cerebellum_tools::chat_template::{self, ImportedChat};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::export_gguf::{Precision, export};
use cerebellum_tools::tokenizer::{self, Vocabulary};
use clap::ValueEnum;
use serde::Serialize;

use super::context::{Context, Failure, Outcome, create_output};
use super::hub::HubArgs;
use super::table::bytes;

/// Write a checkpoint as a GGUF file for llama.cpp.
///
/// Of every family but BTLM and JAIS. This does not quantize weights; llama.cpp's own tools do that. llama.cpp
/// always computes GPT-2 and GPT-NeoX with the tanh GELU, even if the model was trained with another one.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// Directory with config.json and the weights, as downloaded from Hugging Face; or a GGUF file; or a model
    /// on the hub: hf:ORG/NAME[@REVISION], hf:ORG/NAME/FILE.gguf[@REVISION]
    #[arg(value_name = "CHECKPOINT_DIR")]
    checkpoint: PathBuf,
    /// The GGUF file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Type of the stored matrices; vectors and positions are float32
    #[arg(long = "type", value_enum, default_value_t = Type::F16)]
    precision: Type,
    /// Directory or GGUF file with the tokenizer, if it is not in CHECKPOINT_DIR
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    hub: HubArgs,
}

impl Args {
    /// What may be named on the hub.
    pub fn checkpoints(&mut self) -> (&HubArgs, Vec<&mut PathBuf>) {
        (&self.hub, [&mut self.checkpoint].into_iter().chain(&mut self.tokenizer).collect())
    }
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum export-gguf Cerebras-GPT-111M -o 111m.gguf
  cerebellum export-gguf Cerebras-GPT-111M -o 111m-f32.gguf --type f32";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    F16,
    F32,
}

impl From<Type> for Precision {
    fn from(precision: Type) -> Self {
        match precision {
            Type::F16 => Self::F16,
            Type::F32 => Self::F32,
        }
    }
}

/// The JSON object.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    output: &'a str,
    file_bytes: u64,
    tensors: usize,
    warnings: &'a [String],
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let checkpoint = Checkpoint::open(&args.checkpoint)?;
    let tokenizer = read_tokenizer(args)?;
    let mut inputs = checkpoint.files();
    inputs.extend(tokenizer::files(tokenizer_directory(args)));
    let output = create_output(&args.output, args.force, &inputs)?;
    checkpoint.notes().iter().for_each(|note| context.warn(note));
    if tokenizer.is_none() {
        context
            .warn("the checkpoint has no tokenizer: the GGUF file will work with token ids only");
    }

    let vocabulary = tokenizer.as_ref().map(|(vocabulary, _)| vocabulary);
    let chat = chat(args, &checkpoint, tokenizer.as_ref())?;
    let exported = export(&checkpoint, vocabulary, &chat, args.precision.into(), output)?;
    exported.warnings.iter().for_each(|warning| context.warn(warning));
    let output = args.output.display().to_string();
    let (file_bytes, tensors) = (exported.file_bytes, exported.tensors);
    let text = format!("{output}: {tensors} tensors, {}", bytes(file_bytes));
    let warnings = &exported.warnings;
    context.print(text, &Report { ok: true, output: &output, file_bytes, tensors, warnings })?;
    Ok(ExitCode::SUCCESS)
}

/// What the checkpoint says of conversations; nothing without a tokenizer.
fn chat(
    args: &Args,
    checkpoint: &Checkpoint,
    tokenizer: Option<&(Vocabulary, PathBuf)>,
) -> Result<ImportedChat, Failure> {
    let Some((vocabulary, source)) = tokenizer else { return Ok(ImportedChat::default()) };
    let vocab_size = u32::try_from(checkpoint.config().vocab_size).expect("bounded by its check");
    let tables = tokenizer::from_vocabulary(vocabulary.clone(), source, vocab_size)?.blob;
    let path = tokenizer_directory(args);
    Ok(chat_template::import(path, checkpoint.config(), Some(&tables))?)
}

fn tokenizer_directory(args: &Args) -> &Path {
    args.tokenizer.as_ref().unwrap_or(&args.checkpoint)
}

fn read_tokenizer(args: &Args) -> Result<Option<(Vocabulary, PathBuf)>, Failure> {
    match (&args.tokenizer, tokenizer::read(tokenizer_directory(args))?) {
        (Some(path), None) => Err(format!("no tokenizer in {}", path.display()).into()),
        (_, tokenizer) => Ok(tokenizer),
    }
}
