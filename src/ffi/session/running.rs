//! A session's generation on demand.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use crate::error::{Error, Result};
use crate::ffi::model::Shared;
use crate::ffi::on_demand::new_number;
use crate::ffi::options::Options;
use crate::generate::{Generation, Progress, StopReason, TextBuffer, TextStep};
use crate::session::Session;

/// A session's generation on demand.
pub struct Running {
    number: u64,
    /// Its constraint is `Send`, as the options give it, because a session may move to another thread.
    progress: Progress<'static>,
    /// None if the model has no tokenizer.
    text: Option<TextBuffer>,
}

impl Running {
    pub fn begin(
        session: &Session,
        shared: &Shared,
        options: &Options,
        prompt: Vec<u32>,
    ) -> Result<Self> {
        let constraint = shared.constraint(&options.constraint)?.map(|it| it as _);
        let own = options.generate.try_clone()?;
        let text = match shared.tokenizer() {
            Ok(tokenizer) => Some(TextBuffer::new(tokenizer.table(), &own.stop)?),
            Err(Error::NoTokenizer) if own.stop.is_empty() => None,
            Err(error) => return Err(error),
        };
        let (prompt, own) = (Cow::Owned(prompt), Cow::Owned(own));
        let progress = Progress::new(session, prompt, own, constraint)?;
        Ok(Self { number: new_number(), progress, text })
    }

    /// The number that stands for it in the C program.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The next step; none at the end.
    pub fn next<'s>(
        &'s mut self,
        session: &'s mut Session,
        shared: &Shared,
    ) -> Result<Option<TextStep<'s>>> {
        match &mut self.text {
            Some(buffer) => buffer.next(&mut self.progress, session, shared.tokenizer()?.table()),
            None => {
                let step = self.progress.next(session)?;
                Ok(step.map(|step| TextStep { text: "", step: Some(step) }))
            }
        }
    }

    /// Why it has ended, if it has ended.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.progress.stop_reason()
    }

    /// Whether it has ended. Its end is then counted too.
    pub fn is_over(&self) -> bool {
        self.stop_reason().is_some()
    }

    /// What it has done so far.
    pub fn generation(&self) -> Generation {
        self.progress.generation()
    }

    /// What it has done so far, unless this is counted already.
    pub fn uncounted(&self) -> Option<Generation> {
        (!self.is_over()).then(|| self.generation())
    }
}
