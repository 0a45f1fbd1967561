//! Texts on lines, divided among threads; results on lines, in the same order.
//!
//! A line that fails gives an error in its place and the others go on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, mpsc};

use cerebellum_tools::quantize::Observer;
use serde::Serialize;

use super::progress::Progress;
use super::{Context, Failure, Outcome};

/// Where texts come from, if not from the command line.
#[derive(Debug, clap::Args)]
pub struct LinesArgs {
    /// Take the lines of a file instead of standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Lines are JSON: an object with the text in `text`, or a string
    #[arg(long, conflicts_with = "text")]
    pub jsonl: bool,
}

/// A report, and the line that it is of.
#[derive(Serialize)]
struct LineReport<R> {
    #[serde(flatten)]
    report: R,
    /// Counted from 1.
    line: usize,
}

impl LinesArgs {
    /// All of the file or of standard input, as one text.
    pub fn read_whole(&self) -> Result<String, Failure> {
        let (name, mut text) = (self.name(), String::new());
        let read = match &self.file {
            Some(path) => File::open(path).and_then(|mut file| file.read_to_string(&mut text)),
            None => io::stdin().lock().read_to_string(&mut text),
        };
        read.map_err(|e| format!("cannot read {name}: {e}"))?;
        Ok(text)
    }

    fn name(&self) -> String {
        self.file.as_ref().map_or("standard input".to_owned(), |path| path.display().to_string())
    }

    /// Answers every line, with a thread for each of the `workers`, by a line of text, and a report that
    /// takes its place with `--json`.
    ///
    /// The exit code is 1 if a line failed.
    pub fn answer<W: Send, R: Serialize>(
        &self,
        context: &Context,
        workers: Vec<W>,
        answer: impl Fn(&mut W, &str) -> Result<(String, R), Failure> + Sync,
    ) -> Outcome {
        let (lines, count): (Box<dyn BufRead + Send>, _) = match &self.file {
            Some(path) => {
                let (reader, count) = open_lines(path)?;
                (Box::new(reader), Some(count))
            }
            None => (Box::new(BufReader::new(io::stdin())), None),
        };
        let progress = match count {
            Some(count) => {
                let progress = Progress::new(context);
                progress.begin(count);
                progress
            }
            // Of standard input nobody knows how much will come.
            None => Progress::without_end(context, "lines"),
        };
        let work = Work { jsonl: self.jsonl, json: context.json, answer };
        let failed = work.run(lines, workers, &progress)?;
        drop(progress);
        if failed > 0 {
            context.note(format_args!("error: {failed} lines failed"));
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A file's lines if there is such a file, or the parts between commas; `what` names them in messages.
pub fn read_list(list: &str, what: &str) -> Result<Vec<String>, Failure> {
    let path = Path::new(list);
    let trimmed = |parts: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        parts.map(|part| part.trim().to_owned()).collect()
    };
    if !path.is_file() {
        if !list.contains(',') && (list.contains('/') || list.ends_with(".txt")) {
            return Err(format!("cannot read the {what}: there is no file {list}").into());
        }
        return Ok(trimmed(&mut list.split(',')));
    }
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(trimmed(&mut text.lines().filter(|line| !line.trim().is_empty())))
}

/// A file's lines, and how many there are.
fn open_lines(path: &Path) -> Result<(BufReader<File>, u64), Failure> {
    let fail = |e| format!("cannot read {}: {e}", path.display());
    let mut counted = BufReader::new(File::open(path).map_err(fail)?);
    let (mut count, mut last) = (0, b'\n');
    loop {
        let buffer = counted.fill_buf().map_err(fail)?;
        let Some(&end) = buffer.last() else { break };
        count += buffer.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let read = buffer.len();
        last = end;
        counted.consume(read);
    }
    let count = count + u64::from(last != b'\n');
    Ok((BufReader::new(File::open(path).map_err(fail)?), count))
}

/// Answering lines.
struct Work<F> {
    jsonl: bool,
    json: bool,
    answer: F,
}

/// A line of output, and whether it is of an error.
type Output = (String, bool);

impl<F> Work<F> {
    /// Answers every line, a thread for each worker; returns how many failed.
    fn run<W: Send, R: Serialize>(
        &self,
        lines: Box<dyn BufRead + Send>,
        workers: Vec<W>,
        progress: &Progress,
    ) -> Result<usize, Failure>
    where
        F: Fn(&mut W, &str) -> Result<(String, R), Failure> + Sync,
    {
        // Results wait for the one before; so many may wait that no thread does.
        let (sender, receiver) = mpsc::sync_channel::<(usize, Output)>(64 * workers.len());
        let lines = Mutex::new((0, lines, None));
        std::thread::scope(|scope| {
            for mut worker in workers {
                let (sender, lines) = (sender.clone(), &lines);
                scope.spawn(move || {
                    while let Some((index, line)) = next_line(lines) {
                        let output = self.line(&mut worker, index, &line);
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

    fn line<W, R: Serialize>(&self, worker: &mut W, index: usize, line: &[u8]) -> Output
    where
        F: Fn(&mut W, &str) -> Result<(String, R), Failure>,
    {
        let number = index + 1;
        match self.text(line).and_then(|text| (self.answer)(worker, &text)) {
            Ok((text, _)) if !self.json => (text, false),
            Ok((_, report)) => {
                let report = serde_json::to_string(&LineReport { report, line: number });
                (report.expect("a report is JSON"), false)
            }
            Err(failure) if !self.json => (format!("error: line {number}: {failure}"), true),
            Err(failure) => {
                let error = serde_json::json!({ "message": failure.to_string() });
                let report = serde_json::json!({ "ok": false, "line": number, "error": error });
                (report.to_string(), true)
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
    progress: &Progress,
) -> io::Result<usize> {
    let (mut waiting, mut next, mut failed) = (BTreeMap::new(), 0, 0);
    for (index, output) in receiver {
        waiting.insert(index, output);
        let mut out = io::stdout().lock();
        while let Some((text, is_error)) = waiting.remove(&next) {
            writeln!(out, "{text}")?;
            failed += usize::from(is_error);
            next += 1;
            progress.advance(1);
        }
        out.flush()?;
    }
    Ok(failed)
}
