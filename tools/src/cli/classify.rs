//! `cerebellum classify`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Instant;

use cerebellum::classify::{
    Bias, Calibration, Classification, Classifier, ClassifierOptions, Normalization, Template,
};
use cerebellum::{LogitsFor, Session, SessionOptions, TokenizerBytes};
use cerebellum_tools::quantize::Observer;
use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::progress::Progress;
use super::session::ModelArgs;
use super::{Context, Failure, Outcome};

/// Choose the label that fits a text best, for one text or for one on each line.
///
/// Every label is scored as the continuation of the template, all at once. Texts of lines are divided
/// among the threads and come out in order; a line that cannot be classified gives an error in its
/// place, the others go on, and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The labels, separated by commas; or a file with a label on each line
    #[arg(short, long, value_name = "LIST|FILE")]
    labels: String,
    /// What the model continues, with {text} and then {label}; \n stands for a line break
    #[arg(long, default_value = "Utterance: {text}\\nIntent: {label}\\n", value_name = "TEXT")]
    template: String,
    /// A file of examples to show the model, a label, a tab and a text on each line
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// How a label's length counts
    #[arg(long, value_enum, default_value_t)]
    normalization: NormalizationArg,
    /// What is taken off a label's score because the model prefers it whatever the text
    #[arg(long, value_enum, default_value_t)]
    calibration: CalibrationArg,
    /// Classify the lines of a file instead of standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Lines are JSON: an object with the text in `text`, or a string
    #[arg(long, conflicts_with = "text")]
    jsonl: bool,
    /// The text; without it, a text on each line of standard input
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
    /// A score is the log-probability of the whole label
    #[default]
    Sum,
    /// It is divided by the number of the label's tokens
    Mean,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum CalibrationArg {
    /// Nothing
    #[default]
    None,
    /// Its probability behind texts that say nothing (Zhao et al., 2021)
    ContentFree,
    /// Its probability behind the label's line alone (Holtzman et al., 2021)
    MutualInformation,
}

/// The JSON object of a text.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    /// Counted from 1; not there for a text of the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
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

/// The JSON object of a line that cannot be classified.
#[derive(Serialize)]
struct LineFailure {
    ok: bool,
    line: usize,
    error: Message,
}

#[derive(Serialize)]
struct Message {
    message: String,
}

type Labels<'a> = Classifier<'a, TokenizerBytes>;

/// Runs the command.
pub fn run(args: &Args, context: &Context) -> Outcome {
    let model = args.model.open()?;
    let tokenizer = model.tokenizer()?;
    let labels = read_labels(&args.labels)?;
    let classifier = Classifier::new(&tokenizer, &labels, &args.options()?)?;
    let options = SessionOptions { logits: LogitsFor::All, ..args.model.options(context)? };
    if let Some(text) = &args.text {
        let mut session = model.session(&options)?;
        let bias = classifier.calibrate(&mut session)?;
        let start = Instant::now();
        let result = classifier.classify_with(&bias, &mut session, text)?;
        let report = report(&classifier, &result, None, start);
        context.print(describe(&report), &report)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Texts are independent: a thread for each session is faster than all threads for one text.
    let one = SessionOptions { threads: 1, ..options.clone() };
    let sessions = (0..options.threads).map(|_| model.session(&one));
    let mut sessions: Vec<_> = sessions.collect::<Result<_, _>>()?;
    let bias = classifier.calibrate(&mut sessions[0])?;
    let (lines, count): (Box<dyn BufRead + Send>, _) = match &args.file {
        Some(path) => {
            let (reader, count) = open_lines(path)?;
            (Box::new(reader), count)
        }
        None => (Box::new(BufReader::new(io::stdin())), 0),
    };
    // Of standard input nobody knows how much will come.
    let progress = (count > 0).then(|| Progress::new(context));
    progress.iter().for_each(|progress| progress.begin(count));
    let work = Work { classifier: &classifier, bias: &bias, jsonl: args.jsonl, json: context.json };
    let failed = work.run(lines, sessions, progress.as_ref())?;
    drop(progress);
    if failed > 0 {
        context.note(format_args!("error: {failed} lines could not be classified"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn options(&self) -> Result<ClassifierOptions, Failure> {
        let template = self.template.replace("\\n", "\n").replace("\\t", "\t");
        let examples = match &self.examples {
            Some(path) => read_examples(path)?,
            None => Vec::new(),
        };
        Ok(ClassifierOptions {
            template: Template::parse(&template)?,
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

/// A file's lines if there is such a file, or the parts between commas.
fn read_labels(labels: &str) -> Result<Vec<String>, Failure> {
    let path = Path::new(labels);
    let trimmed = |labels: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        labels.map(|label| label.trim().to_owned()).collect()
    };
    if !path.is_file() {
        if !labels.contains(',') && (labels.contains('/') || labels.ends_with(".txt")) {
            return Err(format!("cannot read the labels: there is no file {labels}").into());
        }
        return Ok(trimmed(&mut labels.split(',')));
    }
    let text = read_text(path)?;
    Ok(trimmed(&mut text.lines().filter(|line| !line.trim().is_empty())))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    Ok(text.map_err(|e| format!("cannot read {}: {e}", path.display()))?)
}

fn read_examples(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let text = read_text(path)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let example = |(i, line): (usize, &str)| match line.split_once('\t') {
        Some((label, text)) => Ok((text.trim().to_owned(), label.trim().to_owned())),
        None => {
            let (path, line) = (path.display(), i + 1);
            Err(format!("{path}, line {line}: no tab; write a label, a tab and a text"))
        }
    };
    Ok(lines.map(example).collect::<Result<_, _>>()?)
}

/// A file's lines, and how many there are.
fn open_lines(path: &Path) -> Result<(BufReader<File>, u64), Failure> {
    let fail = |e| format!("cannot read {}: {e}", path.display());
    let mut counted = BufReader::new(File::open(path).map_err(fail)?);
    let mut count = 0;
    loop {
        let buffer = counted.fill_buf().map_err(fail)?;
        if buffer.is_empty() {
            break;
        }
        count += buffer.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let read = buffer.len();
        counted.consume(read);
    }
    Ok((BufReader::new(File::open(path).map_err(fail)?), count))
}

fn report<'a>(
    classifier: &'a Labels,
    result: &Classification,
    line: Option<usize>,
    start: Instant,
) -> Report<'a> {
    let labels = classifier.labels().iter().map(String::as_str);
    Report {
        ok: true,
        line,
        label: &classifier.labels()[result.label],
        probability: result.probability(),
        probabilities: labels.zip(result.probabilities.iter().copied()).collect(),
        milliseconds: start.elapsed().as_secs_f64() * 1e3,
    }
}

fn describe(report: &Report) -> String {
    format!("{}\t{:.4}", report.label, report.probability)
}

/// Classifying lines.
struct Work<'a> {
    classifier: &'a Labels<'a>,
    bias: &'a Bias,
    jsonl: bool,
    json: bool,
}

/// A line of output, and whether it is of an error.
type Output = (String, bool);

impl Work<'_> {
    /// Classifies every line, a thread for each session; returns how many could not be.
    fn run(
        &self,
        lines: Box<dyn BufRead + Send>,
        sessions: Vec<Session>,
        progress: Option<&Progress>,
    ) -> Result<usize, Failure> {
        // Results wait for the one before; so many may wait that no thread does.
        let (sender, receiver) = mpsc::sync_channel::<(usize, Output)>(64 * sessions.len());
        let lines = Mutex::new((0, lines, None));
        std::thread::scope(|scope| {
            for mut session in sessions {
                let (sender, lines) = (sender.clone(), &lines);
                scope.spawn(move || {
                    while let Some((index, line)) = next_line(lines) {
                        let output = self.line(&mut session, index, &line);
                        // Nobody receives any more if writing failed.
                        if sender.send((index, output)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            print_in_order(&receiver, progress).inspect_err(|_| drop(receiver))
        })
        .map_err(Failure::from)
        .and_then(|failed| {
            match lines.into_inner().unwrap_or_else(PoisonError::into_inner).2 {
                Some(error) => Err(format!("cannot read the texts: {error}").into()),
                None => Ok(failed),
            }
        })
    }

    fn line(&self, session: &mut Session, index: usize, line: &[u8]) -> Output {
        let start = Instant::now();
        let line_number = index + 1;
        let result = self
            .text(line)
            .and_then(|text| Ok(self.classifier.classify_with(self.bias, session, &text)?));
        let json = |value: serde_json::Result<String>| value.expect("a report is JSON");
        match result {
            Ok(result) => {
                let report = report(self.classifier, &result, Some(line_number), start);
                let text = match self.json {
                    true => json(serde_json::to_string(&report)),
                    false => describe(&report),
                };
                (text, false)
            }
            Err(failure) => {
                let message = failure.to_string();
                let text = match self.json {
                    true => {
                        let error = Message { message };
                        let failure = LineFailure { ok: false, line: line_number, error };
                        json(serde_json::to_string(&failure))
                    }
                    false => format!("error: line {line_number}: {message}"),
                };
                (text, true)
            }
        }
    }

    fn text(&self, line: &[u8]) -> Result<String, Failure> {
        let line = std::str::from_utf8(line).map_err(|e| format!("not UTF-8 text: {e}"))?;
        if !self.jsonl {
            return Ok(line.to_owned());
        }
        let value = serde_json::from_str::<serde_json::Value>(line);
        let value = value.map_err(|e| format!("not JSON: {e}"))?;
        let text = value.get("text").unwrap_or(&value).as_str();
        Ok(text.ok_or("neither a string nor an object with the text in `text`")?.to_owned())
    }
}

type Lines = Mutex<(usize, Box<dyn BufRead + Send>, Option<io::Error>)>;

/// The next line without its end, and its index.
fn next_line(lines: &Lines) -> Option<(usize, Vec<u8>)> {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    let (next, reader, failure) = &mut *lines;
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Ok(0) => return None,
        Ok(_) => {}
        Err(error) => {
            *failure = Some(error);
            return None;
        }
    }
    for end in [b'\n', b'\r'] {
        line.pop_if(|byte| *byte == end);
    }
    *next += 1;
    Some((*next - 1, line))
}

/// Writes outputs as soon as those before them are there; returns how many are errors.
fn print_in_order(
    receiver: &mpsc::Receiver<(usize, Output)>,
    progress: Option<&Progress>,
) -> io::Result<usize> {
    let (mut waiting, mut next, mut failed) = (BTreeMap::new(), 0, 0);
    for (index, output) in receiver {
        waiting.insert(index, output);
        let mut out = io::stdout().lock();
        while let Some((text, is_error)) = waiting.remove(&next) {
            writeln!(out, "{text}")?;
            failed += usize::from(is_error);
            next += 1;
            progress.iter().for_each(|progress| progress.advance(1));
        }
        out.flush()?;
    }
    Ok(failed)
}
