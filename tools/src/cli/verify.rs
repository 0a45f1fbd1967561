//! `cerebellum verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use cerebellum::format::{Architecture, CHECKSUMS, verify};
use cerebellum_tools::summary::Summary;
use serde::Serialize;

use super::inspect::open;
use super::{Context, Outcome};

/// Check every byte of a model file against its checksums.
///
/// Fails if a tensor is damaged, and names it. The checksums guard against accidents, not against
/// somebody who changes them too.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The model file
    file: PathBuf,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum verify 111m.cbl && scp 111m.cbl device:
  cerebellum verify 111m.cbl --json";

/// The JSON object.
#[derive(Serialize)]
struct Report {
    ok: bool,
    architecture: Architecture,
    parameters: u64,
    tensors: Vec<TensorReport>,
}

#[derive(Serialize)]
struct TensorReport {
    name: String,
    ok: bool,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (file, header, layout) = open(&args.file)?;
    let faults = verify(file.get()?, &layout);
    // Opening checked the checksums themselves.
    let tensors = layout.tensors().iter().filter(|tensor| tensor.name != CHECKSUMS);
    let tensors = tensors.map(|tensor| TensorReport {
        name: tensor.name.clone(),
        ok: faults.iter().all(|fault| fault.tensor != tensor.name),
    });
    let report = Report {
        ok: faults.is_empty(),
        architecture: header.config.architecture,
        parameters: Summary::new(&header, &layout, file.len() as u64).parameters,
        tensors: tensors.collect(),
    };
    let path = args.file.display();
    let mut text = match faults.len() {
        0 => format!("{path}: ok, {} tensors", report.tensors.len()),
        n => format!("{path}: {n} of {} tensors are damaged:", report.tensors.len()),
    };
    for fault in &faults {
        let (tensor, expected, found) = (&fault.tensor, fault.expected, fault.found);
        text += &format!("\n  {tensor}: checksum {found:08x} instead of {expected:08x}");
    }
    context.print(text, &report)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
