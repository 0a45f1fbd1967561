//! Translates by the model file's own template: `cargo run --release --example translate -- [TEXT]`
//!
//! Needs `target/demo.cbl`, which `cargo demo` makes. Another name of a template, such as `summarize`,
//! is another task.

use std::io::Write;
use std::ops::ControlFlow;

use cerebellum::task::Task;
use cerebellum::{Access, Model, SessionOptions};

fn main() -> cerebellum::Result<()> {
    let text = std::env::args().nth(1).unwrap_or("I am here. Where is your brother?".to_owned());
    let model = Model::open("target/demo.cbl", Access::Map)?;
    let tokenizer = model.tokenizer()?;
    let task = Task::for_model(&model, &tokenizer, model.template("translate")?)?;

    let mut session = model.session(&SessionOptions { threads: 2, ..Default::default() })?;
    let result = task.run(&mut session, &text, |piece| {
        print!("{piece}");
        // Text is shown as soon as it is there; nobody may be there to see it.
        let _ = std::io::stdout().flush();
        ControlFlow::Continue(())
    })?;
    println!(
        "\n{} parts, {} tokens in {:.0} ms",
        result.parts,
        result.tokens,
        result.seconds * 1e3
    );
    Ok(())
}
