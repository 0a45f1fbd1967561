//! Many prompts at a time: `cargo run --release --example batch`
//!
//! Needs `target/demo.cbl`, which `cargo demo` makes.

use std::ops::ControlFlow;
use std::time::Instant;

use cerebellum::batch::{Request, generate};
use cerebellum::generate::GenerateOptions;
use cerebellum::{Access, Model, SessionOptions};

fn main() -> cerebellum::Result<()> {
    let model = Model::open("target/demo.cbl", Access::Map)?;
    let tokenizer = model.tokenizer()?;
    let options = GenerateOptions { max_tokens: 24, ..Default::default() };
    let prompts = ["The king", "The old woman", "A little bird", "In the wood", "Far away", "Once"];
    let requests = prompts.iter().map(|prompt| {
        let prompt = tokenizer.encode(prompt, Default::default())?;
        Ok(Request { prompt, options: options.clone() })
    });
    let requests = requests.collect::<cerebellum::Result<Vec<_>>>()?;

    // Four sequences share each pass over the weights; a prompt that is done makes room for the next.
    let session = SessionOptions { context: Some(64), threads: 2, ..Default::default() };
    let mut batch = model.batch(&session, 4)?;
    let mut texts = vec![Vec::new(); prompts.len()];
    let start = Instant::now();
    generate(&mut batch, &requests, |request, token| {
        texts[request].extend_from_slice(tokenizer.table().token_bytes(token).unwrap_or_default());
        ControlFlow::Continue(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    for (prompt, text) in prompts.iter().zip(&texts) {
        println!("{:?}", format!("{prompt}{}", String::from_utf8_lossy(text)));
    }
    println!("{:.0} tokens per second", (24 * prompts.len()) as f64 / seconds);
    Ok(())
}
