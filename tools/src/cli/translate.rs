//! `cerebellum translate` and `cerebellum summarize`.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::process::ExitCode;

use cerebellum::batch::Next;
use cerebellum::task::{Task, TaskResult};
use cerebellum::{Model, SessionOptions, TokenizerBytes};
use cerebellum_tools::threads;
use serde::Serialize;

use super::context::{Context, Failure, Outcome, print_text};
use super::lines::LinesArgs;
use super::session::ModelArgs;
use super::template;
use super::text_file;
use super::values::whole;

/// Translate a text, or the text on each line.
///
/// A template is the prompt of the task: `translate` in the model file or, if there is none, a built-in
/// template with examples from English to French. --from and --to choose other languages. A text that does
/// not fit into the context is cut between sentences. With texts on lines, the threads share the lines, and
/// results come in the order of the lines. For a line that fails, the result is an error; the other lines go
/// on, and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = TRANSLATE_HELP)]
pub struct TranslateArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// A template: its text with {text} in it, a file, or a name (docs/templates.md)
    #[arg(long, value_name = "TEXT|FILE|NAME", conflicts_with_all = ["from", "to"])]
    template: Option<String>,
    /// The language of the text: en, fr, de or es [default: en]
    #[arg(long, value_name = "LANGUAGE")]
    from: Option<String>,
    /// The language to translate to [default: fr]
    #[arg(long, value_name = "LANGUAGE")]
    to: Option<String>,
    /// The whole file, or all of standard input, is one text
    #[arg(long, conflicts_with_all = ["text", "jsonl"])]
    whole: bool,
}

const TRANSLATE_HELP: &str = "\
Examples:
  cerebellum translate -m demo.cbl 'I am hungry.'
  cerebellum translate -m demo.cbl --file sentences.txt --json
  cerebellum translate -m 1.3b.cbl --from en --to de 'Where is the station?'
  cerebellum translate -m 1.3b.cbl --whole --template mine.txt < letter.txt";

/// Summarize a text.
///
/// A template is the prompt of the task: `summarize` in the model file or, if there is none, a built-in
/// template that ends the text with `TL;DR:`. A text that does not fit into the context is cut between
/// sentences, and each part is summarized.
#[derive(Debug, clap::Args)]
#[command(after_help = SUMMARIZE_HELP)]
pub struct SummarizeArgs {
    #[command(flatten)]
    task: TaskArgs,
    /// A template: its text with {text} in it, a file, or a name (docs/templates.md)
    #[arg(long, value_name = "TEXT|FILE|NAME", default_value = "summarize")]
    template: String,
    /// Each line of the file, or of standard input, is a text
    #[arg(long, conflicts_with = "text")]
    by_line: bool,
}

const SUMMARIZE_HELP: &str = "\
Examples:
  cerebellum summarize -m 1.3b.cbl < article.txt
  cerebellum summarize -m 1.3b.cbl --file article.txt --json
  cerebellum summarize -m 1.3b.cbl --jsonl --json < articles.jsonl";

/// What both take.
#[derive(Debug, clap::Args)]
struct TaskArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    lines: LinesArgs,
    /// Seed of the random choices, if the template makes any
    #[arg(long, default_value_t = 0, value_name = "S", value_parser = whole(0..=u64::MAX))]
    seed: u64,
    /// The most tokens of each result; the template may set fewer
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// The text; `-` is all of standard input as one text. Without it, the text or texts come from standard
    /// input
    text: Option<String>,
}

/// The JSON object of a text.
#[derive(Serialize)]
struct Report {
    ok: bool,
    text: String,
    parts: usize,
    split: bool,
    cut: usize,
    text_tokens: usize,
    prompt_tokens: usize,
    tokens: usize,
    stop_reason: &'static str,
    milliseconds: f64,
}

/// Runs `translate`.
pub fn translate(args: &TranslateArgs, context: &Context) -> Outcome {
    let name = match (&args.template, &args.from, &args.to) {
        (Some(template), ..) => template.clone(),
        (None, None, None) => "translate".to_owned(),
        (None, from, to) => {
            let from = from.as_deref().unwrap_or("en");
            match (from, to.as_deref().unwrap_or("fr")) {
                // The one that needs no name of its own.
                ("en", "fr") => "translate".to_owned(),
                (from, to) => format!("translate-{from}-{to}"),
            }
        }
    };
    args.task.run(&name, !args.whole, context)
}

/// Runs `summarize`.
pub fn summarize(args: &SummarizeArgs, context: &Context) -> Outcome {
    args.task.run(&args.template, args.by_line || args.task.lines.jsonl, context)
}

impl TaskArgs {
    fn run(&self, template: &str, by_line: bool, context: &Context) -> Outcome {
        let model = self.model.open()?;
        let tokenizer = model.tokenizer()?;
        let template = template::template(&model, self.model.file(), template)?;
        let mut task = Task::for_model(&model, &tokenizer, template)?;
        task.set_seed(self.seed);
        if let Some(most) = self.max_tokens {
            task.set_max_tokens(most as usize);
        }
        let options = self.model.options(context)?;
        match &self.text {
            Some(text) => one_text(&task, &model, &options, &text_file::argument(text)?, context),
            None if by_line => self.by_line(&task, &model, &options, context),
            None => one_text(&task, &model, &options, &self.lines.read_whole()?, context),
        }
    }

    fn by_line(
        &self,
        task: &Task<TokenizerBytes>,
        model: &Model,
        options: &SessionOptions,
        context: &Context,
    ) -> Outcome {
        self.lines.answer_in_batches(context, (model, options), |batch, lines| {
            // Which line each text is.
            let numbers = RefCell::new(Vec::new());
            let next = |may_wait| loop {
                match lines.next(may_wait) {
                    Next::Job((number, Ok(line))) => {
                        numbers.borrow_mut().push(number);
                        return Next::Job(line.text);
                    }
                    Next::Job((number, Err(failure))) => {
                        if lines.tell(number, Err(failure)).is_break() {
                            return Next::End;
                        }
                    }
                    Next::Later => return Next::Later,
                    Next::End => return Next::End,
                }
            };
            let done = |text: usize, result: cerebellum::Result<TaskResult>| {
                let number = numbers.borrow()[text];
                // A result of one line for each line.
                let answer = result.map(|it| (it.text.replace('\n', " "), report(&it)));
                lines.tell(number, answer.map_err(Failure::from))
            };
            Ok(task.run_each(batch, next, done)?)
        })
    }
}

fn one_text(
    task: &Task<TokenizerBytes>,
    model: &Model,
    options: &SessionOptions,
    text: &str,
    context: &Context,
) -> Outcome {
    let mut options = options.clone();
    let mut session = threads::with_fewer(&mut options, |options| model.session(options))?;
    let mut failure = None;
    let result = task.run(&mut session, text, |piece| {
        let written = match context.json {
            true => Ok(()),
            false => print_text(piece),
        };
        failure = written.err();
        if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    if context.json {
        context.print("", &report(&result))?;
    } else {
        print_text("\n")?;
    }
    remark(&result, session.context(), context);
    Ok(ExitCode::SUCCESS)
}

/// Says what the reader of the result ought to know.
fn remark(result: &TaskResult, context_size: usize, context: &Context) {
    if result.split {
        context.note(format_args!(
            "the text has {} tokens and was cut into {} parts, each of which fits into the context of \
             {context_size}",
            result.text_tokens, result.parts
        ));
    }
    if result.cut > 0 {
        context.warn(format_args!(
            "{} of {} results reached the most tokens, or the end of the context, and were cut; allow more \
             with --max-tokens, max-tokens in the template or --context",
            result.cut, result.parts
        ));
    }
}

fn report(result: &TaskResult) -> Report {
    Report {
        ok: true,
        text: result.text.clone(),
        parts: result.parts,
        split: result.split,
        cut: result.cut,
        text_tokens: result.text_tokens,
        prompt_tokens: result.prompt_tokens,
        tokens: result.tokens,
        stop_reason: result.stop_reason.name(),
        milliseconds: result.seconds * 1e3,
    }
}
