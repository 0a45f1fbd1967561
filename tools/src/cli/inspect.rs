//! `cerebellum inspect`.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use cerebellum::format::{Access, FileLayout, Header, ModelBytes, read_header};
use cerebellum::terminal::name;
use cerebellum_tools::summary::{Summary, TensorSummary, choice_of};
use serde::Serialize;

use super::context::{Context, Failure, Outcome};
use super::file_text::TextReport;
use super::session::{FileArgs, refuse_checkpoint};
use super::table::{Table, bytes};

/// Show the contents of a model file.
///
/// This reads only the header; `verify` checks all bytes.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    file: FileArgs,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum inspect 111m.cbl
  cerebellum inspect 111m.cbl --json | jq .bits_per_weight";

/// The JSON object.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    #[serde(flatten)]
    summary: &'a Summary,
    #[serde(flatten)]
    text: &'a TextReport,
}

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let (file, header, layout) = open(args.file.path())?;
    let summary = Summary::new(&header, &layout, file.len() as u64);
    let text = TextReport::new(file.get()?, &header, &layout);
    let report = Report { ok: true, summary: &summary, text: &text };
    context.print(describe(&summary, &text), &report)?;
    Ok(ExitCode::SUCCESS)
}

/// Opens a model file, with everything checked that opening checks; errors name the file.
pub fn open(path: &Path) -> Result<(ModelBytes, Header, FileLayout), Failure> {
    refuse_checkpoint(path)?;
    let file = ModelBytes::open(path, Access::Map)?;
    let (header, layout) =
        read_header(file.get()?).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok((file, header, layout))
}

fn describe(summary: &Summary, of_text: &TextReport) -> String {
    let config = to_value(&summary.config).expect("plain fields");
    let mut text = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        writeln!(text, "{name:<32}{value}").expect("strings can grow");
    };
    for (field, value) in config.as_object().into_iter().flatten() {
        line(field, value);
    }
    line("parameters", &summary.parameters);
    line("bits per weight", &format_args!("{:.3}", summary.bits_per_weight));
    line("file", &bytes(summary.file_bytes));
    if !summary.templates.is_empty() {
        line("templates", &summary.templates.join(", "));
    }
    line("tokenizer", &summary.tokenizer_bytes.map_or("none".into(), |n| bytes(n as u64)));
    for (name, value) in of_text.lines() {
        line(name, &value);
    }
    if let Some(source) = &summary.source {
        line("source", &name(&source.digest));
        line("source's weights", &bytes(source.bytes));
    }
    line("quantizer", &summary.record());
    format!("{text}\n{}", tensor_table(summary).to_string().trim_end())
}

/// Through text, so that a float32 keeps its short form instead of becoming a longer float64.
fn to_value(value: &impl Serialize) -> serde_json::Result<serde_json::Value> {
    serde_json::from_str(&serde_json::to_string(value)?)
}

/// A row for each matrix, one for the positions, one for all vectors. If formats were chosen by their
/// cost, with the divergence that each alone is expected to cost.
pub fn tensor_table(summary: &Summary) -> Table {
    let choices = summary.choices();
    let mut head = vec!["tensor", "shape", "scheme", "bits/weight", "relative error"];
    head.extend(choices.iter().flat_map(|_| ["KL alone"]));
    let mut table = Table::new(&head);
    let cost = |tensor: &str| {
        choices.map(|choices| {
            let cost = choice_of(choices, tensor, "kl");
            cost.map_or(String::new(), |cost| name(&cost.to_string()).to_string())
        })
    };
    let (vectors, others): (Vec<&TensorSummary>, Vec<_>) =
        summary.tensors.iter().partition(|tensor| tensor.shape.len() == 1);
    for tensor in others {
        let cells = [
            tensor.name.clone(),
            tensor.shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x "),
            tensor.group_size.map_or(tensor.scheme.into(), |g| format!("{} / {g}", tensor.scheme)),
            format!("{:.3}", tensor.bits_per_weight),
            tensor.relative_error.map_or(String::new(), |e| format!("{:.3} %", 100.0 * e)),
        ];
        table.push(cells.into_iter().chain(cost(&tensor.name)));
    }
    let elements: usize = vectors.iter().map(|tensor| tensor.elements()).sum();
    let cells = [
        format!("{} vectors", vectors.len()),
        elements.to_string(),
        "float32".into(),
        "32.000".into(),
        String::new(),
    ];
    table.push(cells.into_iter().chain(cost("")));
    table
}
