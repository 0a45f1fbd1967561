//! Constrained text: whatever the seed, it has the form that was asked for, or the stop reason says
//! that it is incomplete.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use cerebellum::batch::{Request, generate_text_within, generate_within};
use cerebellum::constraint::{Form, Mark, Vocabulary};
use cerebellum::generate::{
    Constraint, GenerateOptions, Generation, StopReason, generate_steps, generate_text_steps,
};
use cerebellum::quant::Scheme;
use cerebellum::sampler::SamplerOptions;
use cerebellum::text::Tokenizer;
use cerebellum::{Error, Model, SessionOptions, TokenizerBytes};
use common::{demo, quantized, quantized_with_ends};
use serde_json::{Value, json};

struct Setup {
    model: Model,
    tokenizer: Arc<Tokenizer<TokenizerBytes>>,
    vocabulary: Vocabulary,
}

impl Setup {
    fn new() -> Self {
        Self::of(quantized(&demo(), Scheme::Int4, 64))
    }

    fn of(model: Model) -> Self {
        let tokenizer = Arc::new(model.tokenizer().unwrap());
        let vocabulary = Vocabulary::new(&model, Arc::clone(&tokenizer)).unwrap();
        Self { model, tokenizer, vocabulary }
    }

    /// The token with this text.
    fn token(&self, text: &str) -> u32 {
        match self.tokenizer.encode(text, Default::default()).unwrap()[..] {
            [token] => token,
            ref tokens => panic!("{text:?} is {tokens:?}"),
        }
    }

    fn generate(
        &self,
        form: &Form,
        prompt: &str,
        session: &SessionOptions,
        options: &GenerateOptions,
    ) -> (String, Generation) {
        let mut constraint = self.vocabulary.constrain(form).unwrap();
        self.generate_within(Some(&mut constraint), prompt, session, options)
    }

    fn generate_freely(
        &self,
        prompt: &str,
        session: &SessionOptions,
        options: &GenerateOptions,
    ) -> (String, Generation) {
        self.generate_within(None, prompt, session, options)
    }

    fn generate_within(
        &self,
        constraint: Option<&mut dyn Constraint>,
        prompt: &str,
        session: &SessionOptions,
        options: &GenerateOptions,
    ) -> (String, Generation) {
        let mut session = self.model.session(session).unwrap();
        let prompt = self.tokenizer.encode(prompt, Default::default()).unwrap();
        let mut text = String::new();
        let generation = generate_text_steps(
            &mut session,
            self.tokenizer.table(),
            &prompt,
            options,
            constraint,
            |piece, _| {
                text.push_str(piece);
                ControlFlow::Continue(())
            },
        );
        (text, generation.unwrap())
    }
}

fn options(seed: u64, max_tokens: usize) -> GenerateOptions {
    let temperature = if seed == 0 { 0.0 } else { 0.5 + 0.1 * seed as f32 };
    let sampler = SamplerOptions {
        temperature,
        repetition_penalty: if seed % 3 == 2 { 1.2 } else { 1.0 },
        seed,
        ..Default::default()
    };
    GenerateOptions { max_tokens, sampler, ..Default::default() }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "intent": {"enum": ["alarm", "timer", "weather report"]},
            "text": {"type": "string", "maxLength": 20},
            "hour": {"type": "integer", "minimum": 0, "maximum": 23},
            "days": {"type": "array", "items": {"enum": ["mon", "tue"]}, "minItems": 1, "maxItems": 3},
            "sure": {"type": "boolean"},
        },
        "required": ["intent", "text", "hour", "days", "sure"],
        "additionalProperties": false,
    })
}

/// Whether a value is what [`schema`] asks for; by hand, as an oracle.
fn follows_schema(value: &Value) -> bool {
    let one_of = |value: &Value, all: &[&str]| value.as_str().is_some_and(|s| all.contains(&s));
    let days = value["days"].as_array().is_some_and(|days| {
        (1..=3).contains(&days.len()) && days.iter().all(|day| one_of(day, &["mon", "tue"]))
    });
    value.as_object().is_some_and(|object| object.len() == 5)
        && one_of(&value["intent"], &["alarm", "timer", "weather report"])
        && value["text"].as_str().is_some_and(|text| text.chars().count() <= 20)
        && value["hour"].as_i64().is_some_and(|hour| (0..24).contains(&hour))
        && days
        && value["sure"].is_boolean()
}

#[test]
fn every_text_has_its_form_whatever_the_seed() {
    let setup = Setup::new();
    let session = SessionOptions::default();
    let choices = ["alarm", "alarm clock", "weather", "été (ou hiver)"].map(str::to_owned);
    let choice = Form::AfterSpace(Box::new(Form::Choices(choices.to_vec())));
    let time = Form::Regex("([01][0-9]|2[0-3]):[0-5][0-9]( [ap]m)?".to_owned());
    let object = Form::JsonSchema(schema());
    for seed in 0..40 {
        let prompt = ["Once upon a time", "Utterance: wake me at six\nIntent:", "é", ""][seed % 4];
        let generate =
            |form: &Form| setup.generate(form, prompt, &session, &options(seed as u64, 120));
        let (text, generation) = generate(&choice);
        assert_eq!(generation.stop_reason, StopReason::Complete);
        assert!(choices.iter().any(|c| c == text.strip_prefix(' ').unwrap_or(&text)), "{text:?}");

        let (text, generation) = generate(&time);
        assert_eq!(generation.stop_reason, StopReason::Complete);
        let (hour, rest) = text.split_once(':').expect(&text);
        assert!(hour.len() == 2 && hour.parse::<u8>().unwrap() < 24, "{text}");
        assert!(rest[..2].parse::<u8>().unwrap() < 60, "{text}");
        assert!(["", " am", " pm"].contains(&&rest[2..]), "{text}");

        let (text, generation) = generate(&object);
        assert_eq!(generation.stop_reason, StopReason::Complete, "{text}");
        let value: Value = serde_json::from_str(&text).expect(&text);
        assert!(follows_schema(&value), "{text}");
    }
}

#[test]
fn forms_are_put_together() {
    let setup = Setup::new();
    let session = SessionOptions::default();
    let text = |text: &str| Form::Choices(vec![text.to_owned()]);
    let number = || {
        Form::JsonSchema(json!({"type": "object", "properties": {"n": {"type": "integer"}},
        "required": ["n"], "additionalProperties": false}))
    };
    let end = setup.model.config().eos_token_id.unwrap();
    let call = Form::AnyOf(vec![
        Form::Sequence(vec![text("one "), number()]),
        Form::Sequence(vec![text("two "), Form::Regex("[a-z]{3}".to_owned()), text(".")]),
    ]);
    // Of these the model writes the first often, and the second never of its own accord.
    let marks = ["e", "\u{e9}\u{e9}"];
    let (mut with, mut without) = (0, 0);
    for seed in 0..30 {
        let generate =
            |form: &Form| setup.generate(form, "Once upon a time", &session, &options(seed, 60));
        let is_call = |call: &str| match call.split_once(' ') {
            Some(("one", rest)) => {
                let n = serde_json::from_str::<Value>(rest).unwrap();
                // Behind a mark, too, it has no more digits than a number should.
                n["n"].is_i64() && rest.len() <= "{\"n\": -}".len() + 15
            }
            Some(("two", rest)) => rest.len() == 4 && rest.ends_with('.'),
            _ => false,
        };
        let (said, generation) = generate(&call);
        assert!(is_call(&said) && generation.stop_reason == StopReason::Complete, "{said}");
        for mark in marks {
            for form in [Mark::Text(mark.into()), Mark::Beginning(mark.into())] {
                let at_beginning = matches!(form, Mark::Beginning(_));
                let (said, generation) = generate(&Form::Unless(form, Box::new(call.clone())));
                let marked = match at_beginning {
                    true => said.strip_prefix(mark),
                    false => said.split_once(mark).map(|(_, call)| call),
                };
                match marked {
                    Some(call) if generation.stop_reason == StopReason::Complete => {
                        with += 1;
                        assert!(is_call(call), "{said}");
                    }
                    Some(_) => assert_eq!(generation.stop_reason, StopReason::Incomplete, "{said}"),
                    // A text without a mark may end anywhere.
                    None => {
                        without += 1;
                        assert_ne!(generation.stop_reason, StopReason::Incomplete, "{said}");
                    }
                }
            }
        }
        // A special token is no text, and here nothing but the token comes.
        let (said, generation) =
            generate(&Form::Sequence(vec![text("a "), Form::Token(end), call.clone()]));
        assert!(said.starts_with("a "), "{said}");
        assert!(generation.tokens > 1);
    }
    assert!(with >= 20 && without >= 20, "{with} calls, {without} texts");
}

#[test]
fn a_text_that_is_cut_short_says_so() {
    let setup = Setup::new();
    let session = SessionOptions::default();
    let form = Form::JsonSchema(schema());
    let (whole, all) = setup.generate(&form, "A", &session, &options(1, 200));
    assert_eq!(all.stop_reason, StopReason::Complete);
    for max_tokens in 0..all.tokens {
        let (text, generation) = setup.generate(&form, "A", &session, &options(1, max_tokens));
        assert_eq!(generation.stop_reason, StopReason::Incomplete, "{text}");
        assert_eq!(generation.tokens, max_tokens);
        assert!(whole.starts_with(text.trim_end_matches('\u{fffd}')), "{text}");
    }
    let (text, generation) = setup.generate(&form, "A", &session, &options(1, all.tokens));
    assert_eq!((text, generation.stop_reason), (whole, StopReason::Complete));
    // A text that may end anywhere is no less for being cut, and one that is over takes no more.
    let (text, generation) =
        setup.generate(&Form::Regex("[a-z ]*".into()), "A", &session, &options(0, 5));
    assert_eq!((generation.stop_reason, generation.tokens), (StopReason::MaxTokens, 5), "{text}");
    let narrow = SessionOptions { context: Some(12), ..Default::default() };
    let (text, generation) = setup.generate(&form, "A", &narrow, &options(1, 200));
    assert_eq!(generation.stop_reason, StopReason::Incomplete, "{text}");
}

#[test]
fn guesses_and_threads_change_nothing() {
    let setup = Setup::new();
    let form = Form::JsonSchema(json!({
        "type": "array", "items": {"type": "string", "maxLength": 30}, "minItems": 4, "maxItems": 6
    }));
    let prompt = "the king and the queen, the king and the queen";
    for seed in 0..12 {
        let run = |draft, threads, chunk| {
            let session = SessionOptions { draft, threads, chunk, ..Default::default() };
            let (text, generation) = setup.generate(&form, prompt, &session, &options(seed, 120));
            (text, generation.tokens, generation.stop_reason)
        };
        let want = run(0, 1, 64);
        for (draft, threads, chunk) in [(4, 1, 64), (15, 2, 64), (4, 1, 1)] {
            assert_eq!(run(draft, threads, chunk), want);
        }
    }
}

#[test]
fn what_makes_no_sense_is_an_error_that_says_why() {
    let setup = Setup::new();
    let fails = |form: &Form| match setup.vocabulary.constrain(form) {
        Ok(_) => panic!("{form:?} is accepted"),
        Err(Error::Constraint(message)) => message,
        Err(other) => panic!("{other}"),
    };
    // The same without a vocabulary, and when the form is part of another.
    let says = |form: Form, want: &str| {
        assert_eq!(fails(&form), want);
        assert_eq!(form.check().unwrap_err().to_string(), format!("constraint: {want}"));
        assert_eq!(fails(&Form::AfterSpace(Box::new(form))), want);
    };
    for (regex, why) in [
        ("(", "unclosed group, at character 1 of \"(\""),
        ("[a", "unclosed character class, at character 1 of \"[a\""),
        (
            "a{2,1}",
            "invalid repetition count range, the start must be <= the end, at character 2 of \"a{2,1}\"",
        ),
        ("*", "repetition operator missing expression, at character 1 of \"*\""),
        (r"(a)\1", "backreferences are not supported, at character 4 of \"(a)\\\\1\""),
        (
            "a(?=b)",
            "look-around, including look-ahead and look-behind, is not supported, at character 2 of \"a(?=b)\"",
        ),
        (
            r"\bfoo",
            r"anchors within the text and look-around are not supported: WordUnicode in regex /\bfoo/",
        ),
        ("a^b", "anchors within the text and look-around are not supported: Start in regex /a^b/"),
    ] {
        let want = format!("the regular expression cannot be used: {why}");
        says(Form::Regex(regex.to_owned()), &want);
    }
    for (schema, why) in [
        (json!({"type": "strin"}), "Invalid type: strin"),
        (json!({"type": 7}), "type must be a string or array of strings"),
        (json!({"$ref": "#/nowhere"}), "Reference segment 'nowhere' not found in '#/nowhere'."),
        (
            json!({"$ref": "https://example.com/schema"}),
            "only references into the schema itself (#/...) are supported, not 'https://example.com/schema'",
        ),
        (
            json!({"properties": {"a": {"type": "string", "pattern": "^[a"}}}),
            "unclosed character class, at character 2 of \"^[a\"",
        ),
        (
            json!({"type": "integer", "minimum": 5, "maximum": 1}),
            "nothing can follow it: minimum (5) is greater than maximum (1)",
        ),
        (json!({"not": {"type": "string"}}), "not supported are [\"not\"]"),
        (json!({"const": (1u64 << 53) + 1}), "\"const\": 9007199254740993 is beyond 2^53"),
    ] {
        let message = fails(&Form::JsonSchema(schema.clone()));
        let want = format!("the JSON schema cannot be used: {why}");
        assert!(message.starts_with(&want), "{message}");
        assert!(Form::JsonSchema(schema).check().is_err());
    }
}

#[test]
fn anchors_at_the_ends_change_nothing() {
    let setup = Setup::new();
    for regex in ["^[0-9]{3}$", "[0-9]{3}", "^(?:[0-9]{3})", "[0-9]{3}?$"] {
        let (text, _) = setup.generate(
            &Form::Regex(regex.to_owned()),
            "A",
            &SessionOptions::default(),
            &options(0, 20),
        );
        assert!(text.len() == 3 && text.parse::<u32>().is_ok(), "{regex}: {text}");
    }
}

#[test]
fn numbers_end_and_are_exact() {
    let setup = Setup::new();
    let session = SessionOptions::default();
    let whole = Form::JsonSchema(json!({
        "type": "object",
        "properties": {
            "count": {"type": "integer"},
            "size": {"type": "integer", "minimum": 0, "maximum": i64::MAX},
            "weight": {"type": "number"},
            "id": {"type": "integer", "minimum": 1u64 << 52, "maximum": 1u64 << 53},
            "fixed": {"const": 0.30000000000000004},
        },
        "required": ["count", "size", "weight", "id", "fixed"],
        "additionalProperties": false,
    }));
    for seed in 0..20 {
        let prompt = ["1000000", "A price as JSON: 0.000", "2222222222"][seed % 3];
        let (text, generation) =
            setup.generate(&whole, prompt, &session, &options(seed as u64, 200));
        assert_eq!(generation.stop_reason, StopReason::Complete, "{text}");
        let value: Value = serde_json::from_str(&text).expect(&text);
        for name in ["count", "size", "id"] {
            let exact = value[name].as_i64().expect(&text);
            assert!(exact.unsigned_abs() <= 1 << 53, "{text}");
            assert!(text.contains(&format!("\"{name}\": {exact}")) || exact == 0, "{text}");
        }
        assert!(value["weight"].as_f64().expect(&text).is_finite());
        assert!(value["id"].as_u64().unwrap() >= 1 << 52, "{text}");
        let any = Form::JsonSchema(json!({"type": ["number", "integer"]}));
        let (text, generation) = setup.generate(&any, prompt, &session, &options(seed as u64, 200));
        assert_eq!(generation.stop_reason, StopReason::Complete, "{text}");
    }
}

/// Preparing, generating and letting go, of schemas up to the deepest there is.
#[test]
fn a_stack_of_64_kib_is_enough() {
    let setup = Setup::new();
    let nested = |levels| {
        (0..levels).fold(
            json!({"type": "integer"}),
            |inner, _| json!({"type": "array", "items": inner, "minItems": 1, "maxItems": 1}),
        )
    };
    for (schema, text) in [(schema(), None), (json!({}), None), (nested(98), Some("["))] {
        let written = schema.to_string();
        let form = Form::JsonSchema(schema);
        let (setup, form) = (&setup, &form);
        let run = move || {
            let model = &setup.model;
            let vocabulary = Vocabulary::new(model, Arc::clone(&setup.tokenizer)).unwrap();
            let mut constraint = vocabulary.constrain(form).unwrap();
            Form::json_schema(&written).unwrap();
            form.check().unwrap();
            let constraint: Option<&mut dyn Constraint> = Some(&mut constraint);
            let (made, _) =
                setup.generate_within(constraint, "", &SessionOptions::default(), &options(1, 60));
            assert!(text.is_none_or(|text| made.starts_with(text)), "{made}");
        };
        std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(64 << 10);
            small.spawn_scoped(scope, run).unwrap().join().unwrap();
        });
    }
}

fn hostile(file: &str) -> Model {
    let directory =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile/model");
    Model::open(directory.join(file), cerebellum::Access::Read).unwrap()
}

/// A token of 5000 bytes: longer than the library's tree can hold.
#[test]
fn a_long_token_is_left_out() {
    let model = hostile("longtok5000.cbl");
    let tokenizer = Arc::new(model.tokenizer().unwrap());
    assert!(tokenizer.table().longest_token() >= 5000);
    let vocabulary = Vocabulary::new(&model, Arc::clone(&tokenizer)).unwrap();
    let setup = Setup { model, tokenizer, vocabulary };
    let (text, generation) = setup.generate(
        &Form::Regex("a{1,3}".to_owned()),
        "a",
        &SessionOptions::default(),
        &options(1, 5),
    );
    assert!((1..=3).contains(&text.len()) && text.chars().all(|c| c == 'a'), "{text}");
    assert!(generation.tokens <= 3);
    // Where the encoder would take it, others come in its place.
    let long = setup.tokenizer.table();
    let long =
        (0..long.len() as u32).find_map(|id| long.token_bytes(id).filter(|b| b.len() == 5000));
    let long = String::from_utf8(long.unwrap().to_vec()).unwrap();
    let mut constraint = setup.vocabulary.constrain(&Form::Choices(vec![long.clone()])).unwrap();
    let mut forced = Vec::new();
    constraint.force(&mut forced).unwrap();
    let mut bytes = Vec::new();
    setup.tokenizer.table().decode_into(&forced, &mut bytes);
    assert!(long.as_bytes().starts_with(&bytes));
    assert!(constraint.is_over() || constraint.allowed().is_ok());
}

/// The model's vocabulary has no digits.
#[test]
fn a_text_that_no_token_continues_is_an_error_in_words() {
    let model = hostile("seed.cbl");
    let tokenizer = Arc::new(model.tokenizer().unwrap());
    let vocabulary = Vocabulary::new(&model, tokenizer).unwrap();
    let quoted = Form::JsonSchema(json!({"enum": ["ab"]}));
    for form in [Form::Regex("[0-9]+".to_owned()), Form::Regex("1ab".to_owned()), quoted] {
        let mut constraint = vocabulary.constrain(&form).unwrap();
        constraint.force(&mut Vec::new()).unwrap();
        let error = constraint.allowed().unwrap_err().to_string();
        assert!(error.contains("no token that goes on with this text"), "{form:?}: {error}");
    }
}

/// The tokens 5 and 6 by turns, forced by pairs: what any program may write.
struct Turns {
    left: usize,
    allowed: Vec<u32>,
    over: bool,
}

impl Constraint for Turns {
    fn force(&mut self, tokens: &mut Vec<u32>) -> cerebellum::Result<()> {
        if self.left > 0 {
            tokens.extend([5, 6]);
            self.left -= 1;
        }
        Ok(())
    }

    fn allowed(&mut self) -> cerebellum::Result<&[u32]> {
        self.allowed = vec![if self.left > 0 { 1 << 7 } else { 1 << 8 }];
        Ok(&self.allowed)
    }

    fn accept(&mut self, token: u32) -> cerebellum::Result<()> {
        self.over = token == 8;
        Ok(())
    }

    fn is_complete(&mut self) -> cerebellum::Result<bool> {
        Ok(self.over)
    }

    fn is_over(&self) -> bool {
        self.over
    }
}

#[test]
fn a_constraint_may_be_one_s_own() {
    let setup = Setup::new();
    let mut session = setup.model.session(&SessionOptions::default()).unwrap();
    let mut constraint = Turns { left: 2, allowed: Vec::new(), over: false };
    let (mut tokens, mut chosen) = (Vec::new(), Vec::new());
    let options = GenerateOptions::default();
    let generation =
        generate_steps(&mut session, &[1, 2], &options, Some(&mut constraint), |step| {
            tokens.push(step.token);
            chosen.extend(step.logits.map(|logits| (step.token, logits.to_vec())));
            ControlFlow::Continue(())
        });
    assert_eq!(generation.unwrap().stop_reason, StopReason::Complete);
    assert_eq!(tokens, [5, 6, 7, 5, 6, 8]);
    // Each was chosen from the logits behind all before it.
    for (token, logits) in chosen {
        let end = tokens.iter().position(|&t| t == token).unwrap();
        let mut alone = setup.model.session(&SessionOptions::default()).unwrap();
        assert_eq!(alone.evaluate(&[&[1, 2], &tokens[..end]].concat()).unwrap(), logits);
    }
    // No token at all may be chosen.
    session.reset();
    session.evaluate(&[1]).unwrap();
    let none = session.sample_within(&SamplerOptions::default(), &[0; 128]);
    assert!(matches!(none, Err(Error::NothingAllowed)));
}

#[test]
fn constraints_in_a_batch_give_the_texts_of_each_alone() {
    let setup = Setup::new();
    let forms = [
        Some(Form::JsonSchema(schema())),
        None,
        Some(Form::Regex("([01][0-9]|2[0-3]):[0-5][0-9]( [ap]m)?".to_owned())),
        Some(Form::AfterSpace(Box::new(Form::Choices(
            ["alarm", "alarm clock", "the weather forecast for tomorrow"].map(Into::into).into(),
        )))),
        Some(Form::Regex("[a-z ]*".to_owned())),
    ];
    let case = |i: usize| {
        let prompt = ["Once upon a time", "Utterance: wake me\nIntent:", "A"][i % 3];
        (&forms[i % forms.len()], prompt, options(i as u64, [90, 5, 0, 200][i % 4]))
    };
    let requests: Vec<_> = (0..20)
        .map(|i| {
            let (_, prompt, options) = case(i);
            let prompt = setup.tokenizer.encode(prompt, Default::default()).unwrap();
            Request { prompt, options }
        })
        .collect();
    for (sequences, threads, chunk) in [(1, 1, 64), (4, 2, 64), (8, 1, 3)] {
        let session = SessionOptions { context: Some(100), threads, chunk, ..Default::default() };
        let constraints = (0..requests.len()).map(|i| {
            let form = case(i).0.as_ref()?;
            Some(Box::new(setup.vocabulary.constrain(form).unwrap()) as Box<dyn Constraint>)
        });
        let constraints = constraints.collect();
        let mut batch = setup.model.batch(&session, sequences).unwrap();
        let mut texts = vec![String::new(); requests.len()];
        let table = setup.tokenizer.table();
        let results =
            generate_text_within(&mut batch, table, &requests, constraints, |request, text| {
                texts[request].push_str(text);
                ControlFlow::Continue(())
            });
        for (i, result) in results.unwrap().into_iter().enumerate() {
            let (form, prompt, options) = case(i);
            let result = result.unwrap();
            let (text, alone) = match form {
                Some(form) => setup.generate(form, prompt, &session, &options),
                None => setup.generate_freely(prompt, &session, &options),
            };
            assert_eq!(texts[i], text, "{i}, {sequences} at a time");
            assert_eq!((result.tokens, result.stop_reason), (alone.tokens, alone.stop_reason));
        }
    }
}

/// Allows one token and counts what it is asked, or fails after so many tokens.
struct Counting<'a> {
    prepared: &'a std::cell::Cell<usize>,
    accepted: usize,
    fails_after: usize,
}

impl Constraint for Counting<'_> {
    fn prepare(&mut self) {
        self.prepared.set(self.prepared.get() + 1);
    }

    fn allowed(&mut self) -> cerebellum::Result<&[u32]> {
        match self.accepted == self.fails_after {
            true => Err(Error::Constraint("enough".to_owned())),
            false => Ok(&[1 << 9]),
        }
    }

    fn accept(&mut self, token: u32) -> cerebellum::Result<()> {
        assert_eq!(token, 9);
        self.accepted += 1;
        Ok(())
    }

    fn is_complete(&mut self) -> cerebellum::Result<bool> {
        Ok(true)
    }

    fn is_over(&self) -> bool {
        false
    }
}

#[test]
fn a_constraint_is_prepared_during_each_pass_and_its_failure_is_its_own() {
    let setup = Setup::new();
    let (counts, options) = ([const { std::cell::Cell::new(0) }; 3], options(0, 8));
    for threads in [1, 2] {
        let session = SessionOptions { threads, draft: 0, ..Default::default() };
        let counting = |i: usize, fails_after| {
            counts[i].set(0);
            Counting { prepared: &counts[i], accepted: 0, fails_after }
        };
        let mut alone = setup.model.session(&session).unwrap();
        let mut constraint = counting(0, usize::MAX);
        let constraint: Option<&mut dyn Constraint> = Some(&mut constraint);
        let generation =
            generate_steps(
                &mut alone,
                &[1, 2],
                &options,
                constraint,
                |_| ControlFlow::Continue(()),
            );
        assert_eq!((generation.unwrap().tokens, counts[0].get()), (8, 8));

        let request = Request { prompt: vec![1, 2], options: options.clone() };
        let requests = [request.clone(), request.clone(), request];
        let constraints: Vec<Option<Box<dyn Constraint>>> =
            vec![Some(Box::new(counting(0, usize::MAX))), Some(Box::new(counting(1, 3)))];
        let mut batch = setup.model.batch(&session, 3).unwrap();
        let on_step = |_, _: cerebellum::generate::Step| ControlFlow::Continue(());
        let results = generate_within(&mut batch, &requests, constraints, on_step).unwrap();
        assert_eq!(results[0].as_ref().unwrap().tokens, 8);
        assert!(matches!(&results[1], Err(Error::Constraint(message)) if message == "enough"));
        assert_eq!(results[2].as_ref().unwrap().tokens, 8);
        assert_eq!((counts[0].get(), counts[1].get()), (8, 4));
    }
}

/// Where a text may end, each token that ends texts may come next; nowhere else, and never as its text.
#[test]
fn a_form_may_end_by_any_token_that_ends_texts() {
    let plain = Setup::new();
    let [king, the] = [" king", " the"].map(|text| plain.token(text));
    let setup = Setup::of(quantized_with_ends(&demo(), &[king, the]));
    let is_in = |allowed: &[u32], token: u32| allowed[token as usize / 32] >> (token % 32) & 1 == 1;
    let mut constraint = setup.vocabulary.constrain(&Form::Regex("[a-z ]+".into())).unwrap();
    let ends = |constraint: &mut dyn Constraint| {
        let allowed = constraint.allowed().unwrap();
        [0, king, the].map(|end| is_in(allowed, end))
    };
    assert_eq!(ends(&mut constraint), [false; 3]);
    constraint.accept(setup.token("a")).unwrap();
    assert_eq!(ends(&mut constraint), [true; 3]);
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false});
    let mut constraint = setup.vocabulary.constrain(&Form::JsonSchema(schema.clone())).unwrap();
    assert_eq!(ends(&mut constraint), [false; 3]);

    // A bias makes the model want an end at each place: the text ends by it as soon as it may.
    for end in [0, king, the] {
        let mut options = options(3, 40);
        options.sampler.logit_bias.push((end, 1000.0));
        let session = SessionOptions::default();
        let regex = Form::Regex("[a-z]{3}[a-z ]*".into());
        let (text, generation) = setup.generate(&regex, "Once", &session, &options);
        assert_eq!(generation.stop_reason, StopReason::Complete, "{text}");
        assert!(text.len() >= 3 && !text.contains(" the") && !text.contains(" king"), "{text}");
        let (text, generation) =
            setup.generate(&Form::JsonSchema(schema.clone()), "Once", &session, &options);
        assert_eq!(generation.stop_reason, StopReason::Complete, "{text}");
        assert!(serde_json::from_str::<Value>(&text).unwrap()["a"].is_i64(), "{text}");
        // Without a form the text is empty, unless it goes on past its ends.
        let (text, generation) = setup.generate_freely("Once", &session, &options);
        assert_eq!((text.as_str(), generation.stop_reason), ("", StopReason::EndOfText));
        let options = GenerateOptions { ignore_end_of_text: true, ..options };
        let (_, generation) = setup.generate_freely("Once", &session, &options);
        assert_eq!((generation.tokens, generation.stop_reason), (40, StopReason::MaxTokens));
    }
}
