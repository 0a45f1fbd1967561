//! Everything a program may do with a model file. The fuzz targets run it too.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

use cerebellum::batch::Append;
use cerebellum::classify::{Classifier, ClassifierOptions, Template};
use cerebellum::kernels::Isa;
use cerebellum::quant::TILE_ALIGN;
use cerebellum::sampler::SamplerOptions;
use cerebellum::score::Continuations;
use cerebellum::text::{EncodeOptions, Utf8Stream};
use cerebellum::{Error, HostMemory, KvType, LogitsFor, Model, Pooling, Result, SessionOptions};

/// What became of a file that could be opened.
pub struct Ran {
    /// Names of the tensors that `verify` reports.
    pub damaged: Vec<String>,
    /// Reading the tokenizer, decoding and encoding with it.
    pub tokenizer: Result<()>,
    /// Evaluating a few tokens: alone, as a tree, in a batch.
    pub evaluation: Result<()>,
}

/// Positions that are evaluated at most.
pub const CONTEXT: usize = 5;

/// Under Miri the tokenizers library takes minutes to compile its regular expressions, so no text is
/// encoded there: that code is the library's.
const REGEXES_TAKE_MINUTES: bool = cfg!(miri);

/// A way to evaluate a model.
#[derive(Clone, Copy)]
pub enum Way {
    /// One sequence, from its first position on.
    Sequence,
    /// Continuations that branch.
    Tree,
    /// Several sequences at once.
    Batch,
}

impl Way {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Sequence, Self::Tree, Self::Batch];
}

/// What is done with a model, besides verifying it and reading its tokenizer.
pub struct Work {
    /// Ways to evaluate it, each with each of `caches`.
    pub ways: &'static [Way],
    /// Types of the keys and values.
    pub caches: &'static [KvType],
    /// Whether it classifies, if it can.
    pub classify: bool,
    /// The kernels.
    pub isa: Isa,
}

impl Work {
    /// Everything, on one of this processor's instruction sets: the file decides, so that files take turns
    /// and a replay takes the same.
    pub fn everything(file: &[u8]) -> Self {
        let available: Vec<Isa> = Isa::available().collect();
        let isa = available[crc32fast::hash(file) as usize % available.len()];
        Self { ways: Way::ALL, caches: &[KvType::F16, KvType::Int8], classify: true, isa }
    }
}

/// Opens, verifies and runs the bytes of a model file.
pub fn exercise(file: &[u8]) -> Result<Ran> {
    exercise_with(file, &Work::everything(file))
}

/// The same, of the evaluations only `work`.
pub fn exercise_with(file: &[u8], work: &Work) -> Result<Ran> {
    // Dropped after the model.
    let half = AlignedBytes::copy(&file[..file.len() / 2]);
    let model = Model::borrow(AlignedBytes::copy(file))?;
    let room = half.host_memory();
    match model.copy_weights(room) {
        Ok(copy) => assert!(copy.range.len() <= file.len() / 2 && copy.saved_bytes > 0),
        Err(error) => assert!(matches!(error, Error::Option { .. }), "{error}"),
    }
    for name in model.header().templates.keys() {
        // Whether it is sound does not matter to the file.
        let _ = model.template(name);
    }
    let damaged = model.verify()?.into_iter().map(|fault| fault.tensor).collect();
    let options = |kv| SessionOptions {
        context: Some(model.config().max_context().min(CONTEXT)),
        kv,
        logits: LogitsFor::All,
        chunk: 3,
        isa: Some(work.isa),
        ..Default::default()
    };
    let evaluation = work.caches.iter().try_for_each(|&kv| {
        work.ways.iter().try_for_each(|way| match way {
            Way::Sequence => evaluate(&model, &options(kv)),
            Way::Tree => score(&model, &options(kv)),
            Way::Batch => batch(&model, &options(kv)),
        })
    });
    if work.classify && !REGEXES_TAKE_MINUTES {
        classify(&model, &options(KvType::F16));
    }
    Ok(Ran { damaged, tokenizer: read_tokens(&model), evaluation })
}

fn tokens(model: &Model, count: usize) -> Vec<u32> {
    (0..count).map(|i| token(i, model.config().vocab_size)).collect()
}

fn assert_finite(logits: &[f32]) {
    assert!(logits.iter().all(|logit| logit.is_finite()), "a non-finite logit is handed out");
}

fn evaluate(model: &Model, options: &SessionOptions) -> Result<()> {
    let plan = model.plan(options)?;
    assert!(plan.total_private_bytes >= plan.kv_bytes);
    let mut session = model.session(options)?;
    let tokens = tokens(model, session.context());
    session.evaluate_each(&tokens, |_, logits| assert_finite(logits))?;
    session.reset();
    let mut embedding = vec![0.0; model.config().n_embd];
    session.embed(&tokens, Pooling::Mean, &mut embedding)
}

/// Continuations that branch, behind a token.
fn score(model: &Model, options: &SessionOptions) -> Result<()> {
    let mut session = model.session(options)?;
    if session.context() < 3 {
        return Ok(());
    }
    let tokens = tokens(model, 4);
    let tree = Continuations::new(&[&tokens[1..2], &tokens[1..3], &tokens[2..4]])?;
    let scores = session.score(&tokens[..1], &tree)?;
    for continuation in 0..tree.len() {
        let score = scores.log_probability(continuation);
        assert!(score <= 0.0, "a log-probability of {score}");
    }
    Ok(())
}

/// Two sequences of different lengths at once, then one more token of each.
fn batch(model: &Model, options: &SessionOptions) -> Result<()> {
    let mut batch = model.batch(options, 2)?;
    let tokens = tokens(model, batch.context());
    let mut both = |first: &[u32], second: &[u32]| {
        batch.evaluate(&[
            Append { sequence: 0, tokens: first },
            Append { sequence: 1, tokens: second },
        ])?;
        for sequence in 0..2 {
            assert_finite(batch.logits(sequence)?);
            batch.sample(sequence, &SamplerOptions::default())?;
        }
        Ok(())
    };
    let (last, before) = tokens.split_last().expect("the context is not empty");
    if before.is_empty() {
        return both(&[*last], &[*last]);
    }
    both(before, &before[..1])?;
    both(&[*last], &[*last])
}

/// Labels behind a template. Most files have no tokenizer that can express them, which is an error.
fn classify(model: &Model, options: &SessionOptions) {
    let run = || {
        let tokenizer = model.tokenizer()?;
        let template = Template::parse("{text}{label}b")?;
        let options_with = ClassifierOptions { template, ..Default::default() };
        let classifier = Classifier::new(&tokenizer, &["a", "b"], &options_with)?;
        classifier.classify(&mut model.session(options)?, "a").map(drop)
    };
    let _: Result<()> = run();
}

/// The token evaluated at a position.
pub fn token(position: usize, vocab_size: usize) -> u32 {
    (position * 7 % vocab_size) as u32
}

fn read_tokens(model: &Model) -> Result<()> {
    let tokenizer = match model.tokenizer() {
        Err(Error::NoTokenizer) => return Ok(()),
        other => other?,
    };
    let table = tokenizer.table();
    let (mut text, mut utf8) = (String::new(), Utf8Stream::new());
    for id in (0..table.len().min(256) as u32).chain([u32::MAX]) {
        utf8.push(table.token_bytes(id).unwrap_or_default(), &mut text);
        table.is_special(id);
    }
    if REGEXES_TAKE_MINUTES {
        return Ok(());
    }
    for (text, parse_special) in [("ab abb cab", false), ("ab abba<|end|> b", true)] {
        tokenizer.encode(text, EncodeOptions { parse_special, begin_of_text: parse_special })?;
    }
    Ok(())
}

/// A copy that begins on a panel's boundary and ends where its allocation ends, so that memory
/// checkers see a read beyond it.
pub struct AlignedBytes {
    start: *mut u8,
    length: usize,
}

// SAFETY: the bytes are owned and, once copied, only read.
unsafe impl Send for AlignedBytes {}
// SAFETY: as above.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// Copies `bytes`.
    pub fn copy(bytes: &[u8]) -> Self {
        let length = bytes.len();
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc(Self::layout(length)) };
        assert!(!start.is_null(), "out of memory");
        // SAFETY: `start` is a new allocation of at least `length` bytes.
        unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), length) };
        Self { start, length }
    }

    /// The same memory, for a model that alone uses it from now on.
    fn host_memory(&self) -> HostMemory {
        // SAFETY: the caller's promise is this function's, which only this file calls.
        unsafe { HostMemory::new(NonNull::new_unchecked(self.start), self.length) }
    }

    fn layout(length: usize) -> Layout {
        Layout::from_size_align(length.max(1), TILE_ALIGN).expect("as long as an existing slice")
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` were initialized by `copy` and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated by `copy` with this layout, and not used again.
        unsafe { dealloc(self.start, Self::layout(self.length)) }
    }
}
