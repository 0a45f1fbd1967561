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

use std::fmt::Display;
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{
    InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv,
};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory, regex_to_lark};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::fp_env::FpEnv;
use crate::generate::Constraint;
use crate::model::Model;
use crate::text::{EncodeOptions, Tokenizer, layout};

/// What a text must be like.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// One of these, exactly.
    Choices(Vec<String>),
    /// A match of this regular expression from its first to its last character, in the syntax of the
    /// crate `regex`, without anchors, look-around and lazy repetition.
    Regex(String),
    /// JSON that follows this JSON schema (draft 2020-12; what is not supported is an error), in one
    /// line, a space behind each comma and colon.
    JsonSchema(Value),
    /// What another form says, with or without a space before it: a text that goes on behind a word
    /// mostly begins with one.
    AfterSpace(Box<Form>),
}

/// A model's vocabulary, prepared for constraints. Making it takes some time and several times the
/// tokenizer's memory: make one for a model, and as many constraints as there are texts.
pub struct Vocabulary {
    factory: ParserFactory,
}

impl Vocabulary {
    /// Prepares the vocabulary of `model`, whose `tokenizer` it keeps.
    ///
    /// # Errors
    /// [`Error::Constraint`] if the vocabulary cannot be used; [`Error::Text`] if the tokenizer's tables
    /// make no encoder.
    pub fn new<B>(model: &Model, tokenizer: Arc<Tokenizer<B>>) -> Result<Self>
    where
        B: AsRef<[u8]> + Send + Sync + 'static,
    {
        // Reports a bad table now: later there is nobody to tell.
        tokenizer.encode("", EncodeOptions::default())?;
        let config = model.config();
        let words = words(&tokenizer, config.vocab_size, config.eos_token_id);
        // A model without an end-of-text token gets one past its vocabulary that it cannot choose.
        let end_of_text = config.eos_token_id.unwrap_or(config.vocab_size as u32);
        let info = TokRxInfo::new(words.len() as u32, end_of_text);
        let environment = Environment { tokenizer, trie: TokTrie::from(&info, &words) };
        let environment: TokEnv = Arc::new(environment);
        let capabilities = InferenceCapabilities { ff_tokens: true, ..Default::default() };
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory =
            ParserFactory::new(&environment, capabilities, &slices).map_err(|e| failure(&e))?;
        factory.quiet();
        Ok(Self { factory })
    }

    /// A constraint for one text.
    ///
    /// # Errors
    /// [`Error::Constraint`] if the form makes no sense, or asks for what is not supported.
    pub fn constrain(&self, form: &Form) -> Result<TextConstraint> {
        // The bounds of a schema's numbers are computed with.
        let _env = FpEnv::set_default();
        let grammar = TopLevelGrammar::from_lark(lark(form)?);
        let parser = self.factory.create_parser(grammar).map_err(|e| {
            let what = form.name();
            Error::Constraint(format!("the {what} cannot be used: {}", one_line(&e.to_string())))
        })?;
        Ok(TextConstraint { matcher: Matcher::new(Ok(parser)), allowed: None })
    }
}

impl Form {
    fn name(&self) -> &'static str {
        match self {
            Self::Choices(_) => "list of choices",
            Self::Regex(_) => "regular expression",
            Self::JsonSchema(_) => "JSON schema",
            Self::AfterSpace(form) => form.name(),
        }
    }
}

/// The form in llguidance's dialect of Lark.
fn lark(form: &Form) -> Result<String> {
    match form {
        Form::AfterSpace(form) => Ok(format!("start: \" \"? value\n{}", rules(form)?)),
        form => Ok(format!("start: value\n{}", rules(form)?)),
    }
}

fn rules(form: &Form) -> Result<String> {
    match form {
        Form::Choices(choices) => {
            if choices.is_empty() || choices.iter().any(String::is_empty) {
                let detail = "a list of choices needs at least one, and none may be empty";
                return Err(Error::Constraint(detail.to_owned()));
            }
            let choices: Vec<_> = choices.iter().map(|choice| escape(choice)).collect();
            rules(&Form::Regex(choices.join("|")))
        }
        Form::Regex(regex) => Ok(format!("value: /{}/\n", regex_to_lark(regex, ""))),
        Form::JsonSchema(schema) => Ok(format!("value: %json {}\n", compact(schema)?)),
        Form::AfterSpace(form) => rules(form),
    }
}

/// The regular expression that only `text` matches.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The schema, with the white space that JSON has when it is written in one line: a small model would
/// otherwise go on with white space for ever.
fn compact(schema: &Value) -> Result<Value> {
    let mut schema = match schema {
        Value::Bool(true) => Value::Object(Default::default()),
        Value::Object(_) => schema.clone(),
        _ => {
            let detail = "a JSON schema is an object, such as {\"type\": \"string\"}";
            return Err(Error::Constraint(detail.to_owned()));
        }
    };
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..Default::default()
    };
    options.apply_to(&mut schema);
    Ok(schema)
}

/// Each token's bytes, those of special tokens marked; none for ids without a token.
fn words<B: AsRef<[u8]>>(
    tokenizer: &Tokenizer<B>,
    vocab_size: usize,
    end_of_text: Option<u32>,
) -> Vec<Vec<u8>> {
    let table = tokenizer.table();
    let special = |id| table.added_token(id).is_some_and(|token| token.has(layout::SPECIAL));
    let marked = |bytes: &[u8]| [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat();
    let word = |id: u32| match table.token_bytes(id).unwrap_or_default() {
        bytes if end_of_text == Some(id) => marked(if bytes.is_empty() { b"end" } else { bytes }),
        bytes if special(id) => marked(bytes),
        // The marker's byte occurs in no UTF-8 text, so neither does such a token.
        bytes if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) => Vec::new(),
        bytes => bytes.to_vec(),
    };
    let mut words: Vec<_> = (0..vocab_size as u32).map(word).collect();
    if end_of_text.is_none() {
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
        self.trie.tokenize_with_greedy_fallback(bytes, |text| {
            let tokens = self.tokenizer.encode(text, EncodeOptions::default());
            tokens.unwrap_or_else(|_| self.trie.greedy_tokenize(text.as_bytes()))
        })
    }
}

/// A [`Constraint`] of one text.
pub struct TextConstraint {
    matcher: Matcher,
    /// What may come next, once that was computed.
    allowed: Option<SimpleVob>,
}

impl TextConstraint {
    /// What the library says about the form, such as that a part of a schema is ignored.
    pub fn warnings(&mut self) -> Vec<String> {
        self.matcher.grammar_warnings()
    }
}

impl Constraint for TextConstraint {
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<()> {
        let forced = self.matcher.consume_ff_tokens();
        if !forced.is_empty() {
            self.allowed = None;
            tokens.extend(forced);
        }
        self.check()
    }

    fn prepare(&mut self) {
        // An error stays with the matcher, which tells it again.
        if self.allowed.is_none() {
            self.allowed = self.matcher.compute_mask_or_eos().ok();
        }
    }

    fn allowed(&mut self) -> Result<&[u32]> {
        let allowed = match self.allowed.take() {
            Some(allowed) => allowed,
            None => self.matcher.compute_mask_or_eos().map_err(|e| failure(&e))?,
        };
        Ok(self.allowed.insert(allowed).as_slice())
    }

    fn accept(&mut self, token: u32) -> Result<()> {
        self.allowed = None;
        self.matcher.consume_token(token).map_err(|e| failure(&e))
    }

    fn is_complete(&mut self) -> Result<bool> {
        Ok(self.is_over() || self.matcher.is_accepting().map_err(|e| failure(&e))?)
    }

    fn is_over(&self) -> bool {
        self.matcher.is_stopped()
    }
}

impl TextConstraint {
    /// The matcher keeps an error to itself where a method returns none.
    fn check(&self) -> Result<()> {
        match self.matcher.get_error() {
            Some(error) => Err(failure(&error)),
            None => Ok(()),
        }
    }
}

fn failure(error: &impl Display) -> Error {
    Error::Constraint(one_line(&error.to_string()))
}

/// A message of the library without the picture that may follow it.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_make_no_sense_are_refused() {
        for form in [
            Form::Choices(Vec::new()),
            Form::Choices(vec!["a".to_owned(), String::new()]),
            Form::JsonSchema(Value::Null),
            Form::JsonSchema(Value::Bool(false)),
            Form::AfterSpace(Box::new(Form::JsonSchema(Value::from("string")))),
        ] {
            assert!(matches!(lark(&form), Err(Error::Constraint(_))), "{form:?}");
        }
    }

    #[test]
    fn choices_are_taken_literally() {
        let choices = ["a.b".to_owned(), "(c|d)".to_owned(), "e/f".to_owned()];
        let form = Form::AfterSpace(Box::new(Form::Choices(choices.into())));
        let want = "start: \" \"? value\nvalue: /a\\.b|\\(c\\|d\\)|e\\/f/\n";
        assert_eq!(lark(&form).unwrap(), want);
    }
}
