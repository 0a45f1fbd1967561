//! Inputs that were once a fault, and those that the fuzzers start from (`tests/data/hostile/`).

use std::fs;
use std::path::{Path, PathBuf};

use cerebellum::Error;
use cerebellum::error::FormatError;
use cerebellum_tools::chat_template::ImportedChat;
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::export_gguf::{Precision, export};
use cerebellum_tools::output::Output;
use serde_json::json;

use crate::base::{checkpoints, tiny, tiny_btlm, tiny_int8, tiny_modern, tokenizer, vocabulary};
use crate::class::{Class, MEMORY, TIME};
use crate::exercise::{Ran, exercise};
use crate::importers::{PARSERS, parse_within_bounds};
use crate::parts::{from_fuzzer, split};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hostile").join(name)
}

fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let read = |path: PathBuf| (path.display().to_string(), fs::read(path).unwrap());
    let entries = fs::read_dir(directory(name)).unwrap();
    let inputs: Vec<_> = entries.map(|entry| read(entry.unwrap().path())).collect();
    assert!(!inputs.is_empty(), "{name} has no inputs");
    inputs
}

#[test]
fn model_files() {
    let mut class = Class::new("corpus: model");
    for (path, input) in inputs("model") {
        class.run(&path, &input);
        class.run(&path, &from_fuzzer(&input));
    }
    class.print();
}

/// A sound file of version 1: the message says which version it is, and what to do.
#[test]
fn an_older_version_is_refused_by_name() {
    let file = fs::read(directory("model").join("version1.cbl")).unwrap();
    let error = exercise(&file).err().expect("must be refused");
    assert!(matches!(error, Error::Format(FormatError::Version { found: 1 })), "{error}");
    let message = error.to_string();
    assert!(message.contains("version 1") && message.contains("quantize"), "{message}");
}

#[test]
fn what_the_tools_read() {
    for (name, parse) in PARSERS {
        // A tool may take its time and memory.
        let mut class = Class::with_bounds("corpus: what the tools read", 4 * MEMORY, 2 * TIME);
        for (path, input) in inputs(name) {
            class.attempt(path, &input, || {
                parse_within_bounds(parse, &input);
                Ok(Ran { damaged: Vec::new(), tokenizer: Ok(()), evaluation: Ok(()) })
            });
        }
        class.print();
    }
}

/// The seeds are sound, so that a fuzzer begins behind the first checks.
#[test]
fn seeds_are_accepted() {
    let mut class = Class::new("seeds");
    for name in ["seed", "int8", "btlm", "modern"] {
        for extension in ["cbl", "txt"] {
            let seed = directory("model").join(name).with_extension(extension);
            let seed = fs::read(seed).unwrap();
            class.run(name, &from_fuzzer(&seed)).expect(name, &["runs"]);
        }
    }
    class.print();
    let place = tempfile::tempdir().unwrap();
    checkpoints::Model::random(3, 2, 2, 3).write(place.path());
    let seed = directory("checkpoint").join("seed.safetensors");
    fs::copy(seed, place.path().join("model.safetensors")).unwrap();
    fs::write(place.path().join("config.json"), one_head(place.path())).unwrap();
    Checkpoint::open(place.path()).unwrap();
    Checkpoint::open(&directory("checkpoint_gguf").join("seed.gguf")).unwrap();
    let table = fs::read(directory("tokenizer_table").join("seed.bin")).unwrap();
    cerebellum::text::TokenTable::parse(table).unwrap();
}

/// The configuration of a checkpoint whose width is not divisible by three.
fn one_head(checkpoint: &Path) -> String {
    let config = fs::read_to_string(checkpoint.join("config.json")).unwrap();
    config.replace(r#""n_head":3"#, r#""n_head":1"#)
}

#[test]
#[ignore = "writes into the repository"]
fn write_seeds() {
    let write = |name: &str, file: &str, bytes: &[u8]| {
        fs::create_dir_all(directory(name)).unwrap();
        fs::write(directory(name).join(file), bytes).unwrap();
    };
    let models =
        [("seed", tiny()), ("int8", tiny_int8()), ("btlm", tiny_btlm()), ("modern", tiny_modern())];
    for (name, file) in models {
        write("model", &format!("{name}.cbl"), file);
        let (json, data) = split(file).unwrap();
        let apart = [json.trim_ascii_end(), b"\n\n", data].concat();
        write("model", &format!("{name}.txt"), &apart);
    }

    let place = tempfile::tempdir().unwrap();
    checkpoints::Model::random(3, 2, 2, 3).write(place.path());
    write(
        "checkpoint",
        "seed.safetensors",
        &fs::read(place.path().join("model.safetensors")).unwrap(),
    );
    let index =
        json!({ "metadata": { "total_size": 0 }, "weight_map": { "wte.weight": "a.safetensors" } });
    write("checkpoint_index", "seed.json", index.to_string().as_bytes());
    let mut model = checkpoints::Model::random(24, 5, 6, 5);
    model.configure("activation_function", json!("gelu_new"));
    let gguf = tempfile::tempdir().unwrap();
    model.write(gguf.path());
    let checkpoint = Checkpoint::open(gguf.path()).unwrap();
    let target = gguf.path().join("seed.gguf");
    let output = Output::create::<&Path>(&target, false, &[]).unwrap();
    export(&checkpoint, Some(&vocabulary()), &ImportedChat::default(), Precision::F16, output)
        .unwrap();
    write("checkpoint_gguf", "seed.gguf", &fs::read(target).unwrap());
    write("config", "seed.json", one_head(place.path()).as_bytes());

    write("tokenizer_table", "seed.bin", &tokenizer());
    let added = json!([{ "id": 8, "content": "<|end|>", "special": true, "lstrip": false, "rstrip": false,
        "single_word": false, "normalized": false }]);
    let vocab = json!({ "a": 0, "b": 1, "\u{120}": 2, "ab": 3, "\u{120}ab": 4, "<|end|>": 8 });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true },
        "decoder": { "type": "ByteLevel" },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "vocab": vocab,
            "merges": [["a", "b"], ["\u{120}", "ab"]] },
    });
    write("tokenizer_json", "seed.json", tokenizer.to_string().as_bytes());
    let merges = "#version: 0.2\na b\n\u{120} ab\n";
    let config = json!({ "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": false, "eos_token": "<|end|>",
        "added_tokens_decoder": { "8": { "content": "<|end|>", "special": true } } });
    let files = format!("{vocab}\0{merges}\0{config}");
    write("tokenizer_files", "seed.bin", files.as_bytes());
}
