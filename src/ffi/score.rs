//! Scores and embeddings
//!
//! How probable tokens and given continuations are, and what a text is like, as a vector: all without
//! generating anything.

use std::ffi::c_char;

use super::arguments::{
    Out, buffer_for, copy_out, list_lengths, slice, slice_mut, text, texts, tokens_that_fit,
};
use super::boundary::{self, Report};
use super::failure::Failure;
use super::options::{self, cbl_options};
use super::session::{self, Inner, cbl_session};
use super::status::cbl_status::{self, CBL_BAD_ARGUMENT};
use super::text::encode_after;
use crate::error::{Error, Result};
use crate::memory::{try_filled, try_vec};
use crate::score::{Continuations, log_sum_exp, most_probable};
use crate::session::Pooling;

/// Tells how probable tokens are by the `count` logits at `logits`, from wherever: a session, a batch, a
/// callback. `log_probabilities` has room for as many results as there are tokens, `token_count`; each is
/// the natural logarithm of the probability of the token at its place in `tokens`, before temperature,
/// bias and penalty.
///
/// Thread-safe. Errors: CBL_BAD_ARGUMENT, also if there are no logits; CBL_BAD_TOKEN if a token is not below
/// `count`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_log_probabilities(
    logits: *const f32,
    count: usize,
    tokens: *const u32,
    token_count: usize,
    log_probabilities: *mut f64,
) -> cbl_status {
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let (logits, tokens, places) = unsafe {
            (
                some_logits(logits, count)?,
                slice(tokens, token_count)?,
                slice_mut(log_probabilities, token_count)?,
            )
        };
        write_log_probabilities(logits, tokens, places)
    })
}

/// Finds the `capacity` most probable tokens by the `count` logits at `logits`, from wherever. `tokens` and
/// `log_probabilities`, which may be NULL, have room for so many results, the most probable first, the
/// lower id first among equals; `*found` receives how many there are, which is less than `capacity` only if
/// there are not more tokens.
///
/// Thread-safe. Takes 4 bytes per logit from the heap meanwhile. Errors: CBL_BAD_ARGUMENT, also if there are
/// no logits; CBL_NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_top_tokens(
    logits: *const f32,
    count: usize,
    tokens: *mut u32,
    log_probabilities: *mut f64,
    capacity: usize,
    found: *mut usize,
) -> cbl_status {
    boundary::status(Report::Nothing, || {
        // SAFETY: the caller's contract.
        let (out, logits) = unsafe { (Out::new(found, 0)?, some_logits(logits, count)?) };
        let wanted = capacity.min(count);
        // SAFETY: the caller's contract.
        let places = unsafe { slice_mut(tokens, wanted) }?;
        let log_places = match log_probabilities.is_null() {
            true => &mut [],
            // SAFETY: the caller's contract.
            false => unsafe { slice_mut(log_probabilities, wanted) }?,
        };
        let top = most_probable(logits, wanted, try_vec(count)?);
        places.copy_from_slice(&top);
        if !log_places.is_empty() {
            write_log_probabilities(logits, &top, log_places)?;
        }
        out.set(wanted);
        Ok(())
    })
}

/// # Safety
/// As [`slice()`].
unsafe fn some_logits<'a>(logits: *const f32, count: usize) -> Result<&'a [f32], Failure> {
    // SAFETY: the caller's contract.
    match unsafe { slice(logits, count) }? {
        [] => Err(Failure::Misuse(CBL_BAD_ARGUMENT, "there are no logits")),
        logits => Ok(logits),
    }
}

fn write_log_probabilities(
    logits: &[f32],
    tokens: &[u32],
    places: &mut [f64],
) -> Result<(), Failure> {
    let vocab_size = logits.len();
    if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab_size) {
        return Err(Error::TokenOutOfRange { token, vocab_size }.into());
    }
    let log_sum = log_sum_exp(logits);
    for (place, &token) in places.iter_mut().zip(tokens) {
        *place = f64::from(logits[token as usize]) - log_sum;
    }
    Ok(())
}

/// Computes how probable `count` continuations of a prompt are: `continuations` points to so many texts
/// of UTF-8, each ended by a zero byte; `log_probabilities` has room for so many results. Each is the
/// natural logarithm of the probability of all of a continuation's tokens, one after the other.
/// `lengths`, which may be NULL, receives how many tokens each has; log_probability / length is what to
/// compare if long ones are not to lose for their length, and exp() of its negative is the perplexity.
///
/// The prompt, `length` bytes, comes behind what the session holds and stays in it, so more
/// continuations can be scored with an empty one; the continuations are not kept. An empty prompt in an
/// empty session stands for the beginning of a text. Prompt and continuations are tokenized apart: the
/// space before a word belongs to the continuation (" time", not "time").
///
/// Continuations are evaluated together, and what their beginnings have in common only once. That is
/// fastest in a session made with CBL_OPTION_ALL_LOGITS. `options` may be NULL;
/// CBL_OPTION_PARSE_SPECIAL counts.
///
/// One thread at a time. On failure the session is as before, but for the logits, which are gone in any
/// case; results are written on success only. Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT, also if a
/// continuation is empty; CBL_INVALID_UTF8; CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if prompt
/// and longest continuation do not fit; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED;
/// CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_score(
    session: *mut cbl_session,
    options: *const cbl_options,
    prompt: *const c_char,
    length: usize,
    continuations: *const *const c_char,
    count: usize,
    log_probabilities: *mut f64,
    lengths: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        session::work(session, |inner| {
            let prompt = text(prompt, length)?;
            let texts = texts(continuations, count)?;
            let sums = slice_mut(log_probabilities, count)?;
            let lengths = if lengths.is_null() { &mut [] } else { slice_mut(lengths, count)? };
            let special = options::with(options, |options| Ok(options.parse_special))?;
            let encode = |position: usize, text: &str| {
                encode_after(position, &inner.session, &inner.shared, text, special)
            };
            let prompt = encode(inner.session.position(), prompt)?;
            let before = inner.session.position() + prompt.len();
            let mut tokens = try_vec(count)?;
            for text in texts {
                tokens.push(encode(before, text)?);
            }
            score(inner, &prompt, &tokens, sums, &mut [])?;
            lengths.iter_mut().zip(&tokens).for_each(|(length, tokens)| *length = tokens.len());
            Ok(())
        })
    }
}

/// As cbl_score(), in token ids: a prompt of `prompt_count`, and `count` continuations that lie one after
/// another at `tokens`, of `lengths[0]`, `lengths[1]`, ... tokens. `each` may be NULL, or has room for
/// the natural logarithm of the probability of each of all these tokens after those before it. Works in
/// a build that cannot tokenize.
///
/// One thread at a time. Errors: those of cbl_score() that concern no text, CBL_MODEL_CHANGED among them;
/// CBL_BAD_TOKEN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_score_tokens(
    session: *mut cbl_session,
    prompt: *const u32,
    prompt_count: usize,
    tokens: *const u32,
    lengths: *const usize,
    count: usize,
    log_probabilities: *mut f64,
    each: *mut f64,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        session::work(session, |inner| {
            let prompt = tokens_that_fit(&inner.session, prompt, prompt_count)?;
            let (lengths, total) = list_lengths(lengths, count)?;
            let mut rest = slice(tokens, total)?;
            let sums = slice_mut(log_probabilities, count)?;
            let each = if each.is_null() { &mut [] } else { slice_mut(each, total)? };
            let mut continuations = try_vec(count)?;
            for &length in lengths {
                let (tokens, others) = rest.split_at(length);
                continuations.push(tokens);
                rest = others;
            }
            score(inner, prompt, &continuations, sums, each)
        })
    }
}

/// Writes the sum of each continuation to `sums`. Writes the result of each token to `each`, unless
/// that is empty.
fn score<T: AsRef<[u32]>>(
    inner: &mut Inner,
    prompt: &[u32],
    continuations: &[T],
    sums: &mut [f64],
    each: &mut [f64],
) -> Result<(), Failure> {
    let tree = Continuations::new(continuations)?;
    let evaluated = prompt.len() + tree.evaluated_tokens();
    let scores = inner.counted(evaluated, |session| session.score(prompt, &tree))?;
    sums.iter_mut().enumerate().for_each(|(i, sum)| *sum = scores.log_probability(i));
    let mut rest = each;
    for i in 0..if rest.is_empty() { 0 } else { tree.len() } {
        let (tokens, others) = rest.split_at_mut(tree.tokens_of(i));
        scores.copy_tokens(i, tokens);
        rest = others;
    }
    Ok(())
}

/// Computes the embedding of a text, `length` bytes of UTF-8: a vector of length one. Two texts are
/// similar if the dot product of their vectors is near one. `*count` receives the number of
/// elements, which is cbl_model_info.embedding. `embedding` has room for `capacity` elements, and
/// receives them if they all fit. `options` may be NULL; only CBL_OPTION_POOLING and
/// CBL_OPTION_PARSE_SPECIAL are used.
///
/// The text replaces the tokens that the session holds.
///
/// One thread at a time. The session is reset if the call fails. Errors: CBL_BAD_HANDLE;
/// CBL_BAD_ARGUMENT, also if the text is empty; CBL_INVALID_UTF8; CBL_BUFFER_TOO_SMALL;
/// CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if the text is too long; CBL_MODEL_CHANGED;
/// CBL_NON_FINITE; CBL_CANCELLED; CBL_NO_MEMORY; CBL_UNSUPPORTED; CBL_BUSY; CBL_PANIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_embed(
    session: *mut cbl_session,
    options: *const cbl_options,
    text: *const c_char,
    length: usize,
    embedding: *mut f32,
    capacity: usize,
    count: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(count, 0);
        session::work(session, |inner| {
            out?;
            let text = self::text(text, length)?;
            let (special, pooling) =
                options::with(options, |options| Ok((options.parse_special, options.pooling)))?;
            let tokens = encode_after(0, &inner.session, &inner.shared, text, special)?;
            embed(inner, &tokens, pooling, (embedding, capacity, count))
        })
    }
}

/// As cbl_embed(), of `count` token ids; `*width` receives the number of elements. Works in a build that
/// cannot tokenize.
///
/// One thread at a time. Errors: those of cbl_embed() that concern no text, CBL_MODEL_CHANGED among them;
/// CBL_BAD_TOKEN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_embed_tokens(
    session: *mut cbl_session,
    options: *const cbl_options,
    tokens: *const u32,
    count: usize,
    embedding: *mut f32,
    capacity: usize,
    width: *mut usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = Out::new(width, 0);
        session::work(session, |inner| {
            out?;
            let context = inner.session.context();
            if count > context {
                return Err(Error::ContextFull { position: 0, tokens: count, context }.into());
            }
            let tokens = slice(tokens, count)?;
            let pooling = options::with(options, |options| Ok(options.pooling))?;
            embed(inner, tokens, pooling, (embedding, capacity, width))
        })
    }
}

/// # Safety
/// As [`copy_out`] for the buffer, its capacity, and the place for the number of elements.
unsafe fn embed(
    inner: &mut Inner,
    tokens: &[u32],
    pooling: Pooling,
    (buffer, capacity, count): (*mut f32, usize, *mut usize),
) -> Result<(), Failure> {
    let width = inner.session.model().config().n_embd;
    // SAFETY: the caller's contract.
    unsafe {
        Out::new(count, width)?;
        buffer_for(width, buffer, capacity)?;
    }
    let mut embedding = try_filled(0.0, width)?;
    inner.session.reset();
    inner.counted(tokens.len(), |session| session.embed(tokens, pooling, &mut embedding))?;
    // SAFETY: the caller's contract.
    unsafe { copy_out(&embedding, buffer, capacity, count) }
}
