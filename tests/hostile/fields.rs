//! Every integer of the format at the values where arithmetic breaks, alone and in pairs.

use cerebellum::format::{FileLayout, Header, TOKENIZER, matrix_names, read_header};
use serde_json::{Value, json};

use crate::base::{tiny, tiny_btlm, tiny_int8, tiny_modern, tokenizer};
use crate::class::Class;
use crate::parts::{Parts, seal};

const VALUES: [u64; 13] = [
    0,
    1,
    2,
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 1,
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// Values that a format of 32-bit fields can hold.
const SMALL_VALUES: [u32; 8] =
    [0, 1, 2, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX - 1, u32::MAX];

/// JSON pointers to all values below `value` that `wanted` wants.
fn search(value: &Value, at: &str, wanted: fn(&Value) -> bool, found: &mut Vec<String>) {
    if wanted(value) {
        found.push(at.to_owned());
    }
    match value {
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                search(item, &format!("{at}/{i}"), wanted, found);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                search(item, &format!("{at}/{key}"), wanted, found);
            }
        }
        _ => {}
    }
}

fn pointers(value: &Value, wanted: fn(&Value) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    search(value, "", wanted, &mut found);
    found
}

fn integers_of(value: &Value) -> Vec<String> {
    pointers(value, |value| value.is_u64() || value.is_i64())
}

#[test]
fn header_length() {
    let mut class = Class::new("length of the header");
    let (file, length) = (tiny().len() as u64, tiny().len() as u64);
    let near = (0..200).chain(length - 100..length + 100);
    for value in VALUES.into_iter().chain(near).chain([1 << 20, (1 << 20) - 8, (1 << 20) + 56]) {
        let mut damaged = tiny().to_vec();
        damaged[..8].copy_from_slice(&value.to_le_bytes());
        class.run(value, &damaged).expect(value, &["frame", "checksum"]);
        seal(&mut damaged);
        let outcome = class.run(value, &damaged);
        assert!(value <= file || outcome.label() == "frame", "{value}: {}", outcome.message());
    }
    class.print();
}

#[test]
fn single_integers() {
    let mut class = Class::new("single integers");
    for file in [tiny(), tiny_int8(), tiny_btlm(), tiny_modern()] {
        let parts = Parts::of(file);
        for pointer in integers_of(&parts.listing) {
            for value in VALUES {
                let mut parts = parts.clone();
                let field = parts.listing.pointer_mut(&pointer).unwrap();
                let same = *field == value;
                *field = value.into();
                let outcome = class.run(format!("{pointer} = {value}"), &parts.file());
                assert!(same || outcome.label() != "runs", "{pointer} = {value} is accepted");
            }
        }
        for pointer in integers_of(&parts.metadata) {
            for value in VALUES {
                let mut parts = parts.clone();
                *parts.metadata.pointer_mut(&pointer).unwrap() = value.into();
                class.run(format!("{pointer} = {value}"), &parts.file());
            }
        }
    }
    class.print();
}

/// Counts and sizes that are multiplied or added: pairs within the configuration, within a matrix, and
/// within a listed tensor.
#[test]
fn pairs_of_integers() {
    let mut class = Class::new("pairs of integers");
    let mut pairs = |file: &[u8], of: fn(&mut Parts) -> &mut Value, prefix: &str| {
        let parts = Parts::of(file);
        let whole = integers_of(of(&mut parts.clone()));
        let group: Vec<_> = whole.iter().filter(|pointer| pointer.starts_with(prefix)).collect();
        assert!(group.len() > 1, "{prefix} has no pair");
        for (i, first) in group.iter().enumerate() {
            for second in &group[i + 1..] {
                for (a, b) in VALUES.iter().flat_map(|a| VALUES.map(|b| (*a, b))) {
                    let mut parts = parts.clone();
                    *of(&mut parts).pointer_mut(first).unwrap() = a.into();
                    *of(&mut parts).pointer_mut(second).unwrap() = b.into();
                    class.run(format!("{first} = {a}, {second} = {b}"), &parts.file());
                }
            }
        }
    };
    pairs(tiny(), |parts| &mut parts.metadata, "/config");
    pairs(tiny_modern(), |parts| &mut parts.metadata, "/config/attention");
    for matrix in ["wte.weight", "h.0.attn.c_attn.weight"] {
        pairs(tiny(), |parts| &mut parts.metadata, &format!("/tensors/{matrix}"));
    }
    for tensor in ["wte.weight", "h.0.mlp.c_fc.bias", "wpe.weight", "tokenizer", "checksums"] {
        pairs(tiny(), |parts| &mut parts.listing, &format!("/{tensor}"));
    }
    pairs(tiny_modern(), |parts| &mut parts.listing, "/rope.inverse_frequencies");
    class.print();
}

/// Every fraction of the configuration at values that are no factors, and at those beside them: what is 0 or
/// infinite in binary32 is refused, too.
#[test]
fn fractions() {
    let mut class = Class::new("fractions");
    let values = [0.0, -0.0, -1.0, 1e-300, 1e-46, 1e-45, 1e-40, 1e-3, 3e38, 4e38, 1e300];
    for file in [tiny(), tiny_btlm(), tiny_modern()] {
        let parts = Parts::of(file);
        for pointer in pointers(&parts.metadata["config"], Value::is_f64) {
            let is_wide = pointer.contains("factors");
            for value in values {
                let mut parts = parts.clone();
                *parts.metadata["config"].pointer_mut(&pointer).unwrap() = value.into();
                let case = format!("{pointer} = {value}");
                let narrow = if is_wide { value } else { f64::from(value as f32) };
                let is_factor = narrow > 0.0 && narrow.is_finite();
                let labels: &[_] =
                    if is_factor { &["runs", "not finite"] } else { &["configuration", "json"] };
                class.run(&case, &parts.file()).expect(&case, labels);
            }
            for value in [json!(null), json!("1"), json!([1.0]), json!(true)] {
                let mut parts = parts.clone();
                *parts.metadata["config"].pointer_mut(&pointer).unwrap() = value.clone();
                let case = format!("{pointer} = {value}");
                class.run(&case, &parts.file()).expect(&case, &["json"]);
            }
        }
    }
    assert!(class.cases() > 200);
    class.print();
}

/// Every word of the configuration replaced by all words of all fields, and by others.
#[test]
fn words() {
    const WORDS: [(&str, &[&str]); 9] = [
        ("/norm/kind", &["layer", "rms"]),
        ("/norm/place", &["before", "after", "both"]),
        ("/positions", &["learned"]),
        ("/attention/query_key_norm", &["none", "head", "width"]),
        ("/attention/biases", &["none", "input", "both"]),
        ("/mlp/kind", &["plain", "gated"]),
        ("/mlp/activation", &["gelu", "gelu_tanh", "relu", "silu"]),
        ("/residual/order", &["sequential", "parallel"]),
        ("/architecture", &["gpt2", "btlm", "llama", "gemma3", "gptneox"]),
    ];
    let mut class = Class::new("words");
    let others = ["", "x", "Rms", "none ", "gelu_new", "\0"];
    for file in [tiny(), tiny_modern()] {
        let parts = Parts::of(file);
        for pointer in pointers(&parts.metadata["config"], Value::is_string) {
            let (_, own) = WORDS.iter().find(|(field, _)| *field == pointer).expect("a known word");
            let all = WORDS.iter().flat_map(|(_, words)| *words).chain(&others);
            for word in all {
                let mut parts = parts.clone();
                *parts.metadata["config"].pointer_mut(&pointer).unwrap() = (*word).into();
                let case = format!("{pointer} = {word:?}");
                // Another word may mean other tensors, but never another fault.
                let labels: &[_] = if own.contains(word) { &["runs", "tensor"] } else { &["json"] };
                class.run(&case, &parts.file()).expect(&case, labels);
            }
        }
    }
    assert!(class.cases() > 300);
    class.print();
}

/// Each key of the configuration left out, and each unknown one added.
#[test]
fn keys() {
    const OPTIONAL: [&str; 5] = ["layers", "train_len", "window", "base", "eos_token_id"];
    let mut class = Class::new("keys");
    for file in [tiny(), tiny_btlm(), tiny_modern()] {
        let parts = Parts::of(file);
        for object in pointers(&parts.metadata["config"], Value::is_object) {
            let map = |parts: &mut Parts| -> serde_json::Map<String, Value> {
                let value = parts.metadata["config"].pointer_mut(&object).unwrap();
                value.as_object().unwrap().clone()
            };
            for key in map(&mut parts.clone()).keys() {
                let mut parts = parts.clone();
                let value = parts.metadata["config"].pointer_mut(&object).unwrap();
                value.as_object_mut().unwrap().remove(key);
                let case = format!("without {object}/{key}");
                // Each is null then.
                let labels: &[_] = if OPTIONAL.contains(&&**key) { &["runs"] } else { &["json"] };
                class.run(&case, &parts.file()).expect(&case, labels);
            }
            let mut parts = parts.clone();
            let value = parts.metadata["config"].pointer_mut(&object).unwrap();
            value["another"] = json!([0]);
            // Where an object's key is a choice there is one of them.
            let labels: &[_] = if object == "/positions" { &["json"] } else { &["runs"] };
            class.run(&object, &parts.file()).expect(&object, labels);
        }
    }
    class.print();
}

/// Fields that must fit together, each with what becomes of the file.
#[test]
fn fields_that_do_not_fit() {
    let mut class = Class::new("fields that do not fit");
    let kind = json!({ "window": 2, "base": 0 });
    let faults = [
        ("/attention/kinds", json!([]), "configuration"),
        ("/attention/kinds", json!(vec![kind.clone(); 8]), "runs"),
        ("/attention/kinds", json!(vec![kind.clone(); 9]), "configuration"),
        ("/attention/kinds", json!([kind]), "configuration"),
        ("/attention/kinds", json!({}), "json"),
        ("/attention/kinds/0", json!({}), "runs"),
        ("/attention/kinds/0/window", json!(0), "configuration"),
        ("/attention/kinds/0/window", json!(-1), "json"),
        ("/attention/kinds/0/window", json!(1.5), "json"),
        ("/attention/kinds/0/window", json!(1), "runs"),
        ("/attention/kinds/0/window", json!(u64::MAX), "runs"),
        ("/attention/kinds/1/base", json!(2), "configuration"),
        ("/attention/kinds/1/base", json!(u64::MAX), "configuration"),
        ("/attention/layers", json!([]), "runs"),
        ("/attention/layers", json!([0]), "configuration"),
        ("/attention/layers", json!([0, 1, 0]), "configuration"),
        ("/attention/layers", json!([0, 2]), "configuration"),
        ("/attention/layers", json!([0, 255]), "configuration"),
        ("/attention/layers", json!([0, 256]), "json"),
        ("/attention/layers", json!([0, -1]), "json"),
        ("/attention/kv_heads", json!(0), "configuration"),
        ("/attention/kv_heads", json!(3), "configuration"),
        ("/attention/kv_heads", json!(4), "configuration"),
        ("/attention/kv_heads", json!(2), "tensor"),
        ("/attention/heads", json!(0), "configuration"),
        ("/attention/head_size", json!(1), "configuration"),
        ("/positions/rope/pairs", json!(0), "configuration"),
        ("/positions/rope/pairs", json!(3), "configuration"),
        ("/positions/rope/pairs", json!(2), "tensor"),
        ("/positions/rope/factors", json!([]), "configuration"),
        ("/positions/rope/factors", json!([1.0]), "configuration"),
        ("/positions/rope/factors", json!([1.0, 0.0]), "configuration"),
        ("/positions/rope/factors", json!([1.0, 1.0, 1.0]), "tensor"),
        ("/positions/rope/factors", json!(vec![1.0; 9]), "configuration"),
        ("/positions", json!("learned"), "configuration"),
        ("/positions", json!("rope"), "json"),
        ("/positions", json!({ "rope": {} }), "json"),
        ("/positions", json!({ "alibi": { "train_len": null } }), "configuration"),
        ("/n_positions", json!(1 << 20), "runs"),
        ("/n_positions", json!((1 << 20) + 1), "configuration"),
        ("/eos_token_id", json!(24), "configuration"),
        ("/norm", json!("rms"), "json"),
    ];
    let mut run = |file: &[u8], (pointer, value, label): (&str, Value, &str)| {
        let mut parts = Parts::of(file);
        *parts.metadata["config"].pointer_mut(pointer).unwrap() = value.clone();
        let case = format!("{pointer} = {value}");
        class.run(&case, &parts.file()).expect(&case, &[label]);
    };
    for fault in faults {
        run(tiny_modern(), fault);
    }
    for (train_len, label) in [
        (json!(0), "configuration"),
        (json!(1 << 24), "runs"),
        (json!((1 << 24) + 1), "configuration"),
        (json!(-1), "json"),
    ] {
        run(tiny_btlm(), ("/positions/alibi/train_len", train_len, label));
    }
    class.print();
}

/// Dimensions changed everywhere at once, so that header and listing agree and only the bytes are
/// missing.
#[test]
fn consistent_dimensions() {
    let mut class = Class::new("consistent dimensions");
    let fields = [
        "/vocab_size",
        "/n_positions",
        "/n_embd",
        "/n_layer",
        "/mlp/inner",
        "/attention/head_size",
    ];
    let values = [1, 2, 3, 6, 100, 1 << 12, (1 << 20) - 1, 1 << 20, 1 << 24];
    for (i, first) in fields.iter().enumerate() {
        for second in &fields[i..] {
            for (a, b) in values.iter().flat_map(|a| values.map(|b| (*a, b))) {
                let mut parts = Parts::of(tiny());
                let config = &mut parts.metadata["config"];
                *config.pointer_mut(first).unwrap() = a.into();
                *config.pointer_mut(second).unwrap() = b.into();
                config["attention"]["heads"] = 1.into();
                config["attention"]["kv_heads"] = 1.into();
                let case = format!("{first} = {a}, {second} = {b}");
                if relist(&mut parts) {
                    let labels = ["length", "table", "frame", "tensor", "runs"];
                    class.run(&case, &parts.file()).expect(&case, &labels);
                }
            }
        }
    }
    class.print();
}

/// Makes the listing what the configuration implies; `false` if that cannot be.
pub fn relist(parts: &mut Parts) -> bool {
    let config = Header::parse(&parts.metadata.to_string()).unwrap().config;
    // A header of many layers would be longer than is allowed, and is tried among the bombs.
    if config.validate().is_err() || config.n_layer > 100 {
        return false;
    }
    let any = parts.metadata["tensors"]["wte.weight"].clone();
    let matrices = matrix_names(&config).into_iter().map(|(name, shape)| {
        let mut info = any.clone();
        info["shape"] = shape.to_vec().into();
        (name, info)
    });
    parts.metadata["tensors"] = matrices.collect::<serde_json::Map<_, _>>().into();
    let header = Header::parse(&parts.metadata.to_string()).unwrap();
    let Ok(layout) = FileLayout::new(&config, &header.tensors, Some(tokenizer().len())) else {
        return false;
    };
    let listing = layout.tensors().iter().map(|tensor| {
        let offsets = [tensor.range.start, tensor.range.end];
        let dtype = serde_json::to_value(tensor.dtype).unwrap();
        let info = json!({
            "dtype": dtype, "shape": tensor.shape, "data_offsets": offsets,
        });
        (tensor.name.clone(), info)
    });
    parts.listing = listing.collect::<serde_json::Map<_, _>>().into();
    true
}

/// Every 32-bit word of the tokenizer's table at every such value, and its counts in pairs.
#[test]
fn tokenizer_integers() {
    let mut class = Class::new("tokenizer integers");
    let (_, places) = read_header(tiny()).unwrap();
    let start = places.get(TOKENIZER).unwrap().range.start;
    let sound = tokenizer();
    let mut run = |changes: &[(usize, u32)]| {
        let mut file = tiny().to_vec();
        for (at, value) in changes {
            file[start + at..][..4].copy_from_slice(&value.to_le_bytes());
        }
        let outcome = class.run(format!("{changes:?}"), &file);
        let ran = outcome.0.as_ref().expect("the header is sound");
        let table = &file[start..][..sound.len()];
        assert_eq!(ran.damaged.is_empty(), table == sound, "{changes:?}");
    };
    for at in 0..sound.len() - 3 {
        for value in SMALL_VALUES {
            run(&[(at, value)]);
        }
    }
    let counts = [8, 12, 16, 20];
    for (first, second) in counts.iter().flat_map(|first| counts.map(|second| (*first, second))) {
        for (a, b) in SMALL_VALUES.iter().flat_map(|a| SMALL_VALUES.map(|b| (*a, b))) {
            run(&[(first, a), (second, b)]);
        }
    }
    class.print();
}
