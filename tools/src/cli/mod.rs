//! The command line. Each command is a file with its arguments (`Args`) and its `run`; what they
//! share, the conventions of `docs/cli.md`, is in `context.rs`.

mod bench;
mod chat;
mod check;
mod classify;
mod color;
mod completions;
mod context;
mod demo;
mod doctor;
mod embed;
mod eval;
mod eval_task;
mod export_gguf;
mod file_text;
mod generate;
mod generate_lines;
mod hub;
mod inspect;
mod interrupt;
mod kv;
mod lines;
mod logits;
mod man;
mod measure;
mod plan;
mod progress;
mod prompt;
mod quantize;
mod report;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod session;
mod table;
mod template;
mod text_file;
mod tokenize;
mod translate;
mod values;
mod verify;
mod version;

use std::io::{self, Write};
use std::process::ExitCode;

use cerebellum::terminal;
use cerebellum::threads::MAX_WORKERS;
use cerebellum_tools::threads;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use context::{Context, Failure, failed, try_print_json};

/// Quantize GPT models into one file, and run such files.
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
  cerebellum quantize hf:HuggingFaceTB/SmolLM2-135M-Instruct -o smollm2.cbl
  cerebellum generate -m 111m.cbl -p 'Generative AI is'
  cerebellum classify -m demo.cbl -l alarm,timer,weather 'wake me up at six'
  cerebellum translate -m demo.cbl 'I am hungry.'
  cerebellum chat -m 111m.cbl
  cerebellum inspect 111m.cbl --json
  cerebellum eval -m 111m.cbl --text book.txt --reference Cerebras-GPT-111M

Exit codes:
  0    done
  1    failed: the reason is on standard error (with --json also on standard output)
  2    wrong usage
  130  interrupted; no partial output stays
  141  standard output was closed early

Environment:
  CEREBELLUM_ISA    forces an instruction set; `cerebellum doctor` lists those available
  CEREBELLUM_MODEL  the model file, if -m is not given
  HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE
                    for checkpoints named hf:ORG/NAME, as for Python's huggingface_hub
  NO_COLOR, CLICOLOR_FORCE
                    whether to use colours, unless --color is given";

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Quantize(quantize::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Plan(plan::Args),
    Generate(generate::Args),
    Chat(chat::Args),
    Check(check::Args),
    Classify(classify::Args),
    Score(score::Args),
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    /// Refused by name: this program was built without it
    #[cfg(not(feature = "serve"))]
    #[command(hide = true)]
    Serve {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    Translate(translate::TranslateArgs),
    Summarize(translate::SummarizeArgs),
    Embed(embed::Args),
    Tokenize(tokenize::Args),
    Doctor(doctor::Args),
    Logits(logits::Args),
    Eval(eval::Args),
    EvalTask(eval_task::Args),
    Bench(bench::Args),
    ExportGguf(export_gguf::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Parses the arguments, runs the command, reports its failure.
pub fn main() -> ExitCode {
    color::choose();
    let Cli { context, mut command } = parse().unwrap_or_else(|error| wrong_usage(&error));
    ignore_file_size_signal();
    spare_address_space();
    let quiet = context.quiet;
    threads::on_shortage(move |shortage| Context::warn_unless(quiet, shortage));
    let outcome = interrupt::handle(&context);
    let outcome = outcome.and_then(|()| locate_checkpoints(&mut command, &context));
    let outcome = outcome.and_then(|()| match command {
        Command::Demo(args) => demo::run(&args, &context),
        Command::Quantize(args) => quantize::run(&args, &context),
        Command::Inspect(args) => inspect::run(&args, &context),
        Command::Verify(args) => verify::run(&args, &context),
        Command::Plan(args) => plan::run(&args, &context),
        Command::Generate(args) => generate::run(&args, &context),
        Command::Chat(args) => chat::run(&args, &context),
        Command::Check(args) => check::run(&args, &context),
        Command::Classify(args) => classify::run(&args, &context),
        Command::Score(args) => score::run(&args, &context),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(&args, &context),
        #[cfg(not(feature = "serve"))]
        Command::Serve { .. } => {
            Err("this program was built without the server, as by `cargo demo`; `cargo install --locked --path tools` installs one with it".into())
        }
        Command::Translate(args) => translate::translate(&args, &context),
        Command::Summarize(args) => translate::summarize(&args, &context),
        Command::Embed(args) => embed::run(&args, &context),
        Command::Tokenize(args) => tokenize::run(&args, &context),
        Command::Doctor(args) => doctor::run(&args, &context),
        Command::Logits(args) => logits::run(&args, &context),
        Command::Eval(args) => eval::run(&args, &context),
        Command::EvalTask(args) => eval_task::run(&args, &context),
        Command::Bench(args) => bench::run(&args, &context),
        Command::ExportGguf(args) => export_gguf::run(&args, &context),
        Command::Completions(args) => completions::run(&args, &context, description()),
        Command::Man(args) => man::run(&args, &context, description()),
    });
    outcome.unwrap_or_else(|failure| context.fail(&failure))
}

/// Puts paths in place of all names on the hub (`hf:ORG/NAME`), for every command that reads checkpoints.
fn locate_checkpoints(command: &mut Command, context: &Context) -> Result<(), Failure> {
    let (hub, checkpoints) = match command {
        Command::Quantize(args) => args.checkpoints(),
        Command::Logits(args) => args.checkpoints(),
        Command::Eval(args) => args.checkpoints(),
        Command::EvalTask(args) => args.checkpoints(),
        Command::ExportGguf(args) => args.checkpoints(),
        _ => return Ok(()),
    };
    hub.locate(checkpoints, context)
}

/// The command line's description, with what is known only when it runs.
fn description() -> clap::Command {
    // A negative number after an option is its value, which says what is allowed, and no option itself.
    let negative = |argument: clap::Arg| {
        let has_value = !argument.is_positional() && argument.get_action().takes_values();
        if has_value { argument.allow_negative_numbers(true) } else { argument }
    };
    let command = Cli::command().long_version(version::long());
    command.mut_args(negative).mut_subcommands(|subcommand| subcommand.mut_args(negative))
}

fn parse() -> Result<Cli, clap::Error> {
    let cli = Cli::from_arg_matches(&description().try_get_matches()?)?;
    if cli.context.threads.len() > 1 && !matches!(cli.command, Command::Bench(_)) {
        let error = "only `bench` takes several numbers of threads";
        return Err(description().error(clap::error::ErrorKind::TooManyValues, error));
    }
    let most = cli.context.threads.iter().copied().max().unwrap_or(1);
    if usize::from(most) > MAX_WORKERS && !matches!(cli.command, Command::Quantize(_)) {
        let error = format!(
            "invalid value '{most}' for '--threads <N>': {most} is not in 1..={MAX_WORKERS}"
        );
        return Err(description().error(clap::error::ErrorKind::ValueValidation, error));
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
