//! Which of several labels fits a text: `cargo run --release --example classify -- [TEXT]`
//!
//! Needs `target/demo.cbl`, which `cargo demo` makes.

use cerebellum::classify::{Classifier, ClassifierOptions};
use cerebellum::{Access, LogitsFor, Model, SessionOptions};

fn main() -> cerebellum::Result<()> {
    let text = std::env::args().nth(1).unwrap_or("will it rain in paris tomorrow".to_owned());
    let model = Model::open("target/demo.cbl", Access::Map)?;
    let tokenizer = model.tokenizer()?;
    let labels = ["alarm", "timer", "weather", "play music", "greeting"];
    let classifier = Classifier::new(&tokenizer, &labels, &ClassifierOptions::default())?;

    // With room for the logits of a whole chunk, all labels are scored in one pass.
    let options = SessionOptions { logits: LogitsFor::All, threads: 2, ..Default::default() };
    let mut session = model.session(&options)?;
    let result = classifier.classify(&mut session, &text)?;
    for (label, probability) in labels.iter().zip(&result.probabilities) {
        println!("{probability:.4}  {label}");
    }
    println!("{text:?} is about {}", labels[result.label]);
    Ok(())
}
