//! What a program may do with sessions and batches, in any order and with any arguments. Bytes choose:
//! the fuzz target `calls` and random ones below.
//!
//! Each call ends in a result or an error; and afterwards a session is what its tokens say: its logits
//! are, to the bit, those of a new session that is given the same tokens.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use cerebellum::batch::{Append, Batch, Request};
use cerebellum::generate::{GenerateOptions, generate_tokens};
use cerebellum::score::Continuations;
use cerebellum::{Error, Model, Pooling, Result, Session, SessionOptions};

use crate::choices::{Choices, LONGEST};
use crate::exercise::AlignedBytes;

const FILES: [&[u8]; 4] = [
    include_bytes!("../data/hostile/model/seed.cbl"),
    include_bytes!("../data/hostile/model/int8.cbl"),
    include_bytes!("../data/hostile/model/btlm.cbl"),
    include_bytes!("../data/hostile/model/modern.cbl"),
];
/// Makes the calls that the bytes say.
pub fn calls(bytes: &[u8]) {
    let mut choices = Choices::of(bytes);
    let file = FILES[choices.below(FILES.len() as u8)];
    let model = Model::borrow(AlignedBytes::copy(file)).expect("a sound file");
    let options = choices.options(&model);
    let Ok(session) = model.session(&options) else { return };
    let other = model.session(&SessionOptions { threads: 1, ..options.clone() });
    let sequences = choices.below(4);
    let Ok(batch) = model.batch(&options, sequences.max(1)) else { return };
    let cancel = Arc::new(AtomicBool::new(false));
    let mut host =
        Host { model, options, session, other: other.unwrap(), batch, saved: Vec::new(), cancel };
    host.session.cancel_by(host.cancel.clone());
    host.batch.cancel_by(host.cancel.clone());
    while !choices.is_empty() {
        // Whether it succeeds is the call's affair.
        let _: Result<()> = host.call(&mut choices);
    }
    host.check();
}

/// A program's things.
struct Host {
    model: Model,
    options: SessionOptions,
    session: Session,
    other: Session,
    batch: Batch,
    saved: Vec<u8>,
    cancel: Arc<AtomicBool>,
}

impl Host {
    fn call(&mut self, choices: &mut Choices) -> Result<()> {
        let vocab_size = self.model.config().vocab_size;
        let tokens = |choices: &mut Choices| choices.tokens(7, vocab_size);
        match choices.byte() % 16 {
            0 | 1 => self.session.evaluate(&tokens(choices)).map(drop),
            2 => {
                let token = self.session.sample(&choices.sampler())?;
                self.session.evaluate(&[token]).map(drop)
            }
            3 => {
                let allowed =
                    [u32::from_le_bytes([choices.byte(), choices.byte(), choices.byte(), 0])];
                let token = self.session.sample_within(&choices.sampler(), &allowed)?;
                assert!(allowed[0] >> token & 1 == 1, "{token} was not allowed");
                Ok(())
            }
            4 => self.session.rewind(choices.below(LONGEST)),
            5 => {
                self.session.reset();
                Ok(())
            }
            6 => self.save(),
            7 => self.restore(choices),
            8 => self.session.copy_from(&mut self.other),
            9 => {
                std::mem::swap(&mut self.session, &mut self.other);
                Ok(())
            }
            10 => self.generate(&tokens(choices), &choices.generation()),
            11 => {
                let mut embedding = vec![0.0; self.model.config().n_embd];
                self.session.embed(&tokens(choices), Pooling::Mean, &mut embedding)
            }
            12 => {
                self.score(&tokens(choices), &[tokens(choices), tokens(choices), tokens(choices)])
            }
            13 => self.evaluate_batch(choices),
            14 => self.generate_batch(choices),
            _ => {
                self.cancel.store(true, Relaxed);
                Ok(())
            }
        }
    }

    fn save(&mut self) -> Result<()> {
        self.saved.clear();
        self.session.save(&mut self.saved)?;
        assert_eq!(self.saved.len(), self.session.saved_bytes());
        Ok(())
    }

    /// What was saved, or, rarely, nearly that: then nothing is taken over.
    fn restore(&mut self, choices: &mut Choices) -> Result<()> {
        let flip = choices.byte();
        let at = choices.below(255).min(self.saved.len().saturating_sub(1));
        if flip < 250 || self.saved.is_empty() {
            return self.session.restore_bytes(&self.saved);
        }
        let before = self.session.tokens().to_vec();
        self.saved[at] ^= 1 << (flip % 8);
        let restored = self.session.restore_bytes(&self.saved);
        self.saved[at] ^= 1 << (flip % 8);
        assert!(restored.is_err(), "a saved session with byte {at} changed is accepted");
        assert_eq!(self.session.tokens(), before);
        Ok(())
    }

    fn generate(&mut self, prompt: &[u32], options: &GenerateOptions) -> Result<()> {
        let mut tokens = 0;
        let done = generate_tokens(&mut self.session, prompt, options, |_| {
            tokens += 1;
            ControlFlow::Continue(())
        })?;
        assert!(done.tokens == tokens && tokens <= options.max_tokens);
        Ok(())
    }

    fn score(&mut self, prompt: &[u32], continuations: &[Vec<u32>]) -> Result<()> {
        let tree = Continuations::new(continuations)?;
        let scores = self.session.score(prompt, &tree)?;
        assert!((0..tree.len()).all(|i| scores.log_probability(i) <= 0.0));
        Ok(())
    }

    fn evaluate_batch(&mut self, choices: &mut Choices) -> Result<()> {
        let (vocab_size, sequences) =
            (self.model.config().vocab_size, self.batch.sequences() as u8);
        match choices.below(4) {
            0 => self.batch.reset(choices.below(sequences)),
            1 => self.batch.rewind(choices.below(sequences), choices.below(LONGEST))?,
            _ => {
                let tokens: Vec<_> = (0..1 + choices.below(3))
                    .map(|_| (choices.below(sequences), choices.tokens(3, vocab_size)))
                    .collect();
                let appends: Vec<_> = tokens
                    .iter()
                    .map(|(sequence, tokens)| Append { sequence: *sequence, tokens })
                    .collect();
                self.batch.evaluate(&appends)?;
            }
        }
        Ok(())
    }

    fn generate_batch(&mut self, choices: &mut Choices) -> Result<()> {
        let vocab_size = self.model.config().vocab_size;
        let requests: Vec<_> = (0..choices.below(5))
            .map(|_| Request {
                prompt: choices.tokens(7, vocab_size),
                options: choices.generation(),
            })
            .collect();
        let made = cerebellum::batch::generate(&mut self.batch, &requests, |request, _| {
            assert!(request < requests.len());
            ControlFlow::Continue(())
        })?;
        assert_eq!(made.len(), requests.len());
        Ok(())
    }

    /// Everybody's logits against a new session's.
    fn check(&self) {
        for session in [&self.session, &self.other] {
            self.compare(session.tokens(), session.last_logits());
        }
        for sequence in 0..self.batch.sequences() {
            self.compare(self.batch.tokens(sequence), self.batch.logits(sequence));
        }
    }

    fn compare(&self, tokens: &[u32], logits: Result<&[f32]>) {
        let logits = match logits {
            Err(Error::NoLogits) => return,
            logits => logits.expect("the logits, or none"),
        };
        let options =
            SessionOptions { threads: 1, chunk: 64, draft: 0, isa: None, ..self.options.clone() };
        let mut anew = self.model.session(&options).unwrap();
        let want = anew.evaluate(tokens).expect("these tokens were evaluated before");
        let bits = |logits: &[f32]| logits.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(logits), bits(want), "after {tokens:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::calls;
    use crate::random::Random;

    #[test]
    fn random_calls() {
        let mut random = Random::new(11);
        for _ in 0..1000 {
            let bytes: Vec<u8> = (0..random.below(300)).map(|_| random.bits() as u8).collect();
            calls(&bytes);
        }
    }
}
