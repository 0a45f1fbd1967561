//! `cerebellum chat`.

mod command;
mod conversation;
mod input;
mod roles;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cerebellum::Session;
use cerebellum::generate::{GenerateOptions, Generation, StopReason};
use cerebellum_tools::{output, threads};
use serde::Serialize;

use self::command::{Command, HELP};
use self::conversation::{Answered, Conversation, save};
use self::input::{Input, Line};
use self::roles::Roles;
use super::context::{Context, Failure, Outcome, is_broken_pipe};
use super::generate::{FormArgs, RoleArgs, SamplingArgs, Stream, speeds};
use super::interrupt::Cancellable;
use super::session::ModelArgs;
use super::values::{stop, unescape};

/// Answer line by line, continuing the whole conversation so far.
///
/// If the model file has a chat template, your lines and the model's answers are messages in this template. An
/// answer ends where the model ends its turn.
///
/// Without a chat template, and with --template or --prompt, your lines and the answers become one text, which
/// the model continues. --template puts each line into a form that the model knows.
///
/// On a terminal you can edit lines and recall earlier ones; Ctrl-C stops an answer; /help lists commands.
/// Without a terminal the command reads lines from standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    roles: RoleArgs,
    /// Continue a text, and put each line into this form; {text} stands for the line, and \n, \t and \\ are as
    /// in --stop
    #[arg(long, value_name = "TEXT", value_parser = template, conflicts_with_all = ["system", "date", "thinking"])]
    template: Option<String>,
    /// Continue a text with this beginning
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["system", "date", "thinking"])]
    prompt: Option<String>,
    /// Forget the conversation before each line
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// End an answer before this string; \n stands for a line break, \t for a tab and \\ for a backslash. May
    /// be given several times
    #[arg(long, value_name = "TEXT", value_parser = stop)]
    stop: Vec<String>,
    #[command(flatten)]
    form: FormArgs,
    /// Keep your lines in this file for the next time [default: cerebellum/history in the directory for the
    /// state of programs]
    #[arg(long, value_name = "FILE", env = "CEREBELLUM_HISTORY")]
    history: Option<PathBuf>,
    /// Do not keep lines for the next time
    #[arg(long, conflicts_with = "history")]
    no_history: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum chat -m smollm2.cbl --system 'Answer in one sentence.'
  cerebellum chat -m demo.cbl --temperature 0.7 --repetition-penalty 1.1 -n 60
  cerebellum chat -m demo.cbl --template 'English: {text}\\nFrench:' --stop '\\n' --forget
  cerebellum chat -m demo.cbl --template 'Utterance: {text}\\nIntent:' --forget --json < lines.txt";

/// Where a line goes in a template.
const PLACE: &str = "{text}";

fn template(argument: &str) -> Result<String, String> {
    if !argument.contains(PLACE) {
        return Err(format!("the template has no {PLACE}"));
    }
    Ok(unescape(argument))
}

/// The JSON object of an answer.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    text: &'a str,
    prompt_tokens: usize,
    reused_tokens: usize,
    tokens: usize,
    stop_reason: &'static str,
    prompt_tokens_per_second: f64,
    decode_tokens_per_second: f64,
}

/// What the commands of a chat change.
struct Chat<'a> {
    args: &'a Args,
    context: &'a Context,
    conversation: Talk,
    options: GenerateOptions,
    /// Set by Ctrl-C while the model answers.
    cancel: Arc<AtomicBool>,
    threads: usize,
    /// Of the last answer, with the tokens before it that were evaluated earlier.
    generation: Option<(Generation, usize)>,
}

/// A conversation of either kind.
enum Talk {
    Text(Box<Conversation>),
    Roles(Box<Roles>),
}

impl Talk {
    fn new(args: &Args, session: Session) -> Result<Self, Failure> {
        let model = session.model().clone();
        let tokenizer = Arc::new(model.tokenizer()?);
        let form = args.form.form(false)?;
        let is_text = args.template.is_some() || args.prompt.is_some();
        let asks_for_roles = args.roles.are_given() || form.is_some();
        if is_text || (model.header().chat.is_none() && !asks_for_roles) {
            if form.is_some() {
                return Err(
                    "--choices, --regex and --json-schema need the model's chat template".into()
                );
            }
            let prompt = args.prompt.as_deref().unwrap_or_default();
            let conversation = Conversation::new(session, tokenizer, prompt);
            return Ok(Self::Text(Box::new(conversation)));
        }
        let chat = args.roles.chat(&model, &tokenizer)?;
        Ok(Self::Roles(Box::new(Roles::new(session, chat, &tokenizer, form)?)))
    }

    fn session(&self) -> &Session {
        match self {
            Self::Text(it) => it.session(),
            Self::Roles(it) => it.session(),
        }
    }

    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(it) => it.text().into(),
            Self::Roles(it) => it.text().into(),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Text(it) => it.clear(),
            Self::Roles(it) => it.clear(),
        }
    }

    fn say(&mut self, line: &str, template: Option<&String>) -> Result<(), Failure> {
        match (self, template) {
            (Self::Text(it), Some(template)) => it.say(&template.replace(PLACE, line)),
            (Self::Text(it), None) => it.say(line),
            (Self::Roles(it), _) => it.say(line)?,
        }
        Ok(())
    }

    fn undo(&mut self) -> Result<(), Failure> {
        match self {
            Self::Text(it) => it.undo(),
            Self::Roles(it) => it.undo(),
        }
    }

    fn take_back_answer(&mut self) -> Result<(), Failure> {
        match self {
            Self::Text(it) => it.take_back_answer(),
            Self::Roles(it) => it.take_back_answer(),
        }
    }

    fn answer(
        &mut self,
        options: &GenerateOptions,
        stream: &mut Stream,
    ) -> Result<Answered, Failure> {
        match self {
            Self::Text(it) => it.answer(options, stream),
            Self::Roles(it) => it.answer(options, stream),
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    let mut options = args.model.options(context)?;
    let mut session = threads::with_fewer(&mut options, |options| model.session(options))?;
    let cancel = Arc::new(AtomicBool::new(false));
    session.cancel_by(Arc::clone(&cancel));
    let mut chat = Chat {
        args,
        context,
        conversation: Talk::new(args, session)?,
        options: GenerateOptions {
            max_tokens: args.sampling.max_tokens,
            sampler: args.sampling.sampler(),
            stop: args.stop.clone(),
            ..GenerateOptions::default()
        },
        cancel,
        threads: options.threads,
        generation: None,
    };
    if let Some(history) = &args.history {
        output::refuse_inputs(history, &[args.model.path()])?;
    }
    let mut input = Input::new(args.history.as_deref(), args.no_history || context.json)?;
    if input.is_terminal() {
        context.note("/help lists the commands, /quit or Ctrl-D ends");
    }
    let mut failed = false;
    while let Some(line) = input.next()? {
        let done = match line {
            Line::Command(line) => match chat.follow(&line) {
                Ok(true) => break,
                result => result.map(drop),
            },
            Line::Text(text) => chat.answer(&text),
            Line::Unreadable(why) => Err(format!("a line was left out: {why}").into()),
        };
        // A line that fails leaves the conversation as it was: the next one may do better.
        if let Err(failure) = done {
            failed = true;
            if is_broken_pipe(&failure) {
                return Err(failure);
            }
            context.fail(&failure);
        }
    }
    Ok(if failed && !input.is_terminal() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Chat<'_> {
    /// Lets the model answer a line.
    fn answer(&mut self, line: &str) -> Result<(), Failure> {
        if self.args.forget {
            self.conversation.clear();
        }
        self.conversation.say(line, self.args.template.as_ref())?;
        self.go_on()
    }

    /// Lets the model go on from where the conversation is.
    fn go_on(&mut self) -> Result<(), Failure> {
        let mut stream =
            Stream { text: String::new(), to_stdout: !self.context.json, failure: None };
        let cancellable = Cancellable::by(&self.cancel);
        let generation = self.conversation.answer(&self.options, &mut stream);
        drop(cancellable);
        let Answered { generation, reused_tokens, remark } = generation?;
        if let Some(remark) = remark {
            self.context.note(remark);
        }
        if generation.stop_reason == StopReason::Cancelled {
            self.context.note("(stopped)");
        }
        if self.context.json {
            let report = Report {
                ok: true,
                text: &stream.text,
                prompt_tokens: generation.prompt_tokens,
                reused_tokens,
                tokens: generation.tokens,
                stop_reason: generation.stop_reason.name(),
                prompt_tokens_per_second: generation.prompt_tokens_per_second(),
                decode_tokens_per_second: generation.decode_tokens_per_second(),
            };
            self.context.print("", &report)?;
        }
        self.generation = Some((generation, reused_tokens));
        Ok(())
    }

    /// Follows a command; true if it ends the chat.
    fn follow(&mut self, line: &str) -> Result<bool, Failure> {
        match Command::parse(line)? {
            Command::Help => self.context.note(HELP),
            Command::Quit => return Ok(true),
            Command::Reset => self.conversation.clear(),
            Command::Undo => self.conversation.undo()?,
            Command::Retry => {
                self.conversation.take_back_answer()?;
                self.options.sampler.seed = self.options.sampler.seed.wrapping_add(1);
                self.go_on()?;
            }
            Command::More => self.go_on()?,
            Command::Show => self.context.note(&*self.conversation.text()),
            Command::Save(path) => self.save(path.as_ref())?,
            Command::Statistics => self.statistics(),
            Command::Set { name, value } => {
                let mut options = self.options.clone();
                command::set(&mut options, name, value)?;
                self.options = options;
            }
            Command::Settings => self.context.note(command::settings(&self.options)),
        }
        Ok(false)
    }

    /// Writes what was said to a new file.
    fn save(&self, path: &Path) -> Result<(), Failure> {
        let mut inputs = vec![self.args.model.path()];
        inputs.extend(self.args.history.as_deref());
        save(&self.conversation.text(), path, &inputs)?;
        self.context.note(format_args!("saved to {}", path.display()));
        Ok(())
    }

    fn statistics(&self) {
        let session = self.conversation.session();
        if let Some((generation, reused)) = &self.generation {
            let speeds = speeds(generation, session, self.threads);
            self.context
                .note(format_args!("{speeds}; the session still had {reused} earlier tokens"));
        }
        let (position, context) = (session.position(), session.context());
        self.context.note(format_args!("{position} of {context} positions are used"));
    }
}
