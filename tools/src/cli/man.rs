//! `cerebellum man`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_mangen::Man;
use serde::Serialize;

use super::context::{Context, Failure, Outcome, create_output};

/// Write the manual pages, one for each command.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The directory for the pages
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Replace existing pages
    #[arg(long)]
    force: bool,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum man ~/.local/share/man/man1
  man cerebellum-quantize";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    files: Vec<String>,
}

/// Runs the command; `main` describes the command line.
pub fn run(args: &Args, context: &Context, mut main: clap::Command) -> Outcome {
    std::fs::create_dir_all(&args.directory)
        .map_err(|e| format!("cannot create {}: {e}", args.directory.display()))?;
    let mut files = Vec::new();
    let mut page = |command: clap::Command| -> Result<(), Failure> {
        let man = Man::new(command);
        let path = args.directory.join(man.get_filename());
        write(&man, &path, args.force)?;
        files.push(path.display().to_string());
        Ok(())
    };
    main.build();
    for command in main.get_subcommands().filter(|c| c.get_name() != "help") {
        // The name of a page, and what its synopsis begins with.
        let name = format!("cerebellum-{}", command.get_name());
        page(command.clone().name(name.clone()).display_name(name))?;
    }
    page(main)?;
    let report = Report { ok: true, files };
    context.print(report.files.join("\n"), &report)?;
    Ok(ExitCode::SUCCESS)
}

fn write(man: &Man, path: &Path, overwrite: bool) -> Result<(), Failure> {
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut output = create_output(path, overwrite, &[])?;
    let written = output.file().write_all(&page);
    written.map_err(|e| output.error("write", e))?;
    Ok(output.commit()?)
}
