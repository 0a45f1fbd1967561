//! PyTorch checkpoints that are right, and broken in every way we know. (That right ones give the
//! right logits is tested in `golden.rs`, with files that PyTorch wrote.)

mod common;

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use cerebellum_tools::checkpoint::{Checkpoint, Error};
use common::Model;
use safetensors::SafeTensors;
use serde_json::json;
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const BIN: &str = "pytorch_model.bin";

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden").join(name)
}

/// Writes pickles of protocol 2, as `torch.save` does, but without memo.
#[derive(Default)]
struct Pickler(Vec<u8>);

/// A tensor as pickled.
#[derive(Clone)]
struct Entry {
    name: String,
    class: &'static str,
    key: String,
    elements: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl Entry {
    fn new(name: &str, key: usize, shape: &[usize]) -> Self {
        let strides = (1..=shape.len()).map(|i| shape[i..].iter().product()).collect();
        Self {
            name: name.to_owned(),
            class: "FloatStorage",
            key: key.to_string(),
            elements: shape.iter().product(),
            offset: 0,
            shape: shape.to_owned(),
            strides,
        }
    }
}

impl Pickler {
    fn state_dict(entries: &[Entry]) -> Vec<u8> {
        let mut pickle = Self(b"\x80\x02}(".to_vec());
        for entry in entries {
            pickle.text(&entry.name);
            pickle.0.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            pickle.text("storage");
            pickle.0.extend(format!("ctorch\n{}\n", entry.class).bytes());
            pickle.text(&entry.key);
            pickle.text("cpu");
            pickle.int(entry.elements);
            pickle.0.extend(b"tQ");
            pickle.int(entry.offset);
            for tuple in [&entry.shape, &entry.strides] {
                pickle.0.push(b'(');
                tuple.iter().for_each(|extent| pickle.int(*extent));
                pickle.0.push(b't');
            }
            pickle.0.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        }
        pickle.0.extend(b"u.");
        pickle.0
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.bytes());
    }

    fn int(&mut self, value: usize) {
        self.0.extend(b"\x8a\x08");
        self.0.extend((value as u64).to_le_bytes());
    }
}

/// A checkpoint to be broken: its state dict, and the storages.
#[derive(Clone)]
struct State {
    entries: Vec<Entry>,
    storages: Vec<(String, Vec<u8>)>,
}

fn model() -> Model {
    Model::random(7, 5, 12, 20)
}

impl State {
    fn new(model: &Model) -> Self {
        let (mut entries, mut storages) = (Vec::new(), Vec::new());
        for (key, (name, (shape, values))) in model.tensors().iter().enumerate() {
            entries.push(Entry::new(name, key, shape));
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            storages.push((key.to_string(), bytes));
        }
        Self { entries, storages }
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.name == name).unwrap()
    }

    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("m/data.pkl".to_owned(), Pickler::state_dict(&self.entries))];
        files.push(("m/byteorder".to_owned(), b"little".to_vec()));
        for (key, bytes) in &self.storages {
            files.push((format!("m/data/{key}"), bytes.clone()));
        }
        files
    }

    fn archive(&self) -> Vec<u8> {
        archive(&self.files())
    }

    /// With the fields of zip64, which archives beyond 4 GiB need.
    fn archive_64(&self) -> Vec<u8> {
        write_archive(&self.files(), SimpleFileOptions::default().large_file(true))
    }

    fn legacy(&self) -> Vec<u8> {
        let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
        bytes.extend(b"\x80\x02M\xe9\x03.");
        let mut machine = Pickler(b"\x80\x02}".to_vec());
        machine.text("little_endian");
        machine.0.extend(b"\x88s.");
        bytes.extend(machine.0);
        bytes.extend(Pickler::state_dict(&self.entries));
        let mut keys = Pickler(b"\x80\x02](".to_vec());
        self.storages.iter().for_each(|(key, _)| keys.text(key));
        keys.0.extend(b"e.");
        bytes.extend(keys.0);
        for (_, storage) in &self.storages {
            bytes.extend((storage.len() as u64 / 4).to_le_bytes());
            bytes.extend(storage);
        }
        bytes
    }
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    write_archive(files, SimpleFileOptions::default())
}

fn write_archive(files: &[(String, Vec<u8>)], options: SimpleFileOptions) -> Vec<u8> {
    let options = options.compression_method(zip::CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A directory with this as its weights.
fn directory(bin: &[u8]) -> TempDir {
    let directory = TempDir::new().unwrap();
    model().write_config(directory.path());
    fs::write(directory.path().join(BIN), bin).unwrap();
    directory
}

fn open(bin: &[u8]) -> Result<Checkpoint, Error> {
    Checkpoint::open(directory(bin).path())
}

#[track_caller]
fn refuses(bin: &[u8], parts: &[&str]) {
    mentions(open(bin), &[&[BIN], parts].concat());
}

#[track_caller]
fn mentions(result: Result<Checkpoint, Error>, parts: &[&str]) {
    let error = result.expect_err("a broken checkpoint was accepted").to_string();
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

/// The weights of a Llama, whose tensors are made of several of the file's.
#[test]
fn other_families_are_read_as_from_safetensors() {
    let source = case("../golden-modern/llama-biases");
    let bytes = fs::read(source.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (mut entries, mut storages) = (Vec::new(), Vec::new());
    for (key, (name, tensor)) in file.tensors().into_iter().enumerate() {
        entries.push(Entry::new(&name, key, tensor.shape()));
        storages.push((key.to_string(), tensor.data().to_vec()));
    }
    let directory = TempDir::new().unwrap();
    fs::copy(source.join("config.json"), directory.path().join("config.json")).unwrap();
    fs::write(directory.path().join(BIN), State { entries, storages }.archive()).unwrap();
    let (read, expected) = (Checkpoint::open(directory.path()), Checkpoint::open(&source));
    assert_eq!(read.unwrap().digest(), expected.unwrap().digest());
}

#[test]
fn both_containers_give_the_tensors_written() {
    let model = model();
    let state = State::new(&model);
    for bin in [state.archive(), state.archive_64(), state.legacy()] {
        let checkpoint = open(&bin).unwrap();
        for (name, (shape, values)) in model.tensors() {
            assert_eq!(&checkpoint.shape(name).unwrap(), shape);
            assert_eq!(&checkpoint.read_f32(name).unwrap(), values, "{name}");
        }
    }
}

/// As `torch.save(model.state_dict())` does, which adds `_metadata`.
#[test]
fn a_state_dict_with_metadata_is_read() {
    let state = State::new(&model());
    let mut pickle = Pickler::state_dict(&state.entries);
    pickle.pop();
    let mut metadata = Pickler(b"}".to_vec());
    metadata.text("_metadata");
    metadata.0.extend(b"ccollections\nOrderedDict\n)R(");
    metadata.text("transformer");
    metadata.0.push(b'}');
    metadata.text("version");
    metadata.0.extend(b"K\x01su sb.".iter().filter(|byte| **byte != b' '));
    pickle.extend(metadata.0);
    let mut files = vec![("archive/data.pkl".to_owned(), pickle)];
    files.extend(state.storages.iter().map(|(key, b)| (format!("archive/data/{key}"), b.clone())));
    open(&archive(&files)).unwrap();
}

#[test]
fn a_head_that_shares_its_storage_is_tied() {
    let checkpoint = Checkpoint::open(&case("tied-bin")).unwrap();
    assert!(checkpoint.is_tied() && checkpoint.extra_tensors().is_empty());

    let mut state = State::new(&model());
    let head = Entry { name: "lm_head.weight".to_owned(), ..state.entry("wte.weight").clone() };
    state.entries.push(head);
    let checkpoint = open(&state.archive()).unwrap();
    assert!(checkpoint.is_tied() && checkpoint.extra_tensors().is_empty());
}

#[test]
fn views_into_one_storage_are_told_apart() {
    let mut state = State::new(&model());
    // ln_f's weight and bias become halves of one storage.
    let key = state.entry("ln_f.weight").key.clone();
    let bias: Vec<u8> = (0..12u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    state.storages.iter_mut().find(|(k, _)| *k == key).unwrap().1.extend(bias);
    state.entry("ln_f.weight").elements = 24;
    let whole = state.entry("ln_f.weight").clone();
    *state.entry("ln_f.bias") = Entry { name: "ln_f.bias".to_owned(), offset: 12, ..whole };
    let unused = state.storages.len();
    let used: Vec<String> = state.entries.iter().map(|entry| entry.key.clone()).collect();
    state.storages.retain(|(key, _)| used.contains(key));
    assert_eq!(state.storages.len(), unused - 1);
    for bin in [state.archive(), state.legacy()] {
        let expected: Vec<f32> = (0..12u8).map(f32::from).collect();
        assert_eq!(open(&bin).unwrap().read_f32("ln_f.bias").unwrap(), expected);
    }
}

#[test]
fn a_pickle_that_would_run_a_command_is_refused() {
    let executed = Path::new("/tmp/pickle-was-executed");
    assert!(!executed.exists(), "left behind by something else");
    let result = Checkpoint::open(&case("hostile-pickle"));
    mentions(result, &[BIN, "posix.system", "run any code", "safetensors"]);
    assert!(!executed.exists());
}

#[test]
fn only_known_names_are_loaded() {
    for class in ["os\nsystem", "builtins\neval", "torch\nload", "torch\nsystem", "\n", "posix\n"] {
        let pickle = [b"\x80\x02}c", class.as_bytes(), b"\n."].concat();
        let bin = archive(&[("m/data.pkl".to_owned(), pickle)]);
        refuses(&bin, &[&class.replace('\n', "."), "no part of a state dict"]);
    }
    // The newer spelling.
    let mut pickle = Pickler(b"\x80\x04}".to_vec());
    pickle.text("os");
    pickle.text("system");
    pickle.0.extend(b"\x93.");
    refuses(&archive(&[("m/data.pkl".to_owned(), pickle.0)]), &["names os.system"]);
}

/// Pickles that no `torch.save` writes: errors, quickly, and in little memory.
#[test]
fn absurd_pickles_are_refused() {
    let tuple_of = |count| [b"(".as_slice(), &b"K\x01".repeat(count), b"tq\x00"].concat();
    let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n\
        X\x01\0\0\x000X\0\0\0\0K\x01tQK\x00h\x00h\x00tR";
    let rebuilds = |count| [&tuple_of(count)[..], rebuild, b"."].concat();
    let repeated = [b"X\x01\0\0\0aq\0N}(".as_slice(), &b"h\0N".repeat(10), b"u."].concat();
    for (pickle, problem) in [
        (b"".to_vec(), "it has no end"),
        (b"\x80\x02".to_vec(), "it has no end"),
        (b"\x80\x09.".to_vec(), "protocol 9"),
        (b".".to_vec(), "its stack is empty"),
        (b"N.".to_vec(), "no dictionary"),
        (b"(.".to_vec(), "its stack is empty"),
        (b"t.".to_vec(), "a mark is missing"),
        (b"h\x07.".to_vec(), "memo 7 was never put"),
        (b"}K\x01K\x02s.".to_vec(), "a tensor's name is no string"),
        (b"}X\x01\0\0\0aK\x02s.".to_vec(), "entry \"a\" is no tensor"),
        (b"}(K\x01u.".to_vec(), "items are set in what is no dictionary"),
        (b"NNR.".to_vec(), "arguments are no tuple"),
        (b"N)R.".to_vec(), "something is called that has no name"),
        (b"NNb.".to_vec(), "attributes are set"),
        (b")Q.".to_vec(), "a persistent id is no storage"),
        (b"X\xff\xff\xff\xff.".to_vec(), "it has no end"),
        (b"X\x02\0\0\0\xff\xff.".to_vec(), "not UTF-8"),
        (b"\x8a\xff.".to_vec(), "it has no end"),
        (b"\x92.".to_vec(), "opcode 0x92"),
        (b"]K\x01aQ.".to_vec(), "a tuple was expected"),
        (rebuilds(100), "no shape that makes sense"),
        (rebuilds(1 << 20), "deeper than that of any state dict"),
        (repeated, "entry \"a\" is no tensor"),
        (b"Nr\xff\xff\xff\xff.".to_vec(), "more values than a state dict of its length"),
        (b"]".repeat(1 << 16), "more values than a state dict of its length"),
        (
            [b"](".as_slice(), &b"N".repeat(1 << 15), b"e."].concat(),
            "deeper than that of any state dict",
        ),
        // Nested deeper than any stack.
        ([&b")".to_vec()[..], &b"\x85".repeat(3 << 20), b"."].concat(), "more values than"),
        (b"(".repeat(5 << 20), "deeper than that of any state dict"),
    ] {
        refuses(&archive(&[("m/data.pkl".to_owned(), pickle)]), &[problem]);
    }
}

/// A dictionary has a name once. Were it allowed again and again, each entry would be a copy of it.
#[test]
fn a_tensor_that_is_there_twice_is_refused() {
    let mut twice = State::new(&model());
    twice.entries.push(twice.entries[3].clone());
    let parts = [BIN, "tensor \"h.0.attn.c_proj.weight\" is there twice"];
    refuses(&twice.archive(), &parts);
    refuses(&twice.legacy(), &parts);
}

/// Names of one tensor, far more than their bytes could describe tensors.
#[test]
fn names_of_one_tensor_are_limited() {
    let mut pickle = Pickler(Pickler::state_dict(&State::new(&model()).entries[..1]));
    let end = pickle.0.split_off(pickle.0.len() - b"u.".len());
    pickle.0.extend(b"q\0");
    for name in 0..1000 {
        pickle.text(&format!("{name:x}"));
        pickle.0.extend(b"h\0");
    }
    pickle.0.extend(end);
    let bin = archive(&[("m/data.pkl".to_owned(), pickle.0)]);
    refuses(&bin, &["it lists more tensors than its bytes can describe"]);
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_named() {
    let whole = State::new(&model());
    type Break = (&'static str, fn(&mut Entry), &'static [&'static str]);
    let breaks: [Break; 7] = [
        ("wte.weight", |e| e.elements += 1, &["has 336 bytes, not 85 elements"]),
        ("wte.weight", |e| e.elements = usize::MAX / 2, &["has 336 bytes"]),
        ("wte.weight", |e| e.offset = 1, &["reaches beyond the 84 elements"]),
        ("wte.weight", |e| e.offset = usize::MAX >> 1, &["reaches beyond"]),
        ("wte.weight", |e| e.strides.swap(0, 1), &["strided view", "`.contiguous()`"]),
        ("wte.weight", |e| e.shape = vec![1 << 40, 1 << 40], &["strided view"]),
        ("ln_f.bias", |e| e.key = "99".to_owned(), &["storage \"99\" is not in the file"]),
    ];
    for (name, broken, parts) in breaks {
        let mut state = whole.clone();
        broken(state.entry(name));
        refuses(&state.archive(), &[&["tensor ", name], parts].concat());
    }

    let mut doubles = whole.clone();
    let entry = doubles.entry("ln_f.bias");
    entry.class = "DoubleStorage";
    let key = entry.key.clone();
    doubles.storages.iter_mut().find(|(k, _)| *k == key).unwrap().1.extend([0; 48]);
    refuses(
        &doubles.archive(),
        &["ln_f.bias is stored as torch.DoubleStorage", "F32, F16 or BF16"],
    );
}

/// Sets the compression method (or a size) of the first entry in both of the archive's tables.
fn patch(archive: &mut [u8], local: usize, central: usize, bytes: &[u8]) {
    let table = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    archive[local..local + bytes.len()].copy_from_slice(bytes);
    archive[table + central..table + central + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn archives_that_could_inflate_are_refused() {
    let whole = State::new(&model()).archive();
    let mut deflated = whole.clone();
    patch(&mut deflated, 8, 10, &8u16.to_le_bytes());
    refuses(&deflated, &["entry \"m/data.pkl\" is compressed or encrypted", "torch.save"]);

    let mut bomb = whole.clone();
    patch(&mut bomb, 22, 24, &0xffff_fff0u32.to_le_bytes());
    refuses(&bomb, &["entry \"m/data.pkl\" is compressed", "for 4294967280"]);

    let mut beyond = whole.clone();
    patch(&mut beyond, 18, 20, &[0x00, 0x00, 0x00, 0x70, 0x00, 0x00, 0x00, 0x70]);
    refuses(&beyond, &["data.pkl", "reaches beyond the end"]);

    let nothing = archive(&[("m/other".to_owned(), b"x".to_vec())]);
    refuses(&nothing, &["\"data.pkl\" is missing"]);
    let twice = ["a/data.pkl", "b/data.pkl"].map(|name| (name.to_owned(), b"}.".to_vec()));
    refuses(&archive(&twice), &["is there twice"]);
    let big = [("m/data.pkl", "}."), ("m/byteorder", "big")];
    let big = big.map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec()));
    refuses(&archive(&big), &["byteorder", "is not \"little\""]);
}

/// Every length of the smaller tables, and some of the data.
#[test]
fn truncated_files_are_refused() {
    let state = State::new(&model());
    let (zip, legacy) = (state.archive(), state.legacy());
    for bin in [&zip, &legacy] {
        let directory = directory(bin);
        let lengths = (0..bin.len()).step_by(53).chain(0..100).chain(bin.len() - 100..bin.len());
        for length in lengths {
            fs::write(directory.path().join(BIN), &bin[..length]).unwrap();
            let error = Checkpoint::open(directory.path()).unwrap_err().to_string();
            assert!(error.contains(BIN) && error.contains("download it again"), "{error}");
        }
    }
    refuses(&legacy[..legacy.len() - 1], &["is truncated"]);
    refuses(b"", &["is truncated or damaged"]);
    refuses(b"anything else", &["not from torch.save"]);
}

#[test]
fn legacy_files_with_other_contents_are_refused() {
    let whole = State::new(&model());
    let replace = |from: &[u8], to: &[u8]| {
        let mut bytes = whole.legacy();
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        bytes.splice(at..at + from.len(), to.iter().copied());
        bytes
    };
    refuses(&replace(b"M\xe9\x03", b"M\xea\x03"), &["protocol version 1002"]);
    refuses(&replace(b"\x88s.", b"\x89s."), &["big-endian"]);
    refuses(&replace(b"little_endian", b"little_andian"), &["\"little_endian\" is missing"]);

    let mut unknown = whole.clone();
    unknown.storages[3].0 = "99".to_owned();
    refuses(&unknown.legacy(), &["no tensor uses storage \"99\""]);
    let mut twice = whole.clone();
    twice.storages[3].0 = "2".to_owned();
    refuses(&twice.legacy(), &["storage \"2\" is there twice"]);
}

/// Whatever a flipped bit of the tables does, it is an error or a checkpoint that can be read.
#[test]
fn no_flipped_bit_does_harm() {
    let state = State::new(&model());
    let directory = directory(b"");
    for bin in [state.archive(), state.legacy()] {
        // All but most of the data: a step coprime to 8 visits every bit position.
        for bit in (0..8 * bin.len()).step_by(61) {
            let mut broken = bin.clone();
            broken[bit / 8] ^= 1 << (bit % 8);
            fs::write(directory.path().join(BIN), &broken).unwrap();
            if let Ok(checkpoint) = Checkpoint::open(directory.path()) {
                checkpoint.tensor_names().for_each(|name| drop(checkpoint.read_matrix(name)));
            }
        }
    }
}

#[test]
fn safetensors_are_preferred() {
    let directory = TempDir::new().unwrap();
    let model = model();
    model.write(directory.path());
    // Read, it would be an error.
    fs::copy(case("hostile-pickle").join(BIN), directory.path().join(BIN)).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.read_f32("wte.weight").unwrap(), model.tensors()["wte.weight"].1);
}

const SHARDS: [&str; 2] = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"];
const INDEX: &str = "pytorch_model.bin.index.json";

/// A copy of the sharded golden case, to be broken.
fn shards() -> TempDir {
    let directory = TempDir::new().unwrap();
    for file in ["config.json", INDEX, SHARDS[0], SHARDS[1]] {
        let from = case("untied-bin-sharded").join(file);
        fs::copy(from, directory.path().join(file)).unwrap();
    }
    directory
}

#[test]
fn broken_shards_are_named() {
    let missing = shards();
    fs::remove_file(missing.path().join(SHARDS[1])).unwrap();
    mentions(Checkpoint::open(missing.path()), &[SHARDS[1], "is missing", INDEX]);

    let copied = shards();
    fs::copy(copied.path().join(SHARDS[0]), copied.path().join(SHARDS[1])).unwrap();
    mentions(Checkpoint::open(copied.path()), &[INDEX, "places tensor", SHARDS[1]]);
}

#[test]
fn an_index_that_lists_a_tensor_or_a_shard_twice_is_refused() {
    let twice = shards();
    let index = fs::read_to_string(twice.path().join(INDEX)).unwrap();
    let again = format!("\"weight_map\": {{\"transformer.wte.weight\": \"{}\",", SHARDS[1]);
    fs::write(twice.path().join(INDEX), index.replace("\"weight_map\": {", &again)).unwrap();
    let parts = [INDEX, "transformer.wte.weight is listed twice", SHARDS[0], SHARDS[1]];
    mentions(Checkpoint::open(twice.path()), &parts);

    // One file under two names, and an index that names both.
    let linked = shards();
    fs::copy(linked.path().join(SHARDS[0]), linked.path().join("again.bin")).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
    index["weight_map"]["transformer.wte.weight"] = json!("again.bin");
    fs::write(linked.path().join(INDEX), index.to_string()).unwrap();
    mentions(Checkpoint::open(linked.path()), &["is stored twice", "again.bin", SHARDS[0]]);
}
