//! Files of 1 to 2 MB that ask the tools' parsers for far more memory than they have bytes.
//!
//! Each parser is held to its bound, [`MULTIPLE`](crate::importers::MULTIPLE) times the input, by inputs
//! that are as dense as its format allows in one thing it keeps: names, entries, numbers, brackets.

use crate::class::{Class, TIME};
use crate::exercise::Ran;
use crate::importers::{PARSERS, memory_bound};

const SIZE: usize = 3 << 19;

/// Items from `item`, numbered, until they have about `SIZE` bytes.
fn many(separator: &str, item: impl Fn(usize) -> String) -> String {
    let mut items = item(0);
    for number in 1.. {
        if items.len() >= SIZE {
            break;
        }
        items += separator;
        items += &item(number);
    }
    items
}

/// The same item again and again.
fn again(item: &str) -> String {
    many(",", |_| item.to_owned())
}

/// What JSON can hold that costs the most, where a format allows any.
fn junk() -> Vec<(&'static str, String)> {
    let junk = [
        ("numbers", again("0")),
        ("arrays", again("[]")),
        ("objects", again(r#"{"":0}"#)),
        ("texts", again(r#""""#)),
    ];
    let mut junk: Vec<_> = junk.map(|(name, items)| (name, format!("[{items}]"))).into();
    junk.push(("keys", format!("{{{}}}", many(",", |i| format!(r#""{i:x}":0"#)))));
    junk.push(("a text", format!("{:?}", "x".repeat(SIZE))));
    junk
}

/// Runs inputs through the parser of this name, each within the bound.
fn run(parser: &str, cases: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let (_, parse) = PARSERS.into_iter().find(|(name, _)| *name == parser).unwrap();
    let name = format!("amplification: {parser}");
    let name: &'static str = name.leak();
    for (case, input) in cases {
        assert!((1 << 20..2 << 20).contains(&input.len()), "{case} has {} bytes", input.len());
        let memory = memory_bound(input.len()) - input.len();
        let mut class = Class::with_bounds(name, memory, 10 * TIME);
        class.attempt(&case, &input, || {
            parse(&input);
            Ok(Ran { damaged: Vec::new(), tokenizer: Ok(()), evaluation: Ok(()) })
        });
        class.print();
    }
}

/// The cases with their names, as [`run`] takes them.
fn named<'a, T: Into<Vec<u8>>>(
    cases: impl IntoIterator<Item = (&'a str, T)>,
) -> Vec<(String, Vec<u8>)> {
    cases.into_iter().map(|(case, input)| (case.to_owned(), input.into())).collect()
}

// --- Weights in safetensors, and their index ---

fn safetensors(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

#[test]
fn headers_of_safetensors() {
    let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let mut cases = named([
        ("entries", safetensors(&format!("{{{}}}", many(",", |i| format!(r#""{i:x}":{entry}"#))))),
        (
            "a shape",
            safetensors(&format!(
                r#"{{"a":{{"dtype":"F32","shape":[{}],"data_offsets":[0,0]}}}}"#,
                again("0")
            )),
        ),
        (
            "metadata",
            safetensors(&format!(
                r#"{{"__metadata__":{{{}}}}}"#,
                many(",", |i| format!(r#""{i:x}":"""#))
            )),
        ),
    ]);
    for (name, junk) in junk() {
        let header = format!(r#"{{"a":{{"dtype":"F32","x":{junk}}}}}"#);
        cases.push((format!("an unknown field: {name}"), safetensors(&header)));
        cases.push((format!("an entry: {name}"), safetensors(&format!(r#"{{"a":{junk}}}"#))));
    }
    run("checkpoint", cases);
}

#[test]
fn indexes() {
    let index = |map: &str| format!(r#"{{"weight_map":{{{map}}}}}"#);
    let mut cases = named([
        ("tensors", index(&many(",", |i| format!(r#""{i:x}":"a.safetensors""#)))),
        ("shards", index(&many(",", |i| format!(r#""{i:x}":"{i:x}""#)))),
        ("a long shard", index(&format!(r#""a":"{}""#, "x".repeat(SIZE)))),
    ]);
    for (name, junk) in junk() {
        let index = format!(r#"{{"metadata":{junk},"weight_map":{{"a":"a.safetensors"}}}}"#);
        cases.push((format!("metadata: {name}"), index.into()));
    }
    run("checkpoint_index", cases);
}

#[test]
fn configurations() {
    let cases = junk().into_iter().flat_map(|(name, junk)| {
        let beside = format!(r#"{{"model_type":"gpt2","x":{junk}}}"#);
        let field = format!(r#"{{"model_type":"gpt2","n_embd":{junk}}}"#);
        let cases = [("beside", beside), ("a field", field), ("all", junk)];
        cases.map(|(place, json)| (format!("{place}: {name}"), json.into()))
    });
    run("config", cases);
}

// --- PyTorch ---

/// A pickle that is written opcode by opcode. What is memorized has the next number.
#[derive(Default)]
struct Pickle {
    bytes: Vec<u8>,
    memorized: u32,
}

impl Pickle {
    fn new() -> Self {
        Self { bytes: b"\x80\x02".to_vec(), memorized: 0 }
    }

    fn push(&mut self, opcodes: &[u8]) -> &mut Self {
        self.bytes.extend(opcodes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.push(b"X").push(&(text.len() as u32).to_le_bytes()).push(text.as_bytes())
    }

    /// Memorizes the topmost value; returns the opcodes that push it again.
    fn memorize(&mut self) -> Vec<u8> {
        self.push(b"\x94");
        self.memorized += 1;
        [b"j".as_slice(), &(self.memorized - 1).to_le_bytes()].concat()
    }

    fn storage(&mut self, key: &str) -> &mut Self {
        self.push(b"(").text("storage").push(b"ctorch\nFloatStorage\n").text(key).text("cpu");
        self.push(b"K\x01tQ")
    }

    /// A tensor of the storage with this key.
    fn tensor(&mut self, key: &str) -> &mut Self {
        self.push(b"ctorch._utils\n_rebuild_tensor_v2\n(").storage(key);
        self.push(b"K\0K\x01\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR")
    }

    /// The same opcodes until the pickle is large.
    fn fill(&mut self, opcodes: impl Fn(usize) -> Vec<u8>) -> &mut Self {
        for number in 0.. {
            if self.bytes.len() >= SIZE {
                break;
            }
            self.push(&opcodes(number));
        }
        self
    }
}

/// State dicts that repeat what they can, and pickles full of one opcode.
fn pickles() -> Vec<(String, Vec<u8>)> {
    let mut pickles: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, pickle: &mut Pickle| {
        pickles.push((name.to_owned(), std::mem::take(&mut pickle.bytes)));
    };
    let long = "n".repeat(SIZE / 2);

    let mut pickle = Pickle::new();
    let name = pickle.text(&long).memorize();
    let tensor = pickle.tensor("0").memorize();
    pickle.push(b"}(").fill(|_| [name.clone(), tensor.clone()].concat()).push(b"u.");
    add("one long name", &mut pickle);

    let mut pickle = Pickle::new();
    let tensor = pickle.tensor(&long).memorize();
    let entry = |i| [b"X\x04\0\0\0", format!("{i:04x}").as_bytes(), &tensor].concat();
    pickle.push(b"}(").fill(entry).push(b"u.");
    add("one long key", &mut pickle);

    let mut pickle = Pickle::new();
    let tensor = pickle.tensor(&"k".repeat(60_000)).memorize();
    let entry = |i| [b"X\x06\0\0\0", format!("{i:06x}").as_bytes(), &tensor].concat();
    pickle.push(b"}(").fill(entry).push(b"u.");
    add("names of one tensor", &mut pickle);

    let mut pickle = Pickle::new();
    let class = pickle.push(b"ctorch._utils\n_rebuild_tensor_v2\n").memorize();
    pickle.push(b"(").storage("0");
    let wide = b"(KkKkKkKkKkKkKkKkt";
    let arguments = pickle.push(b"K\0").push(wide).push(wide).push(b"\x89Nt").memorize();
    pickle.fill(|_| [&class[..], &arguments, b"R"].concat());
    add("views", &mut pickle);

    let full: [(&str, &[u8]); 12] = [
        ("marks", b"("),
        ("nothings", b"N"),
        ("lists", b"]"),
        ("dictionaries", b"}"),
        ("tuples", b")"),
        ("tuples of one", b"N\x85"),
        ("memorized", b"\x94"),
        ("memorized values", b"N\x94"),
        ("texts", b"U\0"),
        ("lists of one", b"]Na"),
        ("dictionaries of one", b"}NNs"),
        ("ordered dictionaries", b"ccollections\nOrderedDict\n)R"),
    ];
    for (name, opcodes) in full {
        add(name, Pickle::new().push(b"N").fill(|_| opcodes.to_vec()).push(b"."));
    }
    // Nearly as dense as is allowed, so that the whole file is read.
    let list = b"\x94\x94Na".to_vec();
    add("a list, memorized", Pickle::new().push(b"]").fill(|_| list.clone()).push(b"."));
    let dictionary = b"\x94U\x01kNs".to_vec();
    add(
        "a dictionary, memorized",
        Pickle::new().push(b"}").fill(|_| dictionary.clone()).push(b"."),
    );
    add("a wide tuple", Pickle::new().push(b"(").fill(|_| b"N".to_vec()).push(b"t."));
    add("a wide list", Pickle::new().push(b"](").fill(|_| b"N".to_vec()).push(b"e."));
    let memorized = |i: usize| [b"r", &(i as u32).to_le_bytes()[..]].concat();
    add("numbered memory", Pickle::new().push(b"N").fill(memorized).push(b"."));
    let mut pickle = Pickle::new();
    let tuple = pickle.push(b"(").text("storage").push(b"ctorch\nFloatStorage\n");
    let tuple = tuple.text("0").text("cpu").push(b"K\x01t").memorize();
    pickle.fill(|_| [&tuple[..], b"Q"].concat());
    add("storages", &mut pickle);
    pickles
}

/// An archive of stored entries.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        // From the version to the length of the name.
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc32fast::hash(content).to_le_bytes());
        common.extend([content.len() as u32; 2].iter().flat_map(|n| n.to_le_bytes()));
        common.extend((name.len() as u16).to_le_bytes());
        let offset = (file.len() as u32).to_le_bytes();
        file.extend([b"PK\x03\x04", &common[..], &[0, 0], name.as_bytes(), content].concat());
        directory.extend(
            [b"PK\x01\x02\x14\0", &common[..], &[0; 12], &offset[..], name.as_bytes()].concat(),
        );
    }
    let count = (entries.len() as u16).to_le_bytes();
    let place = [directory.len() as u32, file.len() as u32].map(u32::to_le_bytes).concat();
    file.extend(&directory);
    file.extend([b"PK\x05\x06\0\0\0\0", &count[..], &count, &place, &[0, 0]].concat());
    file
}

#[test]
fn pickles_in_archives() {
    let cases = pickles().into_iter().map(|(name, pickle)| {
        let key = format!("a/data/{}", "k".repeat(60_000));
        let entries = [("a/data.pkl", &pickle[..]), ("a/data/0", &[0; 4]), (&key, &[0; 4])];
        (name, archive(&entries))
    });
    run("checkpoint_pytorch", cases);
}

#[test]
fn archives() {
    let names: Vec<_> = (0..u16::MAX as usize).map(|i| format!("{i:x}")).collect();
    let many: Vec<_> = names.iter().take(15_000).map(|name| (&name[..], &[][..])).collect();
    let one: Vec<_> = many.iter().map(|_| ("a/data.pkl", &b"}."[..])).collect();
    let long = "n".repeat(60_000);
    let long: Vec<_> = (0..12).map(|_| (&long[..], &[][..])).collect();
    let end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x2e\0\0\0\0\0\0\0\0\0";
    let cases = [
        ("entries", archive(&many)),
        ("one name", archive(&one)),
        ("long names", archive(&long)),
        ("ends", end.repeat(SIZE / end.len())),
        ("beginnings", b"PK\x01\x02".repeat(SIZE / 4)),
    ];
    run("checkpoint_pytorch", named(cases));
}

#[test]
fn legacy_files() {
    let prefix = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}U\rlittle_endian\x88s.";
    let mut cases: Vec<_> = pickles()
        .into_iter()
        .map(|(name, pickle)| (name, [prefix, &pickle[..]].concat()))
        .collect();
    let mut keys = Pickle::new();
    let key = keys.text(&"k".repeat(SIZE / 2)).memorize();
    keys.push(b"](").fill(|_| key.clone()).push(b"e.");
    cases.push((
        "one long key many times".to_owned(),
        [prefix, &b"\x80\x02}."[..], &keys.bytes].concat(),
    ));
    run("checkpoint_pytorch", cases);
}

// --- GGUF ---

/// A file of these metadata entries and tensors, each with their number.
fn gguf(entries: (usize, Vec<u8>), tensors: (usize, Vec<u8>)) -> Vec<u8> {
    let counts = [tensors.0, entries.0].map(|count| (count as u64).to_le_bytes()).concat();
    [b"GGUF\x03\0\0\0", &counts[..], &entries.1, &tensors.1].concat()
}

fn gguf_text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// An entry: its key, its type, its value.
fn gguf_entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&gguf_text(key), &kind.to_le_bytes()[..], value].concat()
}

fn gguf_array(kind: u32, count: usize, values: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes(), values].concat()
}

#[test]
fn gguf_files() {
    const TEXT: u32 = 8;
    const ARRAY: u32 = 9;
    let bytes = |items: &dyn Fn(usize) -> Vec<u8>| -> (usize, Vec<u8>) {
        let mut all = Vec::new();
        for number in 0.. {
            if all.len() >= SIZE {
                return (number, all);
            }
            all.extend(items(number));
        }
        unreachable!("the loop ends by returning")
    };
    let none = || (0, Vec::new());
    let tensor = |shape: &[u64], name: &str| {
        let shape_bytes = shape.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
        [&gguf_text(name), &(shape.len() as u32).to_le_bytes()[..], &shape_bytes, &[0; 12]].concat()
    };
    let sound = |key: &str, value: Vec<u8>| {
        let mut entries = gguf_entry("general.architecture", TEXT, &gguf_text("gpt2"));
        entries.extend(gguf_entry("tokenizer.ggml.model", TEXT, &gguf_text("gpt2")));
        entries.extend(gguf_entry(key, ARRAY, &value));
        (3, entries)
    };
    let tokens = |item: &dyn Fn(usize) -> Vec<u8>| {
        let (count, values) = bytes(item);
        gguf_array(TEXT, count, &values)
    };
    let short = |i: usize| gguf_text(&format!("{i:x}"));
    let mut merges = sound("tokenizer.ggml.merges", tokens(&|_| gguf_text("a b")));
    merges.0 += 1;
    merges.1.extend(gguf_entry("tokenizer.ggml.tokens", ARRAY, &gguf_array(TEXT, 0, &[])));
    let (count, numbers) = bytes(&|_| vec![1, 0, 0, 0]);
    let kind = gguf_entry("tokenizer.ggml.model", ARRAY, &gguf_array(5, count, &numbers));
    let cases = [
        ("tensors", gguf(none(), bytes(&|i| tensor(&[], &format!("{i:x}"))))),
        ("tensors with shapes", gguf(none(), bytes(&|i| tensor(&[1, 1, 1, 1], &format!("{i:x}"))))),
        ("tensors of one name", gguf(none(), bytes(&|_| tensor(&[], "")))),
        ("entries", gguf(bytes(&|i| gguf_entry(&format!("{i:x}"), 0, &[0])), none())),
        ("tokens", gguf(sound("tokenizer.ggml.tokens", tokens(&short)), none())),
        ("empty tokens", gguf(sound("tokenizer.ggml.tokens", tokens(&|_| gguf_text(""))), none())),
        ("merges", gguf(merges, none())),
        ("a list as kind", gguf((1, kind), none())),
    ];
    run("checkpoint_gguf", named(cases));
}

// --- Tokenizers ---

#[test]
fn tokenizers_as_json() {
    let file = |vocab: &str, merges: &str, more: &str| {
        format!(
            r#"{{"pre_tokenizer":{{"type":"ByteLevel"}},"model":{{"type":"BPE","vocab":{{{vocab}}},"merges":[{merges}]}}{more}}}"#
        )
    };
    let added = |content: &str| format!(r#","added_tokens":[{content}]"#);
    let mut cases = named([
        ("tokens", file(&many(",", |i| format!(r#""{i:x}":0"#)), "", "")),
        ("merges as lines", file("", &again(r#""a b""#), "")),
        ("merges as pairs", file("", &again(r#"["a","b"]"#), "")),
        ("added tokens", file("", "", &added(&again(r#"{"content":"a"}"#)))),
        ("empty added tokens", file("", "", &added(&again("{}")))),
    ]);
    for (name, junk) in junk() {
        for place in ["normalizer", "pre_tokenizer", "decoder", "truncation"] {
            cases.push((
                format!("{place}: {name}"),
                format!(r#"{{"model":{{}},"{place}":{junk}}}"#).into(),
            ));
        }
        for place in ["vocab", "merges", "dropout", "unk_token"] {
            let json = format!(
                r#"{{"pre_tokenizer":{{"type":"ByteLevel"}},"model":{{"{place}":{junk}}}}}"#
            );
            cases.push((format!("model: {place}: {name}"), json.into()));
        }
    }
    run("tokenizer_json", cases);
}

#[test]
fn tokenizers_in_several_files() {
    let file = |vocab: &str, merges: &str, config: &str| [vocab, merges, config].join("\0");
    let mut cases = named([
        ("tokens", file(&format!("{{{}}}", many(",", |i| format!(r#""{i:x}":0"#))), "", "{}")),
        ("merges", file("{}", &many("\n", |_| "a b".to_owned()), "{}")),
        (
            "added tokens",
            file(
                "{}",
                "",
                &format!(
                    r#"{{"added_tokens_decoder":{{{}}}}}"#,
                    many(",", |i| format!(r#""{i}":{{"content":"{i}"}}"#))
                ),
            ),
        ),
        (
            "special tokens",
            file("{}", "", &format!(r#"{{"additional_special_tokens":[{}]}}"#, again(r#""""#))),
        ),
    ]);
    for (name, junk) in junk() {
        for place in ["x", "bos_token", "add_prefix_space", "added_tokens_decoder"] {
            let config = format!(r#"{{"{place}":{junk}}}"#);
            cases.push((format!("{place}: {name}"), file("{}", "", &config).into()));
        }
    }
    run("tokenizer_files", cases);
}
