//! How probable continuations of a prompt are: `cargo run --release --example score`
//!
//! Needs `target/demo.cbl`, which `cargo demo` makes.

use cerebellum::score::Continuations;
use cerebellum::{Access, LogitsFor, Model, SessionOptions};

fn main() -> cerebellum::Result<()> {
    let model = Model::open("target/demo.cbl", Access::Map)?;
    let tokenizer = model.tokenizer()?;
    let encode = |text: &str| tokenizer.encode(text, Default::default());

    let texts = [" time", " time there was a king", " hill", " bicycle"];
    let tokens = texts.iter().map(|text| encode(text)).collect::<Result<Vec<_>, _>>()?;
    // A tree: what they have in common is evaluated once.
    let continuations = Continuations::new(&tokens)?;
    let options = SessionOptions { logits: LogitsFor::All, ..Default::default() };
    let mut session = model.session(&options)?;
    let scores = session.score(&encode("Once upon a")?, &continuations)?;
    for (i, text) in texts.iter().enumerate() {
        let (sum, mean) = (scores.log_probability(i), scores.mean_log_probability(i));
        println!("log p {sum:8.3}, perplexity {:9.2}  {text:?}", (-mean).exp());
    }
    Ok(())
}
