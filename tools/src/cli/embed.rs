//! `cerebellum embed`.

use std::process::ExitCode;

use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{Pooling, Session, SessionOptions, TokenizerBytes};
use cerebellum_tools::threads;
use clap::ValueEnum;
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::lines::LinesArgs;
use super::session::ModelArgs;
use super::text_file;

/// Turn a text, or each line, into a vector of length 1; similar texts have similar vectors.
///
/// The vector is the model's hidden state after the last layer norm, of all tokens or of the last one. With a
/// model that was not trained for this, texts about the same topic are similar, even if their meanings
/// differ.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// How to combine the vectors of the tokens
    #[arg(long, value_enum, default_value_t)]
    pooling: PoolingArg,
    #[command(flatten)]
    lines: LinesArgs,
    /// The text; `-` is all of standard input. Without it, each line of standard input is a text
    text: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum embed -m demo.cbl 'set an alarm for six' --json | jq -c '.embedding[:4]'
  cerebellum embed -m demo.cbl --pooling last 'set an alarm for six'
  cerebellum embed -m demo.cbl --file texts.txt --json > embeddings.jsonl";

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PoolingArg {
    /// Their mean
    #[default]
    Mean,
    /// The vector of the last token, which depends on all tokens
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
    let tokenizer = model.tokenizer()?;
    let mut options = args.model.options(context)?;
    let pooling = match args.pooling {
        PoolingArg::Mean => Pooling::Mean,
        PoolingArg::Last => Pooling::Last,
    };
    if let Some(text) = &args.text {
        let text = text_file::argument(text)?;
        let mut session = threads::with_fewer(&mut options, |options| model.session(options))?;
        let report = embed(&mut session, &tokenizer, pooling, &text)?;
        context.print(describe(&report), &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Texts are independent: a thread for each session is faster than all threads for one text.
    let one = SessionOptions { threads: 1, ..options.clone() };
    let sessions = (0..options.threads).map(|_| model.session(&one)).collect::<Result<_, _>>()?;
    args.lines.answer(context, sessions, |session, text| {
        let report = embed(session, &tokenizer, pooling, text)?;
        Ok((describe(&report), report))
    })
}

fn embed(
    session: &mut Session,
    tokenizer: &Tokenizer<TokenizerBytes>,
    pooling: Pooling,
    text: &str,
) -> Result<Report, Failure> {
    session.reset();
    let tokens = session.encode(tokenizer, text, EncodeOptions::default())?;
    if tokens.is_empty() {
        return Err(Failure::from("an empty text has no embedding; give a text"));
    }
    let mut embedding = vec![0.0; session.model().config().n_embd];
    session.embed(&tokens, pooling, &mut embedding)?;
    Ok(Report { ok: true, tokens: tokens.len(), embedding })
}

fn describe(report: &Report) -> String {
    report.embedding.iter().map(f32::to_string).collect::<Vec<_>>().join(" ")
}
