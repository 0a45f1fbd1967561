//! Every integer of the format at the values where arithmetic breaks, alone and in pairs.

use cerebellum::format::{Config, FileLayout, Header, TOKENIZER, matrix_names, read_header};
use serde_json::Value;

use crate::base::{tiny, tiny_btlm, tiny_int8, tokenizer};
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

/// JSON pointers to all integers below `value`.
fn integers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(number) if !number.is_f64() => found.push(at.to_owned()),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                integers(item, &format!("{at}/{i}"), found);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                integers(item, &format!("{at}/{key}"), found);
            }
        }
        _ => {}
    }
}

fn integers_of(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    integers(value, "", &mut found);
    found
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
    for file in [tiny(), tiny_int8(), tiny_btlm()] {
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
    let parts = Parts::of(tiny());
    let mut pairs = |of: fn(&mut Parts) -> &mut Value, prefix: &str| {
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
    pairs(|parts| &mut parts.metadata, "/config");
    for matrix in ["wte.weight", "h.0.attn.c_attn.weight"] {
        pairs(|parts| &mut parts.metadata, &format!("/tensors/{matrix}"));
    }
    for tensor in ["wte.weight", "h.0.mlp.c_fc.bias", "wpe.weight", "tokenizer", "checksums"] {
        pairs(|parts| &mut parts.listing, &format!("/{tensor}"));
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
fn relist(parts: &mut Parts) -> bool {
    let config: Config = serde_json::from_value(parts.metadata["config"].clone()).unwrap();
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
    let header: Header = serde_json::from_value(parts.metadata.clone()).unwrap();
    let Ok(layout) = FileLayout::new(&config, &header.tensors, Some(tokenizer().len())) else {
        return false;
    };
    let listing = layout.tensors().iter().map(|tensor| {
        let offsets = [tensor.range.start, tensor.range.end];
        let dtype = serde_json::to_value(tensor.dtype).unwrap();
        let info = serde_json::json!({
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
