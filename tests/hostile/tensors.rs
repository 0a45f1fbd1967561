//! Listings that do not say what they must.

use serde_json::{Value, json};

use crate::base::{golden, tiny, tiny_btlm, tiny_modern};
use crate::class::Class;
use crate::parts::{Parts, assemble};

fn names(parts: &Parts) -> Vec<String> {
    parts.listing.as_object().unwrap().keys().cloned().collect()
}

/// Changes each tensor's entry, and expects every such file to be refused.
fn each_entry(class: &'static str, change: fn(&mut Value)) {
    let mut class = Class::new(class);
    for file in [tiny(), tiny_btlm(), tiny_modern(), golden()] {
        let parts = Parts::of(file);
        for name in names(&parts) {
            let mut parts = parts.clone();
            let entry = &mut parts.listing[&name];
            let before = entry.clone();
            change(entry);
            if *entry != before {
                class.run(&name, &parts.file()).expect(&name, &["tensor"]);
            }
        }
    }
    assert!(class.cases() > 20);
    class.print();
}

fn shift(entry: &mut Value, begin: i64, end: i64) {
    for (i, by) in [begin, end].into_iter().enumerate() {
        let offset = &mut entry["data_offsets"][i];
        *offset = offset.as_i64().unwrap().saturating_add(by).max(0).into();
    }
}

#[test]
fn overlapping() {
    each_entry("overlapping", |entry| shift(entry, -64, 0));
}

#[test]
fn lying_on_another() {
    each_entry("on another", |entry| {
        let size =
            entry["data_offsets"][1].as_i64().unwrap() - entry["data_offsets"][0].as_i64().unwrap();
        shift(entry, -size, -size);
    });
}

#[test]
fn unaligned() {
    each_entry("unaligned", |entry| shift(entry, 1, 1));
}

#[test]
fn with_a_hole() {
    each_entry("with a hole", |entry| shift(entry, 64, 64));
}

#[test]
fn past_the_end() {
    each_entry("past the end", |entry| shift(entry, 1 << 20, 1 << 20));
    each_entry("far past the end", |entry| shift(entry, i64::MAX, i64::MAX));
}

#[test]
fn backwards() {
    each_entry("backwards", |entry| entry["data_offsets"].as_array_mut().unwrap().reverse());
}

#[test]
fn of_another_type() {
    each_entry("of another type", |entry| {
        entry["dtype"] = if entry["dtype"] == "F32" { "I32" } else { "F32" }.into();
    });
}

#[test]
fn of_another_shape() {
    each_entry("of another shape", |entry| entry["shape"].as_array_mut().unwrap().push(json!(1)));
    each_entry("without a shape", |entry| entry["shape"] = json!([]));
    each_entry("empty", |entry| entry["shape"] = json!([0]));
}

#[test]
fn missing() {
    let mut class = Class::new("missing");
    for file in [tiny(), tiny_btlm(), tiny_modern(), golden()] {
        let parts = Parts::of(file);
        for name in names(&parts) {
            let mut parts = parts.clone();
            parts.listing.as_object_mut().unwrap().remove(&name);
            // Without its entry the table of checksums cannot be found and sealed.
            class.run(&name, &parts.file()).expect(&name, &["tensor"]);
        }
        for name in parts.metadata["tensors"].as_object().unwrap().keys() {
            let mut parts = parts.clone();
            parts.metadata["tensors"].as_object_mut().unwrap().remove(name);
            class.run(name, &parts.file()).expect(name, &["tensor"]);
        }
    }
    class.print();
}

#[test]
fn surplus() {
    let mut class = Class::new("surplus");
    let parts = Parts::of(tiny());
    for name in
        ["", "x", "lm_head.weight", "h.1.ln_1.weight", "h.00.ln_1.weight", "\0", "\u{1b}[2J"]
    {
        let mut more = parts.clone();
        more.listing[name] = json!({ "dtype": "U8", "shape": [0], "data_offsets": [0, 0] });
        class.run(name, &more.file()).expect(name, &["tensor"]);
        let mut more = parts.clone();
        more.metadata["tensors"][name] = more.metadata["tensors"]["wte.weight"].clone();
        class.run(name, &more.file()).expect(name, &["tensor"]);
    }
    class.print();
}

/// What JSON allows and most parsers pass over in silence, one keeping the first, another the last.
#[test]
fn duplicate() {
    let mut class = Class::new("duplicate");
    let parts = Parts::of(tiny());
    let json = parts.json();
    let mut run = |case: &str, json: &str| {
        class.run(case, &assemble(json.as_bytes(), &parts.data)).expect(case, &["json"]);
    };
    for (name, entry) in parts.listing.as_object().unwrap() {
        run(name, &json.replacen('{', &format!("{{{name:?}:{entry},"), 1));
    }
    let metadata = Value::from(parts.metadata.to_string());
    run(
        "__metadata__",
        &json.replacen('{', &format!(r#"{{"__metadata__":{{"cerebellum":{metadata}}},"#), 1),
    );
    let inner = r#""__metadata__":{"#;
    run("cerebellum", &json.replacen(inner, &format!(r#"{inner}"cerebellum":{metadata},"#), 1));
    run("another key", &json.replacen(inner, &format!(r#"{inner}"format":"pt","#), 1));
    run("dtype", &json.replacen(r#""dtype":"#, r#""dtype":"U8","dtype":"#, 1));
    run("shape", &json.replacen(r#""shape":"#, r#""shape":[1],"shape":"#, 1));
    for (field, value) in parts.metadata.as_object().unwrap() {
        run(field, &json_with(&parts, &format!("{{{field:?}:{value},"), "{"));
    }
    for field in ["config", "tensors"] {
        for (name, value) in parts.metadata[field].as_object().unwrap() {
            let begin = format!("{field:?}:{{");
            run(name, &json_with(&parts, &format!("{begin}{name:?}:{value},"), &begin));
        }
    }
    class.print();

    /// The header with the first `from` in its metadata replaced.
    fn json_with(parts: &Parts, to: &str, from: &str) -> String {
        let metadata = parts.metadata.to_string();
        let changed = metadata.replacen(from, to, 1);
        assert_ne!(changed, metadata);
        let mut listing = parts.listing.clone();
        listing["__metadata__"] = json!({ "cerebellum": changed });
        listing.to_string()
    }
}

#[test]
fn swapped() {
    let mut class = Class::new("swapped");
    let parts = Parts::of(tiny());
    let names = names(&parts);
    for (i, first) in names.iter().enumerate() {
        for second in &names[i + 1..] {
            let mut parts = parts.clone();
            let entry = parts.listing[first].take();
            parts.listing[first] = std::mem::replace(&mut parts.listing[second], entry);
            class.run(format!("{first}, {second}"), &parts.file()).expect(first, &["tensor"]);
        }
    }
    class.print();
}

#[test]
fn wrong_version() {
    let mut class = Class::new("wrong version");
    let parts = Parts::of(tiny());
    let values =
        [json!(0), json!(2), json!(4), json!(u32::MAX), json!(1u64 << 32), json!(-1), json!(1.0)];
    let others =
        [json!("3"), json!(null), json!([3]), json!({ "3": 3 }), json!(true), json!(1e300)];
    for version in values.into_iter().chain(others) {
        let mut parts = parts.clone();
        parts.metadata["version"] = version.clone();
        let label = if version.as_u64().is_some_and(|v| v < 1 << 32) { "version" } else { "json" };
        class.run(&version, &parts.file()).expect(&version, &[label]);
    }
    let mut without = parts.clone();
    without.metadata.as_object_mut().unwrap().remove("version");
    class.run("none", &without.file()).expect("none", &["json"]);
    // A later version may look quite different.
    let mut later = parts;
    later.metadata = json!({ "version": 4, "config": [], "panels": {} });
    class.run("later", &later.file()).expect("later", &["version"]);
    class.print();
}
