//! What the tools read: each parser fed with untrusted bytes. The fuzz targets run these too.
//!
//! Errors are expected and dropped; what must not happen is a panic, a crash or a hang.

use std::fs;
use std::path::Path;

use cerebellum::text::{EncodeOptions, TokenTable, Tokenizer};
use cerebellum_tools::checkpoint::{Checkpoint, Parsed};
use cerebellum_tools::tokenizer;
use tempfile::TempDir;

use crate::allocations::peak_of;

/// A parser, given a file's bytes.
type Parser = fn(&[u8]);

/// Parsers by name, which is the name of their directory in `tests/data/hostile/` and of their fuzz
/// target.
#[allow(dead_code, reason = "the fuzz targets name them one by one")]
pub const PARSERS: [(&str, Parser); 8] = [
    ("checkpoint", checkpoint),
    ("checkpoint_gguf", checkpoint_gguf),
    ("checkpoint_index", checkpoint_index),
    ("checkpoint_pytorch", checkpoint_pytorch),
    ("config", config),
    ("tokenizer_table", tokenizer_table),
    ("tokenizer_json", tokenizer_json),
    ("tokenizer_files", tokenizer_files),
];

/// What a parser may allocate for each byte of its input. The densest inputs (`amplification.rs`) take 43.
pub const MULTIPLE: usize = 64;
/// And beside that: tables of a fixed size, paths, a small model.
const BESIDE: usize = 2 << 20;

/// The most memory that a parser may take for `bytes` of input.
pub fn memory_bound(bytes: usize) -> usize {
    BESIDE + MULTIPLE * bytes
}

/// Parses, and fails if that takes more memory than it may: what the fuzz targets do.
pub fn parse_within_bounds(parse: Parser, bytes: &[u8]) {
    let ((), peak) = peak_of(|| parse(bytes));
    let bound = memory_bound(bytes.len());
    assert!(
        peak <= bound,
        "{} bytes of input take {peak} of memory, more than {bound}",
        bytes.len()
    );
}

const CONFIG: &str = r#"{"model_type":"gpt2","vocab_size":3,"n_positions":2,"n_embd":2,"n_head":1,"n_layer":1,"n_inner":3}"#;
const VOCAB_SIZE: u32 = 300;

/// A directory with these files, in memory where the system has such a place.
fn directory(files: &[(&str, &[u8])]) -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let directory = tempfile::tempdir_in(place).unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content).unwrap();
    }
    directory
}

fn read_all(path: &Path) {
    let Ok(checkpoint) = Checkpoint::open(path) else { return };
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name).expect("a name from the list");
        let _ = tensor.read_f32();
        let _ = tensor.read_rows(0..tensor.rows());
    }
    checkpoint.digest();
}

/// `model.safetensors` of a small model.
pub fn checkpoint(bytes: &[u8]) {
    let files = [("config.json", CONFIG.as_bytes()), ("model.safetensors", bytes)];
    read_all(directory(&files).path());
}

/// Weights, configuration and tokenizer in one GGUF file.
pub fn checkpoint_gguf(bytes: &[u8]) {
    let directory = directory(&[("model.gguf", bytes)]);
    let path = directory.path().join("model.gguf");
    read_all(&path);
    import(&path);
}

/// `pytorch_model.bin`, a pickle in either of its containers.
pub fn checkpoint_pytorch(bytes: &[u8]) {
    let files = [("config.json", CONFIG.as_bytes()), ("pytorch_model.bin", bytes)];
    read_all(directory(&files).path());
}

/// The index of shards, with a broken shard beside it.
pub fn checkpoint_index(bytes: &[u8]) {
    let shard = [&2u64.to_le_bytes()[..], b"{}"].concat();
    let files = [
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors.index.json", bytes),
        ("a.safetensors", &shard),
    ];
    read_all(directory(&files).path());
}

/// `config.json`.
pub fn config(bytes: &[u8]) {
    if let Ok(parsed) = Parsed::parse(bytes, Path::new("config.json")) {
        parsed.config.validate().unwrap();
    }
}

/// The tokenizer's table as it lies in a model file.
pub fn tokenizer_table(bytes: &[u8]) {
    let Ok(table) = TokenTable::parse(bytes) else { return };
    let ids: Vec<u32> = (0..table.len().min(1000) as u32).chain([u32::MAX]).collect();
    let mut decoded = Vec::new();
    table.decode_into(&ids, &mut decoded);
    let specials = table.added_tokens().filter(|token| table.is_special(token.id)).count();
    assert!(specials <= table.added_tokens().len());
    let tokenizer = Tokenizer::from(table);
    let own_text = String::from_utf8_lossy(&decoded);
    for text in ["a ab<|end|> abba\u{e9}\u{1f600}", &own_text] {
        for parse_special in [false, true] {
            let Ok(ids) =
                tokenizer.encode(text, EncodeOptions { parse_special, begin_of_text: true })
            else {
                continue;
            };
            let known = |id: &u32| tokenizer.table().token_bytes(*id).is_some();
            assert!(ids.iter().all(known), "encoding makes a token that does not exist");
        }
    }
}

/// `tokenizer.json`.
pub fn tokenizer_json(bytes: &[u8]) {
    import(directory(&[("tokenizer.json", bytes)]).path());
}

/// `vocab.json`, `merges.txt` and `tokenizer_config.json`, with a zero byte between them.
pub fn tokenizer_files(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let names = ["vocab.json", "merges.txt", "tokenizer_config.json"];
    let files = names.map(|name| (name, parts.next().unwrap_or(b"{}")));
    import(directory(&files).path());
}

/// What is imported must be a table that the runtime accepts.
fn import(path: &Path) {
    let Ok(Some(imported)) = tokenizer::import(path, VOCAB_SIZE) else { return };
    assert!(imported.tokens + imported.unused_ids == VOCAB_SIZE as usize);
    tokenizer_table(&imported.blob);
    TokenTable::parse(&imported.blob[..]).expect("the table of an import");
}
