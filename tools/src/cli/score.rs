//! `cerebellum score`.

use std::fmt;
use std::process::ExitCode;

use cerebellum::score::Continuations;
use cerebellum::text::EncodeOptions;
use cerebellum::{LogitsFor, SessionOptions};
use cerebellum_tools::scored::Scored;
use cerebellum_tools::threads;
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::prompt::read_prompt;
use super::session::ModelArgs;

/// Compute how probable a text is, or several continuations of one prompt.
///
/// Tokens that several continuations share are evaluated once. Logarithms are natural. Prompt and
/// continuation are tokenized separately: the space before a word belongs to the continuation. Without a
/// prompt, each continuation is a whole text.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The text before the continuations; `-` reads it from standard input; empty at the beginning of a text
    #[arg(short, long, default_value = "", value_name = "TEXT")]
    prompt: String,
    /// A text whose probability to compute; may be given several times
    #[arg(short, long, required = true, value_name = "TEXT")]
    continuation: Vec<String>,
    /// Turn special tokens that are written in a text, such as <|endoftext|>, into these tokens
    #[arg(long)]
    parse_special: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum score -m demo.cbl -p 'Once upon a' -c ' time' -c ' king' -c ' bicycle'
  cerebellum score -m demo.cbl -c 'The perplexity of this text.' --json | jq .perplexity";

/// The JSON object: of the first continuation, and of all.
#[derive(Serialize)]
struct Report {
    ok: bool,
    prompt_tokens: usize,
    #[serde(flatten)]
    first: Scored,
    continuations: Vec<Scored>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, score) in self.continuations.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            let Scored { log_probability, tokens, perplexity, text, .. } = score;
            write!(
                f,
                "{end}{log_probability:.4}  ({tokens} tokens, perplexity {perplexity:.3})  {text:?}"
            )?;
        }
        Ok(())
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    let tokenizer = model.tokenizer()?;
    let options = EncodeOptions { parse_special: args.parse_special, ..Default::default() };
    let prompt = read_prompt(&args.prompt, context)?;
    let mut all_logits = SessionOptions { logits: LogitsFor::All, ..args.model.options(context)? };
    let mut session = threads::with_fewer(&mut all_logits, |options| model.session(options))?;
    let prompt = session.encode(&tokenizer, &prompt, options)?;
    let room = session.context() - prompt.len().min(session.context());
    let ids = args.continuation.iter();
    let ids = ids.map(|text| tokenizer.encode_within(text, options, room));
    let ids: Vec<_> = ids.collect::<Result<_, _>>()?;
    if let Some(i) = ids.iter().position(Vec::is_empty) {
        let text = &args.continuation[i];
        return Err(Failure::from(format!("continuation {text:?} has no tokens; give a text")));
    }
    let tree = Continuations::new(&ids)?;
    let scores = session.score(&prompt, &tree)?;
    let continuations = Scored::all(args.continuation.iter().cloned(), ids, &scores);
    let report = Report {
        ok: true,
        prompt_tokens: session.position(),
        first: continuations[0].clone(),
        continuations,
    };
    context.print(&report, &report)?;
    Ok(ExitCode::SUCCESS)
}
