//! The checkpoint reader against directories that are right, and broken in every way we know.
//!
//! Each test builds a small valid directory, breaks one thing, and checks that the error names the
//! file, the tensor or field, and what to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cerebellum_tools::checkpoint::{Checkpoint, Dtype, Error, Layout};
use cerebellum_tools::tokenizer;
use half::{bf16, f16};
use safetensors::Dtype as FileDtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

const VOCAB: usize = 7;
const POSITIONS: usize = 5;
const EMBD: usize = 12;
/// Wider than a tile of the transposing read, and no multiple of one.
const INNER: usize = 150;
const LAYERS: usize = 2;

/// A tensor as written to a file.
#[derive(Clone, PartialEq)]
struct Stored {
    dtype: FileDtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn f32(shape: &[usize], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { dtype: FileDtype::F32, shape: shape.to_owned(), bytes }
    }

    fn zeros(dtype: FileDtype, shape: &[usize]) -> Self {
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
        Self { dtype, shape: shape.to_owned(), bytes }
    }

    fn values(&self) -> Vec<f32> {
        self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn put(&mut self, index: usize, value: f32) {
        self.bytes[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// A checkpoint in memory, to be broken and written.
#[derive(Clone)]
struct Model {
    config: Value,
    tensors: BTreeMap<String, Stored>,
}

/// A valid model in float32, with names as `GPT2LMHeadModel` saves them and every element
/// different from its neighbours.
fn model() -> Model {
    let config = json!({
        "model_type": "gpt2", "vocab_size": VOCAB, "n_positions": POSITIONS, "n_embd": EMBD,
        "n_head": 3, "n_layer": LAYERS, "n_inner": INNER, "activation_function": "gelu",
    });
    let mut model = Model { config, tensors: BTreeMap::new() };
    model.add("wte.weight", &[VOCAB, EMBD]);
    model.add("wpe.weight", &[POSITIONS, EMBD]);
    for layer in 0..LAYERS {
        for (part, shape) in [
            ("ln_1.weight", vec![EMBD]),
            ("ln_1.bias", vec![EMBD]),
            ("attn.c_attn.weight", vec![EMBD, 3 * EMBD]),
            ("attn.c_attn.bias", vec![3 * EMBD]),
            ("attn.c_proj.weight", vec![EMBD, EMBD]),
            ("attn.c_proj.bias", vec![EMBD]),
            ("ln_2.weight", vec![EMBD]),
            ("ln_2.bias", vec![EMBD]),
            ("mlp.c_fc.weight", vec![EMBD, INNER]),
            ("mlp.c_fc.bias", vec![INNER]),
            ("mlp.c_proj.weight", vec![INNER, EMBD]),
            ("mlp.c_proj.bias", vec![EMBD]),
        ] {
            model.add(&format!("h.{layer}.{part}"), &shape);
        }
    }
    model.add("ln_f.weight", &[EMBD]);
    model.add("ln_f.bias", &[EMBD]);
    model
}

impl Model {
    fn add(&mut self, name: &str, shape: &[usize]) {
        let base = 10_000 * self.tensors.len();
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|i: usize| (base + i) as f32).collect();
        self.tensors.insert(format!("transformer.{name}"), Stored::f32(shape, &values));
    }

    fn get(&mut self, name: &str) -> &mut Stored {
        self.tensors.get_mut(&format!("transformer.{name}")).unwrap()
    }

    fn write_config(&self, directory: &Path) {
        fs::write(directory.join("config.json"), self.config.to_string()).unwrap();
    }

    /// Writes a single-file checkpoint.
    fn write(&self) -> TempDir {
        let directory = TempDir::new().unwrap();
        self.write_config(directory.path());
        write_safetensors(&directory.path().join("model.safetensors"), &self.tensors);
        directory
    }

    /// Writes a checkpoint in two shards, every other tensor in each.
    fn write_shards(&self) -> TempDir {
        let directory = TempDir::new().unwrap();
        self.write_config(directory.path());
        let mut shards = [BTreeMap::new(), BTreeMap::new()];
        for (i, (name, tensor)) in self.tensors.iter().enumerate() {
            shards[i % 2].insert(name.clone(), tensor.clone());
        }
        let mut weight_map = BTreeMap::new();
        for (shard, file) in shards.iter().zip([SHARDS[0], SHARDS[1]]) {
            write_safetensors(&directory.path().join(file), shard);
            weight_map.extend(shard.keys().map(|name| (name.clone(), file)));
        }
        let index = json!({ "metadata": {}, "weight_map": weight_map });
        fs::write(directory.path().join(INDEX), index.to_string()).unwrap();
        directory
    }
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
const INDEX: &str = "model.safetensors.index.json";

fn write_safetensors(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap();
        (name.as_str(), view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn open(directory: &TempDir) -> Result<Checkpoint, Error> {
    Checkpoint::open(directory.path())
}

/// Checks that opening fails with a message that contains all of `parts`.
#[track_caller]
fn refuses(directory: &TempDir, parts: &[&str]) {
    let error = open(directory).expect_err("a broken checkpoint was accepted").to_string();
    mentions(&error, parts);
}

#[track_caller]
fn mentions(error: &str, parts: &[&str]) {
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}

/// The stored `[in, out]` matrix as `[out, in]`, by the definition.
fn transposed(stored: &Stored) -> Vec<f32> {
    let (n_in, n_out, values) = (stored.shape[0], stored.shape[1], stored.values());
    (0..n_in * n_out).map(|i| values[i % n_in * n_out + i / n_in]).collect()
}

#[test]
fn tensors_come_back_as_written() {
    let mut model = model();
    let directory = model.write();
    let checkpoint = open(&directory).unwrap();
    assert_eq!(checkpoint.tensor_names().len(), 2 + 12 * LAYERS + 2);
    assert!(checkpoint.is_tied() && checkpoint.extra_tensors().is_empty());
    for name in checkpoint.tensor_names() {
        let stored = model.get(name);
        assert_eq!(checkpoint.shape(name).unwrap(), stored.shape, "{name}");
        assert_eq!(checkpoint.read_f32(name).unwrap(), stored.values(), "{name}");
        let matrix = checkpoint.read_matrix(name).unwrap();
        let linear = name.contains(".c_") && name.ends_with("weight");
        let expected = if linear { transposed(stored) } else { stored.values() };
        assert!(matrix == expected, "{name}");
    }
}

#[test]
fn names_come_in_the_order_of_the_forward_pass() {
    let checkpoint = open(&model().write()).unwrap();
    let names: Vec<&str> = checkpoint.tensor_names().collect();
    assert_eq!(names[..4], ["wte.weight", "wpe.weight", "h.0.ln_1.weight", "h.0.ln_1.bias"]);
    assert_eq!(names[names.len() - 2..], ["ln_f.weight", "ln_f.bias"]);
}

#[test]
fn any_range_of_rows_equals_the_whole_matrix() {
    let directory = model().write();
    let checkpoint = open(&directory).unwrap();
    for name in ["wte.weight", "h.1.mlp.c_fc.weight", "h.1.mlp.c_proj.weight", "ln_f.bias"] {
        let tensor = checkpoint.tensor(name).unwrap();
        let (rows, columns) = (tensor.rows(), tensor.columns());
        let whole = checkpoint.read_matrix(name).unwrap();
        assert_eq!(whole.len(), rows * columns);
        for (first, last) in (0..=rows).flat_map(|a| (a..=rows).map(move |b| (a, b))) {
            let part = tensor.read_rows(first..last).unwrap();
            assert!(part == whole[first * columns..last * columns], "{name} {first}..{last}");
        }
    }
}

#[test]
fn threads_may_share_a_tensor() {
    use rayon::prelude::*;
    let directory = model().write();
    let checkpoint = open(&directory).unwrap();
    let tensor = checkpoint.tensor("h.0.mlp.c_fc.weight").unwrap();
    let rows: Vec<f32> = (0..INNER)
        .into_par_iter()
        .flat_map_iter(|row| tensor.read_rows(row..row + 1).unwrap())
        .collect();
    assert!(rows == checkpoint.read_matrix("h.0.mlp.c_fc.weight").unwrap());
}

#[test]
fn half_precision_decodes_exactly() {
    for (dtype, file_dtype) in [(Dtype::F16, FileDtype::F16), (Dtype::Bf16, FileDtype::BF16)] {
        let mut model = model();
        let stored = model.get("h.0.mlp.c_fc.weight");
        let values: Vec<f32> = (0..EMBD * INNER).map(|i| (i as f32 - 900.0) * 0.37e-3).collect();
        let halves = values.iter().map(|value| match dtype {
            Dtype::F16 => f16::from_f32(*value).to_bits(),
            _ => bf16::from_f32(*value).to_bits(),
        });
        let halves: Vec<u16> = halves.collect();
        let expected: Vec<f32> = halves
            .iter()
            .map(|bits| match dtype {
                Dtype::F16 => f16::from_bits(*bits).to_f32(),
                _ => bf16::from_bits(*bits).to_f32(),
            })
            .collect();
        stored.dtype = file_dtype;
        stored.bytes = halves.iter().flat_map(|bits| bits.to_le_bytes()).collect();

        let directory = model.write();
        let checkpoint = open(&directory).unwrap();
        let tensor = checkpoint.tensor("h.0.mlp.c_fc.weight").unwrap();
        assert_eq!(tensor.dtype(), dtype);
        assert!(tensor.read_f32().unwrap() == expected);
        let transposed = tensor.read_rows(0..INNER).unwrap();
        assert!((0..EMBD * INNER).all(|i| transposed[i] == expected[i % EMBD * INNER + i / EMBD]));
    }
}

#[test]
fn shards_read_as_one_file_and_have_its_digest() {
    let model = model();
    let (single, shards) = (model.write(), model.write_shards());
    let (single, shards) = (open(&single).unwrap(), open(&shards).unwrap());
    for name in single.tensor_names() {
        assert!(single.read_f32(name).unwrap() == shards.read_f32(name).unwrap(), "{name}");
    }
    assert_eq!(single.digest(), shards.digest());
}

#[test]
fn the_digest_sees_every_change_and_nothing_else() {
    let original = open(&model().write()).unwrap().digest();

    let mut bare = model();
    bare.tensors = bare
        .tensors
        .into_iter()
        .map(|(name, tensor)| (name.replace("transformer.", ""), tensor))
        .collect();
    assert_eq!(open(&bare.write()).unwrap().digest(), original);

    let mut value = model();
    value.get("ln_f.bias").put(EMBD - 1, -1.0);
    assert_ne!(open(&value.write()).unwrap().digest(), original);

    let mut config = model();
    config.config["eos_token_id"] = json!(3);
    assert_ne!(open(&config.write()).unwrap().digest(), original);
}

#[test]
fn mask_buffers_are_skipped_and_others_reported() {
    let mut model = model();
    for (name, tensor) in [
        ("h.0.attn.bias", Stored::zeros(FileDtype::U8, &[1, 1, POSITIONS, POSITIONS])),
        ("h.1.attn.bias", Stored::zeros(FileDtype::BOOL, &[1, 1, POSITIONS, POSITIONS])),
        ("h.0.attn.masked_bias", Stored::f32(&[], &[-1e4])),
        ("h.1.attn.rotary", Stored::zeros(FileDtype::I64, &[3])),
    ] {
        model.tensors.insert(format!("transformer.{name}"), tensor);
    }
    model.tensors.insert("score.weight".into(), Stored::zeros(FileDtype::F32, &[2, EMBD]));
    let checkpoint = open(&model.write()).unwrap();
    assert_eq!(checkpoint.extra_tensors(), ["score.weight", "transformer.h.1.attn.rotary"]);
}

/// Every combination of `tie_word_embeddings` and a head that is absent, a copy, or different.
#[test]
fn tying_follows_the_configuration_then_the_contents() {
    let copy = model().get("wte.weight").clone();
    let mut other = copy.clone();
    other.put(3, -7.0);
    // (flag, head) → (tied, reported as unused)
    let cases = [
        (None, None, true, false),
        (None, Some(&copy), true, false),
        (None, Some(&other), false, false),
        (Some(true), None, true, false),
        (Some(true), Some(&copy), true, false),
        (Some(true), Some(&other), true, true),
        (Some(false), Some(&copy), false, false),
        (Some(false), Some(&other), false, false),
    ];
    for (flag, head, tied, extra) in cases {
        let mut model = model();
        model.config["tie_word_embeddings"] = json!(flag);
        if let Some(head) = head {
            model.tensors.insert("lm_head.weight".into(), head.clone());
        }
        let checkpoint = open(&model.write()).unwrap();
        let label = format!("{flag:?}, head {}", head.is_some());
        assert_eq!(checkpoint.is_tied(), tied, "{label}");
        assert_eq!(checkpoint.extra_tensors().len(), usize::from(extra), "{label}");
        let expected = if tied { &copy } else { head.unwrap() };
        let found = checkpoint.read_f32(&checkpoint.head().name()).unwrap();
        assert!(found == expected.values(), "{label}");
    }

    let mut model = model();
    model.config["tie_word_embeddings"] = json!(false);
    refuses(&model.write(), &["lm_head.weight is missing", "`tie_word_embeddings` is false"]);
}

#[test]
fn what_is_missing_is_named() {
    let error = Checkpoint::open(Path::new("/no/such/model")).unwrap_err().to_string();
    mentions(&error, &["/no/such/model does not exist", "config.json"]);
    assert!(!error.contains("hf:"), "{error}");
    let error = Checkpoint::open(Path::new("Org/Model")).unwrap_err().to_string();
    mentions(&error, &["Org/Model does not exist", "named hf:Org/Model"]);

    let directory = model().write();
    let file = Checkpoint::open(&directory.path().join("config.json")).unwrap_err().to_string();
    mentions(&file, &["config.json is not a directory"]);
    let model_file = directory.path().join("model.cbl");
    fs::write(&model_file, "a file").unwrap();
    let file = Checkpoint::open(&model_file).unwrap_err().to_string();
    mentions(&file, &["model.cbl is a model file, no checkpoint"]);

    fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    refuses(
        &directory,
        &["no weights in", "model.safetensors, model.safetensors.index.json, pytorch_model.bin, "],
    );

    fs::remove_file(directory.path().join("config.json")).unwrap();
    refuses(&directory, &["config.json is missing"]);
}

/// `torch.compile` and `DataParallel` put a prefix before every name.
#[test]
fn wrappers_of_training_frameworks_are_taken_off() {
    let plain = model();
    let digest = Checkpoint::open(plain.write().path()).unwrap().digest();
    let renamed = |rename: &dyn Fn(&String) -> String| {
        let tensors = plain.tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone()));
        Model { config: plain.config.clone(), tensors: tensors.collect() }
    };
    for wrapper in ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."] {
        let wrapped = renamed(&|name| format!("{wrapper}{name}"));
        let checkpoint = Checkpoint::open(wrapped.write().path()).unwrap();
        assert_eq!(checkpoint.digest(), digest, "{wrapper}");
        assert!(checkpoint.extra_tensors().is_empty(), "{wrapper}");
    }
    // What only some names have is no wrapper.
    let mixed = renamed(&|name| name.replace("transformer.ln_f", "module.transformer.ln_f"));
    refuses(&mixed.write(), &["tensor ln_f.weight is missing from"]);
}

#[test]
fn adapters_are_named_for_what_they_are() {
    let directory = TempDir::new().unwrap();
    let config = directory.path().join("adapter_config.json");
    fs::write(directory.path().join("adapter_model.safetensors"), "").unwrap();
    let parts = ["adapter_model.safetensors is an adapter", "its base model", "merge_and_unload"];
    refuses(&directory, &parts);
    fs::write(&config, "\u{feff}{\"base_model_name_or_path\": \"big\\nmodel\"}").unwrap();
    refuses(&directory, &["adapter_config.json is an adapter", "the model \"big\\u000amodel\""]);
    // With the base model's configuration beside it, which PEFT does not write.
    model().write_config(directory.path());
    refuses(&directory, &["adapter_config.json is an adapter", "merge"]);

    // Beside a whole model it is not looked at.
    let whole = model().write();
    fs::copy(&config, whole.path().join("adapter_config.json")).unwrap();
    assert!(Checkpoint::open(whole.path()).is_ok());

    let mut unmerged = model();
    let name = "base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight";
    unmerged.tensors.insert(name.to_owned(), Stored::zeros(FileDtype::F32, &[2, EMBD]));
    refuses(&unmerged.write(), &[name, "was not merged", "merge_and_unload"]);
}

/// Editors of some systems put a byte order mark before what they save.
#[test]
fn a_byte_order_mark_before_json_does_no_harm() {
    let mark = |path: &Path| {
        let content = fs::read_to_string(path).unwrap();
        fs::write(path, format!("\u{feff}{content}")).unwrap();
    };
    let directory = model().write();
    let path = directory.path();
    mark(&path.join("config.json"));
    assert!(Checkpoint::open(path).is_ok());

    fs::rename(path.join("model.safetensors"), path.join("a.safetensors")).unwrap();
    let index = path.join("model.safetensors.index.json");
    fs::write(
        &index,
        json!({ "weight_map": { "transformer.wte.weight": "a.safetensors" } }).to_string(),
    )
    .unwrap();
    mark(&index);
    assert!(Checkpoint::open(path).is_ok());

    let files = [
        ("vocab.json", r#"{"a": 0, "b": 1, "ab": 2}"#),
        ("merges.txt", "#version: 0.2\na b\n"),
        ("tokenizer_config.json", "{}"),
        (
            "tokenizer.json",
            r#"{"pre_tokenizer": {"type": "ByteLevel"}, "model":
            {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#,
        ),
    ];
    for files in [&files[..3], &files[3..]] {
        for (name, content) in files {
            fs::write(path.join(name), content).unwrap();
        }
        let plain = tokenizer::import(path, 3).unwrap().unwrap();
        files.iter().for_each(|(name, _)| mark(&path.join(name)));
        assert_eq!(tokenizer::import(path, 3).unwrap().unwrap(), plain);
    }
}

#[test]
fn a_broken_configuration_is_named() {
    let directory = model().write();
    let path = directory.path().join("config.json");
    for (content, parts) in [
        ("{\"model_type\": ", ["config.json is not the JSON expected", "line 1"]),
        ("[]", ["config.json is not the JSON expected", "invalid type"]),
        ("", ["config.json is not the JSON expected", "EOF"]),
        (&" ".repeat((1 << 20) + 1), ["config.json has 1048577 bytes", "1048576"]),
    ] {
        fs::write(&path, content).unwrap();
        refuses(&directory, &parts);
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refuses(&directory, &["config.json is not a regular file"]);
}

#[test]
fn unknown_kinds_list_the_known_ones() {
    let mut mamba = model();
    mamba.config["model_type"] = json!("mamba");
    refuses(&mamba.write(), &["config.json", "`model_type` is \"mamba\"", "supported: gpt2"]);

    let mut mish = model();
    mish.config["activation_function"] = json!("mish");
    refuses(&mish.write(), &["`activation_function` is \"mish\"", "gelu, gelu_new", "silu"]);
}

#[test]
fn every_missing_tensor_is_named() {
    let whole = model();
    for name in whole.tensors.keys() {
        let mut model = whole.clone();
        model.tensors.remove(name);
        let canonical = name.trim_start_matches("transformer.");
        refuses(&model.write(), &[&format!("tensor {canonical} is missing from")]);
    }
}

#[test]
fn every_wrong_shape_is_named() {
    let whole = model();
    for (name, tensor) in &whole.tensors {
        let mut model = whole.clone();
        let mut shape = tensor.shape.clone();
        *shape.last_mut().unwrap() += 1;
        model.tensors.insert(name.clone(), Stored::zeros(FileDtype::F32, &shape));
        let (expected, found) = (format!("{:?}", tensor.shape), format!("{shape:?}"));
        refuses(&model.write(), &["model.safetensors", name, &expected, &found]);
    }
}

/// Rows beyond the vocabulary are padding, and are left out with a note; too few, or very many more,
/// are another model's.
#[test]
fn a_padded_vocabulary_is_cut_to_its_tokens() {
    let mut padded = model();
    let original = padded.get("wte.weight").values();
    let mut values = original.clone();
    values.extend([f32::NAN; 2 * EMBD]);
    *padded.get("wte.weight") = Stored::f32(&[VOCAB + 2, EMBD], &values);
    let directory = padded.write();
    let checkpoint = open(&directory).unwrap();
    assert_eq!(checkpoint.shape("wte.weight").unwrap(), [VOCAB, EMBD]);
    assert!(checkpoint.read_matrix("wte.weight").unwrap() == original);
    let note = checkpoint.notes().concat();
    mentions(&note, &["last 2 rows of transformer.wte.weight", "it has 9", "`vocab_size` is 7"]);

    // A head is padded along with its embedding.
    let head = padded.get("wte.weight").clone();
    padded.tensors.insert("lm_head.weight".into(), head);
    let checkpoint = open(&padded.write()).unwrap();
    assert!(checkpoint.is_tied());
    padded.config["tie_word_embeddings"] = json!(false);
    assert_eq!(open(&padded.write()).unwrap().notes().len(), 2);

    // The configuration may count the padding; those ids have no text.
    let mut counted = model();
    counted.config["vocab_size"] = json!(VOCAB + 1);
    *counted.get("wte.weight") = Stored::zeros(FileDtype::F32, &[VOCAB + 1, EMBD]);
    assert!(open(&counted.write()).unwrap().notes().is_empty());

    for rows in [VOCAB - 1, VOCAB + 1025] {
        let mut other = model();
        *other.get("wte.weight") = Stored::zeros(FileDtype::F32, &[rows, EMBD]);
        let has = format!("wte.weight has {rows} rows");
        refuses(&other.write(), &[&has, "`vocab_size` is 7", "config.json"]);
    }
}

/// The weights of linear layers, `[in, out]`, turned round.
fn turned_round(names: impl Fn(&str) -> bool) -> Model {
    let mut model = model();
    for (name, tensor) in &mut model.tensors {
        if name.contains(".c_") && name.ends_with("weight") && names(name) {
            let shape = [tensor.shape[1], tensor.shape[0]];
            *tensor = Stored::f32(&shape, &transposed(tensor));
        }
    }
    model
}

#[test]
fn linear_layers_may_be_stored_either_way() {
    let (ours, theirs) = (model().write(), turned_round(|_| true).write());
    let (ours, theirs) = (open(&ours).unwrap(), open(&theirs).unwrap());
    assert_eq!((ours.layout(), theirs.layout()), (Layout::Conv1d, Layout::Linear));
    for name in ours.tensor_names() {
        // Attention's square projection among them.
        let same = ours.read_matrix(name).unwrap() == theirs.read_matrix(name).unwrap();
        assert!(same, "{name}");
    }
}

#[test]
fn layers_stored_both_ways_are_refused() {
    let mixed = turned_round(|name| name.contains("h.1.mlp.c_fc"));
    let parts = ["model.safetensors", "transposed in relation to", "h.1.mlp.c_fc", "square"];
    refuses(&mixed.write(), &parts);
}

#[test]
fn a_configuration_with_other_layers_is_refused() {
    let mut fewer = model();
    fewer.config["n_layer"] = json!(LAYERS - 1);
    refuses(&fewer.write(), &["transformer.h.1.", "beyond `n_layer` = 1", "model.safetensors"]);

    let mut more = model();
    more.config["n_layer"] = json!(LAYERS + 1);
    refuses(&more.write(), &["tensor h.2.ln_1.weight is missing", "`n_layer`"]);
}

#[test]
fn unsupported_types_are_named() {
    for dtype in [FileDtype::F64, FileDtype::I8, FileDtype::F8_E4M3] {
        let mut model = model();
        *model.get("h.1.ln_2.bias") = Stored::zeros(dtype, &[EMBD]);
        let parts = ["transformer.h.1.ln_2.bias", &format!("stored as {dtype:?}"), "F32, F16"];
        refuses(&model.write(), &parts);
    }
}

#[test]
fn values_that_are_not_finite_are_located() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut model = model();
        model.get("h.1.mlp.c_fc.weight").put(5 * INNER + 77, value);
        let directory = model.write();
        let checkpoint = open(&directory).unwrap();
        let tensor = checkpoint.tensor("h.1.mlp.c_fc.weight").unwrap();
        let (whole, rows) = (tensor.read_f32(), tensor.read_rows(70..80));
        for error in [whole.unwrap_err(), rows.unwrap_err()] {
            let value = format!("{value} at index [5, 77]");
            mentions(&error.to_string(), &["transformer.h.1.mlp.c_fc.weight", &value]);
        }
        tensor.read_rows(0..77).unwrap();
        tensor.read_rows(78..INNER).unwrap();
    }
}

#[test]
fn unknown_names_are_refused() {
    let directory = model().write();
    let checkpoint = open(&directory).unwrap();
    let error = checkpoint.read_f32("lm_head.weight").unwrap_err().to_string();
    mentions(&error, &["no tensor named lm_head.weight"]);
}

#[test]
fn broken_shards_are_named() {
    let missing = model().write_shards();
    fs::remove_file(missing.path().join(SHARDS[1])).unwrap();
    refuses(&missing, &[SHARDS[1], "is missing", INDEX]);

    let swapped = model().write_shards();
    fs::copy(swapped.path().join(SHARDS[0]), swapped.path().join(SHARDS[1])).unwrap();
    refuses(&swapped, &[INDEX, "places tensor", SHARDS[1], "does not contain it"]);

    let directory = model().write_shards();
    let mut second: BTreeMap<String, Stored> = model().tensors;
    second.retain(|name, _| name.ends_with("bias") || name.contains("wte"));
    rewrite_shards(&directory, &[model().tensors, second]);
    refuses(&directory, &["is stored twice", SHARDS[0], SHARDS[1]]);
}

/// Writes these shards, and an index that is right about the second.
fn rewrite_shards(directory: &TempDir, shards: &[BTreeMap<String, Stored>; 2]) {
    let mut weight_map = BTreeMap::new();
    for (shard, file) in shards.iter().zip(SHARDS) {
        write_safetensors(&directory.path().join(file), shard);
        weight_map.extend(shard.keys().map(|name| (name.clone(), file)));
    }
    let index = json!({ "weight_map": weight_map }).to_string();
    fs::write(directory.path().join(INDEX), index).unwrap();
}

#[test]
fn a_name_stored_both_ways_is_refused() {
    let mut model = model();
    let copy = model.get("ln_f.bias").clone();
    model.tensors.insert("ln_f.bias".into(), copy);
    refuses(&model.write(), &["tensor ln_f.bias is stored twice", "model.safetensors"]);
}

#[test]
fn an_index_cannot_reach_outside_its_directory() {
    for shard in ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "", "."] {
        let directory = model().write_shards();
        let index = json!({ "weight_map": { "transformer.wte.weight": shard } }).to_string();
        fs::write(directory.path().join(INDEX), index).unwrap();
        refuses(&directory, &[INDEX, "not a plain file name"]);
    }
    let directory = model().write_shards();
    fs::write(directory.path().join(INDEX), "{\"weight_map\": 3}").unwrap();
    refuses(&directory, &[INDEX, "is not the JSON expected"]);
}

fn weights(directory: &TempDir) -> PathBuf {
    directory.path().join("model.safetensors")
}

/// Every length of the header, and some of the data.
#[test]
fn a_truncated_or_extended_file_is_refused() {
    let directory = model().write();
    let bytes = fs::read(weights(&directory)).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let lengths =
        (0..header + 20).chain((header..bytes.len()).step_by(997)).chain([bytes.len() - 1]);
    for length in lengths {
        fs::write(weights(&directory), &bytes[..length]).unwrap();
        refuses(&directory, &["model.safetensors is truncated or damaged", "download it again"]);
    }
    fs::write(weights(&directory), [&bytes[..], &[0]].concat()).unwrap();
    refuses(&directory, &["model.safetensors is truncated or damaged"]);
}

/// Whatever a flipped bit of the header does, it is an error or a checkpoint that can be read.
#[cfg(unix)]
#[test]
fn no_flipped_header_bit_does_harm() {
    use std::os::unix::fs::FileExt;
    let directory = model().write();
    let bytes = fs::read(weights(&directory)).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let file = fs::File::options().write(true).open(weights(&directory)).unwrap();
    // A step coprime to 8 visits every bit position.
    for bit in (0..8 * header).step_by(7) {
        let (at, byte) = (bit / 8, bytes[bit / 8]);
        file.write_all_at(&[byte ^ 1 << (bit % 8)], at as u64).unwrap();
        if let Ok(checkpoint) = open(&directory) {
            checkpoint.tensor_names().for_each(|name| drop(checkpoint.read_matrix(name)));
        }
        file.write_all_at(&[byte], at as u64).unwrap();
    }
}

#[test]
fn what_is_not_the_file_itself_is_told_apart() {
    let directory = model().write();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    fs::write(weights(&directory), pointer).unwrap();
    refuses(&directory, &["model.safetensors is a Git LFS pointer", "git lfs pull"]);

    fs::remove_file(weights(&directory)).unwrap();
    fs::create_dir(weights(&directory)).unwrap();
    refuses(&directory, &["model.safetensors is not a regular file"]);
}
