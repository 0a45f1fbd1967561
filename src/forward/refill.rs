//! Evaluating a sequence's tokens again, where its cache no longer has what the next token sees.

use super::{Buffers, Pass, PassKind, Span, run};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::kernels::Kernels;
use crate::kv_cache::KvCache;
use crate::memory::{Arena, Region};
use crate::model::Model;
use crate::threads::Executor;

/// A sequence of a session or a batch that was rewound to a position far back: of the positions that the
/// next token sees, layers with windows no longer have the keys.
pub(crate) struct Refill<'a> {
    pub model: &'a Model,
    pub kernels: &'static Kernels,
    pub arena: &'a Arena,
    /// One for each sequence.
    pub caches: &'a mut [KvCache],
    pub buffers: &'a Buffers,
    pub executor: &'a Executor,
    pub cancel: &'a Cancel,
    /// The sequence's number.
    pub sequence: usize,
    /// The tokens `[sequences, context]`.
    pub tokens: Region<u32>,
    pub context: usize,
    /// The most tokens of a pass.
    pub chunk: usize,
}

impl Refill<'_> {
    /// Evaluates the sequence's first `position` tokens.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled). Then the cache holds nothing.
    pub fn run(self, position: usize) -> Result<()> {
        let sequence = self.sequence;
        self.caches[sequence].note_restored(0);
        for start in (0..position).step_by(self.chunk) {
            let end = position.min(start + self.chunk);
            self.caches[sequence].note_stored(end);
            let first = sequence * self.context;
            let pass = Pass {
                model: self.model,
                kernels: self.kernels,
                arena: self.arena,
                caches: self.caches,
                buffers: self.buffers,
                // SAFETY: a pass writes no tokens, and nothing else runs meanwhile.
                tokens: unsafe { self.arena.read(self.tokens, first + start..first + end) },
                spans: &[Span::first(sequence, start, end - start, 0)],
                kind: PassKind::Sequences,
                logits_row: 0,
                log_sums: false,
                cancel: self.cancel,
            };
            run(&pass, self.executor, &mut || ());
            if let Err(cancelled) = self.cancel.take() {
                self.caches[sequence].note_lost();
                return Err(cancelled);
            }
        }
        Ok(())
    }
}
