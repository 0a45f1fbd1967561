//! A task on many texts at a time: their parts are continued together, in one batch.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

use super::{Output, Parts, Question, Task, TaskResult, gap_before, seconds_since};
use crate::batch::{Batch, Client, Job, Next, Request, serve};
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::generate::{GenerateOptions, Generation, Step, StopReason, TextStream};
use crate::memory::{append, try_vec};
use crate::text::Room;

impl<B: AsRef<[u8]>> Task<'_, B> {
    /// Carries the task out on all texts, as many parts at a time as the batch has sequences. The
    /// results are those of [`run`](Self::run) with each, but for the times: a text that cannot be done
    /// is an error and does not disturb the others.
    ///
    /// # Errors
    /// Those of [`serve`].
    pub fn run_all<T: AsRef<str>>(
        &self,
        batch: &mut Batch,
        texts: &[T],
    ) -> Result<Vec<Result<TaskResult>>> {
        let mut waiting = texts.iter();
        let next = |_| match waiting.next() {
            Some(text) => Next::Job(text.as_ref().to_owned()),
            None => Next::End,
        };
        let mut results: Vec<_> = texts.iter().map(|_| None).collect();
        self.run_each(batch, next, |text, result| {
            results[text] = Some(result);
            ControlFlow::Continue(())
        })?;
        Ok(results.into_iter().map(|result| result.expect("every text was taken up")).collect())
    }

    /// As [`run_all`](Self::run_all), on texts that `next` gives, which may wait for one if it is called
    /// with true ([`Client::next`]). Hands each result to `done` as soon as it is there, with the
    /// number of the text; breaking ends the work, and what is not done is left.
    ///
    /// # Errors
    /// Those of [`serve`]: then texts that were taken and not handed to `done` have no result.
    pub fn run_each(
        &self,
        batch: &mut Batch,
        next: impl FnMut(bool) -> Next<String>,
        done: impl FnMut(usize, Result<TaskResult>) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut many = Many {
            task: self,
            room: batch.room(),
            next,
            done,
            is_over: false,
            taken: 0,
            texts: BTreeMap::new(),
            waiting: VecDeque::new(),
            begun: 0,
            parts: BTreeMap::new(),
        };
        serve(batch, &mut many)?;
        // Set while nothing was evaluated any more.
        batch.take_cancel()
    }
}

/// The client of a batch.
struct Many<'t, 'a, B, N, D> {
    task: &'t Task<'a, B>,
    room: Room,
    next: N,
    done: D,
    /// Whether nobody wants more results.
    is_over: bool,
    /// How many texts were taken.
    taken: usize,
    /// Texts on their way, by number.
    texts: BTreeMap<usize, Text>,
    /// Parts that are not begun: the text's number, and the part's.
    waiting: VecDeque<(usize, usize)>,
    /// How many parts were begun: the number of the next job.
    begun: usize,
    /// Parts on their way, by job.
    parts: BTreeMap<usize, Part<'t, B>>,
}

struct Text {
    text: String,
    parts: Vec<Range<usize>>,
    /// What became of each part.
    outcomes: Vec<Option<(Question, Generation, Output)>>,
    left: usize,
    result: TaskResult,
    start: Instant,
}

struct Part<'t, B> {
    text: usize,
    part: usize,
    question: Question,
    /// None before the batch takes it up.
    stream: Option<TextStream<'t, B>>,
    output: Output,
    /// Whether the output could take all pieces.
    taken: Result<()>,
}

impl Question {
    fn request(&self) -> Result<Request> {
        let mut prompt = try_vec(self.prompt.len())?;
        prompt.extend_from_slice(&self.prompt);
        Ok(Request { prompt, options: self.options.try_clone()? })
    }
}

impl<B, N, D> Many<'_, '_, B, N, D>
where
    B: AsRef<[u8]>,
    N: FnMut(bool) -> Next<String>,
    D: FnMut(usize, Result<TaskResult>) -> ControlFlow<()>,
{
    /// Takes a text, whose parts wait from then on.
    fn take(&mut self, text: String) {
        let (number, start) = (self.taken, Instant::now());
        self.taken += 1;
        let text = text.trim().to_owned();
        match self.task.parts(&text, &self.room) {
            Err(error) => self.tell(number, Err(error)),
            Ok(Parts { ranges, .. }) if ranges.is_empty() => {
                self.tell(number, Ok(TaskResult::nothing()));
            }
            Ok(Parts { ranges: parts, split }) => {
                self.waiting.extend((0..parts.len()).map(|part| (number, part)));
                let (outcomes, left) = (parts.iter().map(|_| None).collect(), parts.len());
                let result = TaskResult { split, ..TaskResult::nothing() };
                self.texts.insert(number, Text { text, parts, outcomes, left, result, start });
            }
        }
    }

    /// The next part as a job, if its text can be put to the model.
    fn begin_part(&mut self, (number, part): (usize, usize)) -> Option<Request> {
        // A text of which another part failed is no longer there.
        let text = self.texts.get(&number)?;
        let range = text.parts[part].clone();
        let question = self.task.question(text.text[range].trim(), &self.room);
        let asked = question.and_then(|question| Ok((question.request()?, question)));
        let (request, question) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                self.fail(number, error);
                return None;
            }
        };
        let output = Output::new(self.task.template.sentences);
        let part = Part { text: number, part, question, stream: None, output, taken: Ok(()) };
        self.parts.insert(self.begun, part);
        self.begun += 1;
        Some(request)
    }

    fn fail(&mut self, text: usize, error: Error) {
        if self.texts.remove(&text).is_some() {
            self.tell(text, Err(error));
        }
    }

    fn tell(&mut self, text: usize, result: Result<TaskResult>) {
        if matches!(result, Err(Error::Cancelled)) {
            // Concerns all texts: the flag is still set, and the next pass follows it.
            self.is_over = true;
            return;
        }
        self.is_over |= (self.done)(text, result).is_break();
    }
}

impl<'t, B, N, D> Client<'t> for Many<'t, '_, B, N, D>
where
    B: AsRef<[u8]>,
    N: FnMut(bool) -> Next<String>,
    D: FnMut(usize, Result<TaskResult>) -> ControlFlow<()>,
{
    fn next(&mut self, may_wait: bool) -> Next<Job<'t>> {
        while !self.is_over {
            if let Some(part) = self.waiting.pop_front() {
                if let Some(request) = self.begin_part(part) {
                    return Next::Job(Job { request: Cow::Owned(request), constraint: None });
                }
                continue;
            }
            match (self.next)(may_wait) {
                Next::Job(text) => self.take(text),
                Next::Later => return Next::Later,
                Next::End => return Next::End,
            }
        }
        Next::End
    }

    fn begin(&mut self, job: usize, options: &GenerateOptions) -> Result<()> {
        let stream = TextStream::new(self.task.tokenizer.table(), &options.stop)?;
        self.parts.get_mut(&job).expect("the part was begun").stream = Some(stream);
        Ok(())
    }

    fn step(&mut self, job: usize, step: Step) -> ControlFlow<StopReason> {
        let Part { text, stream: Some(stream), output, taken, .. } =
            self.parts.get_mut(&job).expect("the part was begun")
        else {
            unreachable!("the batch has taken it up");
        };
        // Nobody waits for the rest of a text of which another part failed.
        if self.is_over || !self.texts.contains_key(text) {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        stream.push(step.token, &mut |piece: &str| {
            *taken = output.push(piece).map(drop);
            let goes_on = taken.is_ok() && !output.is_over;
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    }

    fn end(&mut self, job: usize, outcome: Result<Generation>) {
        let mut part = self.parts.remove(&job).expect("the part was begun");
        let number = part.text;
        let generation = match outcome {
            Ok(generation) => generation,
            Err(error) => return self.fail(number, error),
        };
        if let Some(stream) = part.stream.as_mut().filter(|_| part.taken.is_ok()) {
            stream.finish(generation.stop_reason, &mut |piece: &str| {
                part.taken = part.output.push(piece).map(drop);
                ControlFlow::Continue(())
            });
        }
        if let Err(error) = part.taken {
            return self.fail(number, error);
        }
        let Some(text) = self.texts.get_mut(&number) else { return };
        text.outcomes[part.part] = Some((part.question, generation, part.output));
        text.left -= 1;
        if text.left == 0 && !self.is_over {
            let text = self.texts.remove(&number).expect("it is there");
            self.tell(number, text.result());
        }
    }
}

impl Text {
    /// The results of the parts, one after the other.
    fn result(self) -> Result<TaskResult> {
        let Self { text, parts, outcomes, mut result, start, .. } = self;
        for (part, outcome) in parts.iter().zip(outcomes) {
            let (question, generation, output) = outcome.expect("every part is done");
            if result.parts > 0 {
                append(&mut result.text, gap_before(&text, part.start))?;
            }
            result.add(&question, &generation, &output)?;
        }
        result.seconds = seconds_since(start);
        Ok(result)
    }
}
