//! Published models' tokenizers, from their GGUF files: `CEREBELLUM_GGUF=DIR cargo test --test text_real --
//! --ignored`, where DIR has `smollm2.gguf` (SmolLM2 135M Instruct) and `gemma3.gguf` (Gemma 3 270M).
#![cfg(feature = "text")]

use std::path::Path;
use std::time::Instant;

use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum_tools::tokenizer::import;

#[derive(serde::Deserialize)]
struct Golden {
    text: String,
    ids: Vec<u32>,
}

/// Tokens of another engine for the texts of `tests/data/tokenizers/golden`.
#[test]
#[ignore = "needs the models' files"]
fn the_tokens_of_published_models_are_those_of_another_engine() {
    let dir = std::env::var("CEREBELLUM_GGUF").expect("CEREBELLUM_GGUF names the directory");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tokenizers/golden");
    for (model, file, tokens) in [
        ("smollm2", "smollm2-135m-instruct.tokens.json", 49_152),
        ("gemma3", "gemma3-270m.tokens.json", 262_144),
    ] {
        let path = Path::new(&dir).join(format!("{model}.gguf"));
        let imported = import(&path, tokens).unwrap().unwrap();
        let (bytes, start) = (imported.blob.len(), Instant::now());
        let tokenizer = Tokenizer::parse(imported.blob).unwrap();
        let parsed = start.elapsed();
        let texts: Vec<Golden> =
            serde_json::from_slice(&std::fs::read(golden.join(file)).unwrap()).unwrap();
        let options = EncodeOptions::PARSE_SPECIAL;
        let first = tokenizer.encode(&texts[4].text, options).unwrap();
        println!(
            "{model}: {bytes} bytes, {} merges, checked in {parsed:?}, first encode behind {:?}, begins with {:?}",
            imported.merges,
            start.elapsed(),
            tokenizer.table().begin_of_text(),
        );
        assert_eq!(first, texts[4].ids);
        for Golden { text, ids } in texts {
            assert_eq!(tokenizer.encode(&text, options).unwrap(), ids, "{model}: {text:?}");
            let mut bytes = Vec::new();
            tokenizer.table().decode_into(&ids, &mut bytes);
            assert_eq!(String::from_utf8_lossy(&bytes), text, "{model}");
        }
    }
}
