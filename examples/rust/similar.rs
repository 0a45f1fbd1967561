//! Which text is most like another, by embeddings: `cargo run --release --example similar -- [TEXT]`
//!
//! Needs `target/demo.cbl`, which `cargo demo` makes.

use cerebellum::{Access, Model, Pooling, SessionOptions};

fn main() -> cerebellum::Result<()> {
    let text = std::env::args().nth(1).unwrap_or("wake me up at seven".to_owned());
    let model = Model::open("target/demo.cbl", Access::Map)?;
    let tokenizer = model.tokenizer()?;
    let mut session = model.session(&SessionOptions::default())?;
    let mut embed = |text: &str| -> cerebellum::Result<Vec<f32>> {
        let tokens = tokenizer.encode(text, Default::default())?;
        session.reset();
        let mut embedding = vec![0.0; model.config().n_embd];
        session.embed(&tokens, Pooling::Mean, &mut embedding)?;
        Ok(embedding)
    };
    let wanted = embed(&text)?;
    let others = ["set an alarm for six", "the king had three sons", "what is the weather like"];
    for other in others {
        // Embeddings have length 1, so their dot product is the cosine of the angle between them.
        let cosine: f32 = wanted.iter().zip(embed(other)?).map(|(a, b)| a * b).sum();
        println!("{cosine:.3}  {other}");
    }
    Ok(())
}
