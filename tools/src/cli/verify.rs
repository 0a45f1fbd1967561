//! `cerebellum verify`.

use std::process::ExitCode;

use cerebellum::classify;
use cerebellum::format::{Architecture, CHECKSUMS, verify};
use cerebellum::template::Template;
use cerebellum_tools::summary::Summary;
use serde::Serialize;

use super::context::{Context, Outcome};
use super::file_text::check_chat;
use super::inspect::open;
use super::session::FileArgs;

/// Check every byte of a model file against its checksums, and check its templates, that for conversations included.
///
/// The command fails if a tensor is damaged or a template is invalid, and names it. The checksums protect
/// against accidents, not against somebody who changes the checksums, too.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
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
    templates: Vec<TemplateReport>,
    /// The way to put conversations, if the file has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    chat: Option<ChatReport>,
}

#[derive(Serialize)]
struct ChatReport {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct TensorReport {
    name: String,
    ok: bool,
}

#[derive(Serialize)]
struct TemplateReport {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Reads a template of the file.
fn check_template(name: &str, text: &str) -> TemplateReport {
    // One that is for labels is not for results.
    let is_sound = |_: &cerebellum::Error| classify::Template::parse(text).is_ok();
    let error = text.parse::<Template>().err().filter(|error| !is_sound(error));
    let message = error.map(|error| error.to_string());
    TemplateReport { name: name.to_owned(), ok: message.is_none(), message }
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (file, header, layout) = open(args.file.path())?;
    let faults = verify(file.get()?, &layout);
    // Opening checked the checksums themselves.
    let tensors = layout.tensors().iter().filter(|tensor| tensor.name != CHECKSUMS);
    let tensors = tensors.map(|tensor| TensorReport {
        name: tensor.name.clone(),
        ok: faults.iter().all(|fault| fault.tensor != tensor.name),
    });
    let templates: Vec<_> =
        header.templates.iter().map(|(name, text)| check_template(name, text)).collect();
    let chat = check_chat(file.get()?, &header, &layout);
    let chat = chat.map(|chat| ChatReport { ok: chat.is_ok(), message: chat.err() });
    let report = Report {
        ok: faults.is_empty()
            && templates.iter().all(|template| template.ok)
            && chat.as_ref().is_none_or(|chat| chat.ok),
        architecture: header.config.architecture,
        parameters: Summary::new(&header, &layout, file.len() as u64).parameters,
        tensors: tensors.collect(),
        templates,
        chat,
    };
    let path = args.file.path().display();
    let mut text = match faults.len() {
        0 if report.ok => format!("{path}: ok, {} tensors", report.tensors.len()),
        0 => format!("{path}: all {} tensors are ok, but a template is not:", report.tensors.len()),
        n => format!("{path}: {n} of {} tensors are damaged:", report.tensors.len()),
    };
    for fault in &faults {
        let (tensor, expected, found) = (&fault.tensor, fault.expected, fault.found);
        text += &format!("\n  {tensor}: checksum {found:08x} instead of {expected:08x}");
    }
    for TemplateReport { name, message, .. } in &report.templates {
        if let Some(message) = message {
            text += &format!("\n  template {name:?} cannot be used: {message}");
        }
    }
    if let Some(ChatReport { message: Some(message), .. }) = &report.chat {
        text += &format!("\n  the chat template cannot be used: {message}");
    }
    context.print(text, &report)?;
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
