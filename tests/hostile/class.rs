//! A class of hostile files: tries each, holds it to its bounds, and counts what became of them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use cerebellum::error::FormatError;
use cerebellum::{Error, Result};

use crate::allocations::peak_of;
use crate::base;
use crate::exercise::{Ran, Work, exercise, exercise_with};
use crate::export;

/// Memory that any file may take beside its own size.
pub const MEMORY: usize = 16 << 20;
/// Time that any file may take: the processor's, for this thread, so that a busy machine does not matter.
/// It matters a little, through shared caches, so that the fastest of some attempts counts.
pub const TIME: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 3;

/// A class of files.
pub struct Class {
    name: &'static str,
    memory: usize,
    time: Duration,
    outcomes: BTreeMap<&'static str, usize>,
    most_memory: usize,
    /// With the file that took it.
    most_time: (Duration, String),
    /// The file that is being tried and its length, for the case that it ends the process.
    current: (PathBuf, fs::File, usize),
}

impl Class {
    /// A class with the usual bounds.
    pub fn new(name: &'static str) -> Self {
        Self::with_bounds(name, MEMORY, TIME)
    }

    /// A class whose files may take `memory` beside their size, and `time`.
    pub fn with_bounds(name: &'static str, memory: usize, time: Duration) -> Self {
        base::keep_an_encoder();
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("hostile");
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(name.replace(' ', "-") + ".cbl");
        let current = (path.clone(), fs::File::create(&path).unwrap(), 0);
        let (outcomes, most_memory, most_time) = (BTreeMap::new(), 0, Default::default());
        Self { name, memory, time, outcomes, most_memory, most_time, current }
    }

    /// Opens, verifies and runs a file; returns what became of it.
    pub fn run(&mut self, case: impl Display, file: &[u8]) -> Outcome {
        self.keep(file);
        self.attempt(case, file, || exercise(file))
    }

    /// The same, of the evaluations only `work`.
    pub fn run_with(&mut self, case: impl Display, file: &[u8], work: &Work) -> Outcome {
        self.keep(file);
        self.attempt(case, file, || exercise_with(file, work))
    }

    fn keep(&mut self, file: &[u8]) {
        let (_, current, length) = &mut self.current;
        if *length != file.len() {
            current.set_len(file.len() as u64).unwrap();
            *length = file.len();
        }
        current.write_all_at(file, 0).unwrap();
    }

    /// Does `work`, which takes the untrusted `input`, within the bounds.
    pub fn attempt(
        &mut self,
        case: impl Display,
        input: &[u8],
        work: impl Fn() -> Result<Ran>,
    ) -> Outcome {
        let mut fastest = Duration::MAX;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let started = thread_time();
            let (result, memory) = peak_of(|| catch_unwind(AssertUnwindSafe(&work)));
            fastest = fastest.min(thread_time() - started);
            let result = result.unwrap_or_else(|panic| self.fail(&case, message(&*panic)));
            self.most_memory = self.most_memory.max(memory);
            if memory > input.len() + self.memory {
                self.fail(&case, &format!("takes {memory} bytes of memory"));
            }
            last = Some(result);
            if fastest <= self.time {
                break;
            }
        }
        if fastest > self.time {
            self.fail(&case, &format!("takes {fastest:?}"));
        }
        if fastest > self.most_time.0 {
            self.most_time = (fastest, case.to_string());
        }
        let outcome = Outcome(last.expect("at least one attempt"));
        if outcome.label() == UNEXPECTED {
            self.fail(&case, &outcome.message());
        }
        export::keep(self.name, &case.to_string(), outcome.label(), input);
        *self.outcomes.entry(outcome.label()).or_default() += 1;
        outcome
    }

    fn fail(&self, case: &impl Display, what: &str) -> ! {
        panic!("{}: {case}: {what}; the file is {}", self.name, self.current.0.display())
    }

    /// How many files were tried.
    pub fn cases(&self) -> usize {
        self.outcomes.values().sum()
    }

    /// Prints the class's row of the table.
    pub fn print(self) {
        let outcomes = self.outcomes.iter().map(|(label, count)| format!("{label} {count}"));
        let outcomes = outcomes.collect::<Vec<_>>().join(", ");
        let (memory, (time, case)) = (self.most_memory.div_ceil(1024), &self.most_time);
        let (name, cases) = (self.name, self.cases());
        println!("| {name} | {cases} | {outcomes} | {memory} KiB | {time:.1?}: {case} |");
        let _ = fs::remove_file(self.current.0);
    }
}

/// Time that this thread has kept a processor busy.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for the answer.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(code, 0, "no clock of the thread");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic")
}

const UNEXPECTED: &str = "unexpected";

/// What became of a file.
pub struct Outcome(pub Result<Ran>);

impl Outcome {
    /// In one word, by the stage that refused the file.
    pub fn label(&self) -> &'static str {
        match &self.0 {
            Err(error) => refusal(error),
            Ok(Ran { tokenizer: Err(Error::Text(_)), .. }) => "tokenizer",
            Ok(Ran { evaluation: Err(Error::NonFinite { .. }), .. }) => "not finite",
            Ok(Ran { tokenizer: Ok(()), evaluation: Ok(()), .. }) => "runs",
            Ok(_) => UNEXPECTED,
        }
    }

    /// The first error's text.
    pub fn message(&self) -> String {
        let error = match &self.0 {
            Err(error) => Some(error),
            Ok(ran) => ran.tokenizer.as_ref().err().or(ran.evaluation.as_ref().err()),
        };
        error.map_or("no error".to_owned(), ToString::to_string)
    }

    /// Fails unless the file was refused by one of these stages.
    #[track_caller]
    pub fn expect(&self, case: impl Display, labels: &[&str]) {
        let (label, message) = (self.label(), self.message());
        assert!(labels.contains(&label), "{case}: {label} ({message}), expected {labels:?}");
    }
}

fn refusal(error: &Error) -> &'static str {
    match error {
        Error::NotAFile { .. } => "not a file",
        Error::Io { .. } => "input/output",
        Error::Format(FormatError::NotAModel(_)) => "frame",
        Error::Format(FormatError::HeaderChecksum) => "checksum",
        Error::Format(FormatError::Json(_)) => "json",
        Error::Format(FormatError::Version { .. }) => "version",
        Error::Format(FormatError::Config { .. }) => "configuration",
        Error::Format(FormatError::Tensor { .. }) => "tensor",
        Error::Format(FormatError::Length { .. }) => "length",
        Error::Format(FormatError::ChecksumTable) => "table",
        Error::Text(_) => "tokenizer",
        _ => UNEXPECTED,
    }
}
