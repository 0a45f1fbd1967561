//! Small files that ask for much, and headers of the largest size allowed.

use std::time::Duration;

use cerebellum::Model;
use cerebellum::format::{MAX_PROVENANCE_BYTES, opening_bytes, read_header};
use serde_json::json;

use crate::allocations::peak_of;
use crate::base::{tiny, tiny_btlm, tiny_int8, tiny_modern};
use crate::class::{Class, MEMORY};
use crate::exercise::AlignedBytes;
use crate::fields::relist;
use crate::parts::{Parts, assemble};

/// Time to refuse a small file.
pub const TIME: Duration = Duration::from_millis(50);
const SMALL: usize = 1408;

/// Metadata with this in the place of its `quantizer`, which may be any JSON.
fn metadata(quantizer: &str) -> String {
    let text = format!(r#"{{"version":3,"quantizer":{quantizer}}}"#);
    json!({ "__metadata__": { "cerebellum": text } }).to_string()
}

fn tensor(fields: &str) -> String {
    format!(r#"{{"wte.weight":{{{fields}}}}}"#)
}

/// Configuration and listing of a model of this shape; all matrices but the first are missing.
fn model(config: &[(&str, u64)]) -> String {
    let mut metadata = json!({
        "version": 3,
        "config": {
            "architecture": "gpt2", "vocab_size": 1, "n_positions": 1, "n_embd": 1, "n_layer": 1,
            "norm": { "kind": "layer", "place": "before", "epsilon": 1e-5 },
            "positions": "learned",
            "attention": {
                "heads": 1, "kv_heads": 1, "head_size": 1, "scale": 1.0, "scale_by_layer": false,
                "query_key_norm": "none", "biases": "both",
                "kinds": [{ "window": null, "base": null }],
            },
            "mlp": { "kind": "plain", "inner": 1, "activation": "relu", "biases": true },
            "residual": { "order": "sequential", "scale": 1.0 },
            "embeddings_scale": 1.0, "logits_scale": 1.0,
            "tie_word_embeddings": true, "eos_token_id": null,
        },
    });
    for (pointer, value) in config {
        *metadata["config"].pointer_mut(pointer).unwrap() = (*value).into();
    }
    let config = &metadata["config"];
    let shape = json!([config["vocab_size"], config["n_embd"]]);
    let info = json!({ "scheme": "int4", "group_size": 32, "shape": shape, "exponent": 0 });
    metadata["tensors"] = json!({ "wte.weight": info });
    json!({ "__metadata__": { "cerebellum": metadata.to_string() } }).to_string()
}

fn bombs() -> Vec<(&'static str, String)> {
    let nested = |open: &str, close: &str, depth| open.repeat(depth) + &close.repeat(depth);
    let list = |item: &str, count| format!("[{}0]", format!("{item},").repeat(count));
    let mut bombs = vec![
        ("nothing", String::new()),
        ("spaces", " ".repeat(900)),
        ("not JSON", "\0".repeat(900)),
        ("brackets", nested("[", "", 900)),
        ("braces", nested(r#"{"":"#, "", 200)),
        ("nested in the listing", format!(r#"{{"x":{}}}"#, nested("[", "]", 400))),
        ("nested in a shape", tensor(&format!(r#""shape":{}"#, nested("[", "]", 400)))),
        ("nested in an unknown field", tensor(&format!(r#""x":{}"#, nested("[", "]", 400)))),
        ("nested in the metadata", metadata(&nested("[", "]", 400))),
        ("nested objects in the metadata", metadata(&nested(r#"{"":"#, "}", 120))),
        ("nested and open", metadata(&nested("[", "", 800))),
        ("many digits", metadata(&"9".repeat(900))),
        ("many decimals", metadata(&format!("0.{}1", "0".repeat(900)))),
        ("large exponent", metadata("1e999999999999999999")),
        ("small exponent", metadata("1e-999999999999999999")),
        ("many digits of an exponent", metadata(&format!("1e{}", "9".repeat(900)))),
        ("many dimensions", tensor(&format!(r#""dtype":"U8","data_offsets":[0,1],"shape":{}"#, list("1", 430)))),
        ("dimension of many digits", tensor(&format!(r#""shape":[{}]"#, "9".repeat(900)))),
        ("long name", json!({ "n".repeat(900): 0 }).to_string()),
        ("long escaped name", format!(r#"{{"{}":0}}"#, "\\u0000".repeat(150))),
        ("lone surrogate", format!(r#"{{"{}":0}}"#, "\\ud800".repeat(150))),
        ("not UTF-8", "{\"\u{80}".repeat(100)),
        ("many names", format!("{{{}}}", (0..100).map(|i| format!(r#""{i}":{{}}"#)).collect::<Vec<_>>().join(","))),
        ("one name many times", format!("{{{}\"\":{{}}}}", r#""":{},"#.repeat(140))),
        ("metadata of metadata", json!({ "__metadata__": { "cerebellum": metadata("0") } }).to_string()),
        ("many metadata keys", format!(r#"{{"__metadata__":{{{}"":""}}}}"#, r#""":"","#.repeat(150))),
        ("tokenizer of 2^64 - 1 bytes", r#"{"tokenizer":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#.to_owned()),
        ("empty objects", metadata(&list(r#"{"":0}"#, 60))),
        ("checksums of 2^63 bytes", r#"{"checksums":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,9223372036854775808]}}"#.to_owned()),
    ];
    let most = [
        ("/vocab_size", 1 << 24),
        ("/n_positions", 1 << 24),
        ("/n_embd", 1 << 20),
        ("/mlp/inner", 1 << 20),
        ("/n_layer", 1 << 12),
        ("/attention/heads", 1 << 12),
        ("/attention/kv_heads", 1 << 12),
        ("/attention/head_size", 1 << 12),
    ];
    // All heads together have a limit of their own.
    let largest = [&most[..7], &[("/attention/head_size", 1 << 8)]].concat();
    bombs.push(("the largest model allowed", model(&largest)));
    for (field, value) in most {
        bombs.push(("as large as allowed", model(&[(field, value)])));
        bombs.push(("one too large", model(&[(field, value + 1)])));
        bombs.push(("far too large", model(&[(field, u64::MAX)])));
    }
    bombs
}

/// Opens a file, within the memory that is stated for that.
fn open_within(case: &str, file: &[u8]) {
    let header = file.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    let copy = AlignedBytes::copy(file);
    let (_, peak) = peak_of(|| Model::borrow(copy).map(drop));
    assert!(
        peak <= opening_bytes(header, size_of::<usize>()),
        "{case}: {peak} bytes of memory for {header}"
    );
}

#[test]
fn opening_takes_no_more_memory_than_is_stated() {
    for (case, json) in bombs().into_iter().chain(largest()) {
        open_within(case, &assemble(json.as_bytes(), &[0; 64]));
    }
    for file in [tiny(), tiny_int8(), tiny_btlm(), tiny_modern()] {
        open_within("sound", file);
    }
    // Templates and layers are what a sound file may have many of.
    let mut parts = Parts::of(tiny());
    let names = (0..3000).map(|i| (i.to_string(), "".into()));
    parts.metadata["templates"] = names.collect::<serde_json::Map<_, _>>().into();
    open_within("templates", &parts.file());
    parts.metadata["end_tokens"] = vec![0; 4096].into();
    parts.metadata["config"]["attention"]["kinds"] = vec![json!({}); 4096].into();
    open_within("arrays", &parts.file());
    let mut parts = Parts::of(tiny());
    parts.metadata["config"]["n_layer"] = 100.into();
    assert!(relist(&mut parts));
    open_within("layers", &parts.file());
}

#[test]
fn resource_bombs() {
    let mut class = Class::with_bounds("small bombs", MEMORY, TIME);
    for (case, json) in bombs() {
        let file = assemble(json.as_bytes(), &[0; 64]);
        assert!(file.len() <= SMALL + 64, "{case} has {} bytes", file.len());
        let labels = ["frame", "json", "version", "configuration", "tensor"];
        class.run(case, &file).expect(case, &labels);
    }
    assert!(class.cases() >= 30);
    class.print();
}

/// A file of a few kilobytes that claims sixteen million positions, which cost it nothing: sessions and batches
/// by default stay within a bound that depends on the file's size.
#[test]
fn claimed_positions_are_not_paid_for() {
    use cerebellum::{KvType, Model, SessionOptions};

    let mut parts = Parts::of(crate::base::tiny_btlm());
    parts.metadata["config"]["n_positions"] = (1 << 24).into();
    let file = parts.file();
    let model = Model::borrow(crate::exercise::AlignedBytes::copy(&file)).unwrap();
    assert_eq!(model.memory_budget(), 64 << 20);
    for kv in [KvType::F16, KvType::Int8] {
        let options = SessionOptions { kv, ..SessionOptions::default() };
        let plan = model.plan(&options).unwrap();
        // A panel of positions more, for each head.
        assert!(plan.kv_bytes <= model.memory_budget() + (1 << 16), "{plan:?}");
        assert!(plan.kv_bytes > model.memory_budget() / 2, "{plan:?}");
        let mut session = model.session(&options).unwrap();
        session.evaluate(&[1, 2, 3]).unwrap();
        assert_eq!(session.position(), 3);
        // Whoever asks gets more.
        let more = SessionOptions { context: Some(1 << 22), ..options };
        assert!(model.plan(&more).unwrap().kv_bytes > plan.kv_bytes);
    }
}

/// A header that claims more than there is, without JSON behind.
#[test]
fn header_length_bombs() {
    let mut class = Class::with_bounds("length bombs", MEMORY, TIME);
    for length in [56, 1 << 20, (1 << 20) - 8, 1 << 32, 1 << 63, u64::MAX - 7, u64::MAX] {
        let file = [&length.to_le_bytes()[..], &[b' '; 100]].concat();
        class.run(length, &file).expect(length, &["frame", "checksum"]);
    }
    class.print();
}

/// As much JSON as fits, where the metadata may hold any.
fn largest() -> Vec<(&'static str, String)> {
    let size = (1 << 20) - 200;
    let list = |item: &str| format!("[{}0]", format!("{item},").repeat(size / (item.len() + 1)));
    let numbered = |item: fn(usize) -> String| {
        let mut items = String::new();
        for i in 0.. {
            let item = item(i);
            if items.len() + item.len() > size {
                return items + &item;
            }
            items += &item;
            items.push(',');
        }
        unreachable!("the loop ends by returning")
    };
    let escaped = |text: &str| {
        let quotes = text.bytes().filter(|byte| *byte == b'"').count();
        metadata(&text[..text.len().min(size - quotes)])
    };
    let entry = |i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    vec![
        ("names", format!("{{{}}}", numbered(entry))),
        ("shortest entries", format!("{{{}}}", numbered(|i| format!(r#""{i}":{{}}"#)))),
        (
            "metadata keys",
            format!(r#"{{"__metadata__":{{{}}}}}"#, numbered(|i| format!(r#""{i}":"""#))),
        ),
        ("brackets", "[".repeat(size)),
        ("shape", tensor(&format!(r#""dtype":"U8","data_offsets":[0,0],"shape":{}"#, list("0")))),
        ("unknown field", tensor(&format!(r#""x":{}"#, list("[]")))),
        ("digits", metadata(&"7".repeat(size))),
        ("digits of a float", metadata(&format!("0.{}", "7".repeat(size)))),
        ("digits of an exponent", metadata(&format!("1e{}", "9".repeat(size)))),
        ("digits before an exponent", metadata(&format!("{}e-1000000", "7".repeat(size)))),
        (
            "digits of epsilon",
            model(&[]).replace("0.00001", &format!("0.{}", "3".repeat(size - 900))),
        ),
        ("text", metadata(&format!("{:?}", "x".repeat(size)))),
        ("zeros", metadata(&list("0"))),
        ("arrays", metadata(&list("[]"))),
        ("arrays of one", metadata(&list("[0]"))),
        ("brackets in metadata", metadata(&"[".repeat(size))),
        (
            "objects",
            metadata(&{
                let item = r#"{"":0}"#;
                format!("[{}0]", format!("{item},").repeat(size / (item.len() + 3)))
            }),
        ),
        ("nested to the limit", escaped(&list(&("[".repeat(120) + &"]".repeat(120))))),
    ]
}

#[test]
fn headers_of_a_mebibyte() {
    let mut class = Class::with_bounds("headers of 1 MiB", MEMORY, Duration::from_secs(1));
    for (case, json) in largest() {
        let file = assemble(json.as_bytes(), &[0; 64]);
        assert!(file.len() > 1 << 19 && file.len() <= (1 << 20) + 72, "{case}: {}", file.len());
        class.run(case, &file).expect(case, &["json", "tensor", "configuration"]);
    }
    class.print();
}

/// The same in an otherwise sound file, up to the limit of what `quantizer` may hold and beyond.
#[test]
fn sound_files_with_much_provenance() {
    let mut class = Class::with_bounds("much provenance", MEMORY, Duration::from_secs(1));
    let items =
        [json!(0), json!([]), json!([0]), json!({}), json!({ "": 0 }), json!("x"), json!(1e-7)];
    for item in items {
        for (bytes, label) in
            [(MAX_PROVENANCE_BYTES - 20, "runs"), (MAX_PROVENANCE_BYTES + 20, "json")]
        {
            let mut parts = Parts::of(tiny());
            let list = vec![item.clone(); bytes / (item.to_string().len() + 1)];
            parts.metadata["quantizer"] = list.into();
            class.run(&item, &parts.file()).expect(&item, &[label]);
        }
    }
    class.print();
}

/// The quantizer's record is skipped without recursion: deep nesting stays text.
#[test]
fn sound_files_with_nested_provenance() {
    let mut class = Class::with_bounds("nested provenance", MEMORY, Duration::from_secs(1));
    for (depth, parsed) in [(100, true), (200, false), (MAX_PROVENANCE_BYTES / 2, false)] {
        let mut parts = Parts::of(tiny());
        parts.metadata["quantizer"] = "here".into();
        let nested = "[".repeat(depth) + &"]".repeat(depth);
        let json = parts.json().replacen(r#"\"here\""#, &nested, 1);
        let file = assemble(json.as_bytes(), &parts.data);
        class.run(depth, &file).expect(depth, &["runs"]);
        let (header, _) = read_header(&file).unwrap();
        assert_eq!(header.quantizer.text(), nested);
        assert_eq!(header.quantizer.value().is_array(), parsed, "{depth}");
        assert_eq!(header.quantizer.value().is_string(), !parsed, "{depth}");
    }
    class.print();
}

/// More layers than the header has room for, each listed as far as it goes.
#[test]
fn many_layers() {
    let mut class = Class::with_bounds("many layers", MEMORY, Duration::from_secs(1));
    for layers in [2, 100, 700, 4096] {
        let mut parts = Parts::of(tiny());
        parts.metadata["config"]["n_layer"] = layers.into();
        let matrices = parts.metadata["tensors"].as_object_mut().unwrap();
        let of_layer: Vec<_> =
            matrices.clone().into_iter().filter(|(name, _)| name.starts_with("h.0.")).collect();
        for layer in 1..layers.min(1200) {
            for (name, info) in &of_layer {
                matrices.insert(name.replacen("h.0.", &format!("h.{layer}."), 1), info.clone());
            }
        }
        let file = parts.file();
        class.run(layers, &file).expect(layers, &["tensor", "configuration", "frame"]);
    }
    class.print();
}
