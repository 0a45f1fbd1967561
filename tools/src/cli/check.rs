//! `cerebellum check`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cerebellum_tools::json;
use cerebellum_tools::receipt::{Receipt, Verdict, model_digest};
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::session::ModelArgs;

/// Check a receipt: whether a model would have said exactly that.
///
/// A receipt comes from `generate --receipt`, or from a server that was asked for one. The model reads prompt and
/// text in one pass, on any processor. Exit code 1 if it would have said something else; the message says from
/// which token on.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The receipt
    receipt: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum generate -m demo.cbl -p 'Once upon a time' --receipt story.json
  cerebellum check story.json -m demo.cbl";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    /// What is not so, if anything.
    message: String,
    tokens: usize,
    /// From which token on the model says something else, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    parts_at: Option<usize>,
    milliseconds: f64,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let name = args.receipt.display();
    let text = fs::read(&args.receipt);
    let text = text.map_err(|error| format!("cannot read the receipt {name}: {error}"))?;
    let receipt: Receipt =
        json::parse(&text).map_err(|error| format!("{name} is no receipt: {error}"))?;
    let model = args.model.open()?;
    let file = args.model.file();
    let start = Instant::now();
    let digest = context
        .on_threads(|| model_digest(file))?
        .map_err(|error| Failure::from(format!("cannot read {}: {error}", file.display())))?;
    let options = args.model.options(context)?;
    let verdict = context.on_threads(|| receipt.check(&model, &digest, &options))??;
    let text = |token: Option<u32>| -> Result<String, Failure> {
        let Some(token) = token else { return Ok("the end of the text".to_owned()) };
        let tokenizer = model.tokenizer()?;
        let bytes = tokenizer.table().token_bytes(token).unwrap_or_default();
        Ok(format!("{:?} (token {token})", String::from_utf8_lossy(bytes)))
    };
    let tokens = receipt.tokens();
    let (message, parts_at) = match verdict {
        Verdict::Same => (format!("the model says exactly that: {tokens} tokens"), None),
        Verdict::OtherModel => {
            ("the receipt is of another model file than the one that is given".to_owned(), None)
        }
        Verdict::Parts { at, said, would } => {
            let (said, would) = (text(said)?, text(would)?);
            (
                format!("from token {at} on: the receipt has {said}, the model says {would}"),
                Some(at),
            )
        }
        Verdict::OtherLogits => {
            let message = "the model says these tokens, but with other probabilities than the receipt tells of";
            (message.to_owned(), None)
        }
        Verdict::OtherEnd => {
            let message = "the model says these tokens, but the text does not end there for the reason that the \
                           receipt names";
            (message.to_owned(), None)
        }
    };
    let ok = verdict == Verdict::Same;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    context.print(
        &message,
        &Report { ok, message: message.clone(), tokens, parts_at, milliseconds },
    )?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
