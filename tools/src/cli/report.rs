//! The report that `quantize` writes beside the file it makes.

use std::path::{Path, PathBuf};

use cerebellum::KvType;
use cerebellum::text::Tokenizer;
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::eval::Windows;
use cerebellum_tools::output::Output;
use cerebellum_tools::report::Report;

use super::context::{Context, Failure, create_output};
use super::measure::{Plan, Subject, describe_text, encode, write_page};
use super::text_file;

/// Tokens in a window: the protocol of `docs/quality.md`.
const WINDOW: usize = 512;

/// Whether and how a report is written.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Write a report on the loss of quality: one HTML file that needs no other file
    #[arg(long, value_name = "HTML", conflicts_with = "dry_run")]
    report: Option<PathBuf>,
    /// A text on which to compare FILE with the checkpoint in float32, for the report; without it, the report
    /// has only the errors of the weights
    #[arg(long, value_name = "TEXT", requires = "report")]
    report_text: Option<PathBuf>,
}

/// A report to be written once the file is there: all that can be wrong with it is known.
pub struct Pending {
    output: Output,
    text: Option<Measurable>,
}

/// A text, cut into windows.
struct Measurable {
    path: PathBuf,
    text: String,
    windows: Windows,
}

impl ReportArgs {
    /// The file that is read for the report.
    pub fn input(&self) -> Option<&Path> {
        self.report_text.as_deref()
    }

    /// Checks everything before the long work. The report may replace an older one if `overwrite` is
    /// set, and none of `inputs`.
    pub fn prepare(
        &self,
        overwrite: bool,
        inputs: &[PathBuf],
        (checkpoint, tokenizer): (&Checkpoint, Option<&[u8]>),
        context: &Context,
    ) -> Result<Option<Pending>, Failure> {
        let Some(path) = &self.report else { return Ok(None) };
        let output = create_output(path, overwrite, inputs)?;
        let read = |path| Measurable::read(path, (checkpoint, tokenizer), context);
        let text = self.input().map(read).transpose()?;
        Ok(Some(Pending { output, text }))
    }
}

impl Measurable {
    fn read(
        path: &Path,
        (checkpoint, tokenizer): (&Checkpoint, Option<&[u8]>),
        context: &Context,
    ) -> Result<Self, Failure> {
        let text = text_file::exact(text_file::Source::of(path), context)?;
        let tokenizer = tokenizer.ok_or(
            "a report on a text needs the model's tokenizer: put tokenizer.json beside the weights, or name \
             its directory with --tokenizer",
        )?;
        let tokenizer = Tokenizer::parse(tokenizer)?;
        let tokens = encode(&tokenizer, &text)?;
        let windows = Windows::new(tokens, checkpoint.config().n_positions.min(WINDOW));
        let windows = windows.map_err(|e| format!("{}: {e}", path.display()))?;
        let windows = windows.beginning_with(tokenizer.table().begin_of_text());
        Ok(Self { path: path.to_owned(), text, windows })
    }
}

impl Pending {
    /// Measures the file made from `checkpoint`, and writes the report.
    pub fn write(
        self,
        file: &Path,
        checkpoint: &Checkpoint,
        context: &Context,
    ) -> Result<(), Failure> {
        let subjects = [Subject::open(file)?];
        let kv = KvType::F16;
        let measurement = match &self.text {
            None => None,
            Some(Measurable { windows, .. }) => {
                let plan = Plan {
                    subjects: &subjects,
                    kv,
                    reference: Some(checkpoint),
                    ablation: true,
                    windows,
                };
                plan.run(context)?.of_subjects.pop()
            }
        };
        let models = vec![subjects[0].measured(kv, measurement)?];
        let text = self.text.map(|t| describe_text(&t.path, &t.text, &t.windows));
        write_page(self.output, &Report { text, models }.html())
    }
}
