//! `cerebellum completions`.

use std::process::ExitCode;

use clap_complete::Shell;
use serde::Serialize;

use super::context::{Context, Outcome};

/// Print the completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum completions bash > ~/.local/share/bash-completion/completions/cerebellum
  cerebellum completions zsh > ~/.zfunc/_cerebellum
  cerebellum completions fish > ~/.config/fish/completions/cerebellum.fish";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    shell: String,
    script: String,
}

/// Runs the command; `command` describes the command line.
pub fn run(args: &Args, context: &Context, mut command: clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "cerebellum", &mut script);
    let script = String::from_utf8(script)?;
    let report = Report { ok: true, shell: args.shell.to_string(), script };
    context.print(report.script.trim_end(), &report)?;
    Ok(ExitCode::SUCCESS)
}
