//! How a text is to be made: the parameters that all requests for texts have.

use std::collections::BTreeMap;

use cerebellum::constraint::Form;
use cerebellum::generate::GenerateOptions;
use cerebellum::sampler::SamplerOptions;
use serde::Deserialize;
use serde_json::Value;

use super::fields::Fields;
use crate::serve::refusal::Refusal;

/// The most texts of a request.
const MAX_CHOICES: usize = 128;
/// The most stop strings.
const MAX_STOPS: usize = 16;
/// The most tokens beside each token of a text.
pub const MAX_TOP: usize = 20;

/// How a text is to be made.
#[derive(Debug)]
pub struct Making {
    /// How tokens are chosen, and when to stop.
    pub options: GenerateOptions,
    /// What the text must be like.
    pub form: Option<Form>,
    /// How many texts.
    pub n: usize,
    /// Whether the tokens come as they are made.
    pub stream: bool,
    /// Whether a stream ends in how many tokens there were.
    pub include_usage: bool,
    /// Whether each text comes with a receipt.
    pub receipt: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
    /// Padding against those who count bytes on the way: there is none to leave out.
    #[serde(default, rename = "include_obfuscation")]
    _include_obfuscation: bool,
}

impl Making {
    /// Takes the parameters. `max_tokens` is the most tokens unless the request says it.
    ///
    /// # Errors
    /// If one is wrong, or asks for what there is not.
    pub fn take(fields: &mut Fields, max_tokens: usize) -> Result<Self, Refusal> {
        let given = (fields.take("max_tokens")?, fields.take("max_completion_tokens")?);
        if let (Some(_), Some(_)) = given {
            let message = "max_completion_tokens is another name of max_tokens; give one of them";
            return Err(Refusal::param("max_completion_tokens", message));
        }
        let stop = match fields.take("stop")? {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop],
            Some(Stop::Several(stop)) => stop,
        };
        if stop.len() > MAX_STOPS || stop.iter().any(String::is_empty) {
            let message = format!("stop: give at most {MAX_STOPS} strings, none of them empty");
            return Err(Refusal::param("stop", message));
        }
        let n = fields.take("n")?.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&n) {
            return Err(Refusal::param("n", format!("n: {n} is not in 1..={MAX_CHOICES}")));
        }
        let stream = fields.take("stream")?.unwrap_or(false);
        let stream_options: Option<StreamOptions> = fields.take("stream_options")?;
        if stream_options.is_some() && !stream {
            let message = "stream_options is for answers with stream: true";
            return Err(Refusal::param("stream_options", message));
        }
        let instead = "this server has repetition_penalty";
        fields.refuse("frequency_penalty", &["0", "0.0"], instead)?;
        fields.refuse("presence_penalty", &["0", "0.0"], instead)?;
        // Who asks is for nobody to know.
        let _: Option<Value> = fields.take("user")?;
        Ok(Self {
            options: GenerateOptions {
                max_tokens: given.0.or(given.1).unwrap_or(max_tokens),
                sampler: sampler(fields)?,
                stop,
                ignore_end_of_text: fields.take("ignore_eos")?.unwrap_or(false),
            },
            form: form(fields)?,
            n,
            stream,
            receipt: fields.take("receipt")?.unwrap_or(false),
            include_usage: stream_options.unwrap_or_default().include_usage,
        })
    }
}

fn sampler(fields: &mut Fields) -> Result<SamplerOptions, Refusal> {
    let default = SamplerOptions::default();
    let bias: BTreeMap<String, f32> = fields.take("logit_bias")?.unwrap_or_default();
    let bias = bias.into_iter().map(|(token, bias)| match token.parse() {
        Ok(token) => Ok((token, bias)),
        Err(_) => {
            let message = "logit_bias: its names are token ids, such as \"50256\"";
            Err(Refusal::param("logit_bias", message))
        }
    });
    let sampler = SamplerOptions {
        temperature: fields.take("temperature")?.unwrap_or(default.temperature),
        top_k: fields.take("top_k")?.unwrap_or(default.top_k),
        top_p: fields.take("top_p")?.unwrap_or(default.top_p),
        min_p: fields.take("min_p")?.unwrap_or(default.min_p),
        repetition_penalty: fields
            .take("repetition_penalty")?
            .unwrap_or(default.repetition_penalty),
        repetition_window: fields.take("repetition_window")?.unwrap_or(default.repetition_window),
        logit_bias: bias.collect::<Result<_, _>>()?,
        seed: fields.take("seed")?.unwrap_or(default.seed),
    };
    sampler.check()?;
    Ok(sampler)
}

/// What OpenAI's clients say of a text's form, or `choices` or `regex`.
fn form(fields: &mut Fields) -> Result<Option<Form>, Refusal> {
    let format = fields.take::<Format>("response_format")?.and_then(Format::form);
    let choices = fields.take("choices")?.map(Form::Choices);
    let regex = fields.take("regex")?.map(Form::Regex);
    let mut forms = [("response_format", format), ("choices", choices), ("regex", regex)]
        .into_iter()
        .filter_map(|(name, form)| Some((name, form?)));
    let first = forms.next();
    if let Some((name, _)) = forms.next() {
        let message = "give one of response_format, choices and regex";
        return Err(Refusal::param(name, message));
    }
    let Some((name, form)) = first else { return Ok(None) };
    form.check().map_err(|error| Refusal::param(name, format!("{name}: {error}")))?;
    Ok(Some(form))
}

/// The form of a text, as OpenAI's clients say it.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Format {
    /// Any.
    Text {},
    /// Any JSON object.
    JsonObject {},
    /// JSON that follows a schema.
    JsonSchema {
        /// The schema, with its name.
        json_schema: NamedSchema,
    },
}

/// A schema. Name and description are for models that are told of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedSchema {
    #[serde(default, rename = "name")]
    _name: Option<String>,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    /// Always strict.
    #[serde(default, rename = "strict")]
    _strict: Option<bool>,
    schema: Value,
}

impl Format {
    /// As the interface for responses writes it: a schema's name and the rest stand beside the type.
    ///
    /// # Errors
    /// If it is of no type that there is.
    pub fn flat(mut format: Value) -> Result<Self, serde_json::Error> {
        if format["type"] == "json_schema"
            && let Value::Object(fields) = &mut format
        {
            let kind = fields.remove("type");
            format = serde_json::json!({ "type": kind, "json_schema": fields });
        }
        serde_json::from_value(format)
    }

    /// What the text must be like.
    pub fn form(self) -> Option<Form> {
        match self {
            Self::Text {} => None,
            Self::JsonObject {} => Some(Form::JsonSchema(serde_json::json!({ "type": "object" }))),
            Self::JsonSchema { json_schema } => Some(Form::JsonSchema(json_schema.schema)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(json: &str) -> Result<Making, Refusal> {
        let mut fields = Fields::parse(json.as_bytes()).unwrap();
        let making = Making::take(&mut fields, 16)?;
        fields.finish().map(|()| making)
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let making = take(r#"{"presence_penalty": 0, "user": "me"}"#).unwrap();
        let GenerateOptions { max_tokens, sampler, stop, ignore_end_of_text } = making.options;
        assert_eq!((max_tokens, sampler, stop.len()), (16, SamplerOptions::default(), 0));
        assert!(!ignore_end_of_text && !making.stream && making.form.is_none() && making.n == 1);
    }

    #[test]
    fn every_parameter_arrives() {
        let making = take(
            r#"{"max_completion_tokens": 3, "temperature": 0.5, "top_k": 4, "top_p": 0.9, "min_p": 0.1,
            "repetition_penalty": 1.1, "repetition_window": 7, "seed": 18446744073709551615, "n": 2,
            "logit_bias": {"50256": -100}, "stop": "end", "ignore_eos": true, "stream": true,
            "stream_options": {"include_usage": true}, "regex": "[0-9]+"}"#,
        )
        .unwrap();
        let sampler = SamplerOptions {
            temperature: 0.5,
            top_k: 4,
            top_p: 0.9,
            min_p: 0.1,
            repetition_penalty: 1.1,
            repetition_window: 7,
            logit_bias: vec![(50256, -100.0)],
            seed: u64::MAX,
        };
        assert_eq!((making.options.max_tokens, making.options.sampler), (3, sampler));
        assert_eq!(making.options.stop, ["end"]);
        assert!(making.options.ignore_end_of_text && making.stream && making.include_usage);
        assert_eq!((making.n, making.form), (2, Some(Form::Regex("[0-9]+".to_owned()))));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, param) in [
            (r#"{"temperature": -1}"#, "temperature"),
            (r#"{"top_p": 0}"#, "top_p"),
            (r#"{"n": 0}"#, "n"),
            (r#"{"n": 1000}"#, "n"),
            (r#"{"stop": [""]}"#, "stop"),
            (r#"{"seed": -1}"#, "seed"),
            (r#"{"logit_bias": {"the": 1}}"#, "logit_bias"),
            (r#"{"max_tokens": 1, "max_completion_tokens": 1}"#, "max_completion_tokens"),
            (r#"{"frequency_penalty": 0.5}"#, "frequency_penalty"),
            (r#"{"stream_options": {}}"#, "stream_options"),
            (r#"{"stream": true, "stream_options": {"x": 1}}"#, "stream_options"),
            (r#"{"response_format": {"type": "xml"}}"#, "response_format"),
            (
                r#"{"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}}"#,
                "response_format",
            ),
            (r#"{"regex": "(", "stream": false}"#, "regex"),
            (r#"{"regex": "a", "choices": ["b"]}"#, "regex"),
            (r#"{"best_of": 2}"#, "best_of"),
        ] {
            let refusal = take(json).unwrap_err();
            assert_eq!(refusal.param.as_deref(), Some(param), "{json}: {}", refusal.message);
        }
    }
}
