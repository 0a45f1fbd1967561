//! Templates: how a task is put to a model that does nothing but continue text
//! (`docs/templates.md` specifies the format).
//!
//! A template is a prompt with a place for the text, and says where the result ends. Some are built in
//! ([`BUILT_IN`]), a model file may hold its own ([`Model::template`]).

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str::FromStr;

use crate::error::{Error, Result};
use crate::format::json;
use crate::fp_env::FpEnv;
#[cfg(all(feature = "capi", feature = "text"))]
use crate::generate::copies;
#[cfg(all(feature = "capi", feature = "text"))]
use crate::memory;
use crate::model::Model;
use crate::sampler::SamplerOptions;
use crate::terminal::quoted;
use crate::text::plain_text;

/// A template may not be longer than this.
pub const MAX_TEMPLATE_BYTES: usize = 1 << 14;

/// Names and texts of the templates for models that were trained on text from the web: summaries by
/// `TL;DR:` (Radford et al., Language Models are Unsupervised Multitask Learners, 2019), translation
/// by examples.
pub const BUILT_IN: [(&str, &str); 7] = [
    ("summarize", include_str!("templates/summarize.txt")),
    ("translate", include_str!("templates/translate.txt")),
    ("translate-fr-en", include_str!("templates/translate-fr-en.txt")),
    ("translate-en-de", include_str!("templates/translate-en-de.txt")),
    ("translate-de-en", include_str!("templates/translate-de-en.txt")),
    ("translate-en-es", include_str!("templates/translate-en-es.txt")),
    ("translate-es-en", include_str!("templates/translate-es-en.txt")),
];

/// Names and texts of the templates for models that know conversations: the task in plain words.
pub const BUILT_IN_CHAT: [(&str, &str); 7] = [
    ("summarize", include_str!("templates/chat/summarize.txt")),
    ("translate", include_str!("templates/chat/translate.txt")),
    ("translate-fr-en", include_str!("templates/chat/translate-fr-en.txt")),
    ("translate-en-de", include_str!("templates/chat/translate-en-de.txt")),
    ("translate-de-en", include_str!("templates/chat/translate-de-en.txt")),
    ("translate-en-es", include_str!("templates/chat/translate-en-es.txt")),
    ("translate-es-en", include_str!("templates/chat/translate-es-en.txt")),
];

/// The place of the text in a prompt.
pub(crate) const TEXT: &str = "{text}";
/// The line between options and prompt.
const RULE: &str = "---";

/// A prompt with a place for the text, and where what the model makes of it ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// Whether the prompt is a message to the model, in its chat form, and the result its answer.
    pub chat: bool,
    /// Before the text.
    pub(crate) before: String,
    /// Behind it, without white space at the end.
    pub(crate) after: String,
    /// Strings that end the result.
    pub stop: Vec<String>,
    /// The most tokens of a result.
    pub budget: Budget,
    /// The most tokens of a result, whatever the budget says: what a model file's own template may ask for
    /// ([`Model::template`]).
    pub most_tokens: usize,
    /// A result ends after this many sentences.
    pub sentences: Option<usize>,
    /// How a text is cut.
    pub split: Split,
    /// How tokens are chosen.
    pub sampler: SamplerOptions,
}

/// The most tokens of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// So many.
    Tokens(usize),
    /// So many times the text's own, but no less than [`Budget::LEAST`].
    Times(usize),
}

impl Budget {
    /// A result that grows with the text may have this many tokens in any case.
    pub const LEAST: usize = 16;

    /// Of a text of `n` tokens.
    pub fn tokens(self, text: usize) -> usize {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Times(factor) => text.saturating_mul(factor).max(Self::LEAST),
        }
    }
}

/// How a text is cut into parts, each of which gets a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Into as few parts as fit into the context, between sentences where possible.
    #[default]
    Fit,
    /// At every sentence and line.
    Sentences,
    /// Never: a text that is too long is an error.
    Never,
}

fn bad(detail: String) -> Error {
    Error::Option { name: "template", detail }
}

/// What an error says of an option's value, for a sentence that begins with the option.
fn detail(error: Error) -> String {
    match error {
        Error::Option { detail, .. } => format!("cannot be used: {detail}"),
        error => error.to_string(),
    }
}

impl Template {
    /// A built-in template.
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
        Some(text.parse().expect("built-in templates are sound"))
    }

    /// As `clone`, but a lack of memory is an error.
    #[cfg(all(feature = "capi", feature = "text"))]
    pub(crate) fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            before: memory::copy(&self.before)?,
            after: memory::copy(&self.after)?,
            stop: copies(&self.stop)?,
            sampler: self.sampler.try_clone()?,
            ..*self
        })
    }

    /// The text of a template's prompt, and its options, each with its line number.
    fn parts(template: &str) -> (Vec<(usize, &str)>, &str) {
        let mut end = 0;
        for line in template.split_inclusive('\n') {
            if line.trim_end() == RULE {
                let options = template[..end].lines().zip(1..).map(|(line, n)| (n, line.trim()));
                let options = options.filter(|(_, line)| !line.is_empty()).collect();
                return (options, &template[end + line.len()..]);
            }
            end += line.len();
        }
        (Vec::new(), template)
    }

    fn set(&mut self, line: &str) -> Result<(), String> {
        let (name, value) =
            line.split_once(':').ok_or("is not an option, which has the form \"name: value\"")?;
        let value = value.trim();
        match name.trim() {
            "stop" => match json::read::<String>(value) {
                Ok(stop) if !stop.is_empty() => self.stop.push(stop),
                _ => return Err("needs a JSON string that is not empty, such as \"\\n\"".into()),
            },
            "max-tokens" => {
                self.budget = match value.strip_suffix('x') {
                    Some(factor) => Budget::Times(positive(factor)?),
                    None => Budget::Tokens(positive(value)?),
                }
            }
            "chat" => self.chat = yes(value)?,
            "sentences" => self.sentences = Some(positive(value)?),
            "split" => {
                self.split = match value {
                    "fit" => Split::Fit,
                    "sentences" => Split::Sentences,
                    "never" => Split::Never,
                    _ => return Err("needs fit, sentences or never".into()),
                }
            }
            // Whoever runs a template gives the seed.
            name if name != "seed" && self.sampler.set(name, value).map_err(detail)? => {}
            _ => {
                let sampler = SamplerOptions::NAMES.into_iter().filter(|&name| name != "seed");
                let known =
                    ["stop", "max-tokens", "sentences", "split", "chat"].into_iter().chain(sampler);
                let known = known.collect::<Vec<_>>().join(", ");
                return Err(format!("is unknown; options are {known}"));
            }
        }
        Ok(())
    }
}

/// Whether an option is on.
fn yes(value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("needs yes or no".into()),
    }
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| "needs a number".to_owned())
}

fn positive(value: &str) -> Result<usize, String> {
    let number = number(value)?;
    if (1..=1 << 20).contains(&number) { Ok(number) } else { Err("needs 1 to 1048576".into()) }
}

impl FromStr for Template {
    type Err = Error;

    /// Reads a template.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is unknown or has no sound value, or the prompt has not exactly
    /// one `{text}`.
    fn from_str(template: &str) -> Result<Self> {
        // What is compared with 0 may be subnormal.
        let _env = FpEnv::set_default();
        if template.len() > MAX_TEMPLATE_BYTES {
            let bytes = template.len();
            return Err(bad(format!(
                "it has {bytes} bytes, and {MAX_TEMPLATE_BYTES} are allowed; shorten it"
            )));
        }
        let template = &*plain_text(template)?;
        let (options, prompt) = Self::parts(template);
        let prompt = prompt.trim_end();
        let (before, after) = prompt
            .split_once(TEXT)
            .ok_or_else(|| bad(format!("it has no {TEXT}; write that where the text belongs")))?;
        if after.contains(TEXT) {
            return Err(bad(format!("it has {TEXT} more than once; write it once")));
        }
        let mut template = Self {
            chat: false,
            before: before.to_owned(),
            after: after.to_owned(),
            stop: Vec::new(),
            budget: Budget::Tokens(128),
            most_tokens: usize::MAX,
            sentences: None,
            split: Split::default(),
            sampler: SamplerOptions::default(),
        };
        for (number, line) in options {
            let told = |detail| bad(format!("line {number}: {} {detail}", quoted(line)));
            template.set(line).map_err(told)?;
        }
        Ok(template)
    }
}

impl Model {
    /// The text of a template by name: the model file's own, or a built-in one: for conversations, if the model
    /// knows them.
    ///
    /// # Errors
    /// [`Error::Option`] if there is none of that name.
    pub fn template_text(&self, name: &str) -> Result<&str> {
        let own = &self.header().templates;
        if let Some(text) = own.get(name) {
            return Ok(text);
        }
        let chat: &[_] = if self.header().chat.is_some() { &BUILT_IN_CHAT } else { &[] };
        let built_in = chat.iter().chain(&BUILT_IN).find(|(built_in, _)| *built_in == name);
        built_in.map(|(_, text)| *text).ok_or_else(|| {
            let built_in = BUILT_IN.map(|(name, _)| name).into_iter();
            let built_in = built_in.filter(|name| own.get(name).is_none());
            let names = own.keys().map(String::as_str).chain(built_in);
            let names = names.collect::<Vec<_>>().join(", ");
            bad(format!("the model has none of the name {}; it has {names}", quoted(name)))
        })
    }

    /// A template by name: the model file's own, or a built-in one.
    ///
    /// A file may not ask for any number of tokens: a result of its own template has at most one token for
    /// each KiB of the file, but may have 4096 in any case ([`Template::most_tokens`]).
    ///
    /// # Errors
    /// [`Error::Option`] if there is none of that name, or it is not sound.
    pub fn template(&self, name: &str) -> Result<Template> {
        let mut template: Template =
            self.template_text(name)?.parse().map_err(|error| match error {
                Error::Option { detail, .. } => bad(format!("{}: {detail}", quoted(name))),
                error => error,
            })?;
        if self.header().templates.get(name).is_some() {
            template.most_tokens = (self.file_bytes() >> 10).max(4096);
        }
        Ok(template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_prompt_are_read() {
        let text = "stop: \"\\n\"\nstop: \"A:\"\n\nmax-tokens: 3x\nsplit: sentences\n\
                    sentences: 2\ntemperature: 0.5\ntop-k: 2\ntop-p: 0.9\n\
                    repetition-penalty: 1.1\nrepetition-window: 9\nmin-p: 0.1\n---\r\nQ: {text}\n---\nA: \n\n";
        let template: Template = text.parse().unwrap();
        assert_eq!((template.before.as_str(), template.after.as_str()), ("Q: ", "\n---\nA:"));
        assert_eq!(template.stop, ["\n", "A:"]);
        assert_eq!((template.budget, template.split), (Budget::Times(3), Split::Sentences));
        assert_eq!((template.sentences, template.sampler.top_k), (Some(2), 2));
        assert_eq!((template.sampler.repetition_window, template.sampler.min_p), (9, 0.1));
        let plain: Template = "{text}".parse().unwrap();
        assert_eq!(
            (plain.budget, plain.split, plain.stop.len()),
            (Budget::Tokens(128), Split::Fit, 0)
        );
        assert_eq!((Budget::Times(3).tokens(2), Budget::Times(3).tokens(20)), (16, 60));
    }

    #[test]
    fn what_is_not_a_template_is_told_where() {
        let long = format!("{}{{text}}", "a".repeat(MAX_TEMPLATE_BYTES));
        for (text, part) in [
            ("", "it has no {text}"),
            ("stop: \"a\"\n---\n{label}", "it has no {text}"),
            ("{text} {text}", "more than once"),
            ("\nsotp: \"a\"\n---\n{text}", "line 2: \"sotp: \\\"a\\\"\" is unknown"),
            ("stop\n---\n{text}", "line 1: \"stop\" is not an option"),
            ("stop: a\n---\n{text}", "needs a JSON string"),
            ("stop: \"\"\n---\n{text}", "needs a JSON string"),
            ("max-tokens: 0\n---\n{text}", "needs 1 to"),
            ("max-tokens: manyx\n---\n{text}", "needs a number"),
            ("split: words\n---\n{text}", "needs fit, sentences or never"),
            ("top-p: 3\n---\n{text}", "line 1: \"top-p: 3\" cannot be used: 3 is not over 0"),
            ("top-k: 1\nrepetition-penalty: 1e-44\n---\n{text}", "line 2"),
            ("temperature: inf\n---\n{text}", "is not a number"),
            ("seed: 1\n---\n{text}", "is unknown"),
            (&long, "16384 are allowed"),
        ] {
            let error = text.parse::<Template>().unwrap_err().to_string();
            assert!(error.contains(part), "{error} has no {part:?}");
        }
    }

    #[test]
    fn a_task_has_a_form_for_conversations_too() {
        assert_eq!(BUILT_IN.map(|(name, _)| name), BUILT_IN_CHAT.map(|(name, _)| name));
        for (name, text) in BUILT_IN_CHAT {
            let template: Template = text.parse().unwrap();
            assert!(template.chat && !template.stop.is_empty(), "{name}");
        }
        assert!(!Template::built_in("translate").unwrap().chat);
        assert!("chat: maybe\n---\n{text}".parse::<Template>().is_err());
    }

    #[test]
    fn every_built_in_template_is_sound() {
        for (name, _) in BUILT_IN {
            let template = Template::built_in(name).unwrap();
            assert!(!template.after.ends_with(char::is_whitespace), "{name}");
            assert!(!template.stop.is_empty(), "{name}");
        }
        assert!(Template::built_in("no such").is_none());
    }
}
