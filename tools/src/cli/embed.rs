//! `cerebellum embed`.

use std::process::ExitCode;

use cerebellum::Pooling;
use cerebellum::text::EncodeOptions;
use clap::ValueEnum;
use serde::Serialize;

use super::session::ModelArgs;
use super::{Context, Failure, Outcome};

/// Turn a text into a vector of length 1: texts that mean the like point the like way.
///
/// The vector is the model's hidden state behind the last layer norm, of all tokens or of the last one.
/// A model that was not trained for it compares topics more than meanings.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// How the tokens' vectors become one
    #[arg(long, value_enum, default_value_t)]
    pooling: PoolingArg,
    /// The text
    text: String,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum embed -m demo.cbl 'set an alarm for six' --json | jq -c '.embedding[:4]'
  cerebellum embed -m demo.cbl --pooling last 'set an alarm for six'";

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PoolingArg {
    /// Their mean
    #[default]
    Mean,
    /// The last one, which has seen all the others
    Last,
}

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    tokens: usize,
    embedding: Vec<f32>,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    let tokens = model.tokenizer()?.encode(&args.text, EncodeOptions::default())?;
    if tokens.is_empty() {
        return Err(Failure::from("an empty text has no embedding; give a text"));
    }
    let mut session = model.session(&args.model.options(context)?)?;
    let mut embedding = vec![0.0; model.config().n_embd];
    let pooling = match args.pooling {
        PoolingArg::Mean => Pooling::Mean,
        PoolingArg::Last => Pooling::Last,
    };
    session.embed(&tokens, pooling, &mut embedding)?;
    let report = Report { ok: true, tokens: tokens.len(), embedding };
    let text: Vec<_> = report.embedding.iter().map(f32::to_string).collect();
    context.print(text.join(" "), &report)?;
    Ok(ExitCode::SUCCESS)
}
