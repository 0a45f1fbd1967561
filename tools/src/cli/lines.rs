//! Texts on lines, divided among workers; results on lines, in the same order.
//!
//! A line that fails gives an error in its place and the others go on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, PoisonError, TryLockError};

use cerebellum::batch::{Batch, Next};
use cerebellum::terminal;
use cerebellum::{Model, SessionOptions};
use cerebellum_tools::quantize::Observer;
use cerebellum_tools::threads;
use serde::Serialize;
use serde_json::value::RawValue;

use super::context::{Context, Failure, Outcome, explain};
use super::progress::Progress;
use super::text_file::{self, LineReader, MAX_LINE_BYTES, Source as TextSource};

/// Where texts come from, if not from the command line.
#[derive(Debug, clap::Args)]
pub struct LinesArgs {
    /// Read from this file instead of standard input; `-` is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Each line is JSON: a string, or an object with the text in `text`
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
    /// Of a file.
    pub fn of(file: &Path, jsonl: bool) -> Self {
        Self { file: Some(file.to_owned()), jsonl }
    }

    /// The file, unless it is standard input.
    fn file(&self) -> Option<&Path> {
        self.file.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// All of the file or of standard input, as one text.
    pub fn read_whole(&self) -> Result<String, Failure> {
        text_file::plain(self.file().map_or(TextSource::StandardInput, TextSource::File))
    }

    /// Answers every line, with a thread for each of the `workers` as far as there are threads, by a line of
    /// text, and a report that takes its place with `--json`.
    ///
    /// The exit code is 1 if a line failed.
    pub fn answer<W: Send, R: Serialize>(
        &self,
        context: &Context,
        workers: Vec<W>,
        answer: impl Fn(&mut W, &str) -> Answer<R> + Sync,
    ) -> Outcome {
        let (lines, count) = self.open()?;
        self.work(context, lines, count, workers, |worker, lines| {
            while let Next::Job((number, line)) = lines.next(true) {
                let answer = line.and_then(|line| answer(worker, &line.text));
                if lines.tell(number, answer).is_break() {
                    break;
                }
            }
        })
    }

    /// As [`answer`](Self::answer), many lines at a time: each thread has a batch, in which `serve` does
    /// what it takes from a [`Line`] source, and tells it what became of each line.
    pub fn answer_in_batches<R: Serialize>(
        &self,
        context: &Context,
        (model, options): (&Model, &SessionOptions),
        serve: impl Fn(&mut Batch, &Lines<R>) -> Result<(), Failure> + Sync,
    ) -> Outcome {
        let (lines, count) = self.open()?;
        let batches = batches(model, options, count)?;
        self.work(context, lines, count, batches, |batch, lines| {
            // What ends a batch fails all lines on their way; those after them get a new attempt each.
            while let Err(failure) = serve(batch, lines) {
                if lines.fail_all(&failure).is_break() {
                    break;
                }
            }
        })
    }

    /// The lines, and how many there are, if that is known.
    fn open(&self) -> Result<(Box<dyn BufRead + Send>, Option<u64>), Failure> {
        Ok(match self.file() {
            Some(path) => {
                let (reader, count) = open_lines(path)?;
                (Box::new(reader), Some(count))
            }
            None => (Box::new(BufReader::new(io::stdin())), None),
        })
    }

    fn work<W: Send, R>(
        &self,
        context: &Context,
        lines: Box<dyn BufRead + Send>,
        count: Option<u64>,
        workers: Vec<W>,
        work: impl Fn(&mut W, &Lines<R>) + Sync,
    ) -> Outcome {
        let progress = match count {
            Some(count) => {
                let progress = Progress::new(context);
                progress.begin(count);
                progress
            }
            // Of standard input nobody knows how much will come.
            None => Progress::without_end(context, "lines"),
        };
        let source = Source::read(lines);
        let outputs = Mutex::default();
        threads::run(workers, |mut worker, _| {
            let lines = Lines {
                source: &source,
                outputs: &outputs,
                progress: &progress,
                jsonl: self.jsonl,
                json: context.json,
                on_their_way: RefCell::default(),
                report: PhantomData,
            };
            work(&mut worker, &lines);
        });
        let outputs: InOrder = outputs.into_inner().unwrap_or_else(PoisonError::into_inner);
        let failed = outputs.end()?;
        drop(progress);
        source.check()?;
        if failed > 0 {
            let lines = if failed == 1 { "line" } else { "lines" };
            context.note(format_args!("error: {failed} {lines} failed"));
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A batch for each thread. A batch has 8 sequences, or fewer if there are fewer lines, or if memory for 8
/// and for the texts is lacking.
///
/// Threads with batches of their own need not wait for each other. 8 sequences share the reading of weights,
/// which limits the speed of a pass (docs/cli.md).
fn batches(
    model: &Model,
    options: &SessionOptions,
    lines: Option<u64>,
) -> Result<Vec<Batch>, Failure> {
    const MOST: u64 = 8;
    let one = SessionOptions { threads: 1, ..options.clone() };
    let share = lines.map_or(MOST, |lines| lines.div_ceil(options.threads as u64));
    let mut sequences = share.clamp(1, MOST) as usize;
    // All batches together take at most the memory of eight sessions with the largest default context. If the
    // user gave a context, there is no such limit.
    let most_bytes = model.memory_budget().saturating_mul(MOST as usize);
    let bytes = |sequences| -> Result<usize, Failure> {
        let batch = model.plan_batch(&one, sequences)?;
        Ok(batch.total_private_bytes.saturating_mul(options.threads))
    };
    while options.context.is_none() && sequences > 1 && bytes(sequences)? > most_bytes {
        sequences /= 2;
    }
    loop {
        let batches = (0..options.threads).map(|_| model.batch(&one, sequences));
        match batches.collect() {
            Err(cerebellum::Error::OutOfMemory { .. }) if sequences > 1 => sequences /= 2,
            Ok(_) if sequences > 1 && !room_for_texts(model) => sequences /= 2,
            batches => return Ok(batches?),
        }
    }
}

/// Whether there is memory for reading lines and for the tokenizer, which takes some 20 times its tables.
fn room_for_texts(model: &Model) -> bool {
    let tables = model.tokenizer().map_or(0, |tokenizer| tokenizer.table().byte_len());
    let mut asked = Vec::<u8>::new();
    let there = asked.try_reserve_exact((4 << 20) + 64 * tables).is_ok();
    // The compiler may leave out what nobody looks at.
    std::hint::black_box(&asked);
    there
}

/// The lines of a file if there is such a file, or the parts between commas; `what` names them in messages.
///
/// A list without a comma that looks like a path is an error if there is no such file: it was hardly meant to
/// be the only label.
pub fn read_list(list: &str, what: &str) -> Result<Vec<String>, Failure> {
    let path = Path::new(list);
    let trimmed = |parts: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        parts.map(|part| part.trim().to_owned()).collect()
    };
    if path.exists() && !path.is_dir() {
        let text = text_file::plain(TextSource::File(path))?;
        return Ok(trimmed(&mut text.lines().filter(|line| !line.trim().is_empty())));
    }
    if !list.contains(',') && looks_like_path(list) {
        return Err(format!(
            "cannot read the {what}: there is no file {list}; give a file with one on each line, or \
             several with commas between them"
        )
        .into());
    }
    Ok(trimmed(&mut list.split(',')))
}

/// Whether text has a separator of paths in it, or ends as names of text files do.
fn looks_like_path(text: &str) -> bool {
    let ending = Path::new(text).extension().and_then(|ending| ending.to_str());
    let is_known = |ending: &str| {
        ["txt", "csv", "tsv", "json", "jsonl"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(ending))
    };
    text.contains(['/', std::path::MAIN_SEPARATOR]) || ending.is_some_and(is_known)
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

/// What takes a line's place: a line of text, and a report for `--json`.
pub type Answer<R> = Result<(String, R), Failure>;

/// A line of output, and whether it is of an error.
type Output = (String, bool);

/// The fields of a line's object, unparsed.
pub type Fields = BTreeMap<String, Box<RawValue>>;

/// A line's text, and with `--jsonl` what else is in its object.
pub struct Line {
    /// The text.
    pub text: String,
    /// The other fields.
    pub fields: Fields,
}

/// Where a worker gets lines, and takes answers.
pub struct Lines<'a, R> {
    source: &'a Source,
    outputs: &'a Mutex<InOrder>,
    progress: &'a Progress,
    jsonl: bool,
    json: bool,
    /// Numbers of the lines that were taken and have no answer.
    on_their_way: RefCell<BTreeSet<usize>>,
    report: PhantomData<fn(R)>,
}

impl<R: Serialize> Lines<'_, R> {
    /// The next line and its number; what cannot be read as one is an error in its place. Waits if it
    /// `may_wait`.
    pub fn next(&self, may_wait: bool) -> Next<(usize, Result<Line, Failure>)> {
        match self.source.next(may_wait) {
            Next::Job((number, line)) => {
                self.on_their_way.borrow_mut().insert(number);
                Next::Job((number, self.parse(line)))
            }
            Next::Later => Next::Later,
            Next::End => Next::End,
        }
    }

    /// The answer to a line; breaks if nobody wants more.
    pub fn tell(&self, number: usize, answer: Answer<R>) -> ControlFlow<()> {
        self.on_their_way.borrow_mut().remove(&number);
        let output = match answer {
            Ok((text, _)) if !self.json => (text, false),
            Ok((_, report)) => {
                let report = serde_json::to_string(&LineReport { report, line: number });
                (report.expect("a report is JSON"), false)
            }
            Err(failure) if !self.json => {
                (format!("error: line {number}: {}", explain(&failure)), true)
            }
            Err(failure) => {
                let error = serde_json::json!({ "message": explain(&failure) });
                let report = serde_json::json!({ "ok": false, "line": number, "error": error });
                (report.to_string(), true)
            }
        };
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        outputs.take(number, output, self.progress)
    }

    /// Tells that all lines on their way failed.
    fn fail_all(&self, failure: &Failure) -> ControlFlow<()> {
        let numbers = self.on_their_way.take();
        // Nothing was tried: the next attempt would end like this one.
        if numbers.is_empty() {
            return ControlFlow::Break(());
        }
        for number in numbers {
            if self.tell(number, Err(failure.to_string().into())).is_break() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn parse(&self, line: text_file::Line) -> Result<Line, Failure> {
        let line = line?;
        if !self.jsonl {
            return Ok(Line { text: line, fields: Default::default() });
        }
        // As text: a tree of what the line holds may take seventy times its length.
        let json: &RawValue = serde_json::from_str(&line).map_err(|e| format!("not JSON: {e}"))?;
        let (text, fields) = match serde_json::from_str::<Fields>(json.get()) {
            Ok(mut fields) => (fields.remove("text"), fields),
            Err(_) => (Some(json.to_owned()), Fields::new()),
        };
        match text.and_then(|text| serde_json::from_str(text.get()).ok()) {
            Some(text) => Ok(Line { text, fields }),
            None => Err("neither a string nor an object whose field `text` is a string".into()),
        }
    }
}

/// Lines in the order in which they come, numbered from 1.
struct Source {
    lines: Mutex<Incoming>,
    taken: AtomicUsize,
    failure: Mutex<Option<io::Error>>,
}

/// Bytes of lines that were read and not taken yet: several short lines, or a single long one.
#[derive(Default)]
struct Ahead {
    bytes: Mutex<usize>,
    fewer: Condvar,
}

impl Ahead {
    fn add(&self, line: &text_file::Line) {
        let length = line.as_ref().map_or(0, String::len);
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |bytes: &mut usize| *bytes > 0 && *bytes + length > MAX_LINE_BYTES;
        let bytes = self.fewer.wait_while(bytes, is_full);
        *bytes.unwrap_or_else(PoisonError::into_inner) += length;
    }

    fn take(&self, line: &text_file::Line) {
        let length = line.as_ref().map_or(0, String::len);
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) -= length;
        self.fewer.notify_all();
    }
}

/// Where lines come from.
enum Incoming {
    /// From a thread that reads ahead, so that who has something else to do need not wait for a line.
    Ahead(mpsc::Receiver<io::Result<text_file::Line>>, Arc<Ahead>),
    /// From the reader itself, where the system refused that thread.
    Direct(LineReader<Box<dyn BufRead + Send>>),
}

impl Incoming {
    fn new(lines: Box<dyn BufRead + Send>) -> Self {
        const READ_AHEAD: usize = 64;
        let (sender, receiver) = mpsc::sync_channel(READ_AHEAD);
        // A thread that is refused drops what it was to work with.
        let lines = Arc::new(Mutex::new(Some(LineReader::new(lines))));
        let ahead = Arc::new(Ahead::default());
        let take =
            |lines: &Mutex<Option<_>>| lines.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (handed, added) = (Arc::clone(&lines), Arc::clone(&ahead));
        // Nobody waits for that thread in the end, as standard input may go on for ever.
        let started = threads::start(move || {
            let Some(mut lines) = take(&handed) else { return };
            while let Some(line) = lines.next().transpose() {
                let is_over = line.is_err();
                if let Ok(line) = &line {
                    added.add(line);
                }
                if sender.send(line).is_err() || is_over {
                    break;
                }
            }
        });
        match started {
            true => Self::Ahead(receiver, ahead),
            false => Self::Direct(take(&lines).expect("nobody else took it")),
        }
    }

    /// The next line. If there is none yet, waits if it `may_wait` or cannot do otherwise.
    fn next(&mut self, may_wait: bool) -> Next<io::Result<text_file::Line>> {
        let line = match self {
            Self::Ahead(lines, _) if may_wait => {
                lines.recv().map_err(|_| TryRecvError::Disconnected)
            }
            Self::Ahead(lines, _) => lines.try_recv(),
            Self::Direct(lines) => lines.next().transpose().ok_or(TryRecvError::Disconnected),
        };
        if let (Self::Ahead(_, ahead), Ok(Ok(line))) = (&*self, &line) {
            ahead.take(line);
        }
        match line {
            Ok(line) => Next::Job(line),
            Err(TryRecvError::Empty) => Next::Later,
            Err(TryRecvError::Disconnected) => Next::End,
        }
    }
}

impl Source {
    fn read(lines: Box<dyn BufRead + Send>) -> Self {
        let (lines, failure) = (Mutex::new(Incoming::new(lines)), Mutex::new(None));
        Self { lines, taken: AtomicUsize::new(0), failure }
    }

    fn next(&self, may_wait: bool) -> Next<(usize, text_file::Line)> {
        let mut lines = if may_wait {
            self.lines.lock().unwrap_or_else(PoisonError::into_inner)
        } else {
            match self.lines.try_lock() {
                Ok(lines) => lines,
                Err(TryLockError::Poisoned(lines)) => lines.into_inner(),
                // Another worker, which has nothing else to do, waits for the next line.
                Err(TryLockError::WouldBlock) => return Next::Later,
            }
        };
        match lines.next(may_wait) {
            // The number is drawn under the lock.
            Next::Job(Ok(line)) => Next::Job((self.taken.fetch_add(1, Relaxed) + 1, line)),
            Next::Job(Err(error)) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Next::End
            }
            Next::Later => Next::Later,
            Next::End => Next::End,
        }
    }

    /// Whether reading failed.
    fn check(self) -> Result<(), Failure> {
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(format!("cannot read the texts: {error}").into()),
            None => Ok(()),
        }
    }
}

/// Writes outputs in the order of their lines, each as soon as those before it are there.
#[derive(Default)]
struct InOrder {
    waiting: BTreeMap<usize, Output>,
    written: usize,
    /// How many of those written are errors.
    failed: usize,
    /// Why writing failed.
    failure: Option<io::Error>,
}

impl InOrder {
    /// Takes the output of a line; breaks once writing has failed.
    fn take(&mut self, number: usize, output: Output, progress: &Progress) -> ControlFlow<()> {
        self.waiting.insert(number, output);
        if self.failure.is_none() {
            self.failure = self.write(progress).err();
        }
        if self.failure.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn write(&mut self, progress: &Progress) -> io::Result<()> {
        let mut out = io::stdout().lock();
        while let Some((text, is_error)) = self.waiting.remove(&(self.written + 1)) {
            terminal::write(&mut out, &(text + "\n"))?;
            self.failed += usize::from(is_error);
            self.written += 1;
            progress.advance(1);
        }
        out.flush()
    }

    /// How many outputs are errors.
    fn end(self) -> io::Result<usize> {
        self.failure.map_or(Ok(self.failed), Err)
    }
}
