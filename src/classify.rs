//! Text classification with a language model: which label is the most probable continuation.
//!
//! ```no_run
//! use cerebellum::classify::{Classifier, ClassifierOptions};
//! use cerebellum::{Access, LogitsFor, Model, SessionOptions};
//!
//! # fn main() -> cerebellum::Result<()> {
//! let model = Model::open("demo.cbl", Access::Map)?;
//! let tokenizer = model.tokenizer()?;
//! let options = ClassifierOptions::default();
//! let classifier = Classifier::new(&tokenizer, &["alarm", "timer", "weather"], &options)?;
//! let session_options = SessionOptions { logits: LogitsFor::All, ..Default::default() };
//! let mut session = model.session(&session_options)?;
//! let result = classifier.classify(&mut session, "wake me at six")?;
//! println!("{} {:.3}", classifier.labels()[result.label], result.probability());
//! # Ok(())
//! # }
//! ```
//!
//! All labels are scored at once ([`Continuations`]): a hundred cost little more than the tokens in
//! which they differ. A label's score is the log-probability of its tokens and of what the template
//! puts after it, so that a label that begins another one competes fairly.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use alloc::vec::Vec;

use crate::chat::Questions;
use crate::error::{Error, Result};
use crate::float::{exp, ln};
use crate::fp_env::FpEnv;
use crate::heap;
use crate::memory::{self, append, extend, try_filled, try_vec};
use crate::model::Model;
use crate::score::{Continuations, Scores};
use crate::session::Session;
use crate::terminal::quoted;
use crate::text::{EncodeOptions, Tokenizer, plain_text};

/// Where text and label stand in a prompt: `{text}` and `{label}`, each once and in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Whether the prompt is a message to the model, in its chat form, and the label its answer.
    chat: bool,
    /// What comes before the text.
    before: String,
    /// What comes between text and label, without the white space at its end.
    between: String,
    /// That white space: it belongs to the label's first token.
    space: String,
    /// What comes after the label, up to the first line's end: where the label ends.
    after: String,
}

impl Template {
    /// Reads a template. If nothing comes after the label, a line break does.
    ///
    /// After a line `chat: yes` and a line `---` the template is a message to the model, up to `{label}`, which
    /// is the model's answer. In it, `{labels}` are all labels, with commas between them.
    ///
    /// # Errors
    /// [`Error::Option`] if a placeholder is missing, out of order or there twice; if something comes after the
    /// label of a message. [`Error::OutOfMemory`].
    pub fn parse(template: &str) -> Result<Self> {
        let template = &*plain_text(template)?;
        let (chat, template) = match template.split_once("---\n") {
            Some((option, message)) if option.trim() == "chat: yes" => (true, message),
            _ => (false, template),
        };
        const TEXT: &str = "{text}";
        const LABEL: &str = "{label}";
        let fail = |detail: &str| {
            let template = quoted(template);
            let detail = format!("{template} {detail}, as \"Text: {{text}}\\nTopic: {{label}}\"");
            Error::Option { name: "template", detail }
        };
        let missing = || fail("must have {text}, and {label} behind it");
        let (before, rest) = template.split_once(TEXT).ok_or_else(missing)?;
        let (between, after) = rest.split_once(LABEL).ok_or_else(missing)?;
        if [before, between, after].iter().any(|part| part.contains(TEXT) || part.contains(LABEL)) {
            return Err(fail("must have {text} and {label} once each"));
        }
        let fixed = between.trim_end();
        if chat && !after.trim().is_empty() {
            return Err(fail("must end in {label}, the answer to the message before it"));
        }
        let line = after.split_inclusive('\n').next().unwrap_or("\n");
        Ok(Self {
            chat,
            before: memory::copy(before)?,
            between: memory::copy(fixed)?,
            space: memory::copy(&between[fixed.len()..])?,
            after: memory::copy(line)?,
        })
    }

    /// As `clone`, but a lack of memory is an error.
    pub(crate) fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            chat: self.chat,
            before: memory::copy(&self.before)?,
            between: memory::copy(&self.between)?,
            space: memory::copy(&self.space)?,
            after: memory::copy(&self.after)?,
        })
    }

    /// The form for a model file: its own template `classify`; otherwise, if the model knows conversations, a
    /// question in plain words; otherwise the demo model's.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), for the file's own.
    pub fn for_model(model: &Model) -> Result<Self> {
        match model.header().templates.get("classify") {
            Some(own) => Self::parse(own),
            None if model.header().chat.is_some() => Self::parse(CHAT),
            None => Self::parse(PLAIN),
        }
    }

    /// A question, with all labels in it.
    fn question(&self, text: &str, labels: &str) -> Result<String> {
        let before = memory::replace(&self.before, "{labels}", labels)?;
        let between = memory::replace(&self.between, "{labels}", labels)?;
        memory::concat(&[&before, text, &between])
    }

    /// What a label is to continue.
    fn prompt(&self, text: &str) -> Result<String> {
        memory::concat(&[&self.before, text, &self.between])
    }

    /// What is scored of a label.
    fn continuation(&self, label: &str) -> Result<String> {
        memory::concat(&[&self.space, label, &self.after])
    }

    /// A text with its label, and an empty line.
    fn example(&self, text: &str, label: &str) -> Result<String> {
        let line_end = if self.after.ends_with('\n') { "" } else { "\n" };
        let [before, between] = [&self.before, &self.between];
        memory::concat(&[before, text, between, &self.space, label, &self.after, line_end, "\n"])
    }

    /// What announces the label, without a text: the line that it stands in.
    fn premise(&self) -> &str {
        let line = self.between.rsplit('\n').next().unwrap_or_default();
        if line.is_empty() { &self.between } else { line }
    }
}

impl Default for Template {
    /// The form of the demo model's intents.
    fn default() -> Self {
        Self::parse(PLAIN).expect("a sound template")
    }
}

/// The form of the demo model's intents.
const PLAIN: &str = "Utterance: {text}\nIntent: {label}\n";

/// The question that is put to a model that knows conversations.
const CHAT: &str = include_str!("templates/chat/classify.txt");

/// How a label's length counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Normalization {
    /// A label's score is its log-probability, which is less the longer it is.
    #[default]
    Sum,
    /// Its log-probability divided by its number of tokens.
    Mean,
}

/// What is taken off a label's score because the model prefers some labels whatever the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Calibration {
    /// Nothing.
    #[default]
    None,
    /// The logarithm of its mean probability among the labels after the texts `N/A`, `[MASK]` and an
    /// empty one, which say nothing (Zhao et al., Calibrate Before Use, 2021).
    ContentFree,
    /// Its score after the label's line alone: what is left is the pointwise mutual information of text
    /// and label (Holtzman et al., Surface Form Competition, 2021).
    MutualInformation,
}

/// How to classify.
#[derive(Clone, Debug, Default)]
pub struct ClassifierOptions {
    /// Where text and label stand.
    pub template: Template,
    /// Texts with their labels, shown to the model before every text.
    pub examples: Vec<(String, String)>,
    /// How a label's length counts.
    pub normalization: Normalization,
    /// What is taken off a label's score.
    pub calibration: Calibration,
}

/// Labels, and how to tell which of them fits a text.
///
/// Can be shared between threads, each with a session of its own.
pub struct Classifier<'a, B> {
    tokenizer: &'a Tokenizer<B>,
    template: Template,
    normalization: Normalization,
    calibration: Calibration,
    labels: Vec<String>,
    continuations: Continuations,
    before: Before,
}

/// What comes before every text.
enum Before {
    /// The tokens of the examples.
    Examples(Vec<u32>),
    /// Questions with their answers, all labels, and the model's form for them. An answer ends with a control token,
    /// if there is one.
    Questions { form: Questions, examples: Vec<(String, String)>, labels: String, end: Option<u32> },
}

impl Before {
    /// Of a template that is a text.
    fn examples<B: AsRef<[u8]>>(
        tokenizer: &Tokenizer<B>,
        template: &Template,
        examples: &[(String, String)],
    ) -> Result<Self> {
        let mut header = Vec::new();
        for (text, label) in examples {
            let example = template.example(&plain_text(text)?, &plain_text(label)?)?;
            let begin_of_text = header.is_empty();
            let options = EncodeOptions { begin_of_text, ..Default::default() };
            extend(&mut header, tokenizer.encode(&example, options)?.into_iter())?;
        }
        Ok(Self::Examples(header))
    }

    /// Of a template that is a message to the model.
    fn questions(
        form: Questions,
        template: &Template,
        examples: &[(String, String)],
        labels: &[String],
    ) -> Result<Self> {
        let mut all = String::new();
        for label in labels {
            let comma = if all.is_empty() { "" } else { ", " };
            append(&mut all, comma)?;
            append(&mut all, label)?;
        }
        let mut questions = try_vec(examples.len())?;
        for (text, label) in examples {
            let question = template.question(&plain_text(text)?, &all)?;
            questions.push((question, memory::copy(&plain_text(label)?)?));
        }
        let end = form.end_of_answer()?;
        Ok(Self::Questions { form, examples: questions, labels: all, end })
    }

    /// The tokens that a label has behind a prompt.
    fn label<B: AsRef<[u8]>>(
        &self,
        tokenizer: &Tokenizer<B>,
        template: &Template,
        label: &str,
    ) -> Result<Vec<u32>> {
        let encode = |text: &str| tokenizer.encode(text, EncodeOptions::default());
        match self {
            Self::Examples(_) => Ok(encode(&template.continuation(label)?)?),
            Self::Questions { end, .. } => {
                let mut tokens = encode(label)?;
                extend(&mut tokens, end.as_slice().iter().copied())?;
                Ok(tokens)
            }
        }
    }
}

/// How well each label fits a text.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Classification {
    /// Index of the best label; the first among equals.
    pub label: usize,
    /// Of each label, normalized and calibrated as the options say.
    pub scores: Vec<f64>,
    /// The softmax of the scores.
    pub probabilities: Vec<f64>,
}

impl Classification {
    fn of(scores: Vec<f64>) -> Result<Self> {
        let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
        let label = (0..scores.len()).fold(0, better);
        let mut probabilities = try_vec(scores.len())?;
        probabilities.extend(scores.iter().map(|score| exp(score - scores[label])));
        let total: f64 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|weight| *weight /= total);
        Ok(Self { label, scores, probabilities })
    }

    /// Probability of the best label.
    pub fn probability(&self) -> f64 {
        self.probabilities[self.label]
    }
}

impl<'a, B: AsRef<[u8]>> Classifier<'a, B> {
    /// Prepares to choose among `labels`, by a template that is no message to the model; see
    /// [`for_model`](Self::for_model).
    ///
    /// # Errors
    /// [`Error::Option`] if there is no label, one is empty or there twice; [`Error::Text`] if the
    /// vocabulary cannot express one; [`Error::Chat`] if the template is a message.
    pub fn new<L: AsRef<str>>(
        tokenizer: &'a Tokenizer<B>,
        labels: &[L],
        options: &ClassifierOptions,
    ) -> Result<Self> {
        if options.template.chat {
            let detail = "the template is a message, and this classifier does not know the model's form for \
                          messages; make it with Classifier::for_model";
            return Err(Error::Chat(detail.into()));
        }
        Self::prepare(None, tokenizer, labels, options)
    }

    /// As [`new`](Self::new), by any template, with what this model's file says of conversations.
    ///
    /// # Errors
    /// Those of [`new`](Self::new); [`Error::Chat`] if the template is a message to the model, and the file has
    /// no sound chat template.
    pub fn for_model<L: AsRef<str>>(
        model: &Model,
        tokenizer: &'a Tokenizer<B>,
        labels: &[L],
        options: &ClassifierOptions,
    ) -> Result<Self> {
        let questions = options.template.chat.then(|| Questions::of(model, tokenizer));
        Self::prepare(questions.transpose()?, tokenizer, labels, options)
    }

    fn prepare<L: AsRef<str>>(
        questions: Option<Questions>,
        tokenizer: &'a Tokenizer<B>,
        labels: &[L],
        options: &ClassifierOptions,
    ) -> Result<Self> {
        let mut plain = try_vec(labels.len())?;
        for label in labels {
            plain.push(memory::copy(&plain_text(label.as_ref())?)?);
        }
        let labels = plain;
        check_labels(&labels)?;
        let (template, examples) = (options.template.try_clone()?, &options.examples);
        let before = match questions {
            None => Before::examples(tokenizer, &template, examples)?,
            Some(form) => Before::questions(form, &template, examples, &labels)?,
        };
        let mut tokens = try_vec(labels.len())?;
        for label in &labels {
            tokens.push(before.label(tokenizer, &template, label)?);
        }
        if let Some(i) = tokens.iter().position(Vec::is_empty) {
            return Err(bad_labels(format!(
                "the label {} has no tokens; give another",
                quoted(labels[i].as_ref())
            )));
        }
        Ok(Self {
            tokenizer,
            normalization: options.normalization,
            calibration: options.calibration,
            continuations: Continuations::new(&tokens)?,
            template,
            labels,
            before,
        })
    }

    /// The labels, as given, but without what [`plain_text`] leaves out.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The tokens of the labels, as a tree.
    pub fn continuations(&self) -> &Continuations {
        &self.continuations
    }

    /// What to take off each label's score; computed once, then passed to
    /// [`classify_with`](Self::classify_with) for any number of texts.
    ///
    /// # Errors
    /// Those of [`Session::score`].
    pub fn calibrate(&self, session: &mut Session) -> Result<Bias> {
        let _env = FpEnv::set_default();
        let mut bias = try_filled(0.0, self.labels.len())?;
        match self.calibration {
            Calibration::None => {}
            Calibration::MutualInformation => {
                let tokens = self.prompt_of(session, None)?;
                bias = self.scores(session, &tokens)?;
            }
            Calibration::ContentFree => {
                const TEXTS: [&str; 3] = ["N/A", "[MASK]", ""];
                for text in TEXTS {
                    let tokens = self.prompt(session, text)?;
                    let scores = self.scores(session, &tokens)?;
                    let probabilities = Classification::of(scores)?.probabilities;
                    bias.iter_mut().zip(probabilities).for_each(|(sum, p)| *sum += p);
                }
                // A label that is never probable must not gain an infinity.
                const LEAST: f64 = 1e-30;
                bias.iter_mut().for_each(|sum| *sum = ln((*sum / TEXTS.len() as f64).max(LEAST)));
            }
        }
        Ok(Bias(bias))
    }

    /// Finds the label that fits `text` best, in a session of the same model. What the session holds
    /// is replaced, but for beginnings that are the same as last time.
    ///
    /// With a [`Calibration`] this calibrates first; for many texts, see
    /// [`classify_with`](Self::classify_with).
    ///
    /// # Errors
    /// Those of [`Session::score`] and [`Session::encode`]: [`Error::ContextFull`] or
    /// [`Error::TextTooLong`] if the text is too long; [`Error::Text`] if the vocabulary cannot express it.
    pub fn classify(&self, session: &mut Session, text: &str) -> Result<Classification> {
        let bias = self.calibrate(session)?;
        self.classify_with(&bias, session, text)
    }

    /// As [`classify`](Self::classify), with what [`calibrate`](Self::calibrate) has found.
    ///
    /// # Errors
    /// Those of [`classify`](Self::classify).
    pub fn classify_with(
        &self,
        bias: &Bias,
        session: &mut Session,
        text: &str,
    ) -> Result<Classification> {
        let _env = FpEnv::set_default();
        let tokens = self.prompt(session, text)?;
        let mut scores = self.scores(session, &tokens)?;
        scores.iter_mut().zip(&bias.0).for_each(|(score, bias)| *score -= bias);
        Classification::of(scores)
    }

    /// The tokens that a text is put to the model as, before a label.
    ///
    /// # Errors
    /// Those of [`classify`](Self::classify) that concern the text.
    pub fn prompt(&self, session: &Session, text: &str) -> Result<Vec<u32>> {
        self.prompt_of(session, Some(text))
    }

    /// As [`prompt`](Self::prompt); without a text, what announces a label whatever the text: the label's line
    /// alone, or in a conversation a question without a text.
    fn prompt_of(&self, session: &Session, text: Option<&str>) -> Result<Vec<u32>> {
        match &self.before {
            Before::Examples(header) => {
                let prompt = match text {
                    Some(text) => Cow::Owned(self.template.prompt(text)?),
                    None => Cow::Borrowed(self.template.premise()),
                };
                let (before, options) = (header.len(), EncodeOptions::default());
                let rest = session.encode_after(before, self.tokenizer, &prompt, options)?;
                let mut tokens = try_vec(header.len() + rest.len())?;
                tokens.extend_from_slice(header);
                tokens.extend(rest);
                Ok(tokens)
            }
            Before::Questions { form, examples, labels, .. } => {
                let text = text.unwrap_or_default();
                // Nothing is made of a text that surely does not fit.
                if self.tokenizer.is_surely_too_long(text, session.context())? {
                    session.encode_after(0, self.tokenizer, text, EncodeOptions::default())?;
                }
                form.tokens(self.tokenizer, examples, &self.template.question(text, labels)?)
            }
        }
    }

    /// Scores of the labels after a prompt.
    fn scores(&self, session: &mut Session, tokens: &[u32]) -> Result<Vec<f64>> {
        let same = tokens.iter().zip(session.tokens()).take_while(|(a, b)| a == b).count();
        session.rewind(same.min(tokens.len().saturating_sub(1)))?;
        let scores = session.score(&tokens[session.position()..], &self.continuations)?;
        let mut of_labels = try_vec(self.labels.len())?;
        of_labels.extend((0..self.labels.len()).map(|label| self.score(&scores, label)));
        Ok(of_labels)
    }

    fn score(&self, scores: &Scores, label: usize) -> f64 {
        match self.normalization {
            Normalization::Sum => scores.log_probability(label),
            Normalization::Mean => scores.mean_log_probability(label),
        }
    }
}

/// What a [`Classifier`] takes off each label's score.
#[derive(Clone, Debug)]
pub struct Bias(Vec<f64>);

fn bad_labels(detail: String) -> Error {
    Error::Option { name: "labels", detail }
}

fn check_labels(labels: &[String]) -> Result<()> {
    if labels.is_empty() {
        return Err(bad_labels("there are no labels; give at least one".to_owned()));
    }
    if let Some(i) = labels.iter().position(|label| label.trim().is_empty()) {
        return Err(bad_labels(format!(
            "label number {} is empty; write one, or leave it out",
            i + 1
        )));
    }
    let mut sorted = try_vec(labels.len())?;
    sorted.extend(labels);
    heap::sort(&mut sorted, |a, b| a < b);
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(bad_labels(format!("the label {} is there twice; keep one", quoted(pair[0]))))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_cut_where_tokens_are() {
        let template = Template::default();
        assert_eq!(template.prompt("hello").unwrap(), "Utterance: hello\nIntent:");
        assert_eq!(template.continuation("alarm").unwrap(), " alarm\n");
        assert_eq!(
            template.example("hello", "alarm").unwrap(),
            "Utterance: hello\nIntent: alarm\n\n"
        );
        assert_eq!(template.premise(), "Intent:");
        let same = Template::parse("Utterance: {text}\nIntent: {label}").unwrap();
        assert_eq!(same, template);
        let bare = Template::parse("{text}\n\n{label}.").unwrap();
        assert_eq!(
            (&*bare.prompt("a").unwrap(), &*bare.continuation("b").unwrap()),
            ("a", "\n\nb.")
        );
        assert_eq!(bare.example("a", "b").unwrap(), "a\n\nb.\n\n");
        let more = Template::parse("{text}: {label}, \nand so on").unwrap();
        assert_eq!(more.continuation("b").unwrap(), " b, \n");
    }

    #[test]
    fn a_template_without_its_placeholders_is_refused() {
        for template in [
            "",
            "{text}",
            "{label}",
            "{label} {text}",
            "{text} {text} {label}",
            "{text} {label} {label}",
        ] {
            let error = Template::parse(template).unwrap_err().to_string();
            assert!(error.starts_with("option template: "), "{error}");
        }
    }

    #[test]
    fn labels_are_checked() {
        let check = |labels: &[&str]| {
            let labels: Vec<_> = labels.iter().map(|&label| label.to_owned()).collect();
            check_labels(&labels).map_err(|error| error.to_string())
        };
        assert!(check(&["a", "a b", "b"]).is_ok());
        assert!(check(&[]).unwrap_err().contains("there are no labels"));
        assert!(check(&["a", " "]).unwrap_err().contains("label number 2 is empty"));
        assert!(check(&["a", "b", "a"]).unwrap_err().contains("\"a\" is there twice"));
    }

    #[test]
    fn probabilities_are_the_softmax_of_the_scores() {
        let result =
            Classification::of(vec![-1001.0, -1000.0, -1000.0, f64::NEG_INFINITY]).unwrap();
        assert_eq!(result.label, 1);
        assert!((result.probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!(
            (result.probability() / result.probabilities[0] - std::f64::consts::E).abs() < 1e-9
        );
        assert_eq!(result.probabilities[3], 0.0);
    }
}
