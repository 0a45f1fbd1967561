//! Everything a program may do with a model file. The fuzz targets run it too.

use std::alloc::{Layout, alloc, dealloc};

use cerebellum::quant::TILE_ALIGN;
use cerebellum::text::{EncodeOptions, Utf8Stream};
use cerebellum::{Error, KvType, LogitsFor, Model, Result, SessionOptions};

/// What became of a file that could be opened.
pub struct Ran {
    /// Names of the tensors that `verify` reports.
    pub damaged: Vec<String>,
    /// Reading the tokenizer, decoding and encoding with it.
    pub tokenizer: Result<()>,
    /// Evaluating a few tokens.
    pub evaluation: Result<()>,
}

/// Positions that are evaluated at most.
pub const CONTEXT: usize = 5;

/// Opens, verifies and runs the bytes of a model file.
pub fn exercise(file: &[u8]) -> Result<Ran> {
    let model = Model::borrow(AlignedBytes::copy(file))?;
    for name in model.header().templates.keys() {
        // Whether it is sound does not matter to the file.
        let _ = model.template(name);
    }
    let damaged = model.verify()?.into_iter().map(|fault| fault.tensor).collect();
    let evaluation = evaluate(&model, KvType::F16).and_then(|()| evaluate(&model, KvType::Int8));
    Ok(Ran { damaged, tokenizer: read_tokens(&model), evaluation })
}

fn evaluate(model: &Model, kv: KvType) -> Result<()> {
    let context = model.config().max_context().min(CONTEXT);
    let (context, logits) = (Some(context), LogitsFor::All);
    let options = SessionOptions { context, kv, logits, chunk: 3, ..Default::default() };
    let plan = model.plan(&options)?;
    assert!(plan.total_private_bytes >= plan.kv_bytes);
    let mut session = model.session(&options)?;
    let vocab_size = model.config().vocab_size;
    let tokens: Vec<u32> = (0..session.context()).map(|i| token(i, vocab_size)).collect();
    session.evaluate_each(&tokens, |_, logits| {
        assert!(logits.iter().all(|logit| logit.is_finite()), "a non-finite logit is handed out");
    })
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
    for (text, parse_special) in [("ab abb cab", false), ("ab abba<|end|> b", true)] {
        tokenizer.encode(text, EncodeOptions { parse_special })?;
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
