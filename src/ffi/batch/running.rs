//! A batch's generation on demand.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

use super::prompts::Prompts;
use crate::batch::{Batch, Client, Job, Next, Request, Service};
use crate::error::{Error, Result};
use crate::ffi::model::Shared;
use crate::ffi::on_demand::new_number;
use crate::ffi::options::Options;
use crate::ffi::status::cbl_status;
use crate::generate::{Constraint, GenerateOptions, Generation, Step, StopReason, TextBuffer};
use crate::memory::try_vec;
use crate::model::TokenizerBytes;
use crate::text::TokenTable;

/// A batch's generation on demand.
pub struct Running {
    number: u64,
    service: Service<'static>,
    client: Queue,
    /// Whether all prompts are done. Steps may still be ready.
    is_over: bool,
}

impl Running {
    pub fn begin(
        batch: &Batch,
        shared: &Shared,
        options: &Options,
        prompts: Prompts,
    ) -> Result<Self> {
        match shared.tokenizer() {
            Err(Error::NoTokenizer) if options.generate.stop.is_empty() => {}
            other => drop(other?),
        }
        let Prompts { requests, numbers, outcomes } = prompts;
        let mut stopped = try_vec(outcomes.len())?;
        stopped.resize(outcomes.len(), false);
        let mut constraints = shared.constraints(&options.constraint, requests.len())?.into_iter();
        let mut waiting = try_vec(requests.len())?;
        let mut client = Queue {
            prompts: Vec::new().into_iter(),
            jobs: try_vec(requests.len())?,
            ready: VecDeque::new(),
            pieces: String::new(),
            stopped,
            lacks_memory: false,
        };
        for (index, request) in numbers.into_iter().zip(requests) {
            let constraint = constraints.next().flatten();
            waiting.push(Waiting { index, request, constraint });
        }
        client.prompts = waiting.into_iter();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            if let Err(error) = outcome {
                client.add_end(index, Err(cbl_status::of(&error)));
            }
        }
        let service = Service::new(batch)?;
        let running = Self { number: new_number(), service, client, is_over: false };
        running.check_memory()?;
        Ok(running)
    }

    /// The number that stands for it in the C program.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next step and its text; none at the end. If no step is ready, a pass over the weights makes
    /// some.
    pub fn next(
        &mut self,
        batch: &mut Batch,
        shared: &Shared,
    ) -> Result<Option<(ReadyStep, &str)>> {
        while self.client.ready.is_empty() && !self.is_over {
            self.round(batch, shared)?;
        }
        let Queue { ready, pieces, .. } = &mut self.client;
        Ok(ready.pop_front().map(|step| {
            let text = &pieces[step.piece.clone()];
            (step, text)
        }))
    }

    /// Makes a pass over the weights.
    fn round(&mut self, batch: &mut Batch, shared: &Shared) -> Result<()> {
        self.client.pieces.clear();
        let tokenizer = match shared.tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            Err(Error::NoTokenizer) => None,
            Err(error) => return Err(error),
        };
        let table = tokenizer.map(|tokenizer| tokenizer.table());
        let mut receiver = Receiver { queue: &mut self.client, table };
        self.is_over = !self.service.round(batch, &mut receiver)?;
        self.check_memory()
    }

    /// Ends the text of a prompt; false if there is no such prompt.
    pub fn stop(&mut self, index: usize) -> bool {
        let stopped = self.client.stopped.get_mut(index);
        stopped.map(|stopped| *stopped = true).is_some()
    }

    fn check_memory(&self) -> Result<()> {
        match self.client.lacks_memory {
            true => Err(Error::OutOfMemory { bytes: size_of::<ReadyStep>() }),
            false => Ok(()),
        }
    }
}

/// The prompts that have no sequence yet, and the steps of the last pass that the program has not asked
/// for yet.
struct Queue {
    prompts: alloc::vec::IntoIter<Waiting>,
    /// The text of each job. A job is a prompt that got a sequence; jobs are in the order of that.
    jobs: Vec<Text>,
    ready: VecDeque<ReadyStep>,
    /// The texts of the ready steps, one after another.
    pieces: String,
    /// Whether the program has ended the text, by prompt.
    stopped: Vec<bool>,
    /// Whether there was no memory for a step.
    lacks_memory: bool,
}

struct Waiting {
    index: usize,
    request: Request,
    constraint: Option<Box<dyn Constraint>>,
}

struct Text {
    index: usize,
    /// None if the model has no tokenizer, and when the text is done.
    buffer: Option<TextBuffer>,
}

/// A step that the program has not asked for yet.
pub struct ReadyStep {
    pub index: usize,
    pub token: Option<u32>,
    piece: Range<usize>,
    pub outcome: Option<Result<StopReason, cbl_status>>,
}

impl Queue {
    fn add(&mut self, step: ReadyStep) {
        match self.ready.try_reserve(1) {
            Ok(()) => self.ready.push_back(step),
            Err(_) => self.lacks_memory = true,
        }
    }

    fn add_end(&mut self, index: usize, outcome: Result<StopReason, cbl_status>) {
        let piece = self.pieces.len()..self.pieces.len();
        self.add(ReadyStep { index, token: None, piece, outcome: Some(outcome) });
    }

    /// Keeps the text of a job that has become certain.
    fn keep_text(&mut self, job: usize) -> Range<usize> {
        let start = self.pieces.len();
        let text = self.jobs[job].buffer.as_ref().map_or("", TextBuffer::text);
        match self.pieces.try_reserve(text.len()) {
            Ok(()) => self.pieces.push_str(text),
            Err(_) => self.lacks_memory = true,
        }
        start..self.pieces.len()
    }
}

/// A queue, with the bytes of all tokens if the model has a tokenizer.
struct Receiver<'q> {
    queue: &'q mut Queue,
    table: Option<&'q TokenTable<TokenizerBytes>>,
}

impl Client<'static> for Receiver<'_> {
    fn next(&mut self, _: bool) -> Next<Job<'static>> {
        loop {
            let Some(waiting) = self.queue.prompts.next() else { return Next::End };
            let Waiting { index, request, constraint } = waiting;
            if self.queue.stopped[index] {
                self.queue.add_end(index, Ok(StopReason::Cancelled));
                continue;
            }
            // This does not allocate: there is room for all prompts.
            self.queue.jobs.push(Text { index, buffer: None });
            return Next::Job(Job { request: Cow::Owned(request), constraint });
        }
    }

    fn begin(&mut self, job: usize, options: &GenerateOptions) -> Result<()> {
        let buffer = self.table.map(|table| TextBuffer::new(table, &options.stop)).transpose()?;
        self.queue.jobs[job].buffer = buffer;
        Ok(())
    }

    fn step(&mut self, job: usize, step: Step) -> ControlFlow<StopReason> {
        let Self { queue, table } = self;
        let text = &mut queue.jobs[job];
        let index = text.index;
        if queue.lacks_memory || queue.stopped[index] {
            return ControlFlow::Break(StopReason::Cancelled);
        }
        let is_stopped = match (&mut text.buffer, table) {
            (Some(buffer), Some(table)) => buffer.push(table, step.token),
            _ => false,
        };
        let piece = queue.keep_text(job);
        queue.add(ReadyStep { index, token: Some(step.token), piece, outcome: None });
        match is_stopped {
            true => ControlFlow::Break(StopReason::StopString),
            false => ControlFlow::Continue(()),
        }
    }

    fn end(&mut self, job: usize, outcome: Result<Generation>) {
        let queue = &mut *self.queue;
        let Text { index, buffer } = &mut queue.jobs[job];
        let index = *index;
        let outcome = outcome.map(|generation| generation.stop_reason);
        if let (Some(buffer), Ok(reason)) = (buffer, &outcome) {
            buffer.finish(*reason);
            let piece = queue.keep_text(job);
            if !piece.is_empty() {
                queue.add(ReadyStep { index, token: None, piece, outcome: None });
            }
        }
        queue.jobs[job].buffer = None;
        queue.add_end(index, outcome.map_err(|error| cbl_status::of(&error)));
    }
}
