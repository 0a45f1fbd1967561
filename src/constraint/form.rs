//! What a text must be like, as users say it and as llguidance is told.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use llguidance::derivre::RegexBuilder;
use llguidance::{GrammarBuilder, JsonCompileOptions, regex_to_lark};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::message::reason;
use super::{CONSTRAINT_MEMORY, prepare, schema};
use crate::error::{Error, Result};

/// What a text must be like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Form {
    /// One of these, exactly.
    Choices(Vec<String>),
    /// A match of this regular expression from its first to its last character, in the syntax of the
    /// crate `regex`. So anchors are not needed: `^` at the beginning and `$` at the end change nothing, and
    /// anywhere else they are errors, as are `\b`, look-around and back-references. A lazy repetition is the
    /// same as a greedy one.
    Regex(String),
    /// JSON that follows this JSON schema (draft 2020-12; what is not supported is an error), in one
    /// line, a space after each comma and colon.
    ///
    /// A number has at most 15 digits before the point, 15 after it and 2 in its exponent, unless the schema
    /// leaves it no choice: else a small model would go on with digits for ever, and integers would be more
    /// than a binary64 can hold. Bounds and values beyond 2^53, where that ends, are errors.
    JsonSchema(Value),
    /// What another form says, with or without a space before it: a text that goes on after a word
    /// mostly begins with one.
    AfterSpace(Box<Form>),
    /// These forms, one after the other.
    Sequence(Vec<Form>),
    /// One of these forms.
    AnyOf(Vec<Form>),
    /// This special token of the vocabulary, which is no text.
    Token(u32),
    /// Any text. But a text with this mark has the form that follows behind the mark's first occurrence.
    Unless(Mark, Box<Form>),
}

/// Where in any text a form begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mark {
    /// Behind these characters, wherever they stand.
    Text(String),
    /// Behind these characters, if the text begins with them.
    Beginning(String),
    /// Behind this special token.
    Token(u32),
}

impl Form {
    /// JSON that follows the JSON schema that is written in `text`.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub fn json_schema(text: &str) -> Result<Self> {
        prepare(CONSTRAINT_MEMORY + text.len().saturating_mul(64), || {
            let schema = serde_json::from_str(text);
            let schema =
                schema.map_err(|e| Error::Constraint(format!("not a JSON schema: {e}")))?;
            let form = Self::JsonSchema(schema);
            form.check_here().map(|()| form)
        })
    }

    /// Whether it makes sense, as far as can be told without a vocabulary.
    ///
    /// # Errors
    /// [`Error::Constraint`], which says what does not; [`Error::Threads`].
    pub fn check(&self) -> Result<()> {
        prepare(CONSTRAINT_MEMORY, || self.check_here())
    }

    /// As [`check`](Self::check), on the caller's stack.
    pub(super) fn check_here(&self) -> Result<()> {
        // The library has sums that overflow.
        let compiled = catch_unwind(AssertUnwindSafe(|| self.compile()));
        compiled.unwrap_or_else(|_| Err(self.unusable("a number in it is too large or too small")))
    }

    fn compile(&self) -> Result<()> {
        let fail = |error: &dyn ToString| self.unusable(&error.to_string());
        match self {
            Self::Choices(_) => self.lark().map(drop),
            Self::Regex(regex) => {
                self.lark()?;
                RegexBuilder::new().mk_regex(regex).map(drop).map_err(|e| fail(&e))
            }
            Self::JsonSchema(schema) => {
                let builder = GrammarBuilder::new(None, Default::default());
                let compiled = json_options().json_to_llg(builder, schema::bounded(schema)?);
                compiled.map(drop).map_err(|e| fail(&e))
            }
            Self::AfterSpace(form) => form.compile(),
            Self::Unless(_, form) => {
                self.lark()?;
                form.compile()
            }
            Self::Sequence(forms) | Self::AnyOf(forms) => {
                self.lark()?;
                forms.iter().try_for_each(Self::compile)
            }
            Self::Token(_) => Ok(()),
        }
    }

    /// The error that says why it cannot be used, given what the library says.
    pub(super) fn unusable(&self, message: &str) -> Error {
        Error::Constraint(format!("the {} cannot be used: {}", self.name(), reason(message)))
    }

    /// Whether JSON is in it, and behind which mark.
    pub(super) fn json(&self) -> Option<Option<&Mark>> {
        match self {
            Self::Choices(_) | Self::Regex(_) | Self::Token(_) => None,
            Self::JsonSchema(_) => Some(None),
            Self::AfterSpace(form) => form.json(),
            Self::Sequence(forms) | Self::AnyOf(forms) => forms.iter().find_map(Self::json),
            Self::Unless(mark, form) => form.json().map(|_| Some(mark)),
        }
    }

    /// The name of the option that asks for such a form.
    #[cfg(feature = "capi")]
    pub(crate) fn option(&self) -> &'static str {
        match self {
            Self::Choices(_) => "choices",
            Self::Regex(_) => "regex",
            Self::AfterSpace(form) => form.option(),
            _ => "json_schema",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Choices(_) => "list of choices",
            Self::Regex(_) => "regular expression",
            Self::JsonSchema(_) => "JSON schema",
            Self::AfterSpace(form) => form.name(),
            _ => "form",
        }
    }

    /// The form in llguidance's dialect of Lark.
    pub(super) fn lark(&self) -> Result<String> {
        let mut grammar = Grammar::default();
        let first = grammar.rule(self)?;
        Ok(format!("start: {first}\n{}", grammar.text))
    }
}

/// Rules of a grammar: `r1`, `r2` and so on, and terminals `T1`, `T2`.
#[derive(Default)]
struct Grammar {
    text: String,
    count: usize,
}

impl Grammar {
    /// Adds the rule of a form, behind those that it needs. Its name.
    fn rule(&mut self, form: &Form) -> Result<String> {
        let fail = |detail: &str| Err(Error::Constraint(detail.to_owned()));
        match form {
            Form::Choices(choices) => {
                if choices.is_empty() || choices.iter().any(String::is_empty) {
                    return fail("a list of choices needs at least one, and none may be empty");
                }
                let choices: Vec<_> = choices.iter().map(|choice| escape(choice)).collect();
                Ok(self.add("", &regex(&choices.join("|"))))
            }
            // A rule cannot be empty, nor can such a text be told from none.
            Form::Regex(regex) if regex.is_empty() => {
                fail("an empty regular expression matches no text")
            }
            Form::Regex(expression) => Ok(self.add("", &regex(expression))),
            Form::JsonSchema(schema) => Ok(self.add("", &format!("%json {}", compact(schema)?))),
            Form::AfterSpace(form) => {
                let form = self.rule(form)?;
                Ok(self.add("", &format!("\" \"? {form}")))
            }
            Form::Sequence(forms) | Form::AnyOf(forms) if forms.is_empty() => {
                fail("a list of forms needs at least one")
            }
            Form::Sequence(forms) => self.all(forms, " "),
            Form::AnyOf(forms) => self.all(forms, " | "),
            Form::Token(token) => Ok(self.add("", &format!("<[{token}]>"))),
            Form::Unless(mark, form) => {
                let form = self.rule(form)?;
                let (has_mark, without) = match mark {
                    Mark::Text(text) | Mark::Beginning(text) if text.is_empty() => {
                        return fail("a mark needs at least one character");
                    }
                    Mark::Text(text) => {
                        let up_to = format!(r"(.|\n)*{}", escape(text));
                        (self.add("[lazy]", &regex(&up_to)), format!(r"{up_to}(.|\n)*"))
                    }
                    Mark::Beginning(text) => {
                        let text = escape(text);
                        (self.add("", &regex(&text)), format!(r"{text}(.|\n)*"))
                    }
                    Mark::Token(token) => {
                        let text = self.terminal(&regex(r"(.|\n)*"));
                        let rule = format!("{text}? <[{token}]> {form} | {text}?");
                        return Ok(self.add("", &rule));
                    }
                };
                let any = regex(r"(.|\n)*");
                let text = self.terminal(&format!("{any} & ~{}", regex(&without)));
                Ok(self.add("", &format!("{has_mark} {form} | {text}?")))
            }
        }
    }

    fn all(&mut self, forms: &[Form], between: &str) -> Result<String> {
        let forms: Vec<_> = forms.iter().map(|form| self.rule(form)).collect::<Result<_>>()?;
        Ok(self.add("", &forms.join(between)))
    }

    fn add(&mut self, attributes: &str, body: &str) -> String {
        self.named("r", attributes, body)
    }

    fn terminal(&mut self, body: &str) -> String {
        self.named("T", "", body)
    }

    fn named(&mut self, letter: &str, attributes: &str, body: &str) -> String {
        self.count += 1;
        let name = format!("{letter}{}", self.count);
        let _ = writeln!(self.text, "{name}{attributes}: {body}");
        name
    }
}

fn regex(expression: &str) -> String {
    format!("/{}/", regex_to_lark(expression, ""))
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
    let mut schema = schema::bounded(schema)?;
    json_options().apply_to(&mut schema);
    Ok(schema)
}

fn json_options() -> JsonCompileOptions {
    JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_that_make_no_sense_are_refused() {
        let any = || Box::new(Form::Regex("a".to_owned()));
        for form in [
            Form::Choices(Vec::new()),
            Form::Choices(vec!["a".to_owned(), String::new()]),
            Form::JsonSchema(Value::Null),
            Form::JsonSchema(Value::Bool(false)),
            Form::AfterSpace(Box::new(Form::JsonSchema(Value::from("string")))),
            Form::Regex(String::new()),
            Form::Sequence(Vec::new()),
            Form::AnyOf(vec![Form::Sequence(Vec::new())]),
            Form::Unless(Mark::Text(String::new()), any()),
            Form::Unless(Mark::Beginning(String::new()), any()),
        ] {
            assert!(matches!(form.lark(), Err(Error::Constraint(_))), "{form:?}");
        }
    }

    #[test]
    fn choices_are_taken_literally() {
        let choices = ["a.b".to_owned(), "(c|d)".to_owned(), "e/f".to_owned()];
        let form = Form::AfterSpace(Box::new(Form::Choices(choices.into())));
        let want = "start: r2\nr1: /a\\.b|\\(c\\|d\\)|e\\/f/\nr2: \" \"? r1\n";
        assert_eq!(form.lark().unwrap(), want);
    }

    #[test]
    fn a_form_is_written_down_and_read() {
        let call = Form::Sequence(vec![
            Form::Token(7),
            Form::AnyOf(vec![Form::Choices(vec!["a".to_owned()]), Form::Regex("b".to_owned())]),
        ]);
        let form = Form::Unless(Mark::Text("<call>".to_owned()), Box::new(call));
        let written = serde_json::to_string(&form).unwrap();
        let want = r#"{"unless":[{"text":"<call>"},{"sequence":[{"token":7},{"any_of":[{"choices":["a"]},{"regex":"b"}]}]}]}"#;
        assert_eq!(written, want);
        assert_eq!(serde_json::from_str::<Form>(&written).unwrap(), form);
    }
}
