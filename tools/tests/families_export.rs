//! `export-gguf` of the families that people run: what is read from its files is the checkpoint itself.

#[path = "common/modern.rs"]
mod modern;

use std::fs;
use std::path::Path;

use cerebellum::format::Architecture;
use cerebellum_tools::chat_template::{self, ImportedChat};
use cerebellum_tools::checkpoint::{Checkpoint, Scaling};
use cerebellum_tools::export_gguf::{Exported, Precision, WriteError, export};
use cerebellum_tools::gguf::{Gguf, Value};
use cerebellum_tools::output::Output;
use cerebellum_tools::reference::{Parallelism, Reference};
use cerebellum_tools::tokenizer::{self, AddedToken, Vocabulary};
use modern::{CASES, case};
use serde_json::{Value as Json, json};
use tempfile::{TempDir, tempdir};

/// A case with another configuration.
fn changed(name: &str, change: impl Fn(&mut Json)) -> TempDir {
    let directory = tempdir().unwrap();
    let bytes = fs::read(case(name).join("config.json")).unwrap();
    let mut config: Json = serde_json::from_slice(&bytes).unwrap();
    change(&mut config);
    fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let weights = "model.safetensors";
    fs::copy(case(name).join(weights), directory.path().join(weights)).unwrap();
    directory
}

/// Those whose scale llama.cpp's Gemma 3 has: by the size of a head.
fn exportable(name: &str) -> TempDir {
    changed(name, |config| {
        if name == "gemma3-text" {
            config["query_pre_attn_scalar"] = config["head_dim"].clone();
        }
    })
}

fn export_to(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Vocabulary>,
    chat: &ImportedChat,
    path: &Path,
) -> Result<Exported, WriteError> {
    let output = Output::create(path, false, &checkpoint.files()).unwrap();
    export(checkpoint, tokenizer, chat, Precision::F32, output)
}

fn exported(directory: &Path) -> Result<Exported, WriteError> {
    let checkpoint = Checkpoint::open(directory).unwrap();
    export_to(&checkpoint, None, &ImportedChat::default(), &directory.join("model.gguf"))
}

#[test]
fn what_is_read_is_what_was_exported() {
    for name in CASES {
        let place = exportable(name);
        let directory = place.path();
        let warnings = exported(directory).unwrap().warnings;
        let about = match name {
            "mistral-window" => &["this model sees 16 tokens"][..],
            "gpt-neox-parallel" => &["exact GELU"],
            _ => &[],
        };
        assert!(
            warnings.len() == about.len()
                && warnings.iter().zip(about).all(|(warning, about)| warning.contains(about)),
            "{name}: {warnings:?}"
        );

        let source = Checkpoint::open(directory).unwrap();
        let read = Checkpoint::open(&directory.join("model.gguf")).unwrap();
        assert_eq!(read.config(), source.config(), "{name}");
        assert_eq!(read.derived(), source.derived(), "{name}");
        assert_eq!(read.bos_token_id(), source.bos_token_id(), "{name}");
        assert!(read.extra_tensors().is_empty(), "{name}: {:?}", read.extra_tensors());
        assert!(read.tensor_names().eq(source.tensor_names()), "{name}");
        for tensor in source.tensor_names() {
            let [before, after] = [&source, &read].map(|it| it.read_matrix(tensor).unwrap());
            assert!(before == after, "{name}: {tensor}");
        }
        // Longer than any window.
        let ids: Vec<u32> = (0..60).map(|i| i * 37 % 300).collect();
        let [before, after] = [&source, &read].map(|checkpoint| {
            let model = Reference::load(checkpoint).unwrap();
            model.with_parallelism(Parallelism::Serial).logits(&ids).unwrap()
        });
        let bits = |logits: Vec<f32>| logits.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert!(bits(before) == bits(after), "{name}");
    }
}

/// A file that was exported is a checkpoint like any other, rows of queries and keys in another order included.
#[test]
fn an_exported_file_is_exported_as_itself() {
    for name in ["llama3-scaled-rope", "phi3-fused", "granite-multipliers", "olmo2-post-norm"] {
        let place = exportable(name);
        exported(place.path()).unwrap();
        let [first, second] =
            ["model.gguf", "again/model.gguf"].map(|name| place.path().join(name));
        fs::create_dir(second.parent().unwrap()).unwrap();
        let read = Checkpoint::open(&first).unwrap();
        export_to(&read, None, &ImportedChat::default(), &second).unwrap();
        // But for the name.
        let [first, second] = [first, second].map(|path| Checkpoint::open(&path).unwrap());
        assert_eq!(first.config(), second.config());
        assert_eq!(first.derived(), second.derived());
        assert_eq!(first.bases(), second.bases());
        for tensor in first.tensor_names() {
            assert!(first.read_matrix(tensor).unwrap() == second.read_matrix(tensor).unwrap());
        }
    }
}

#[test]
fn entries_are_those_that_llama_cpp_reads() {
    type Expected = &'static [(&'static str, Value<'static>)];
    let cases: [(&str, &str, Expected, &[&str]); 6] = [
        (
            "llama3-scaled-rope",
            "llama",
            &[("rope.freq_base", Value::Float(5e5)), ("attention.head_count_kv", Value::Int(2))],
            &["blk.2.attn_q.weight", "rope_freqs.weight"],
        ),
        ("mistral-window", "llama", &[("attention.sliding_window", Value::Int(16))], &[]),
        (
            "qwen2-yarn",
            "qwen2",
            &[
                ("rope.scaling.type", Value::Text("yarn")),
                ("rope.scaling.factor", Value::Float(4.0)),
                ("rope.scaling.original_context_length", Value::Int(32)),
            ],
            &["blk.0.attn_v.bias"],
        ),
        (
            "gemma3-text",
            "gemma3",
            &[
                ("attention.sliding_window", Value::Int(16)),
                ("rope.freq_base", Value::Float(1e6)),
                ("rope.freq_base_swa", Value::Float(1e4)),
                ("attention.key_length", Value::Int(32)),
            ],
            &["blk.6.post_ffw_norm.weight"],
        ),
        ("phi3-fused", "phi3", &[], &["blk.0.attn_qkv.weight", "blk.1.ffn_up.weight"]),
        (
            "gpt-neox-parallel",
            "gptneox",
            &[
                ("use_parallel_residual", Value::Bool(true)),
                ("rope.dimension_count", Value::Int(4)),
            ],
            &["blk.0.attn_qkv.bias", "output.weight"],
        ),
    ];
    for (name, architecture, entries, tensors) in cases {
        let place = exportable(name);
        exported(place.path()).unwrap();
        let bytes = fs::read(place.path().join("model.gguf")).unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        assert_eq!(gguf.get("general.architecture"), Some(Value::Text(architecture)));
        for (key, value) in entries {
            assert_eq!(gguf.get(&format!("{architecture}.{key}")), Some(*value), "{name}: {key}");
        }
        for tensor in tensors {
            assert!(gguf.tensors().iter().any(|known| known.name == *tensor), "{name}: {tensor}");
        }
    }
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused() {
    type Change = fn(&mut Json);
    let cases: [(&str, Change, &str); 8] = [
        ("gemma3-text", |_| (), "gemma3 does not know what query_pre_attn_scalar"),
        (
            "gemma3-text",
            |c| {
                c["query_pre_attn_scalar"] = json!(32);
                c["layer_types"][0] = json!("full_attention");
            },
            "gemma3 does not know what sliding_window or layer_types",
        ),
        ("smollm3-nope", |c| c["no_rope_layers"] = json!([1, 1, 1, 1, 1]), "no_rope_layers"),
        (
            "smollm3-nope",
            |c| {
                c["use_sliding_window"] = json!(true);
                c["sliding_window"] = json!(8);
                c["layer_types"][0] = json!("sliding_attention");
            },
            "sliding_window or layer_types",
        ),
        (
            "llama-biases",
            |c| c["hidden_act"] = json!("gelu"),
            "llama does not know what hidden_act",
        ),
        (
            "qwen3-qk-norm",
            |c| {
                c["use_sliding_window"] = json!(true);
                c["sliding_window"] = json!(8);
                c["max_window_layers"] = json!(1);
                c["layer_types"] = Json::Null;
            },
            "sliding_window or layer_types",
        ),
        (
            "granite-multipliers",
            |c| {
                c["rope_parameters"] = Json::Null;
                c["rope_scaling"] = json!({
                    "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
                    "original_max_position_embeddings": 32
                });
            },
            "granite does not know what rope_scaling",
        ),
        (
            "qwen2-yarn",
            |c| {
                let place =
                    if c["rope_parameters"].is_null() { "rope_scaling" } else { "rope_parameters" };
                c[place]["attention_factor"] = json!(1.0);
            },
            "rope_scaling.attention_factor",
        ),
    ];
    for (name, change, problem) in cases {
        let place = changed(name, change);
        let error = exported(place.path()).unwrap_err().to_string();
        assert!(error.contains(problem), "{name}: {error}");
        assert!(!place.path().join("model.gguf").exists());
    }
}

/// Frequencies in binary64 stand beside the entries that llama.cpp reads; they cannot contradict those.
#[test]
fn exact_frequencies_are_near_the_others() {
    let place = exportable("llama3-scaled-rope");
    exported(place.path()).unwrap();
    let path = place.path().join("model.gguf");
    let source = Checkpoint::open(place.path()).unwrap();
    assert_eq!(source.bases()[0].scaling, Scaling::Divided);
    let frequency = source.derived().frequencies[1];
    let bytes = fs::read(&path).unwrap();
    let stored = frequency.to_le_bytes();
    let at = bytes.windows(8).position(|bytes| bytes == stored).unwrap();
    for (other, problem) in [
        (frequency * 1.001, "`cerebellum.rope.inverse_frequencies` contradicts"),
        (f64::NAN, "`cerebellum.rope.inverse_frequencies` contradicts"),
        (-frequency, "`cerebellum.rope.inverse_frequencies` contradicts"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&other.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(problem), "{other}: {error}");
    }
    // An entry of another length is no entry of this model.
    let key = b"cerebellum.rope.inverse_frequencies";
    let at = bytes.windows(key.len()).position(|bytes| bytes == key).unwrap() + key.len() + 4;
    let mut bytes = bytes;
    // Of numbers of four bytes there are twice as many.
    bytes[at..at + 4].copy_from_slice(&6u32.to_le_bytes());
    bytes[at + 4] *= 2;
    fs::write(&path, &bytes).unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("is an array of 16, but must be 8 numbers"), "{error}");
}

/// A tokenizer of each kind, and what concerns conversations.
#[test]
fn tokenizers_and_templates_are_read_as_they_were() {
    for (name, vocabulary) in [("gpt2", gpt2()), ("llama", sentencepiece())] {
        let place = exportable("llama-biases");
        let checkpoint = Checkpoint::open(place.path()).unwrap();
        let path = place.path().join("model.gguf");
        let mut chat = ImportedChat { end_tokens: vec![5, 6], ..ImportedChat::default() };
        chat.format = Some(cerebellum::format::ChatFormat {
            template: Some("{% for message in messages %}{{ message.content }}{% endfor %}".into()),
            ..Default::default()
        });
        let exported = export_to(&checkpoint, Some(&vocabulary), &chat, &path).unwrap();
        assert_eq!(exported.warnings, Vec::<String>::new(), "{name}");
        let (read, _) = tokenizer::read(&path).unwrap().unwrap();
        let table = |vocabulary| tokenizer::from_vocabulary(vocabulary, &path, 320).unwrap().blob;
        assert!(table(read.clone()) == table(vocabulary), "{name}: {read:?}");
        let found = chat_template::import(&path, checkpoint.config(), Some(&table(read))).unwrap();
        assert_eq!(found.end_tokens[..2], [5, 6]);
        assert_eq!(found.format.unwrap().template, chat.format.unwrap().template);
    }
}

fn added(id: u32, content: &str, special: bool) -> AddedToken {
    AddedToken { id, content: content.to_owned(), special, ..AddedToken::default() }
}

/// Bytes, a few merges, digits one by one.
fn gpt2() -> Vocabulary {
    use cerebellum::text::{byte_level, layout};
    let mut vocabulary = Vocabulary { rule: layout::SPLIT_GPT2_DIGITS, ..Vocabulary::default() };
    let bytes = (0..=255).zip(7..);
    vocabulary.tokens =
        bytes.map(|(byte, id)| (byte_level::byte_to_char(byte).to_string(), id)).collect();
    let merges = [("t", "h"), ("th", "e"), ("\u{120}", "the")];
    for ((left, right), id) in merges.into_iter().zip(300..) {
        vocabulary.tokens.insert(format!("{left}{right}"), id);
        vocabulary.merges.push((left.to_owned(), right.to_owned()));
    }
    vocabulary.added = vec![added(0, "<|endoftext|>", true), added(5, "<|im_end|>", true)];
    // Published files list them among the tokens, too.
    let listed = vocabulary.added.iter().map(|token| (token.content.clone(), token.id));
    vocabulary.tokens.extend(listed);
    vocabulary
}

/// Byte tokens, a few merges in the order of their scores, a beginning of text, and a space before it.
fn sentencepiece() -> Vocabulary {
    use cerebellum::text::layout;
    let mut vocabulary = Vocabulary {
        kind: layout::SENTENCEPIECE_BPE,
        rule: layout::SPLIT_SPACES,
        flags: layout::ADD_BOS | layout::ADD_PREFIX_SPACE | layout::ALWAYS_PREFIX_SPACE,
        bos: Some(1),
        ..Vocabulary::default()
    };
    vocabulary.tokens =
        (0..=255u8).zip(7..).map(|(byte, id)| (format!("<0x{byte:02X}>"), id)).collect();
    for (character, id) in ["\u{2581}", "t", "h", "e"].into_iter().zip(270..) {
        vocabulary.tokens.insert(character.to_owned(), id);
    }
    let merges = [("h", "e"), ("t", "he"), ("\u{2581}", "the")];
    for ((left, right), id) in merges.into_iter().zip([301, 300, 302]) {
        vocabulary.tokens.insert(format!("{left}{right}"), id);
        vocabulary.merges.push((left.to_owned(), right.to_owned()));
    }
    let control = [(0, "<unk>"), (1, "<s>"), (2, "</s>")].map(|(id, text)| added(id, text, true));
    vocabulary.added = [&control[..], &[added(5, "<end>", true), added(6, "\n\n", false)]].concat();
    vocabulary
}

#[test]
fn a_tokenizer_that_gguf_cannot_say_is_refused_or_warned_of() {
    use cerebellum::text::layout;
    let place = exportable("llama-biases");
    let checkpoint = Checkpoint::open(place.path()).unwrap();
    let path = place.path().join("model.gguf");
    let export = |vocabulary: &Vocabulary| {
        let result = export_to(&checkpoint, Some(vocabulary), &ImportedChat::default(), &path);
        let _ = fs::remove_file(&path);
        result
    };
    let odd = Vocabulary { rule: layout::SPLIT_EACH_SPACE, ..gpt2() };
    assert!(export(&odd).unwrap_err().to_string().contains("in a way of its own"));
    let normalizing = Vocabulary { flags: layout::NFC, ..gpt2() };
    assert!(export(&normalizing).unwrap().warnings[0].contains("(NFC)"));
    let mut unordered = sentencepiece();
    // A pair that is a token but that no merge makes: by scores it would merge.
    unordered.merges.remove(1);
    assert!(export(&unordered).unwrap().warnings[0].contains("a score for each token"));
}

#[test]
fn mistral_without_windows_is_llama() {
    let place = changed("mistral-window", |config| config["sliding_window"] = Json::Null);
    assert_eq!(exported(place.path()).unwrap().warnings, Vec::<String>::new());
    let read = Checkpoint::open(&place.path().join("model.gguf")).unwrap();
    assert_eq!(read.config().architecture, Architecture::Llama);
}
