//! Scores and embeddings
//!
//! These functions compute how probable tokens and given continuations are, and the embedding of a
//! text, which is a vector: similar texts have similar vectors. They generate nothing.

use core::ffi::c_char;

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

/// Computes how probable `token_count` tokens are by the `count` logits at `logits`. The logits may
/// come from a session, a batch or a callback. `log_probabilities` has room for `token_count`
/// results. Result `i` is the natural logarithm of the probability of `tokens[i]`, before
/// temperature, bias and penalty.
///
/// Thread-safe. Errors: CBL_BAD_ARGUMENT, also if `count` is 0; CBL_BAD_TOKEN if a token is not
/// less than `count`.
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

/// Finds the `capacity` most probable tokens by the `count` logits at `logits`. The logits may come
/// from a session, a batch or a callback. `tokens` has room for `capacity` ids and receives the
/// most probable token first; of equally probable tokens, the one with the lower id comes first.
/// `log_probabilities` may be NULL, or has room for `capacity` results and receives the natural
/// logarithm of each token's probability. `*found` receives the number of tokens found: `capacity`,
/// or `count` if that is less.
///
/// Thread-safe. Takes 4 bytes per logit from the heap during the call. Errors: CBL_BAD_ARGUMENT,
/// also if `count` is 0; CBL_NO_MEMORY.
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
        let top = most_probable(logits, wanted, try_vec(wanted)?);
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

/// Computes how probable `count` continuations of a prompt are. `continuations` points to `count`
/// texts of UTF-8, each ended by a zero byte. `log_probabilities` has room for `count` results.
/// Result `i` is the natural logarithm of the probability of all tokens of continuation `i`, one
/// after the other. `lengths` may be NULL, or has room for `count` numbers and receives the number
/// of tokens of each continuation.
///
/// A long continuation has more tokens and so a lower result. To compare continuations of different
/// lengths, divide each result by its number of tokens. exp() of the negative quotient is the
/// perplexity.
///
/// The prompt is `length` bytes of UTF-8. It comes after the tokens that the session holds, and
/// stays in the session, so that a call with an empty prompt can score more continuations of it.
/// The continuations do not stay. An empty prompt in an empty session stands for the beginning of a
/// text. The prompt and the continuations are tokenized separately: the space before a word belongs
/// to the continuation (" time", not "time").
///
/// The continuations are evaluated together. Tokens with which several of them begin are evaluated
/// once. That is fastest in a session made with CBL_OPTION_ALL_LOGITS. `options` may be NULL; only
/// CBL_OPTION_PARSE_SPECIAL is used.
///
/// One thread at a time. On failure the session holds the tokens that it held before. It has no
/// logits afterwards, whether the call succeeds or fails. Results are written on success only.
/// Errors: CBL_BAD_HANDLE; CBL_BAD_ARGUMENT, also if a continuation is empty; CBL_INVALID_UTF8;
/// CBL_NO_TOKENIZER; CBL_BAD_TEXT; CBL_CONTEXT_FULL if the prompt and the longest continuation do
/// not fit; CBL_MODEL_CHANGED; CBL_NON_FINITE; CBL_CANCELLED; CBL_NO_MEMORY; CBL_UNSUPPORTED;
/// CBL_BUSY; CBL_PANIC.
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

/// Computes how probable continuations are as cbl_score() does, from token ids: a prompt of
/// `prompt_count` ids, and `count` continuations. Continuation `i` has `lengths[i]` tokens, and all
/// continuations lie one after another at `tokens`. `each` may be NULL, or has room for one result
/// for each of these tokens: the natural logarithm of its probability after the tokens before it.
/// Works in a build that cannot tokenize.
///
/// One thread at a time. Errors: those of cbl_score() that concern no text, CBL_MODEL_CHANGED among
/// them; CBL_BAD_TOKEN.
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

/// Computes an embedding as cbl_embed() does, of `count` token ids. `*width` receives the number of
/// elements. Works in a build that cannot tokenize.
///
/// One thread at a time. Errors: those of cbl_embed() that concern no text, CBL_MODEL_CHANGED among
/// them; CBL_BAD_TOKEN.
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
