//! What it costs to keep a text to a form, on a model file with a tokenizer:
//!
//!     cargo bench --bench constraints --features constraints -- MODEL.cbl [--threads N]
//!
//! For each form: the time of its masks and of taking tokens, beside a pass; and the tokens a second
//! with the masks computed during the pass and after it, and without any form. Alternatives are
//! interleaved; rates are medians.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cerebellum::constraint::{Form, Vocabulary};
use cerebellum::generate::{Constraint, GenerateOptions, generate_steps};
use cerebellum::sampler::SamplerOptions;
use cerebellum::{Access, Error, Model, Session, SessionOptions};
use serde_json::json;

const ROUNDS: usize = 9;
const TOKENS: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    // `cargo bench` without arguments runs every bench; this one has nothing to measure then.
    let Some(path) = arguments.first() else { return };
    let at = arguments.iter().position(|a| a == "--threads");
    let threads = at.map_or(1, |at| arguments[at + 1].parse().expect("a number of threads"));
    let model = Model::open(path, Access::Map).expect("a model file");
    let tokenizer = Arc::new(model.tokenizer().expect("a model with a tokenizer"));
    let start = Instant::now();
    let vocabulary = Vocabulary::new(&model, tokenizer).expect("a usable vocabulary");
    println!("vocabulary prepared in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    // Without guesses: they would differ between the alternatives.
    let options = SessionOptions { context: Some(256), threads, draft: 0, ..Default::default() };
    let mut session = model.session(&options).expect("a session");
    for (name, form) in forms() {
        measure(&mut session, &vocabulary, name, &form);
    }
}

/// Forms in which most tokens are chosen, and which do not end early.
fn forms() -> [(&'static str, Form); 3] {
    let person = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
    });
    let schema = json!({"type": "array", "items": person, "minItems": 20});
    let choices: Vec<_> = (0..150).map(|i| format!("{:x} of them", i * 7919)).collect();
    let choice = regex_of(&choices);
    [
        ("JSON schema", Form::JsonSchema(schema)),
        ("regex", Form::Regex("([A-Z][a-z]{2,9} [0-9]{1,4}(st|nd|rd|th)?, ){40}".to_owned())),
        ("150 choices", Form::Regex(format!("(({choice}); ){{40}}"))),
    ]
}

fn regex_of(choices: &[String]) -> String {
    choices.join("|")
}

/// Notes how long each call takes.
struct Timed<'a> {
    inner: &'a mut dyn Constraint,
    /// Whether masks are computed when they may be.
    prepares: bool,
    masks: &'a RefCell<Vec<Duration>>,
    takes: &'a RefCell<Vec<Duration>>,
}

impl Constraint for Timed<'_> {
    fn force(&mut self, tokens: &mut Vec<u32>) -> Result<(), Error> {
        let start = Instant::now();
        self.inner.force(tokens)?;
        self.takes.borrow_mut().push(start.elapsed());
        Ok(())
    }

    fn prepare(&mut self) {
        if self.prepares {
            let start = Instant::now();
            self.inner.prepare();
            self.masks.borrow_mut().push(start.elapsed());
        }
    }

    fn allowed(&mut self) -> Result<&[u32], Error> {
        self.inner.allowed()
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        let start = Instant::now();
        self.inner.accept(token)?;
        self.takes.borrow_mut().push(start.elapsed());
        Ok(())
    }

    fn is_complete(&mut self) -> Result<bool, Error> {
        self.inner.is_complete()
    }

    fn is_over(&self) -> bool {
        self.inner.is_over()
    }
}

fn measure(session: &mut Session, vocabulary: &Vocabulary, name: &str, form: &Form) {
    let (masks, takes) = (RefCell::default(), RefCell::default());
    let mut rates = [const { Vec::new() }; 3];
    let mut forced = 0;
    for round in 0..=ROUNDS {
        // A seed for each round, so that many states of the form are seen.
        let seed = round as u64;
        for (kind, rates) in rates.iter_mut().enumerate() {
            let mut constraint = vocabulary.constrain(form).expect("a form that makes sense");
            let mut timed =
                Timed { inner: &mut constraint, prepares: kind == 0, masks: &masks, takes: &takes };
            let constraint = (kind < 2).then_some(&mut timed as &mut dyn Constraint);
            let generate = GenerateOptions {
                max_tokens: TOKENS,
                sampler: SamplerOptions { temperature: 0.8, seed, ..Default::default() },
                ignore_end_of_text: true,
                ..Default::default()
            };
            session.reset();
            let done = generate_steps(session, &[464, 3290, 318], &generate, constraint, |step| {
                forced += usize::from(kind == 0 && step.logits.is_none());
                ControlFlow::Continue(())
            });
            if round > 0 {
                rates.push(done.expect("generates").decode_tokens_per_second());
            }
        }
    }
    let [beside, after, free] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    let figures = |times: RefCell<Vec<Duration>>| {
        let mut times: Vec<_> = times.take().iter().map(|t| t.as_secs_f64() * 1e6).collect();
        times.sort_by(f64::total_cmp);
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        format!("{mean:.0} us, 99 % {:.0}", times[times.len() * 99 / 100])
    };
    println!(
        "{name}: a mask {}; taking and forcing tokens {}; a pass {:.0} us; {} % of the tokens forced\n  \
         tokens/s: masks during passes {beside:.1}, after them {after:.1}, no form {free:.1}",
        figures(masks),
        figures(takes),
        1e6 / free,
        100 * forced / ((ROUNDS + 1) * TOKENS),
    );
}
