//! Texts from any prompt by any options: a model, how tokens are chosen, stop strings, a form, a template.
//! Bytes choose: the fuzz target `prompts` and random ones below.
//!
//! Each generation ends in a text that keeps what was asked for, or in an error.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::{Constraint, GenerateOptions, Step, StopReason, generate_text_steps};
use cerebellum::task::Task;
use cerebellum::template::Template;
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{Model, Result, SessionOptions, TokenizerBytes};

use crate::choices::Choices;
use crate::exercise::AlignedBytes;
use crate::parts::from_fuzzer;

const FILES: [&[u8]; 4] = [
    include_bytes!("../data/hostile/model/seed.cbl"),
    include_bytes!("../data/hostile/model/filepanic.cbl"),
    include_bytes!("../data/hostile/model/hugelogit.cbl"),
    include_bytes!("../data/hostile/model/longtok5000.cbl"),
];

/// The most bytes of a prompt, so that the file behind it is reached.
const LONGEST_PROMPT: u8 = 80;

/// Bytes that choose a session's options.
const SESSION_BYTES: usize = 7;

/// A model that makes texts.
struct Host {
    model: Model,
    tokenizer: Arc<Tokenizer<TokenizerBytes>>,
    vocabulary: Result<Vocabulary>,
}

impl Host {
    fn new(file: &[u8]) -> Result<Self> {
        let model = Model::borrow(AlignedBytes::copy(file))?;
        let tokenizer = Arc::new(model.tokenizer()?);
        let vocabulary = Vocabulary::new(&model, Arc::clone(&tokenizer));
        Ok(Self { model, tokenizer, vocabulary })
    }
}

/// One of the files above, prepared once.
fn prepared(number: usize) -> Option<&'static Host> {
    static HOSTS: [OnceLock<Option<Host>>; FILES.len()] = [const { OnceLock::new() }; FILES.len()];
    HOSTS[number].get_or_init(|| Host::new(FILES[number]).ok()).as_ref()
}

/// Makes the text that the bytes ask for; nothing if their model makes no texts.
pub fn prompts(bytes: &[u8]) -> Option<Result<()>> {
    let mut choices = Choices::of(bytes);
    let wish = Wish::new(&mut choices);
    // One more stands for the file that the rest of the bytes is.
    let number = choices.below(FILES.len() as u8 + 1);
    let mut session = choices.part(SESSION_BYTES);
    let own;
    let host = match number {
        number if number < FILES.len() => prepared(number),
        _ => {
            own = Host::new(&from_fuzzer(choices.rest())).ok();
            own.as_ref()
        }
    };
    host.map(|host| wish.fulfil(host, &mut session))
}

/// What is asked for.
struct Wish {
    prompt: String,
    encode: EncodeOptions,
    options: GenerateOptions,
    form: Option<Form>,
    /// Lines of a template before its prompt.
    template: Option<String>,
}

impl Wish {
    fn new(choices: &mut Choices) -> Self {
        let stop = (0..choices.below(3)).map(|_| choices.text(3)).collect();
        let options = GenerateOptions { stop, ..choices.generation() };
        let form = form(choices);
        let template = choices.flag().then(|| template(&options));
        let encode = EncodeOptions { parse_special: choices.flag(), ..Default::default() };
        Self { prompt: choices.text(LONGEST_PROMPT), encode, options, form, template }
    }

    fn fulfil(&self, host: &Host, choices: &mut Choices) -> Result<()> {
        let options = SessionOptions { threads: 1, ..choices.options(&host.model) };
        let mut session = host.model.session(&options)?;
        if let Some(template) = &self.template {
            let task = Task::new(&host.tokenizer, template.parse::<Template>()?);
            task.run(&mut session, &self.prompt, |_| ControlFlow::Continue(()))?;
            session.reset();
        }
        let prompt = host.tokenizer.encode(&self.prompt, self.encode)?;
        let mut constraint = match (&self.form, &host.vocabulary) {
            (Some(form), Ok(vocabulary)) => Some(vocabulary.constrain(form)?),
            _ => None,
        };
        let constraint = constraint.as_mut().map(|it| it as &mut dyn Constraint);
        let is_formed = constraint.is_some();
        let (table, mut text, mut steps) = (host.tokenizer.table(), String::new(), 0);
        let on_text = |piece: &str, step: Option<Step>| {
            text.push_str(piece);
            steps += usize::from(step.is_some());
            ControlFlow::Continue(())
        };
        let made =
            generate_text_steps(&mut session, table, &prompt, &self.options, constraint, on_text)?;
        assert!(made.tokens == steps && steps <= self.options.max_tokens);
        assert!(self.options.stop.iter().all(|stop| !text.contains(stop.as_str())), "{text:?}");
        if let (StopReason::Complete, true, Some(Form::Choices(choices))) =
            (made.stop_reason, is_formed, &self.form)
        {
            assert!(choices.contains(&text), "{text:?} is none of {choices:?}");
        }
        Ok(())
    }
}

/// The same options as a template says them, whatever their values.
fn template(options: &GenerateOptions) -> String {
    let sampler = &options.sampler;
    let stops = options.stop.iter().map(|stop| format!("stop: {}\n", serde_json::json!(stop)));
    format!(
        "{}max-tokens: {}\ntemperature: {}\ntop-k: {}\ntop-p: {}\nmin-p: {}\n\
         repetition-penalty: {}\nrepetition-window: {}\n---\n{{text}}",
        stops.collect::<String>(),
        options.max_tokens,
        sampler.temperature,
        sampler.top_k,
        sampler.top_p,
        sampler.min_p,
        sampler.repetition_penalty,
        sampler.repetition_window,
    )
}

fn form(choices: &mut Choices) -> Option<Form> {
    const SCHEMAS: [&str; 6] = [
        "{}",
        r#"{"type": ["integer", "number"]}"#,
        r#"{"type": "integer", "minimum": -3, "maximum": 9007199254740992}"#,
        r#"{"type": "array", "items": {"enum": ["a", "ab", 1]}, "maxItems": 2}"#,
        r#"{"type": "object", "properties": {"a": {"type": "string", "maxLength": 2}}}"#,
        r##"{"$defs": {"a": {"type": "array", "items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}"##,
    ];
    Some(match choices.below(6) {
        0 => Form::Choices((0..choices.below(4)).map(|_| choices.text(5)).collect()),
        1 => Form::Regex(choices.text(30)),
        2 => Form::Regex("[ab]{1,5}c?".to_owned()),
        3 => {
            let schema = SCHEMAS[choices.below(SCHEMAS.len() as u8)];
            let schema = Form::JsonSchema(serde_json::from_str(schema).expect("JSON"));
            Form::AfterSpace(Box::new(schema))
        }
        4 => Form::JsonSchema(serde_json::from_str(&choices.text(100)).ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::prompts;
    use crate::random::Random;

    /// Names and contents, in order.
    fn seeds() -> Vec<(String, Vec<u8>)> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/hostile/prompts");
        let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut seeds: Vec<_> =
            paths.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
        seeds.sort();
        seeds
    }

    /// `HOSTILE_PROMPTS=n` tries `n`.
    fn cases() -> usize {
        std::env::var("HOSTILE_PROMPTS").map_or(400, |cases| cases.parse().expect("a number"))
    }

    #[test]
    fn random_prompts_and_options() {
        let mut random = Random::new(17);
        let (cases, seeds) = (cases(), seeds());
        for case in 0..cases {
            let mut bytes: Vec<u8> = (0..random.below(200)).map(|_| random.bits() as u8).collect();
            // Every other one is a seed with some bytes changed, so that most of it makes sense.
            if case % 2 == 1 {
                bytes = seeds[random.below(seeds.len())].1.clone();
                for _ in 0..1 + random.below(4) {
                    let at = random.below(bytes.len());
                    bytes[at] = random.bits() as u8;
                }
            }
            // Whether it succeeds is the wish's affair.
            let _ = prompts(&bytes);
        }
    }

    /// Seeds are sound but for those whose options are not.
    #[test]
    fn corpus() {
        for (name, seed) in seeds() {
            let made = prompts(&seed).unwrap_or_else(|| panic!("{name}: a model without texts"));
            assert!(made.is_ok() || name.starts_with("nasty"), "{name}: {made:?}");
        }
    }
}
