//! A calibration text that the model writes itself.
//!
//! The checkpoint becomes an int8 model in a file that never gets a name, and the runtime lets it write at
//! temperature 1, so that texts are drawn from the model's own distribution. Documents begin in turns with the token
//! that begins a text, with a token drawn from the whole vocabulary, and with the beginning of a user's turn if the
//! model has a form of conversations. The runtime's bits are the same everywhere, so the text is, too.
//!
//! The idea is that of Liu et al., "LLM-QAT", 2023, section 3.1, and so are the drawn tokens: a model has a few
//! ways to begin by itself, and a word of any kind leads it to more of what it knows. The user's turn is that of Xu
//! et al., "Magpie", 2024.

use cerebellum::batch::{Append, Batch};
use cerebellum::chat::{ChatOptions, ChatTemplate, Message, Role};
use cerebellum::format::ChatFormat;
use cerebellum::quant::Scheme;
use cerebellum::sampler::SamplerOptions;
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{Access, Model, SessionOptions};

use crate::calibrate::{self, Calibration};
use crate::checkpoint::Checkpoint;
use crate::output::Output;
use crate::quantize::{self, MatrixFormat, Observer, Options};
use crate::random::SplitMix;

/// Windows that are written at the same time: each pass reads the weights once for all of them.
const SEQUENCES: usize = 8;

/// What a user's turn is put in place of, to find what stands before it.
const PLACEHOLDER: &str = "Qzx";

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing says how a text begins.
    #[error(
        "the model cannot write a text to calibrate on: neither its tokenizer nor its config.json names a token \
         that begins or ends a text; give a text with --calibration, or take --no-calibration"
    )]
    NoBeginning,
    /// The int8 model could not be made.
    #[error(transparent)]
    Quantize(#[from] quantize::Error),
    /// It could not write.
    #[error("the model cannot write a text to calibrate on: {0}")]
    Model(#[from] cerebellum::Error),
    /// The text cannot serve.
    #[error(transparent)]
    Calibration(#[from] calibrate::Error),
}

/// How documents begin and end.
#[derive(Debug)]
pub struct Form {
    /// How documents begin; they take turns.
    beginnings: Vec<Beginning>,
    /// Tokens that end one.
    ends: Vec<u32>,
}

/// How a document begins.
#[derive(Debug, PartialEq)]
enum Beginning {
    /// With these tokens.
    Tokens(Vec<u32>),
    /// With one of `words`, behind the token that the model wants before every text.
    Word { before: Option<u32>, words: Vec<u32> },
}

impl Form {
    /// That of a model with this tokenizer and this form of conversations, if it has them.
    ///
    /// # Errors
    /// [`Error::NoBeginning`].
    pub fn new(
        checkpoint: &Checkpoint,
        tokenizer: Option<&[u8]>,
        chat: Option<&ChatFormat>,
        end_tokens: &[u32],
    ) -> Result<Self, Error> {
        let eos = checkpoint.config().eos_token_id;
        let tokenizer =
            tokenizer.map(Tokenizer::parse).transpose().map_err(cerebellum::Error::from)?;
        let before = tokenizer.as_ref().and_then(|tokenizer| tokenizer.table().begin_of_text());
        let begin = before.or(eos).or(end_tokens.first().copied()).ok_or(Error::NoBeginning)?;
        let turn = chat.zip(tokenizer.as_ref()).and_then(|(chat, it)| users_turn(chat, it));
        let words = tokenizer.as_ref().map_or(Vec::new(), words);
        let word = (!words.is_empty()).then_some(Beginning::Word { before, words });
        let beginnings = [Some(Beginning::Tokens(vec![begin])), word, turn.map(Beginning::Tokens)];
        Ok(Self {
            beginnings: beginnings.into_iter().flatten().collect(),
            ends: eos.into_iter().chain(end_tokens.iter().copied()).collect(),
        })
    }
}

/// The tokens that stand for text.
fn words<B: AsRef<[u8]>>(tokenizer: &Tokenizer<B>) -> Vec<u32> {
    let table = tokenizer.table();
    let stands_for_text = |&id: &u32| {
        !table.is_special(id) && table.token_bytes(id).is_some_and(|bytes| !bytes.is_empty())
    };
    (0..table.len() as u32).filter(stands_for_text).collect()
}

/// What stands before the text of a user, if a conversation of this form can begin with one.
fn users_turn<B: AsRef<[u8]>>(chat: &ChatFormat, tokenizer: &Tokenizer<B>) -> Option<Vec<u32>> {
    let template = ChatTemplate::new(chat.clone(), tokenizer).ok()?;
    let messages = [Message::new(Role::User, PLACEHOLDER)];
    let text = template.text(&messages, false, ChatOptions::default()).ok()?;
    let before = &text[..text.find(PLACEHOLDER)?];
    let tokens = tokenizer.encode(before, EncodeOptions::PARSE_SPECIAL).ok()?;
    (!tokens.is_empty()).then_some(tokens)
}

/// Lets the model write `windows` windows of min(`n_positions`, 512) tokens. `draft` is where its int8 form may
/// lie meanwhile: nothing of it stays. The observer counts tokens.
///
/// The threads are those of the current rayon pool.
///
/// # Errors
/// See [`Error`].
pub fn write(
    checkpoint: &Checkpoint,
    form: &Form,
    windows: usize,
    draft: Output,
    observer: &dyn Observer,
) -> Result<Calibration, Error> {
    if windows == 0 {
        return Err(calibrate::Error::NoWindows.into());
    }
    let config = checkpoint.config();
    let window = Calibration::window_of(config);
    let format = MatrixFormat::new(Scheme::Int8);
    let (mut draft, _) =
        quantize::write(checkpoint, None, &Options::uniform(format), draft, observer)?;
    let model = {
        let file = draft.file().try_clone().map_err(|e| draft.error("open", e));
        Model::from_file(file.map_err(quantize::Error::from)?, draft.temporary(), Access::Map)?
    };
    observer.begin((windows * window) as u64);
    observer.turn_to("a text to calibrate on");
    let options = SessionOptions {
        context: Some(window),
        threads: rayon::current_num_threads(),
        ..SessionOptions::default()
    };
    let mut batch = model.batch(&options, SEQUENCES.min(windows))?;
    let mut tokens = Vec::with_capacity(windows * window);
    for first in (0..windows).step_by(batch.sequences()) {
        let numbers = first..windows.min(first + batch.sequences());
        (0..batch.sequences()).for_each(|sequence| batch.reset(sequence));
        let mut writers: Vec<_> = numbers.map(|number| Writer::new(number, form)).collect();
        while writers.iter().any(|writer| writer.room(window) > 0) {
            observer.advance(step(&mut batch, &mut writers, form, window)? as u64);
        }
        tokens.extend(writers.into_iter().flat_map(|writer| writer.tokens));
    }
    Ok(Calibration::new(&tokens, windows, config)?)
}

/// One window in the making. Documents follow each other without seeing each other.
struct Writer {
    window: usize,
    documents: usize,
    tokens: Vec<u32>,
    /// Tokens that are not evaluated yet.
    next: Vec<u32>,
}

impl Writer {
    fn new(window: usize, form: &Form) -> Self {
        let mut writer = Self { window, documents: 0, tokens: Vec::new(), next: Vec::new() };
        writer.begin(form);
        writer
    }

    /// Begins the next document.
    fn begin(&mut self, form: &Form) {
        let beginning = (self.window + self.documents) % form.beginnings.len();
        match &form.beginnings[beginning] {
            Beginning::Tokens(tokens) => self.next.clone_from(tokens),
            Beginning::Word { before, words } => {
                let word = words[SplitMix(self.seed()).below(words.len())];
                self.next = before.iter().copied().chain([word]).collect();
            }
        }
        self.documents += 1;
    }

    /// One for each document.
    fn seed(&self) -> u64 {
        (self.window as u64) << 32 | self.documents as u64
    }

    fn room(&self, window: usize) -> usize {
        window - self.tokens.len()
    }

    /// Draws from the model's own distribution, for each document with a seed of its own.
    fn sampling(&self) -> SamplerOptions {
        SamplerOptions { temperature: 1.0, seed: self.seed(), ..SamplerOptions::default() }
    }
}

/// Writes the next token of every window that has room, or the beginning of a document. Returns how many tokens
/// that were.
fn step(
    batch: &mut Batch,
    writers: &mut [Writer],
    form: &Form,
    window: usize,
) -> Result<usize, Error> {
    let mut written = 0;
    for writer in writers.iter_mut() {
        writer.next.truncate(writer.room(window));
        writer.tokens.extend(&writer.next);
        written += writer.next.len();
    }
    let appends = writers.iter().enumerate().filter(|(_, writer)| !writer.next.is_empty());
    let appends: Vec<_> =
        appends.map(|(sequence, it)| Append { sequence, tokens: &it.next }).collect();
    batch.evaluate(&appends)?;
    for (sequence, writer) in writers.iter_mut().enumerate() {
        writer.next.clear();
        if writer.room(window) == 0 {
            continue;
        }
        let token = batch.sample(sequence, &writer.sampling())?;
        if form.ends.contains(&token) {
            writer.tokens.push(token);
            written += 1;
            batch.reset(sequence);
            writer.begin(form);
        } else {
            writer.next.push(token);
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn root(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    #[test]
    fn documents_begin_in_turns() {
        let checkpoint = Checkpoint::open(&root("demo")).unwrap();
        let vocab_size = u32::try_from(checkpoint.config().vocab_size).unwrap();
        let tokenizer = crate::tokenizer::import(&root("demo"), vocab_size).unwrap().unwrap();
        let template = std::fs::read_to_string(root("../tests/data/chat/zephyr.jinja")).unwrap();
        let chat = ChatFormat { template: Some(template), ..ChatFormat::default() };
        let eos = checkpoint.config().eos_token_id.unwrap();
        let form = Form::new(&checkpoint, Some(&tokenizer.blob), Some(&chat), &[7]).unwrap();
        let tokenizer = Tokenizer::parse(&tokenizer.blob[..]).unwrap();
        let turn = tokenizer.encode("<|user|>\n", EncodeOptions::PARSE_SPECIAL).unwrap();
        let [first, Beginning::Word { before: None, words }, last] = &form.beginnings[..] else {
            panic!("{:?}", form.beginnings)
        };
        assert_eq!([first, last], [vec![eos], turn].map(Beginning::Tokens).each_ref());
        assert!(!words.contains(&eos) && words.len() > 4000 && words.len() < 4096);
        assert_eq!(form.ends, [eos, 7]);
        let mut writer = Writer::new(2, &form);
        assert_eq!(Beginning::Tokens(writer.next.clone()), *last);
        writer.begin(&form);
        assert_eq!(writer.next, [eos]);
        writer.begin(&form);
        assert!(writer.next.len() == 1 && words.contains(&writer.next[0]));
    }
}
