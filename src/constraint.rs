//! Texts that are sure to have a form: one of several choices, a match of a regular expression, JSON
//! that follows a schema.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use cerebellum::constraint::{Form, Vocabulary};
//! use cerebellum::generate::{GenerateOptions, generate_text_steps};
//! use cerebellum::{Access, Model, SessionOptions};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> cerebellum::Result<()> {
//! let model = Model::open("demo.cbl", Access::Map)?;
//! let tokenizer = Arc::new(model.tokenizer()?);
//! let vocabulary = Vocabulary::new(&model, Arc::clone(&tokenizer))?; // once per model
//! let form = Form::Regex("[0-9]{1,2}:[0-9]{2}".to_owned());
//! let mut constraint = vocabulary.constrain(&form)?; // once per text
//! let prompt = tokenizer.encode("Wake me at ", Default::default())?;
//! let mut session = model.session(&SessionOptions::default())?;
//! let (table, options) = (tokenizer.table(), GenerateOptions::default());
//! generate_text_steps(&mut session, table, &prompt, &options, Some(&mut constraint), |text, _| {
//!     print!("{text}");
//!     ControlFlow::Continue(())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! The library [llguidance](https://github.com/guidance-ai/llguidance) says which tokens may come next:
//! an Earley parser over a lexer of regular expressions' derivatives, run along the trie of the
//! vocabulary. Where only one text is possible it is put in without asking the model.

mod form;
mod message;
mod numbers;
mod schema;

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{Matcher, ParserFactory};

pub use self::form::{Form, Mark};
use self::message::reason;
use self::numbers::JsonText;
use crate::error::{Error, Result};
use crate::generate::Constraint;
use crate::memory;
use crate::model::Model;
use crate::text::{EncodeOptions, Tokenizer, layout};
use crate::threads::on_deep_stack;

/// llguidance ends the process if it gets no memory. So what it mostly takes is asked for before, in bytes: for a
/// vocabulary, for each byte of the tokenizer's table (23 were measured); ...
const VOCABULARY_MEMORY: usize = 32;

/// ... and for a small constraint and a text within it (157 KB); large ones take more.
const CONSTRAINT_MEMORY: usize = 512 << 10;

/// A model's vocabulary, prepared for constraints. Making it takes some time and several times the
/// tokenizer's memory: make one for a model, and as many constraints as there are texts.
///
/// A token of more than [`MAX_TOKEN_BYTES`] bytes is no part of it: within a constraint its text comes from
/// shorter tokens.
///
/// Making it, and a constraint, runs on a thread of its own for the time, whose stack is deeper than the
/// caller's may be.
pub struct Vocabulary {
    factory: ParserFactory,
    /// All tokens that end a text. The library knows one of them.
    ends: Arc<[u32]>,
}

impl Vocabulary {
    /// Prepares the vocabulary of `model`, whose `tokenizer` it keeps.
    ///
    /// # Errors
    /// [`Error::Constraint`] if the vocabulary cannot be used: its tokens have more than
    /// [`MAX_TREE_NODES`] different beginnings; [`Error::Text`] if the tokenizer's tables make no encoder;
    /// [`Error::Threads`].
    pub fn new<B>(model: &Model, tokenizer: Arc<Tokenizer<B>>) -> Result<Self>
    where
        B: AsRef<[u8]> + Send + Sync + 'static,
    {
        // Reports a bad table now: later there is nobody to tell.
        tokenizer.encode("", EncodeOptions::default())?;
        let bytes = tokenizer.table().byte_len().saturating_mul(VOCABULARY_MEMORY);
        memory::probe(bytes)?;
        let config = model.config();
        let ends = config.eos_token_id.into_iter().chain(model.header().end_tokens.iter().copied());
        let ends: Arc<[u32]> = ends.filter(|&end| (end as usize) < config.vocab_size).collect();
        let words = words(&tokenizer, config.vocab_size, &ends);
        check_tree(&words)?;
        // A model without an end-of-text token gets one past its vocabulary that it cannot choose.
        let end_of_text = ends.first().copied().unwrap_or(config.vocab_size as u32);
        let info = TokRxInfo::new(words.len() as u32, end_of_text);
        prepare(bytes, || {
            let environment = Environment { tokenizer, trie: TokTrie::from(&info, &words) };
            let environment: TokEnv = Arc::new(environment);
            let capabilities = InferenceCapabilities { ff_tokens: true, ..Default::default() };
            let slices = llguidance::earley::SlicedBiasComputer::general_slices();
            let factory = ParserFactory::new(&environment, capabilities, &slices);
            let mut factory = factory.map_err(|e| failure(&e))?;
            factory.quiet();
            factory.limits_mut().verbose_errors = false;
            Ok(Self { factory, ends })
        })
    }

    /// A constraint for one text.
    ///
    /// # Errors
    /// [`Error::Constraint`] if the form makes no sense, or asks for what is not supported;
    /// [`Error::Threads`].
    pub fn constrain(&self, form: &Form) -> Result<TextConstraint> {
        prepare(CONSTRAINT_MEMORY, || {
            let grammar = TopLevelGrammar::from_lark(form.lark()?);
            let parser = self.factory.create_parser(grammar).map_err(|error| {
                // What is wrong with the form alone is said better without its surroundings.
                form.check_here().err().unwrap_or_else(|| form.unusable(&error.to_string()))
            })?;
            Ok(TextConstraint {
                matcher: Matcher::new(Ok(parser)),
                allowed: None,
                json: form.json().map(JsonText::behind),
                environment: self.factory.tok_env().clone(),
                ends: Arc::clone(&self.ends),
            })
        })
    }
}

/// Calls `body` on a deep stack if the system has `bytes` bytes of memory to give.
fn prepare<T: Send>(bytes: usize, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    memory::probe(bytes)?;
    on_deep_stack(body)?
}

/// The longest token, in bytes, that a text within a constraint is made of; of special tokens one less.
pub const MAX_TOKEN_BYTES: usize = 1024;

/// The most different beginnings, from one byte to the whole token, that the tokens of a vocabulary may have.
pub const MAX_TREE_NODES: usize = (1 << 22) - 2;

/// The most ids that a tree's nodes have room for.
const MAX_WORDS: usize = (1 << 24) - 1;

/// Whether the tree of these tokens is one that the library can make.
fn check_tree(words: &[Vec<u8>]) -> Result<()> {
    let mut sorted: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    sorted.sort_unstable();
    let mut before: &[u8] = &[];
    let mut nodes = 0;
    for word in sorted {
        let shared = std::iter::zip(word, before).take_while(|(a, b)| a == b).count();
        // Of equal tokens each has an end of its own.
        nodes += (word.len() - shared).max(usize::from(!word.is_empty()));
        before = word;
    }
    if nodes <= MAX_TREE_NODES && words.len() <= MAX_WORDS {
        return Ok(());
    }
    if nodes <= MAX_TREE_NODES {
        return Err(Error::Constraint(format!(
            "the vocabulary has {} tokens, more than the {MAX_WORDS} of the largest that can be constrained; \
             generate without choices, regex and schema",
            words.len()
        )));
    }
    Err(Error::Constraint(format!(
        "the vocabulary's tokens have {nodes} different beginnings, more than the {MAX_TREE_NODES} of the \
         largest vocabulary that can be constrained; generate without choices, regex and schema"
    )))
}

/// Each token's bytes, those of special tokens marked; none for ids without a token.
fn words<B: AsRef<[u8]>>(
    tokenizer: &Tokenizer<B>,
    vocab_size: usize,
    ends: &[u32],
) -> Vec<Vec<u8>> {
    let table = tokenizer.table();
    let special = |id| table.added_token(id).is_some_and(|token| token.has(layout::SPECIAL));
    let marked = |bytes: &[u8]| [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
    let word = |id: u32| match table.token_bytes(id).unwrap_or_default() {
        // What ends a text is no part of it, even if the vocabulary says that it is text.
        bytes if ends.contains(&id) => {
            let has_name = (1..MAX_TOKEN_BYTES).contains(&bytes.len());
            marked(if has_name { bytes } else { b"end" })
        }
        bytes if bytes.len() + usize::from(special(id)) > MAX_TOKEN_BYTES => Vec::new(),
        bytes if special(id) => marked(bytes),
        // The marker's byte occurs in no UTF-8 text, so neither does such a token.
        bytes if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) => Vec::new(),
        bytes => bytes.to_vec(),
    };
    let mut words: Vec<_> = (0..vocab_size as u32).map(word).collect();
    if ends.is_empty() {
        words.push(marked(b"end"));
    }
    words
}

/// The vocabulary as llguidance wants it.
struct Environment<B> {
    tokenizer: Arc<Tokenizer<B>>,
    trie: TokTrie,
}

impl<B: AsRef<[u8]> + Send + Sync> TokenizerEnv for Environment<B> {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let mut tokens = self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            // What failed for lack of memory here would be tokenized in another way.
            let tokens = self.tokenizer.encode(text, EncodeOptions::default());
            tokens.unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        });
        // A vocabulary may lack bytes, which an encoder leaves out, and its long tokens are not in the tree:
        // as far as the tokens are those of these bytes.
        let mut rest = Some(bytes);
        let mut is_next = |&token: &TokenId| {
            let token = self.trie.token(token);
            rest = rest.and_then(|rest| rest.strip_prefix(token)).filter(|_| !token.is_empty());
            rest.is_some()
        };
        tokens.truncate(tokens.iter().take_while(|token| is_next(token)).count());
        tokens
    }
}

/// A [`Constraint`] of one text.
pub struct TextConstraint {
    matcher: Matcher,
    /// What may come next, once that was computed.
    allowed: Option<SimpleVob>,
    /// The JSON in the text, if it has any.
    json: Option<JsonText>,
    environment: TokEnv,
    ends: Arc<[u32]>,
}

impl TextConstraint {
    /// What the library says about the form, such as that a part of a schema is ignored.
    pub fn warnings(&mut self) -> Vec<String> {
        self.matcher.grammar_warnings()
    }

    /// Takes tokens that are in the text now.
    fn follow(&mut self, tokens: &[u32]) {
        self.allowed = None;
        if let Some(json) = &mut self.json {
            let trie = self.environment.tok_trie();
            for &token in tokens {
                json.follow(token, trie.token(token));
            }
        }
    }

    fn compute(&mut self) -> Result<SimpleVob> {
        let computed = self.matcher.compute_mask_or_eos();
        let mut allowed = computed.map_err(|e| failure(&e))?;
        // Where the text may end, it may end by any token that ends a text.
        if let Some((&known, others)) = self.ends.split_first()
            && allowed.is_allowed(known)
        {
            others.iter().for_each(|&end| allowed.allow_token(end));
        }
        if let Some(numbers) = self.json.as_ref().and_then(JsonText::numbers) {
            numbers.keep_short(&mut allowed, self.environment.tok_trie());
        }
        Ok(allowed)
    }
}

fn failure(error: &impl ToString) -> Error {
    Error::Constraint(reason(&error.to_string()))
}

impl Constraint for TextConstraint {
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        let forced = self.matcher.consume_ff_tokens();
        if !forced.is_empty() {
            self.follow(&forced);
            tokens.extend(forced);
        }
        // The matcher keeps an error to itself where a method returns none.
        self.matcher.get_error().map_or(Ok(()), |error| Err(failure(&error)))
    }

    fn prepare(&mut self) {
        // An error stays with the matcher, which tells it again.
        if self.allowed.is_none() {
            self.allowed = self.compute().ok();
        }
    }

    fn allowed(&mut self) -> Result<&[u32]> {
        let allowed = match self.allowed.take() {
            Some(allowed) => allowed,
            None => self.compute()?,
        };
        Ok(self.allowed.insert(allowed).as_slice())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.follow(&[token]);
        self.matcher.consume_token(token).map_err(|e| failure(&e))
    }

    fn is_complete(&mut self) -> Result<bool> {
        if self.is_over() {
            return Ok(true);
        }
        self.matcher.is_accepting().map_err(|e| failure(&e))
    }

    fn is_over(&self) -> bool {
        self.matcher.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_token_has_its_place() {
        let end = [&[TokTrie::SPECIAL_TOKEN_MARKER], &b"end"[..]].concat();
        let words = [vec![b'a'; MAX_TOKEN_BYTES], vec![b'a'], end];
        let trie = on_deep_stack(|| TokTrie::from(&TokRxInfo::new(3, 2), &words)).unwrap();
        assert_eq!(trie.token(0).len(), MAX_TOKEN_BYTES);
    }

    #[test]
    fn the_nodes_of_a_tree_are_counted() {
        let words = |n: usize| -> Vec<Vec<u8>> {
            // Tokens of 4 bytes that share nothing but their first byte or two.
            let word = |i: usize| vec![i as u8, (i >> 8) as u8, (i >> 16) as u8, 1];
            (0..n).map(word).collect()
        };
        assert!(check_tree(&words(1 << 20)).is_ok());
        // 256, 2^16, 2^22 - 1 and as many nodes of each length.
        let error = check_tree(&words((1 << 22) - 1)).unwrap_err().to_string();
        assert!(error.contains("8454398 different beginnings"), "{error}");
        assert!(check_tree(&[b"ab".to_vec(), b"ab".to_vec(), Vec::new()]).is_ok());
    }
}
