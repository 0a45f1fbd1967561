//! The command line. Each command is a file with its arguments (`Args`) and its `run`; what they
//! share, the conventions of `docs/cli.md`, is here.

mod bench;
mod chat;
mod classify;
mod color;
mod completions;
mod demo;
mod doctor;
mod embed;
mod eval;
mod eval_task;
mod export_gguf;
mod generate;
mod generate_lines;
mod inspect;
mod interrupt;
mod kv;
mod lines;
mod logits;
mod man;
mod measure;
mod plan;
mod progress;
mod quantize;
mod report;
mod score;
mod session;
mod table;
mod template;
mod text_file;
mod translate;
mod values;
mod verify;
mod version;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cerebellum::terminal;
use cerebellum::threads::MAX_WORKERS;
use cerebellum_tools::output::{self, Output};
use cerebellum_tools::threads;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde::Serialize;

/// Exit code beside 0, 1, clap's 2 and that of [`interrupt`], as a shell reports the signal.
const BROKEN_PIPE: u8 = 141;

/// Quantize GPT models to one file, and run such files.
#[derive(Debug, Parser)]
#[command(name = "cerebellum", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum demo
  cerebellum quantize Cerebras-GPT-111M -o 111m.cbl
  cerebellum generate -m 111m.cbl -p 'Generative AI is'
  cerebellum classify -m demo.cbl -l alarm,timer,weather 'wake me up at six'
  cerebellum translate -m demo.cbl 'I am hungry.'
  cerebellum chat -m 111m.cbl
  cerebellum inspect 111m.cbl --json
  cerebellum eval -m 111m.cbl --text book.txt --reference Cerebras-GPT-111M

Exit codes:
  0    done
  1    failed: the reason is on standard error (with --json on standard output, too)
  2    wrong usage
  130  interrupted; no partial output is left behind
  141  standard output was closed early

Environment:
  CEREBELLUM_ISA    forces an instruction set; `cerebellum doctor` lists those available
  CEREBELLUM_MODEL  the model file, where -m is not given
  NO_COLOR, CLICOLOR_FORCE
                    whether to use colours, unless --color tells";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Quantize(quantize::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Plan(plan::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Classify(classify::Args),
    Score(score::Args),
    Translate(translate::TranslateArgs),
    Summarize(translate::SummarizeArgs),
    Embed(embed::Args),
    Doctor(doctor::Args),
    Logits(logits::Args),
    Eval(eval::Args),
    EvalTask(eval_task::Args),
    Bench(bench::Args),
    ExportGguf(export_gguf::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The options that every command takes.
#[derive(Debug, clap::Args)]
struct Context {
    /// Print one JSON object on standard output instead of text, in case of an error too
    #[arg(long, global = true)]
    json: bool,
    /// Number of threads, 1 to 64 (`quantize`: 1024) [default: one for each processor]; `bench` takes
    /// several numbers
    #[arg(short, long, global = true, value_name = "N", value_delimiter = ',', value_parser = values::whole(1..=1024u16))]
    threads: Vec<u16>,
    /// Print no progress and no warnings
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Whether to use colours [default: auto]
    #[arg(long, global = true, value_name = "WHEN", value_enum)]
    color: Option<color::When>,
}

/// Why a command failed; its text goes to the user as it is.
type Failure = Box<dyn Error + Send + Sync>;
/// What a command's `run` returns.
type Outcome = Result<ExitCode, Failure>;

/// Parses the arguments, runs the command, reports its failure.
pub fn main() -> ExitCode {
    color::choose();
    let Cli { context, command } = parse().unwrap_or_else(|error| wrong_usage(&error));
    ignore_file_size_signal();
    spare_address_space();
    let quiet = context.quiet;
    threads::on_shortage(move |shortage| Context::warn_unless(quiet, shortage));
    let outcome = interrupt::handle(&context).and_then(|()| match command {
        Command::Demo(args) => demo::run(&args, &context),
        Command::Quantize(args) => quantize::run(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::Verify(args) => verify::run(&args, &context),
        Command::Plan(args) => plan::run(&args, &context),
        Command::Generate(args) => generate::run(&args, &context),
        Command::Chat(args) => chat::run(&args, &context),
        Command::Classify(args) => classify::run(&args, &context),
        Command::Score(args) => score::run(&args, &context),
        Command::Translate(args) => translate::translate(&args, &context),
        Command::Summarize(args) => translate::summarize(&args, &context),
        Command::Embed(args) => embed::run(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Logits(args) => logits::run(&args, &context),
        Command::Eval(args) => eval::run(&args, &context),
        Command::EvalTask(args) => eval_task::run(&args, &context),
        Command::Bench(args) => bench::run(&args, &context),
        Command::ExportGguf(args) => export_gguf::run(&args, &context),
        Command::Completions(args) => completions::run(&args, &context),
        Command::Man(args) => man::run(&args, &context),
    });
    outcome.unwrap_or_else(|failure| context.fail(&failure))
}

/// The command line's description, with what is known only when it runs.
fn command() -> clap::Command {
    // A negative number after an option is its value, which says what is allowed, and no option itself.
    let negative = |argument: clap::Arg| {
        let has_value = !argument.is_positional() && argument.get_action().takes_values();
        if has_value { argument.allow_negative_numbers(true) } else { argument }
    };
    let command = Cli::command().long_version(version::long());
    command.mut_args(negative).mut_subcommands(|subcommand| subcommand.mut_args(negative))
}

fn parse() -> Result<Cli, clap::Error> {
    let cli = Cli::from_arg_matches(&command().try_get_matches()?)?;
    if cli.context.threads.len() > 1 && !matches!(cli.command, Command::Bench(_)) {
        let error = "only `bench` takes several numbers of threads";
        return Err(command().error(clap::error::ErrorKind::TooManyValues, error));
    }
    let most = cli.context.threads.iter().copied().max().unwrap_or(1);
    if usize::from(most) > MAX_WORKERS && !matches!(cli.command, Command::Quantize(_)) {
        let error = format!(
            "invalid value '{most}' for '--threads <N>': {most} is not in 1..={MAX_WORKERS}"
        );
        return Err(command().error(clap::error::ErrorKind::ValueValidation, error));
    }
    Ok(cli)
}

/// Reports wrong usage, or prints the help that was asked for; then ends.
fn wrong_usage(error: &clap::Error) -> ! {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        // The first paragraph is the error, the rest repeats the usage.
        let text = error.to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim();
        let message = message.trim_start_matches("error: ");
        let _ = try_print_json(&failed(message));
    }
    // Without styles. A text that was taken for an option is in it, too.
    let plain = error.render().to_string();
    let escaped = terminal::text(&plain).to_string();
    if error.use_stderr() && escaped != plain {
        let _ = io::stderr().write_all(escaped.as_bytes());
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Whether standard output was closed early.
fn is_broken_pipe(failure: &Failure) -> bool {
    failure.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// What to tell the user: where the library speaks of its calls, what the command line can do.
fn explain(failure: &Failure) -> String {
    use cerebellum::Error::{ContextFull, TextTooLong};
    let does_not_fit = |what: String, room: usize| {
        format!(
            "{what} do not fit into a context with room for {room}; shorten the text, or give a \
             larger --context if the model allows it"
        )
    };
    match failure.downcast_ref() {
        Some(ContextFull { tokens, position, context }) => {
            return does_not_fit(format!("{tokens} tokens"), context - position);
        }
        Some(TextTooLong { bytes, tokens, position, context }) => {
            let what = format!("the at least {tokens} tokens of a text of {bytes} bytes");
            return does_not_fit(what, context.saturating_sub(*position));
        }
        _ => {}
    }
    // All other files' errors name the file.
    match failure.downcast_ref::<io::Error>() {
        Some(error) => format!("cannot write to standard output: {error}"),
        None => failure.to_string(),
    }
}

/// Creates an output that replaces a file with `--force`.
fn create_output(path: &Path, force: bool, inputs: &[PathBuf]) -> Result<Output, Failure> {
    use cerebellum::output::OutputError::Exists;
    Output::create(path, force, inputs).map_err(|error| match error {
        output::Error::File(Exists { .. }) => {
            format!("{error}, or overwrite it with --force").into()
        }
        error => error.into(),
    })
}

/// The JSON object of a failure.
fn failed(message: &str) -> serde_json::Value {
    serde_json::json!({ "ok": false, "error": { "message": message } })
}

fn try_print_json(json: &impl Serialize) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        terminal::write(&mut stdout, &serde_json::to_string(json)?)?;
    } else {
        serde_json::to_writer(&mut stdout, json)?;
    }
    writeln!(stdout)?;
    stdout.flush()
}

/// Prints a text on standard output, at once. On a terminal it gives no orders to it.
fn print_text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    terminal::write(&mut stdout, text)?;
    stdout.flush()
}

/// glibc reserves 64 MiB of addresses for each thread's own heap. Under a limit on addresses (`ulimit -v`) all
/// threads share one instead, or small allocations fail, which end the process, while most of the limit is
/// reserved for nothing.
fn spare_address_space() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
        // SAFETY: `limit` is a place for the result.
        let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
        if known && limit.rlim_cur != libc::RLIM_INFINITY {
            // SAFETY: may be called at any time; no other thread is there yet to allocate.
            unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        }
    }
}

/// Lets a write beyond the limit on file sizes (`ulimit -f`) fail as on a full disk, instead of ending
/// the process with its output half written.
fn ignore_file_size_signal() {
    #[cfg(unix)]
    // SAFETY: `signal` may be called at any time, and ignoring a signal runs no handler of ours.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

impl Context {
    /// Prints a result on standard output: `text`, or `json` if that was asked for.
    fn print(&self, text: impl Display, json: &impl Serialize) -> Result<(), Failure> {
        Ok(self.try_print(text, json)?)
    }

    fn try_print(&self, text: impl Display, json: &impl Serialize) -> io::Result<()> {
        if self.json { try_print_json(json) } else { print_text(&format!("{text}\n")) }
    }

    /// Threads of a session: as many as were asked for, or one for each processor.
    fn session_threads(&self) -> usize {
        self.thread_count().min(MAX_WORKERS)
    }

    /// Every number of threads that was asked for, or the one of [`Self::session_threads`].
    fn thread_counts(&self) -> Vec<usize> {
        match self.threads.as_slice() {
            [] => vec![self.session_threads()],
            counts => counts.iter().copied().map(usize::from).collect(),
        }
    }

    /// Prints a remark on standard error.
    fn note(&self, remark: impl Display) {
        if !self.quiet {
            color::print_to_stderr(None, remark);
        }
    }

    /// Prints a warning on standard error.
    fn warn(&self, warning: impl Display) {
        Self::warn_unless(self.quiet, warning);
    }

    /// As [`warn`](Self::warn), for who outlives the context.
    fn warn_unless(quiet: bool, warning: impl Display) {
        if !quiet {
            color::print_to_stderr(Some(color::WARNING), warning);
        }
    }

    fn fail(&self, failure: &Failure) -> ExitCode {
        if is_broken_pipe(failure) {
            return ExitCode::from(BROKEN_PIPE);
        }
        let message = explain(failure);
        color::print_to_stderr(Some(color::ERROR), &message);
        if self.json {
            let _ = try_print_json(&failed(&message));
        }
        ExitCode::FAILURE
    }

    /// How many threads to use.
    fn thread_count(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.first().copied().map_or_else(processors, usize::from)
    }

    /// Runs `work` on a rayon pool of as many threads as were asked for.
    fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        Ok(threads::pool(self.thread_count())?.install(work))
    }
}
