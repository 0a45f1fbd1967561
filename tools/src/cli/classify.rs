//! `cerebellum classify`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use cerebellum::classify::{
    Calibration, Classification, Classifier, ClassifierOptions, Normalization, Template,
};
use cerebellum::{LogitsFor, Model, SessionOptions, TokenizerBytes};
use cerebellum_tools::threads;
use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::context::{Context, Failure, Outcome};
use super::lines::{LinesArgs, read_list};
use super::session::ModelArgs;
use super::template::template_text;
use super::text_file::{self, Source};

/// Choose the most probable label of a text, or of the text on each line.
///
/// The score of a label is its probability as the continuation of the template. With texts on lines, the
/// threads share the lines, and results come in the order of the lines. For a line that cannot be classified,
/// the result is an error; the other lines go on, and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The labels, separated by commas; or a file with one label on each line, which must exist if the value
    /// looks like a file name
    #[arg(short, long, value_name = "LIST|FILE")]
    labels: String,
    /// The text that the model continues, with {text} and then {label}; \n stands for a line break. Or a file
    /// with such a text, or the name of a template in the model file
    #[arg(long, default_value = "classify", value_name = "TEXT|FILE|NAME")]
    template: String,
    /// A file of examples to put before the text; each line has a label, a tab and a text
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// How the number of a label's tokens affects its score
    #[arg(long, value_enum, default_value_t)]
    normalization: NormalizationArg,
    /// What to subtract from a label's score, because the model prefers some labels for any text
    #[arg(long, value_enum, default_value_t)]
    calibration: CalibrationArg,
    #[command(flatten)]
    lines: LinesArgs,
    /// The text; `-` is all of standard input. Without it, each line of standard input is a text
    text: Option<String>,
}

const AFTER_HELP: &str = "\
Examples:
  cerebellum classify -m demo.cbl -l alarm,timer,weather 'wake me up at six'
  cerebellum classify -m demo.cbl -l intents.txt --json < utterances.txt
  cerebellum classify -m 111m.cbl -l positive,negative \\
    --template 'Review: {text}\\nSentiment: {label}' --examples shots.tsv \\
    --calibration content-free --file reviews.txt --json";

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum NormalizationArg {
    /// The score is the log-probability of the whole label
    #[default]
    Sum,
    /// The log-probability is divided by the number of the label's tokens
    Mean,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CalibrationArg {
    /// Nothing
    #[default]
    None,
    /// Its log-probability after texts without content (Zhao et al., 2021)
    ContentFree,
    /// Its log-probability after the label's line alone (Holtzman et al., 2021)
    MutualInformation,
}

/// The JSON object of a text.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    label: &'a str,
    probability: f64,
    #[serde(serialize_with = "as_map")]
    probabilities: Vec<(&'a str, f64)>,
    milliseconds: f64,
}

/// In the order of the labels.
fn as_map<S: Serializer>(pairs: &[(&str, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().copied())
}

type Labels<'a> = Classifier<'a, TokenizerBytes>;

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    let tokenizer = model.tokenizer()?;
    let labels = read_list(&args.labels, "labels")?;
    let classifier = Classifier::for_model(&model, &tokenizer, &labels, &args.options(&model)?)?;
    let mut options = SessionOptions { logits: LogitsFor::All, ..args.model.options(context)? };
    if let Some(text) = &args.text {
        let text = text_file::argument(text)?;
        let mut session = threads::with_fewer(&mut options, |options| model.session(options))?;
        let bias = classifier.calibrate(&mut session)?;
        let start = Instant::now();
        let result = classifier.classify_with(&bias, &mut session, &text)?;
        let report = report(&classifier, &result, start);
        context.print(describe(&report), &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Texts are independent: a thread for each session is faster than all threads for one text.
    let one = SessionOptions { threads: 1, ..options.clone() };
    let sessions = (0..options.threads).map(|_| model.session(&one));
    let mut sessions: Vec<_> = sessions.collect::<Result<_, _>>()?;
    let bias = classifier.calibrate(&mut sessions[0])?;
    args.lines.answer(context, sessions, |session, text| {
        let start = Instant::now();
        let result = classifier.classify_with(&bias, session, text)?;
        let report = report(&classifier, &result, start);
        Ok((describe(&report), report))
    })
}

impl Args {
    fn options(&self, model: &Model) -> Result<ClassifierOptions, Failure> {
        let examples = match &self.examples {
            Some(path) => read_examples(path)?,
            None => Vec::new(),
        };
        Ok(ClassifierOptions {
            template: self.template(model)?,
            examples,
            normalization: match self.normalization {
                NormalizationArg::Sum => Normalization::Sum,
                NormalizationArg::Mean => Normalization::Mean,
            },
            calibration: match self.calibration {
                CalibrationArg::None => Calibration::None,
                CalibrationArg::ContentFree => Calibration::ContentFree,
                CalibrationArg::MutualInformation => Calibration::MutualInformation,
            },
        })
    }
}

impl Args {
    fn template(&self, model: &Model) -> Result<Template, Failure> {
        if self.template == "classify" && !Path::new(&self.template).is_file() {
            return Ok(Template::for_model(model)?);
        }
        Ok(Template::parse(&template_text(model, &self.template)?)?)
    }
}

fn read_examples(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let text = text_file::plain(Source::File(path))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let example = |(i, line): (usize, &str)| match line.split_once('\t') {
        Some((label, text)) => Ok((text.trim().to_owned(), label.trim().to_owned())),
        None => {
            let (path, line) = (path.display(), i + 1);
            Err(format!("line {line} of {path} has no tab; write a label, a tab and a text"))
        }
    };
    Ok(lines.map(example).collect::<Result<_, _>>()?)
}

fn report<'a>(classifier: &'a Labels, result: &Classification, start: Instant) -> Report<'a> {
    let labels = classifier.labels().iter().map(String::as_str);
    Report {
        ok: true,
        label: &classifier.labels()[result.label],
        probability: result.probability(),
        probabilities: labels.zip(result.probabilities.iter().copied()).collect(),
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
    }
}

fn describe(report: &Report) -> String {
    format!("{}\t{:.4}", report.label, report.probability)
}
