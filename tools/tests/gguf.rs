//! GGUF files: those of llama.cpp (`tests/data/gguf`, made by `benches/peers/check_gguf.py`), those
//! written here, and ones broken in every way we know.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use cerebellum::format::Activation;
use cerebellum::format::network::TensorId;
use cerebellum_tools::chat_template::ImportedChat;
use cerebellum_tools::checkpoint::names::gguf as names;
use cerebellum_tools::checkpoint::{Checkpoint, Dtype, Error, Layout};
use cerebellum_tools::export_gguf::{Exported, Precision, WriteError, export};
use cerebellum_tools::gguf::{Gguf, Value};
use cerebellum_tools::output::Output;
use cerebellum_tools::reference::Reference;
use cerebellum_tools::tokenizer;
use common::{Model, demo, golden};
use safetensors::SafeTensors;
use serde_json::json;
use tempfile::{TempDir, tempdir};

// --- Block types, against llama.cpp ---

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/gguf")
}

/// What llama.cpp calls a tensor of a GPT-2.
fn stored_name(name: &str) -> String {
    let [(stored, _)] = &names::GPT2.pieces(TensorId::parse(name).unwrap())[..] else { panic!() };
    stored.clone()
}

/// The CRC-32 of each tensor as the gguf package decodes it, with which llama.cpp agrees.
#[test]
fn blocks_decode_to_the_very_bits() {
    let expected = fs::read(fixtures().join("expected.json")).unwrap();
    let expected: BTreeMap<String, BTreeMap<String, u32>> =
        serde_json::from_slice(&expected).unwrap();
    assert_eq!(expected.len(), 9);
    let mut types = Vec::new();
    for (file, crcs) in expected {
        let path = fixtures().join(format!("{file}.gguf"));
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert!(checkpoint.extra_tensors().is_empty() && checkpoint.is_tied());
        assert_eq!(checkpoint.tensor_names().len(), crcs.len());
        for name in checkpoint.tensor_names() {
            let tensor = checkpoint.tensor(name).unwrap();
            types.push(tensor.dtype().name());
            let bytes: Vec<u8> =
                tensor.read_f32().unwrap().iter().flat_map(|value| value.to_le_bytes()).collect();
            let stored = stored_name(name);
            assert_eq!(crc32fast::hash(&bytes), crcs[&stored], "{file}: {name}");
        }
    }
    types.sort_unstable();
    types.dedup();
    let all = ["BF16", "F32", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"];
    assert_eq!(types, all);
}

/// Blocks of random bytes in every type, in a file that the gguf package wrote, with the values that it
/// decodes them to.
fn random_blocks() -> (Vec<u8>, BTreeMap<String, Vec<f32>>) {
    let values = fs::read(fixtures().join("blocks.safetensors")).unwrap();
    let values = SafeTensors::deserialize(&values).unwrap();
    let floats =
        |bytes: &[u8]| bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let values =
        values.tensors().into_iter().map(|(name, view)| (name, floats(view.data()))).collect();
    (fs::read(fixtures().join("blocks.gguf")).unwrap(), values)
}

#[test]
fn every_type_decodes_to_the_very_bits() {
    let (file, mut expected) = random_blocks();
    for tensor in Gguf::parse(&file).unwrap().tensors() {
        let dtype = tensor.dtype.clone().unwrap();
        assert_eq!(dtype.name(), tensor.name);
        let expected = expected.remove(&tensor.name).unwrap();
        let mut found = vec![0.0; tensor.shape.iter().product()];
        dtype.decode(&file[tensor.bytes.clone()], &mut found);
        assert_eq!(found.len(), expected.len());
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{}, weight {i}", tensor.name);
        }
    }
    assert!(expected.is_empty(), "not in the file: {:?}", expected.keys());
    assert_eq!(Dtype::all().len(), random_blocks().1.len());
}

/// Every tensor of a real file, of any architecture, against what `check_gguf.py decode` made of it.
#[test]
#[ignore = "needs a GGUF file in CEREBELLUM_GGUF, and beside it what it decodes to"]
fn a_real_file_decodes_to_the_very_bits() {
    let path = PathBuf::from(std::env::var_os("CEREBELLUM_GGUF").expect("CEREBELLUM_GGUF is set"));
    let file = fs::read(&path).unwrap();
    let mut expected = BufReader::new(fs::File::open(path.with_extension("f32")).unwrap());
    let mut of_type: BTreeMap<&str, usize> = BTreeMap::new();
    for tensor in Gguf::parse(&file).unwrap().tensors() {
        let dtype = tensor.dtype.clone().unwrap();
        let mut found = vec![0.0; tensor.shape.iter().product()];
        dtype.decode(&file[tensor.bytes.clone()], &mut found);
        let mut bytes = vec![0; 4 * found.len()];
        expected.read_exact(&mut bytes).unwrap();
        let same = |(found, expected): (&f32, &[u8; 4])| found.to_le_bytes() == *expected;
        let first = found.iter().zip(bytes.as_chunks().0).position(|pair| !same(pair));
        assert_eq!(first, None, "{} of {}", tensor.name, dtype.name());
        *of_type.entry(dtype.name()).or_default() += 1;
    }
    assert_eq!(expected.read(&mut [0]).unwrap(), 0, "tensors are missing");
    println!("the same bits in all tensors: {of_type:?}");
}

/// llama.cpp looks the GELU up in a table of float16, which is where its logits differ from
/// the definition by some thousandths; logits are of order 1 to 10.
#[test]
fn logits_are_those_of_llama_cpp() {
    let bytes = fs::read(fixtures().join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    for file in ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16", "q4_k", "q5_k", "q6_k"] {
        let path = fixtures().join(format!("{file}.gguf"));
        let model = Reference::load(&Checkpoint::open(&path).unwrap()).unwrap();
        let ids = expected.tensor(&format!("ids.{file}")).unwrap();
        let ids: Vec<u32> =
            ids.data().as_chunks().0.iter().map(|id| i64::from_le_bytes(*id) as u32).collect();
        let logits = expected.tensor(&format!("logits.{file}")).unwrap();
        let logits = logits.data().as_chunks().0.iter().map(|logit| f32::from_le_bytes(*logit));
        let found = model.logits(&ids).unwrap();
        assert_eq!(found.len(), logits.len());
        let worst = found.iter().zip(logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{file}: largest difference {worst:e}");
        assert!(worst < 5e-3 && found.iter().all(|logit| logit.is_finite()), "{file}: {worst}");
    }
}

#[test]
fn rows_of_blocks_are_parts_of_the_whole() {
    for (file, name) in [("q5_0", "h.0.mlp.c_proj.weight"), ("q6_k", "h.0.attn.c_attn.weight")] {
        let checkpoint = Checkpoint::open(&fixtures().join(format!("{file}.gguf"))).unwrap();
        assert_eq!(checkpoint.layout(), Layout::Linear);
        let tensor = checkpoint.tensor(name).unwrap();
        let (whole, columns) = (checkpoint.read_matrix(name).unwrap(), tensor.columns());
        for rows in [0..1, 5..9, tensor.rows() - 1..tensor.rows()] {
            let part = &whole[rows.start * columns..rows.end * columns];
            assert_eq!(tensor.read_rows(rows).unwrap(), part);
        }
    }
}

/// A row that is no number is not noticed by who reads the rows beside it, so that those alone are
/// decoded; who reads it is told which it is.
#[test]
fn rows_are_decoded_alone_in_every_type() {
    let (blocks, _) = random_blocks();
    for tensor in Gguf::parse(&blocks).unwrap().tensors() {
        let dtype = tensor.dtype.clone().unwrap();
        let mut file = File::new(256, 20);
        let row = dtype.bytes(256).unwrap();
        let name = "blk.0.ffn_up.weight";
        let offset = file.data.len().next_multiple_of(32);
        file.data.resize(offset, 0);
        file.data.extend(blocks[tensor.bytes.clone()].iter().cycle().take(20 * row));
        // In every type there is a NaN in these bytes.
        file.data[offset + 7 * row..][..row].fill(0xff);
        *file.tensor(name) =
            TensorEntry { kind: dtype.ggml(), offset: offset as u64, ..file.tensor(name).clone() };

        let (_directory, path) = file.write();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let tensor = checkpoint.tensor("h.0.mlp.c_fc.weight").unwrap();
        assert_eq!((tensor.dtype(), tensor.rows(), tensor.columns()), (dtype, 20, 256));
        let mut whole = vec![0.0; 20 * 256];
        dtype.decode(&file.data[offset..], &mut whole);
        for rows in [0..1, 3..7, 0..7, 8..20, 19..20, 7..7] {
            assert_eq!(
                tensor.read_rows(rows.clone()).unwrap(),
                whole[rows.start * 256..rows.end * 256]
            );
        }
        for rows in [7..8, 0..20, 6..8] {
            let error = tensor.read_rows(rows).unwrap_err().to_string();
            let told = error.contains(name) && error.contains("NaN at index [7, 0]");
            assert!(told, "{}: {error}", dtype.name());
        }
    }
}

// --- Export ---

fn export_to(
    target: &Path,
    checkpoint: &Path,
    precision: Precision,
) -> Result<Exported, WriteError> {
    let tokenizer = tokenizer::read(checkpoint).unwrap();
    let checkpoint = Checkpoint::open(checkpoint).unwrap();
    let output = Output::create(target, false, &checkpoint.files())?;
    let vocabulary = tokenizer.as_ref().map(|(vocabulary, _)| vocabulary);
    export(&checkpoint, vocabulary, &ImportedChat::default(), precision, output)
}

#[test]
fn a_round_trip_changes_no_logit() {
    let directory = tempdir().unwrap();
    let mut exported = 0;
    for source in golden().into_iter().chain([demo()]) {
        let target = directory.path().join(format!("{exported}.gguf"));
        let report = match export_to(&target, &source, Precision::F32) {
            Err(WriteError::BeyondLlama { .. }) => continue,
            result => result.unwrap(),
        };
        assert_eq!(report.file_bytes, fs::metadata(&target).unwrap().len());
        let (before, after) =
            (Checkpoint::open(&source).unwrap(), Checkpoint::open(&target).unwrap());
        assert_eq!(before.config().mlp.activation, after.config().mlp.activation);
        assert_eq!(before.config().eos_token_id, after.config().eos_token_id);
        assert_eq!(report.tensors, after.tensor_names().len());
        let logits = |checkpoint| {
            Reference::load(checkpoint).unwrap().logits(&[1, 5, 2, 0, 100, 7, 7]).unwrap()
        };
        assert!(logits(&before) == logits(&after), "{}", source.display());
        exported += 1;
    }
    assert!(exported >= 7);
}

/// The demo's weights are float16, so that nothing is lost.
#[test]
fn float16_is_exact_where_the_weights_are() {
    let directory = tempdir().unwrap();
    let target = directory.path().join("demo.gguf");
    let report = export_to(&target, &demo(), Precision::F16).unwrap();
    assert!(report.warnings[0].contains("exact GELU"), "{:?}", report.warnings);
    let (before, after) = (Checkpoint::open(&demo()).unwrap(), Checkpoint::open(&target).unwrap());
    for name in before.tensor_names() {
        assert!(before.read_matrix(name).unwrap() == after.read_matrix(name).unwrap(), "{name}");
    }
    assert_eq!(after.tensor("wte.weight").unwrap().dtype().name(), "F16");
    assert_eq!(after.tensor("wpe.weight").unwrap().dtype().name(), "F32");
    assert_eq!(after.files(), [target]);
}

#[test]
fn the_tokenizer_survives_the_round_trip() {
    let directory = tempdir().unwrap();
    let target = directory.path().join("demo.gguf");
    export_to(&target, &demo(), Precision::F16).unwrap();
    let vocab_size = 4096;
    let before = tokenizer::import(&demo(), vocab_size).unwrap().unwrap();
    let after = tokenizer::import(&target, vocab_size).unwrap().unwrap();
    assert!(before.blob == after.blob);
    assert_eq!((before.merges, before.unused_ids), (after.merges, after.unused_ids));

    let without = directory.path().join("without.gguf");
    let untied =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden/untied-bin-sharded");
    export_to(&without, &untied, Precision::F16).unwrap();
    assert_eq!(tokenizer::import(&without, 320).unwrap(), None);
    assert!(!Checkpoint::open(&without).unwrap().is_tied());
}

#[test]
fn what_llama_cpp_cannot_compute_is_not_exported() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden");
    let directory = tempdir().unwrap();
    let target = directory.path().join("x.gguf");
    for (case, field) in [
        ("unscaled-relu", "activation_function"),
        ("inverse-layer-scale", "scale_attn_by_inverse_layer_idx"),
        ("btlm-6-heads", "position_embedding_type"),
    ] {
        let error = export_to(&target, &data.join(case), Precision::F32).unwrap_err().to_string();
        assert!(error.contains(case) && error.contains(field), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
    let source = directory.path().join("checkpoint");
    let mut relu = Model::random(7, 5, 12, 20);
    relu.configure("activation_function", json!("relu"));
    relu.write(&source);
    let error = export_to(&target, &source, Precision::F32).unwrap_err().to_string();
    assert!(error.contains("activation_function"), "{error}");

    let mut large = Model::random(7, 5, 12, 20);
    large.values("h.0.mlp.c_fc.weight")[3] = 7e4;
    large.write(&source);
    let error = export_to(&target, &source, Precision::F16).unwrap_err().to_string();
    assert!(error.contains("h.0.mlp.c_fc.weight holds 70000") && error.contains("f32"), "{error}");
    assert!(!target.exists());
    export_to(&target, &source, Precision::F32).unwrap();
}

// --- Broken files ---

/// A file to be broken: metadata entries as bytes after their key, and tensors.
#[derive(Clone)]
struct File {
    version: u32,
    entries: Vec<(String, Vec<u8>)>,
    tensors: Vec<TensorEntry>,
    alignment: usize,
    data: Vec<u8>,
    /// What the header claims, if not the truth.
    counts: (Option<u64>, Option<u64>),
}

#[derive(Clone)]
struct TensorEntry {
    name: String,
    /// As in the file: what lies together comes first.
    shape: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

fn of_type(kind: u32, value: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], value].concat()
}

fn string(value: &str) -> Vec<u8> {
    of_type(8, &text(value))
}

fn u32_value(value: u32) -> Vec<u8> {
    of_type(4, &value.to_le_bytes())
}

impl File {
    /// A small model: width 12, inner width 20.
    fn small() -> Self {
        Self::new(12, 20)
    }

    /// A model of one layer with 7 tokens, 5 positions and heads of 4, in float32.
    fn new(width: u32, inner: u32) -> Self {
        let entries = [
            ("general.architecture", string("gpt2")),
            ("gpt2.context_length", u32_value(5)),
            ("gpt2.embedding_length", u32_value(width)),
            ("gpt2.feed_forward_length", u32_value(inner)),
            ("gpt2.block_count", u32_value(1)),
            ("gpt2.attention.head_count", u32_value(width / 4)),
            ("gpt2.attention.layer_norm_epsilon", of_type(6, &1e-5f32.to_le_bytes())),
        ];
        let mut file = Self {
            version: 3,
            entries: entries.map(|(key, value)| (key.to_owned(), value)).to_vec(),
            tensors: Vec::new(),
            alignment: 32,
            data: Vec::new(),
            counts: (None, None),
        };
        let (width, inner) = (u64::from(width), u64::from(inner));
        for (name, shape) in [
            ("token_embd.weight", vec![width, 7]),
            ("position_embd.weight", vec![width, 5]),
            ("blk.0.attn_norm.weight", vec![width]),
            ("blk.0.attn_norm.bias", vec![width]),
            ("blk.0.attn_qkv.weight", vec![width, 3 * width]),
            ("blk.0.attn_qkv.bias", vec![3 * width]),
            ("blk.0.attn_output.weight", vec![width, width]),
            ("blk.0.attn_output.bias", vec![width]),
            ("blk.0.ffn_norm.weight", vec![width]),
            ("blk.0.ffn_norm.bias", vec![width]),
            ("blk.0.ffn_up.weight", vec![width, inner]),
            ("blk.0.ffn_up.bias", vec![inner]),
            ("blk.0.ffn_down.weight", vec![inner, width]),
            ("blk.0.ffn_down.bias", vec![width]),
            ("output_norm.weight", vec![width]),
            ("output_norm.bias", vec![width]),
        ] {
            file.add(name, shape);
        }
        file
    }

    fn add(&mut self, name: &str, shape: Vec<u64>) {
        let offset = self.data.len().next_multiple_of(32);
        self.data.resize(offset, 0);
        for i in 0..shape.iter().product() {
            self.data.extend((i as f32).to_le_bytes());
        }
        let offset = offset as u64;
        self.tensors.push(TensorEntry { name: name.to_owned(), shape, kind: 0, offset });
    }

    fn set(&mut self, key: &str, value: Vec<u8>) {
        self.entries.retain(|(known, _)| known != key);
        self.entries.push((key.to_owned(), value));
    }

    fn tensor(&mut self, name: &str) -> &mut TensorEntry {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.counts.0.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.counts.1.unwrap_or(self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        for tensor in &self.tensors {
            bytes.extend(text(&tensor.name));
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            bytes.extend(tensor.shape.iter().flat_map(|extent| extent.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(&self.data);
        bytes
    }

    fn write(&self) -> (TempDir, PathBuf) {
        let directory = tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        fs::write(&path, self.bytes()).unwrap();
        (directory, path)
    }

    fn open(&self) -> Result<Checkpoint, Error> {
        let (_directory, path) = self.write();
        Checkpoint::open(&path)
    }

    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        let error = self.open().expect_err("a broken file was accepted").to_string();
        for part in [&["model.gguf"], parts].concat() {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
    }
}

/// A copy of the file, changed.
fn broken(change: impl FnOnce(&mut File)) -> File {
    let mut file = File::small();
    change(&mut file);
    file
}

#[test]
fn the_file_that_is_broken_below_is_valid() {
    let checkpoint = File::small().open().unwrap();
    // No key says so: what llama.cpp computes.
    assert_eq!(checkpoint.config().mlp.activation, Activation::GeluTanh);
    assert_eq!(checkpoint.read_f32("h.0.mlp.c_fc.bias").unwrap()[19], 19.0);
    assert_eq!(checkpoint.config().mlp.inner, 20);
    broken(|file| file.version = 2).open().unwrap();
    let exact = broken(|file| file.set("cerebellum.activation_function", string("gelu")));
    assert_eq!(exact.open().unwrap().config().mlp.activation, Activation::Gelu);
}

#[test]
fn every_length_but_the_whole_is_refused() {
    let (_directory, path) = File::small().write();
    let bytes = fs::read(&path).unwrap();
    for length in (0..bytes.len() - 48).step_by(3).chain(bytes.len() - 48..bytes.len()) {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        let told = error.contains("model.gguf is no GGUF file that can be read");
        assert!(told && error.contains("download it again"), "{length}: {error}");
    }
}

#[test]
fn no_flipped_bit_does_harm() {
    let (_directory, path) = File::small().write();
    let bytes = fs::read(&path).unwrap();
    let tables = bytes.len() - File::small().data.len();
    // A step coprime to 8 visits every bit position.
    for bit in (0..8 * tables).step_by(5) {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            checkpoint.tensor_names().for_each(|name| drop(checkpoint.read_matrix(name)));
        }
    }
}

#[test]
fn absurd_counts_are_refused() {
    for count in [1 << 20, u64::from(u32::MAX), u64::MAX / 24, u64::MAX] {
        let claim = format!("claims {count} tensors");
        broken(|file| file.counts.0 = Some(count)).refused(&[&claim, "download it again"]);
        let claim = format!("claims {count} metadata entries");
        broken(|file| file.counts.1 = Some(count)).refused(&[&claim]);
        let array = [&8u32.to_le_bytes()[..], &count.to_le_bytes()].concat();
        let claim = format!("claims {count} elements of an array");
        broken(|file| file.set("a", of_type(9, &array))).refused(&[&claim]);
        let key = [&count.to_le_bytes()[..], b"key"].concat();
        broken(|file| file.set("a", of_type(8, &key))).refused(&["a metadata value was expected"]);
    }
    broken(|file| file.counts.0 = Some(17)).refused(&["is no GGUF file that can be read"]);
}

#[test]
fn absurd_alignments_are_refused() {
    for alignment in [0, 3, 33, u32::MAX] {
        let problem = format!("\"general.alignment\" is {alignment}, but must be a power of two");
        broken(|file| file.set("general.alignment", u32_value(alignment))).refused(&[&problem]);
    }
    let negative = of_type(5, &(-32i32).to_le_bytes());
    broken(|file| file.set("general.alignment", negative)).refused(&["must be a power of two"]);
    broken(|file| file.set("general.alignment", string("32"))).refused(&["is no integer"]);
    // A valid one moves the data.
    let mut wide = broken(|file| file.set("general.alignment", u32_value(64)));
    wide.alignment = 64;
    wide.refused(&["no multiple of 64"]);
    let mut narrow = broken(|file| file.set("general.alignment", u32_value(8)));
    narrow.alignment = 8;
    assert_eq!(narrow.open().unwrap().read_f32("ln_f.bias").unwrap()[11], 11.0);
}

#[test]
fn tensors_out_of_place_are_named() {
    let whole = File::small();
    let second = whole.tensors[1].offset;
    let name = "blk.0.ffn_up.weight";
    let overlap = broken(|file| file.tensor(name).offset = second);
    overlap.refused(&["overlaps tensor", "position_embd.weight", name]);
    let partly = broken(|file| file.tensor("position_embd.weight").offset -= 32);
    partly.refused(&["position_embd.weight", "overlaps tensor \"token_embd.weight\""]);
    broken(|file| file.tensor(name).offset += 4).refused(&[name, "no multiple of 32"]);
    for offset in [1 << 40, u64::MAX - 31] {
        let beyond = broken(|file| file.tensor(name).offset = offset);
        beyond.refused(&[name, "beyond the end of the file"]);
    }
    let twice = broken(|file| file.tensor(name).name = "token_embd.weight".to_owned());
    twice.refused(&["\"token_embd.weight\" is there twice"]);
}

#[test]
fn absurd_shapes_are_refused() {
    let name = "blk.0.ffn_up.weight";
    for (shape, problem) in [
        (vec![0, 20], "has a dimension of 0"),
        (vec![1 << 40, 1 << 40], "has shape"),
        (vec![1 << 40, 2], "beyond the end"),
        (vec![12, 20, 1, 1, 1], "has 5 dimensions"),
        (vec![u64::MAX], "beyond the end"),
    ] {
        broken(|file| file.tensor(name).shape = shape).refused(&[name, problem]);
    }
    for dtype in Dtype::all().filter(|dtype| dtype.block_elements() > 1) {
        let (kind, block) = (dtype.ggml(), dtype.block_elements());
        let problem = format!("rows of 12, no multiple of {}'s {block}", dtype.name());
        broken(|file| file.tensor(name).kind = kind).refused(&[name, &problem]);
        // As many weights as whole blocks have, but no row of whole blocks.
        let change = |file: &mut File| {
            *file.tensor(name) =
                TensorEntry { kind, shape: vec![8, 64], ..file.tensor(name).clone() };
        };
        broken(change).refused(&[name, "rows of 8, no multiple of"]);
    }
    let long = "n".repeat(64);
    broken(|file| file.tensor(name).name = long).refused(&["the name of a tensor was expected"]);
}

/// A tensor of each type that ends with the file, and then lacks its last byte.
#[test]
fn blocks_cut_short_are_refused() {
    for dtype in Dtype::all() {
        let mut file = File::small();
        let offset = file.data.len().next_multiple_of(32);
        let shape = vec![2 * dtype.block_elements() as u64, 3];
        file.data.resize(offset + 6 * dtype.block_bytes(), 0x33);
        let (name, kind) = ("last".to_owned(), dtype.ggml());
        file.tensors.push(TensorEntry { name, shape, kind, offset: offset as u64 });
        assert_eq!(file.open().unwrap().extra_tensors(), ["last"]);
        file.data.pop();
        file.refused(&["\"last\" reaches beyond the end of the file", "download it again"]);
    }
}

#[test]
fn types_that_are_not_decoded_are_named() {
    for (kind, known) in [
        (17, "IQ2_XS (ggml type 17)"),
        (28, "F64 (ggml type 28)"),
        (32, "Q4_0_4_8 (ggml type 32)"),
        (99, "ggml type 99"),
        (u32::MAX, "ggml type 4294967295"),
    ] {
        let file = broken(|file| file.tensor("blk.0.ffn_up.weight").kind = kind);
        let stored = format!("stored as {known}, which is not supported");
        let way_out = "the same model as F32, F16 or BF16, or as GGUF with Q8_0, Q4_0,";
        file.refused(&["blk.0.ffn_up.weight", &stored, way_out, "IQ4_XS"]);
    }
}

#[test]
fn broken_metadata_is_named() {
    broken(|file| file.version = 1).refused(&["its version is 1"]);
    broken(|file| file.version = 3u32.swap_bytes()).refused(&["big-endian"]);
    broken(|file| file.set("a", of_type(77, &[]))).refused(&["\"a\" has type 77"]);
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    broken(|file| file.set("a", of_type(9, &nested))).refused(&["holds arrays in an array"]);
    let twice = broken(|file| file.entries.push(file.entries[0].clone()));
    twice.refused(&["\"general.architecture\" is there twice"]);
    let (_directory, path) = File::small().write();
    fs::write(&path, b"PK\x03\x04 anything else").unwrap();
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("does not begin with \"GGUF\""), "{error}");
}

#[test]
fn other_models_are_refused() {
    let mamba = broken(|file| file.set("general.architecture", string("mamba")));
    mamba.refused(&["`general.architecture` is \"mamba\"", "supported: gpt2, llama, qwen2"]);
    let none = broken(|file| file.entries.retain(|(key, _)| key != "general.architecture"));
    none.refused(&["`general.architecture` is missing"]);
    let split = broken(|file| file.set("split.count", of_type(2, &2u16.to_le_bytes())));
    split.refused(&["`split.count` is 2", "llama-gguf-split --merge"]);
}

#[test]
fn a_configuration_that_contradicts_the_tensors_is_refused() {
    let width = broken(|file| file.set("gpt2.embedding_length", u32_value(24)));
    width.refused(&["token_embd.weight has shape [7, 12]", "[7, 24]"]);
    let positions = broken(|file| file.set("gpt2.context_length", u32_value(6)));
    positions.refused(&["position_embd.weight has shape [5, 12]", "[6, 12]"]);
    let inner = broken(|file| file.set("gpt2.feed_forward_length", u32_value(21)));
    inner.refused(&["blk.0.ffn_up.weight has shape [20, 12]", "[21, 12]"]);
    let more = broken(|file| file.set("gpt2.block_count", u32_value(2)));
    more.refused(&["tensor blk.1.attn_norm.weight is missing", "`block_count`"]);
    for (key, value, problem) in [
        ("gpt2.attention.head_count", u32_value(5), "must divide"),
        ("gpt2.embedding_length", u32_value(0), "must be a whole number"),
        ("gpt2.block_count", string("one"), "must be a whole number"),
        ("gpt2.context_length", of_type(9, &[0; 12]), "is an array"),
        ("tokenizer.ggml.eos_token_id", u32_value(7), "must be a whole number in 0..=6"),
    ] {
        broken(|file| file.set(key, value)).refused(&[&format!("`{key}`"), problem]);
    }
    let missing = broken(|file| file.entries.retain(|(key, _)| key != "gpt2.embedding_length"));
    missing.refused(&["`gpt2.embedding_length` is missing"]);
    for name in File::small().tensors.iter().map(|tensor| tensor.name.clone()) {
        let file = broken(|file| file.tensors.retain(|tensor| tensor.name != name));
        file.refused(&["is missing from"]);
    }
}

#[test]
fn tokens_and_merges_that_contradict_each_other_are_named() {
    let list = |values: &[&str]| {
        let length = (values.len() as u64).to_le_bytes();
        let texts: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
        of_type(9, &[&8u32.to_le_bytes()[..], &length, &texts].concat())
    };
    let with = |entries: &[(&str, Vec<u8>)]| {
        let mut file = File::small();
        file.set("tokenizer.ggml.model", string("gpt2"));
        entries.iter().for_each(|(key, value)| file.set(key, value.clone()));
        let (_directory, path) = file.write();
        tokenizer::import(&path, 7).unwrap_err().to_string()
    };
    for (error, parts) in [
        (with(&[]), "tokenizer.ggml.tokens is no list of strings"),
        (with(&[("tokenizer.ggml.model", string("bert"))]), "tokenizer.ggml.model"),
        (with(&[("tokenizer.ggml.pre", string("tekken"))]), "tokenizer.ggml.pre"),
        (
            with(&[
                ("tokenizer.ggml.tokens", list(&["a", "b"])),
                ("tokenizer.ggml.merges", list(&["a b"])),
            ]),
            "which the vocabulary lacks",
        ),
        (
            with(&[
                ("tokenizer.ggml.tokens", list(&["a", "b"])),
                ("tokenizer.ggml.merges", list(&[])),
                ("tokenizer.ggml.token_type", list(&["1", "1"])),
            ]),
            "token 0 of type",
        ),
    ] {
        assert!(error.contains("model.gguf") && error.contains(parts), "no {parts:?} in: {error}");
    }
}

#[test]
fn metadata_of_every_type_is_read() {
    let mut file = File::small();
    let values: [(u32, &[u8], Value); 8] = [
        (0, &[200], Value::Int(200)),
        (1, &[200], Value::Int(-56)),
        (2, &[0, 200], Value::Int(51200)),
        (3, &[0, 200], Value::Int(-14336)),
        (7, &[1], Value::Bool(true)),
        (10, &[255; 8], Value::Int(i64::MAX)),
        (11, &[255; 8], Value::Int(-1)),
        (12, &1.5f64.to_le_bytes(), Value::Float(1.5)),
    ];
    for (kind, bytes, _) in &values {
        file.set(&format!("test.{kind}"), of_type(*kind, bytes));
    }
    let bytes = file.bytes();
    let gguf = Gguf::parse(&bytes).unwrap();
    for (kind, _, value) in values {
        assert_eq!(gguf.get(&format!("test.{kind}")), Some(value));
    }
    assert_eq!(gguf.get("test.none"), None);
}
