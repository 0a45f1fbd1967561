//! Receipts: that a model said a text, so that anybody who has the model file can check it.
//!
//! A receipt has the model's digest, the prompt, the options, the text's tokens, and a digest of the logits that
//! they were chosen from. As results have the same bits on every processor, one pass over prompt and text finds
//! out on any machine whether this model would have said exactly that. `docs/serve.md` has the form.

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use blake3::Hasher;
use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::{Constraint, GenerateOptions, StopReason, TextStream};
use cerebellum::sampler::{Sampler, SamplerOptions};
use cerebellum::{Error, KvType, LogitsFor, Model, SessionOptions};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The form's version.
const VERSION: u32 = 1;
/// So that no other use of BLAKE3 has the same digests.
const LOGITS: &[u8] = b"cerebellum receipt: logits 1";

/// That a model said a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    receipt: u32,
    /// Digest of the model file.
    model: String,
    /// The type of the cache, on which the bits depend.
    kv: String,
    prompt_tokens: Vec<u32>,
    options: Options,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<Form>,
    output_tokens: Vec<u32>,
    stop_reason: String,
    /// Digest of the logits that each token was chosen from, in order; those that were forced have none.
    logits: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    max_tokens: usize,
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    repetition_window: usize,
    logit_bias: Vec<(u32, f32)>,
    seed: u64,
    stop: Vec<String>,
    ignore_end_of_text: bool,
}

impl From<&GenerateOptions> for Options {
    fn from(options: &GenerateOptions) -> Self {
        let sampler = &options.sampler;
        Self {
            max_tokens: options.max_tokens,
            temperature: sampler.temperature,
            top_k: sampler.top_k,
            top_p: sampler.top_p,
            min_p: sampler.min_p,
            repetition_penalty: sampler.repetition_penalty,
            repetition_window: sampler.repetition_window,
            logit_bias: sampler.logit_bias.clone(),
            seed: sampler.seed,
            stop: options.stop.clone(),
            ignore_end_of_text: options.ignore_end_of_text,
        }
    }
}

impl Options {
    fn sampler(&self) -> SamplerOptions {
        SamplerOptions {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            repetition_window: self.repetition_window,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
        }
    }
}

/// Bytes of logits that are hashed at once.
const AT_ONCE: usize = 128 << 10;

/// Takes the logits of a text as its tokens are chosen.
#[derive(Clone, Debug)]
pub struct LogitsDigest(Hasher);

impl Default for LogitsDigest {
    fn default() -> Self {
        let mut hasher = Hasher::new();
        hasher.update(LOGITS);
        Self(hasher)
    }
}

impl LogitsDigest {
    /// The logits that the next token is chosen from.
    pub fn push(&mut self, logits: &[f32]) {
        // BLAKE3 hashes 16 KiB side by side, if it gets them at once.
        let mut bytes = Vec::with_capacity(AT_ONCE);
        for part in logits.chunks(AT_ONCE / 4) {
            bytes.clear();
            bytes.extend(part.iter().flat_map(|logit| logit.to_le_bytes()));
            self.0.update(&bytes);
        }
    }

    /// Their digest.
    pub fn finish(&self) -> String {
        written(&self.0.finalize())
    }
}

fn written(digest: &blake3::Hash) -> String {
    format!("blake3:{}", digest.to_hex())
}

/// Bytes of a file that are hashed at once.
const PART: usize = 4 << 20;

/// The digest of a model file, on the threads of the current rayon pool.
///
/// # Errors
/// The system's.
pub fn model_digest(file: &Path) -> io::Result<String> {
    let (mut hasher, mut file) = (Hasher::new(), File::open(file)?);
    let mut part = Vec::with_capacity(PART);
    while file.by_ref().take(PART as u64).read_to_end(&mut part)? > 0 {
        hasher.update_rayon(&part);
        part.clear();
    }
    Ok(written(&hasher.finalize()))
}

/// How a text was asked for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Digest of the model file.
    pub model: &'a str,
    /// The type of the cache.
    pub kv: KvType,
    /// The prompt.
    pub prompt: &'a [u32],
    /// How it went on.
    pub options: &'a GenerateOptions,
    /// What the text had to be like.
    pub form: Option<&'a Form>,
}

impl Receipt {
    /// The receipt of a text.
    pub fn new(asked: &Asked, output: Vec<u32>, reason: StopReason, logits: String) -> Self {
        Self {
            receipt: VERSION,
            model: asked.model.to_owned(),
            kv: asked.kv.name().to_owned(),
            prompt_tokens: asked.prompt.to_vec(),
            options: asked.options.into(),
            form: asked.form.cloned(),
            output_tokens: output,
            stop_reason: reason.name().to_owned(),
            logits,
        }
    }

    /// How many tokens the text has.
    pub fn tokens(&self) -> usize {
        self.output_tokens.len()
    }

    /// Whether the model would have said exactly that. `digest` is its file's. The tokens of a text without a form
    /// are chosen on the threads of the current rayon pool.
    ///
    /// # Errors
    /// [`Error::Option`] if the receipt makes no sense; those of [`Model::session`] and of an evaluation.
    pub fn check(
        &self,
        model: &Model,
        digest: &str,
        options: &SessionOptions,
    ) -> Result<Verdict, Error> {
        let wrong = |detail: String| Error::Option { name: "receipt", detail };
        if self.receipt != VERSION {
            let detail =
                format!("its version is {}, and this program knows {VERSION}", self.receipt);
            return Err(wrong(detail));
        }
        let kv = [KvType::F16, KvType::Int8].into_iter().find(|kv| kv.name() == self.kv);
        let kv = kv.ok_or_else(|| wrong(format!("there is no cache of type {:?}", self.kv)))?;
        if self.model != digest {
            return Ok(Verdict::OtherModel);
        }
        let mut tokens = match (&self.prompt_tokens[..], model.config().eos_token_id) {
            ([], Some(end_of_text)) => vec![end_of_text],
            (prompt, _) => prompt.to_vec(),
        };
        let prompt = tokens.len();
        tokens.extend_from_slice(&self.output_tokens);
        let mut replay = Replay::new(self, model, &tokens, prompt)?;
        if let Some(verdict) = replay.force()? {
            return Ok(verdict);
        }
        let positions = tokens.len();
        let session = SessionOptions {
            kv,
            logits: LogitsFor::All,
            draft: 0,
            context: Some(positions.min(model.config().max_context()).max(1)),
            ..options.clone()
        };
        let mut session = model.session(&session)?;
        // The logits behind the last token say whether the text would have ended there.
        let needed = match self.is_end_chosen() {
            true => positions,
            false => positions - usize::from(!self.output_tokens.is_empty()),
        };
        let mut verdict = Ok(None);
        session.evaluate_each(&tokens[..needed], |position, logits| {
            if position + 1 >= prompt && matches!(verdict, Ok(None)) {
                verdict = replay.take(position + 1 - prompt, logits);
            }
        })?;
        let verdict = match verdict? {
            None => replay.choose(),
            verdict => verdict,
        };
        if let Some(verdict) = verdict {
            return Ok(verdict);
        }
        replay.end()
    }

    /// Whether the text ended because the model chose a token that ends a text.
    fn is_end_chosen(&self) -> bool {
        self.stop_reason == StopReason::EndOfText.name()
            || self.stop_reason == StopReason::Complete.name()
    }
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The model says exactly that.
    Same,
    /// The receipt is of another model file.
    OtherModel,
    /// The model says something else from this token on, counted from 0.
    Parts {
        /// Which one.
        at: usize,
        /// What the receipt has there; `None`: the end of the text.
        said: Option<u32>,
        /// What the model says; `None`: the end of the text.
        would: Option<u32>,
    },
    /// The model says these tokens, but not for the logits that the receipt tells of.
    OtherLogits,
    /// The model says these tokens, and the text does not end there for the reason that the receipt names.
    OtherEnd,
}

/// The most tokens that are chosen together.
const TOGETHER: usize = 32;

/// Says the text again.
struct Replay<'a> {
    receipt: &'a Receipt,
    model: &'a Model,
    /// Those of the prompt, and of the output from this number on.
    tokens: &'a [u32],
    prompt: usize,
    /// Several choose at the same time; with a form there is one.
    samplers: Vec<Sampler>,
    /// Logits from which tokens have to be chosen, and the number of the first of these.
    waiting: Vec<f32>,
    first: usize,
    constraint: Option<Box<dyn Constraint>>,
    digest: LogitsDigest,
    /// How many of the output's tokens have come.
    said: usize,
    has_ended: bool,
    /// Whether the text ended among tokens that its form forced.
    is_cut: bool,
}

impl<'a> Replay<'a> {
    fn new(
        receipt: &'a Receipt,
        model: &'a Model,
        tokens: &'a [u32],
        prompt: usize,
    ) -> Result<Self, Error> {
        let constraint = match &receipt.form {
            None => None,
            Some(form) => {
                let vocabulary = Vocabulary::new(model, Arc::new(model.tokenizer()?))?;
                let constraint: Box<dyn Constraint> = Box::new(vocabulary.constrain(form)?);
                Some(constraint)
            }
        };
        let samplers = match constraint {
            // Parts of the work, of which the digest is one more, that even out between threads.
            None => 4 * rayon::current_num_threads() - 1,
            Some(_) => 1,
        };
        let (options, vocab_size) = (receipt.options.sampler(), model.config().vocab_size);
        let sampler = |_| Sampler::new(&options, vocab_size);
        Ok(Self {
            receipt,
            model,
            tokens,
            prompt,
            samplers: (0..samplers).map(sampler).collect::<Result<_, _>>()?,
            waiting: Vec::new(),
            first: 0,
            constraint,
            digest: LogitsDigest::default(),
            said: 0,
            has_ended: false,
            is_cut: false,
        })
    }

    fn output(&self) -> &'a [u32] {
        &self.tokens[self.prompt..]
    }

    /// Takes the tokens that the form forces here.
    fn force(&mut self) -> Result<Option<Verdict>, Error> {
        let Some(constraint) = &mut self.constraint else { return Ok(None) };
        if constraint.is_over() {
            return Ok(None);
        }
        let mut forced = Vec::new();
        constraint.force(&mut forced)?;
        for would in forced {
            if self.said == self.receipt.options.max_tokens {
                self.is_cut = true;
                return Ok(None);
            }
            let said = self.output().get(self.said).copied();
            if said != Some(would) {
                return Ok(Some(Verdict::Parts { at: self.said, said, would: Some(would) }));
            }
            self.said += 1;
        }
        Ok(None)
    }

    /// Takes the logits from which the token with this number is chosen.
    fn take(&mut self, number: usize, logits: &[f32]) -> Result<Option<Verdict>, Error> {
        // Behind a text that did not end by itself nothing is chosen.
        if number == self.output().len() && !self.receipt.is_end_chosen() {
            return Ok(None);
        }
        if self.constraint.is_some() {
            return self.choose_within(number, logits);
        }
        if self.waiting.is_empty() {
            self.first = number;
        }
        self.waiting.extend_from_slice(logits);
        match number + 1 - self.first {
            TOGETHER => Ok(self.choose()),
            _ => Ok(None),
        }
    }

    /// Chooses the tokens whose logits are waiting. What is chosen does not depend on the choices before it, as long
    /// as these are the text's.
    fn choose(&mut self) -> Option<Verdict> {
        let (tokens, first, vocab_size) =
            (self.tokens, self.prompt + self.first, self.model.config().vocab_size);
        let logits: Vec<&[f32]> = self.waiting.chunks(vocab_size).collect();
        let mut chosen = vec![0; logits.len()];
        // The logits behind the last token belong to no token.
        let digested = &logits[..logits.len().min(self.output().len() - self.first)];
        let digest = || digested.iter().for_each(|logits| self.digest.push(logits));
        let part = logits.len().div_ceil(self.samplers.len()).max(1);
        let choose = || {
            let parts = logits.par_chunks(part).zip(chosen.par_chunks_mut(part));
            let parts = parts.zip(&mut self.samplers).enumerate();
            parts.for_each(|(i, ((logits, chosen), sampler))| {
                for (at, (logits, chosen)) in (first + i * part..).zip(logits.iter().zip(chosen)) {
                    *chosen = sampler.sample(logits, &tokens[..at], at);
                }
            });
        };
        rayon::join(digest, choose);
        self.waiting.clear();
        (self.first..).zip(chosen).find_map(|(number, would)| {
            let is_end = !self.receipt.options.ignore_end_of_text && is_end(self.model, would);
            self.judge(number, Some(would).filter(|_| !is_end))
        })
    }

    /// Chooses a token within the form, unless it was forced.
    fn choose_within(&mut self, number: usize, logits: &[f32]) -> Result<Option<Verdict>, Error> {
        let Some(constraint) = self.constraint.as_mut().filter(|it| !it.is_over()) else {
            return Ok(None);
        };
        if number < self.said {
            return Ok(None);
        }
        let before = &self.tokens[..self.prompt + number];
        let said = self.tokens.get(self.prompt + number).copied();
        let sampler = &mut self.samplers[0];
        let would = sampler.sample_within(logits, before, before.len(), constraint.allowed()?)?;
        let would = Some(would).filter(|&token| !is_end(self.model, token));
        if let Some(token) = would.filter(|_| would == said) {
            self.digest.push(logits);
            constraint.accept(token)?;
        }
        match self.judge(number, would) {
            None if would.is_some() => self.force(),
            verdict => Ok(verdict),
        }
    }

    /// Whether the token with this number, or the end of the text, is what the model says.
    fn judge(&mut self, number: usize, would: Option<u32>) -> Option<Verdict> {
        let said = self.output().get(number).copied();
        if said != would {
            return Some(Verdict::Parts { at: number, said, would });
        }
        match would {
            Some(_) => self.said += 1,
            None => self.has_ended = true,
        }
        None
    }

    /// All tokens are those that the model says: whether the rest is right as well.
    fn end(mut self) -> Result<Verdict, Error> {
        if self.digest.finish() != self.receipt.logits {
            return Ok(Verdict::OtherLogits);
        }
        let is = |reason: StopReason| self.receipt.stop_reason == reason.name();
        let is_full = self.output().len() == self.receipt.options.max_tokens;
        let is_right = if is(StopReason::EndOfText) {
            self.has_ended
        } else if is(StopReason::Complete) {
            let is_over = self.constraint.as_ref().is_some_and(|constraint| constraint.is_over());
            self.has_ended || is_over
        } else if is(StopReason::MaxTokens) {
            is_full && self.is_complete()?
        } else if is(StopReason::Incomplete) {
            !self.is_complete()?
        } else if is(StopReason::StopString) {
            self.stops_at_the_end()?
        } else {
            // Where a context ends, or a client has enough, is no matter of the model.
            is(StopReason::ContextFull) || is(StopReason::Cancelled)
        };
        Ok(if is_right { Verdict::Same } else { Verdict::OtherEnd })
    }

    /// Whether the text has its form, if it must have one.
    fn is_complete(&mut self) -> Result<bool, Error> {
        if self.is_cut {
            return Ok(false);
        }
        self.constraint.as_mut().map_or(Ok(true), |constraint| constraint.is_complete())
    }

    /// Whether the first stop string is complete with the last token.
    fn stops_at_the_end(&self) -> Result<bool, Error> {
        let tokenizer = self.model.tokenizer()?;
        let mut stream = TextStream::new(tokenizer.table(), &self.receipt.options.stop)?;
        let stop = self.output().iter().position(|&token| {
            stream.push(token, &mut |_: &str| ControlFlow::Continue(())).is_break()
        });
        Ok(stop.is_some_and(|stop| stop + 1 == self.output().len()))
    }
}

/// Whether a token ends a text.
fn is_end(model: &Model, token: u32) -> bool {
    model.config().eos_token_id == Some(token) || model.header().end_tokens.contains(&token)
}
