//! What every command uses: the options that all commands take, and how results and failures reach the
//! user.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cerebellum::terminal;
use cerebellum::threads::MAX_WORKERS;
use cerebellum_tools::output::{self, Output};
use cerebellum_tools::threads;
use serde::Serialize;

use super::{color, values};

/// Exit code beside 0, 1, clap's 2 and that of [`interrupt`], as a shell reports the signal.
const BROKEN_PIPE: u8 = 141;

/// The options that every command takes.
#[derive(Debug, clap::Args)]
pub struct Context {
    /// Print one JSON object on standard output instead of text, also for an error
    #[arg(long, global = true)]
    pub json: bool,
    /// Number of threads, 1 to 64 (`quantize`: 1024) [default: one for each processor]; `bench` accepts
    /// several numbers
    #[arg(short, long, global = true, value_name = "N", value_delimiter = ',', value_parser = values::whole(1..=1024u16))]
    pub threads: Vec<u16>,
    /// Print no progress and no warnings
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Whether to use colours [default: auto]
    #[arg(long, global = true, value_name = "WHEN", value_enum)]
    color: Option<color::When>,
}

/// Why a command failed; its text goes to the user as it is.
pub type Failure = Box<dyn Error + Send + Sync>;
/// What a command's `run` returns.
pub type Outcome = Result<ExitCode, Failure>;

impl Context {
    /// Prints a result on standard output: `text`, or `json` if that was asked for.
    pub fn print(&self, text: impl Display, json: &impl Serialize) -> Result<(), Failure> {
        Ok(self.try_print(text, json)?)
    }

    pub fn try_print(&self, text: impl Display, json: &impl Serialize) -> io::Result<()> {
        if self.json { try_print_json(json) } else { print_text(&format!("{text}\n")) }
    }

    /// Threads of a session: as many as were asked for, or one for each processor.
    pub fn session_threads(&self) -> usize {
        self.thread_count().min(MAX_WORKERS)
    }

    /// Every number of threads that was asked for, or the one of [`Self::session_threads`].
    pub fn thread_counts(&self) -> Vec<usize> {
        match self.threads.as_slice() {
            [] => vec![self.session_threads()],
            counts => counts.iter().copied().map(usize::from).collect(),
        }
    }

    /// Prints a remark on standard error.
    pub fn note(&self, remark: impl Display) {
        if !self.quiet {
            color::print_to_stderr(None, remark);
        }
    }

    /// Prints a warning on standard error.
    pub fn warn(&self, warning: impl Display) {
        Self::warn_unless(self.quiet, warning);
    }

    /// As [`warn`](Self::warn), for who outlives the context.
    pub fn warn_unless(quiet: bool, warning: impl Display) {
        if !quiet {
            color::print_to_stderr(Some(color::WARNING), warning);
        }
    }

    pub fn fail(&self, failure: &Failure) -> ExitCode {
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
    pub fn thread_count(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.first().copied().map_or_else(processors, usize::from)
    }

    /// Runs `work` on a rayon pool of as many threads as were asked for.
    pub fn on_threads<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
        Ok(threads::pool(self.thread_count())?.install(work))
    }
}

/// Whether standard output was closed early.
pub fn is_broken_pipe(failure: &Failure) -> bool {
    failure.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
}

/// The message for the user. Where the library names its functions, this names options instead.
pub fn explain(failure: &Failure) -> String {
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
            let what = format!("the tokens of a text of {bytes} bytes (at least {tokens})");
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
pub fn create_output(path: &Path, force: bool, inputs: &[PathBuf]) -> Result<Output, Failure> {
    use cerebellum::output::OutputError::Exists;
    Output::create(path, force, inputs).map_err(|error| match error {
        output::Error::File(Exists { .. }) => {
            format!("{error}, or overwrite it with --force").into()
        }
        error => error.into(),
    })
}

/// The JSON object of a failure.
pub fn failed(message: &str) -> serde_json::Value {
    serde_json::json!({ "ok": false, "error": { "message": message } })
}

pub fn try_print_json(json: &impl Serialize) -> io::Result<()> {
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
pub fn print_text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    terminal::write(&mut stdout, text)?;
    stdout.flush()
}
