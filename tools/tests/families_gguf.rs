//! GGUF files of the families that people run, written here as llama.cpp's converter does from the tiny
//! checkpoints of `tests/data/golden-modern`, against those checkpoints; and such files, broken.

#[path = "common/modern.rs"]
mod modern;

use std::fs;
use std::path::PathBuf;

use cerebellum::format::network::{Role, TensorId};
use cerebellum::format::{Architecture, Config, LayerKind, Positions};
use cerebellum_tools::checkpoint::Checkpoint;
use modern::{CASES, case};
use tempfile::{TempDir, tempdir};

/// A file to be.
struct File {
    entries: Vec<(String, Vec<u8>)>,
    /// Name, shape with the longest stride first, values.
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn typed(kind: u32, value: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), value].concat()
}

fn count(value: usize) -> Vec<u8> {
    typed(4, &(value as u32).to_le_bytes())
}

fn float(value: f32) -> Vec<u8> {
    typed(6, &value.to_le_bytes())
}

fn flag(value: bool) -> Vec<u8> {
    typed(7, &[u8::from(value)])
}

fn string(value: &str) -> Vec<u8> {
    typed(8, &text(value))
}

impl File {
    fn set(&mut self, key: &str, value: Vec<u8>) {
        self.entries.retain(|(known, _)| known != key);
        self.entries.push((key.to_owned(), value));
    }

    fn add(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.tensors.push((name.to_owned(), shape.to_vec(), values));
    }

    fn write(&self) -> (TempDir, PathBuf) {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            bytes.extend([text(key), value.clone()].concat());
        }
        let mut data = Vec::new();
        for (name, shape, values) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((shape.len() as u32).to_le_bytes());
            bytes.extend(shape.iter().rev().flat_map(|extent| (*extent as u64).to_le_bytes()));
            bytes.extend(0u32.to_le_bytes());
            data.resize(data.len().next_multiple_of(32), 0);
            bytes.extend((data.len() as u64).to_le_bytes());
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        bytes.extend(data);
        let directory = tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        (directory, path)
    }

    fn open(&self) -> Result<Checkpoint, String> {
        let (_directory, path) = self.write();
        Checkpoint::open(&path).map_err(|error| error.to_string())
    }
}

/// The converter's `permute`: rows `[heads, 2, half]` become `[heads, half, 2]`.
fn permute(values: &[f32], heads: usize, half: usize, columns: usize) -> Vec<f32> {
    let mut out = Vec::new();
    for head in 0..heads {
        for i in 0..half {
            for part in 0..2 {
                let row = (head * 2 + part) * half + i;
                out.extend(&values[row * columns..(row + 1) * columns]);
            }
        }
    }
    out
}

/// What the converter makes of a checkpoint.
fn convert(source: &Checkpoint) -> File {
    let config = source.config();
    let (architecture, is_permuted) = match config.architecture {
        Architecture::Llama | Architecture::Mistral => ("llama", true),
        Architecture::Qwen2 => ("qwen2", false),
        Architecture::Qwen3 => ("qwen3", false),
        Architecture::Gemma3 => ("gemma3", false),
        Architecture::SmolLm3 => ("smollm3", true),
        Architecture::Granite => ("granite", true),
        Architecture::Olmo2 => ("olmo2", false),
        Architecture::Phi3 => ("phi3", false),
        Architecture::GptNeox => ("gptneox", false),
        other => panic!("{other:?}"),
    };
    let mut file = File { entries: Vec::new(), tensors: Vec::new() };
    metadata(&mut file, config, architecture);
    let bos = source.bos_token_id().unwrap() as usize;
    file.set("tokenizer.ggml.bos_token_id", count(bos));
    file.set("tokenizer.ggml.eos_token_id", count(config.eos_token_id.unwrap() as usize));

    let attention = &config.attention;
    let (heads, kv_heads, half) = (attention.heads, attention.kv_heads, attention.head_size / 2);
    let (q, k) = (attention.query_width(), attention.kv_width());
    for name in source.tensor_names() {
        let id = TensorId::parse(name).unwrap();
        let tensor = source.tensor(name).unwrap();
        let values = source.read_matrix(name).unwrap();
        let part = if name.ends_with("bias") { "bias" } else { "weight" };
        let layer = id.layer.map(|layer| format!("blk.{layer}.")).unwrap_or_default();
        let is_vector = tensor.rows() == 1;
        let columns = if is_vector { 1 } else { tensor.columns() };
        let mut add = |name: &str, values: Vec<f32>| {
            let rows = values.len() / columns;
            let shape = if is_vector { vec![rows] } else { vec![rows, columns] };
            file.add(&format!("{layer}{name}.{part}"), &shape, values);
        };
        let stored = match id.role {
            Role::AttentionIn if matches!(architecture, "phi3" | "gptneox") => "attn_qkv",
            Role::AttentionIn => {
                let (query, rest) = values.split_at(q * columns);
                let (key, value) = rest.split_at(k * columns);
                let order = |values: &[f32], heads| match is_permuted {
                    true => permute(values, heads, half, columns),
                    false => values.to_vec(),
                };
                add("attn_q", order(query, heads));
                add("attn_k", order(key, kv_heads));
                add("attn_v", value.to_vec());
                continue;
            }
            Role::MlpUp if architecture == "phi3" => {
                let gate = TensorId { role: Role::MlpGate, ..id }.name();
                add("ffn_up", [source.read_matrix(&gate).unwrap(), values].concat());
                continue;
            }
            Role::MlpGate if architecture == "phi3" => continue,
            Role::Embedding => "token_embd",
            Role::AttentionNorm => "attn_norm",
            Role::QueryNorm => "attn_q_norm",
            Role::KeyNorm => "attn_k_norm",
            Role::AttentionOut => "attn_output",
            Role::AttentionOutNorm => "post_attention_norm",
            Role::MlpNorm => "ffn_norm",
            Role::MlpUp => "ffn_up",
            Role::MlpGate => "ffn_gate",
            Role::MlpDown => "ffn_down",
            Role::MlpOutNorm => "post_ffw_norm",
            Role::FinalNorm => "output_norm",
            Role::Head => "output",
            other => panic!("{other:?}"),
        };
        add(stored, values);
    }
    file
}

fn metadata(file: &mut File, config: &Config, architecture: &str) {
    let attention = &config.attention;
    file.set("general.architecture", string(architecture));
    let Positions::Rope { pairs, .. } = config.positions else { panic!() };
    let mut set = |key: &str, value| file.set(&format!("{architecture}.{key}"), value);
    for (key, value) in [
        ("context_length", config.n_positions),
        ("embedding_length", config.n_embd),
        ("feed_forward_length", config.mlp.inner),
        ("block_count", config.n_layer),
        ("attention.head_count", attention.heads),
        ("attention.head_count_kv", attention.kv_heads),
        ("attention.key_length", attention.head_size),
        ("attention.value_length", attention.head_size),
        ("vocab_size", config.vocab_size),
        ("rope.dimension_count", 2 * pairs),
    ] {
        set(key, count(value));
    }
    match architecture {
        "gptneox" => {
            set("attention.layer_norm_epsilon", float(config.norm.epsilon));
            set("use_parallel_residual", flag(true));
        }
        _ => set("attention.layer_norm_rms_epsilon", float(config.norm.epsilon)),
    }
    let window = attention.kinds[0].window;
    if let Some(window) = window.or((architecture == "phi3").then_some(0)) {
        set("attention.sliding_window", count(window));
    }
    if architecture == "granite" {
        set("attention.scale", float(attention.scale));
        set("embedding_scale", float(config.embeddings_scale));
        set("residual_scale", float(config.residual.scale));
        set("logit_scale", float(1.0 / config.logits_scale));
    }
    // Numbers that the cases' `config.json` have.
    match config.architecture {
        Architecture::Llama if config.n_layer == 3 => set("rope.freq_base", float(5e5)),
        Architecture::Qwen2 => {
            set("rope.freq_base", float(1e4));
            set("rope.scaling.type", string("yarn"));
            set("rope.scaling.factor", float(4.0));
            set("rope.scaling.original_context_length", count(32));
        }
        Architecture::Qwen3 | Architecture::Gemma3 => set("rope.freq_base", float(1e6)),
        Architecture::SmolLm3 => set("rope.freq_base", float(2e6)),
        _ => set("rope.freq_base", float(1e4)),
    }
}

#[test]
fn converted_files_are_read_as_what_they_were_converted_from() {
    for name in CASES {
        let source = Checkpoint::open(&case(name)).unwrap();
        let mut file = convert(&source);
        let plain = |i: usize| 1.0 / 5e5f64.powf(i as f64 / 8.0);
        if name == "llama3-scaled-rope" {
            let frequencies = source.derived().frequencies.iter().enumerate();
            let divisors = frequencies.map(|(i, scaled)| (plain(i) / scaled) as f32).collect();
            file.add("rope_freqs.weight", &[8], divisors);
        }
        if name == "gemma3-text" {
            // Not a number of the published models: llama.cpp scales by the size of a head.
            file.set("gemma3.attention.key_length", count(32));
        }
        let (_directory, path) = file.write();
        let read = Checkpoint::open(&path).unwrap();
        assert!(read.extra_tensors().is_empty(), "{name}");
        let mut expected = source.config().clone();
        if name == "gemma3-text" {
            expected.attention.scale = 1.0 / 32f32.sqrt();
        }
        assert_eq!(*read.config(), expected, "{name}");
        assert_eq!(read.bos_token_id(), source.bos_token_id(), "{name}");
        assert!(read.tensor_names().eq(source.tensor_names()), "{name}");
        for tensor in source.tensor_names() {
            let (before, after) = (source.read_matrix(tensor), read.read_matrix(tensor));
            assert!(before.unwrap() == after.unwrap(), "{name}: {tensor}");
            let (before, after) = (source.tensor(tensor).unwrap(), read.tensor(tensor).unwrap());
            let middle = before.rows() / 2..before.rows();
            assert!(
                before.read_rows(middle.clone()).unwrap() == after.read_rows(middle).unwrap(),
                "{name}: {tensor}"
            );
        }
        let (before, after) = (&source.derived().frequencies, &read.derived().frequencies);
        assert_eq!(before.len(), after.len(), "{name}");
        // Divisors are of 24 bits.
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-7 * b.abs();
        assert!(before.iter().zip(after).all(near), "{name}");
    }
}

#[test]
fn what_no_key_says_is_llama_cpps_convention() {
    let file = |name: &str, without: &[&str]| {
        let mut file = convert(&Checkpoint::open(&case(name)).unwrap());
        file.entries.retain(|(key, _)| !without.iter().any(|rest| key.ends_with(rest)));
        file
    };
    let all = ["key_length", "value_length", "head_count_kv", "freq_base", "dimension_count"];
    let phi3 = file("phi3-fused", &["key_length", "value_length", "freq_base"]).open().unwrap();
    assert_eq!(phi3.config(), Checkpoint::open(&case("phi3-fused")).unwrap().config());
    let olmo2 = file("olmo2-post-norm", &all).open().unwrap();
    assert_eq!(olmo2.config(), Checkpoint::open(&case("olmo2-post-norm")).unwrap().config());
    // Gemma 3's pattern may be another; the window's base may be given.
    let mut gemma = file("gemma3-text", &[]);
    gemma.set("gemma3.attention.sliding_window_pattern", count(2));
    gemma.set("gemma3.rope.freq_base_swa", float(5e4));
    let gemma = gemma.open().unwrap();
    let kinds = &gemma.config().attention;
    assert_eq!(kinds.layers, [0, 1, 0, 1, 0, 1, 0]);
    assert_eq!(kinds.kinds[1], LayerKind { window: None, base: Some(1) });
    assert_eq!(gemma.derived().frequencies[1], 1.0 / libm::pow(5e4, 1.0 / 16.0));
    // A linear scaling is one where its kind is not given.
    let mut llama = file("llama-biases", &[]);
    llama.set("llama.rope.scaling.factor", float(2.0));
    let frequencies = llama.open().unwrap().derived().frequencies.clone();
    assert_eq!(frequencies[0], 0.5);
}

#[test]
fn what_would_change_the_computation_is_refused() {
    type Change = fn(&mut File);
    let cases: [(&str, Change, &[&str]); 22] = [
        ("llama-biases", |f| f.set("llama.expert_count", count(8)), &["`llama.expert_count` is 8"]),
        (
            "llama-biases",
            |f| f.set("llama.rope.scaling.type", string("longrope")),
            &["`llama.rope.scaling.type` is \"longrope\"", "supported: default, linear"],
        ),
        (
            "phi3-fused",
            |f| f.add("rope_factors_long.weight", &[2], vec![1.0; 2]),
            &["`rope_factors_long.weight` is for longrope"],
        ),
        (
            "llama-biases",
            |f| f.set("llama.rope.freq_base", float(f32::NAN)),
            &["`llama.rope.freq_base` is NaN"],
        ),
        (
            "llama-biases",
            |f| f.set("llama.rope.freq_base", float(0.0)),
            &["`llama.rope.freq_base` is 0"],
        ),
        (
            "llama-biases",
            |f| f.set("llama.attention.head_count_kv", count(3)),
            &["`llama.attention.head_count_kv` is 3, but must divide"],
        ),
        (
            "llama-biases",
            |f| f.set("llama.attention.value_length", count(24)),
            &["`llama.attention.value_length` is 24"],
        ),
        (
            "llama-biases",
            |f| f.set("llama.attention.causal", flag(false)),
            &["`llama.attention.causal` is false"],
        ),
        (
            "llama-biases",
            |f| f.set("llama.rope.dimension_count", count(10)),
            &["`llama.rope.dimension_count` makes 10"],
        ),
        (
            "llama-biases",
            |f| f.add("rope_freqs.weight", &[3], vec![1.0; 3]),
            &["`rope_freqs.weight` has shape [3]", "10 numbers"],
        ),
        (
            "llama-biases",
            |f| f.add("rope_freqs.weight", &[10], vec![0.0; 10]),
            &["`rope_freqs.weight` makes an inverse frequency inf"],
        ),
        (
            "llama-biases",
            |f| f.add("rope_freqs.weight", &[10], vec![f32::NAN; 10]),
            &["`rope_freqs.weight` makes an inverse frequency NaN"],
        ),
        (
            "llama-biases",
            |f| f.set("llama.attention.head_count", count(2)),
            &["blk.0.attn_q.weight has shape [80, 64]", "[40, 64]"],
        ),
        (
            "llama-biases",
            |f| f.tensors.retain(|(name, ..)| name != "blk.1.attn_k.bias"),
            &["tensor blk.1.attn_k.bias is missing", "`block_count`"],
        ),
        (
            "qwen3-qk-norm",
            |f| f.add("blk.0.attn_sinks.weight", &[6], vec![0.0; 6]),
            &["blk.0.attn_sinks.weight would change what its layer computes"],
        ),
        (
            "qwen3-qk-norm",
            |f| f.add("blk.3.attn_norm.weight", &[64], vec![0.0; 64]),
            &["blk.3.attn_norm.weight belongs to a layer beyond `block_count` = 3"],
        ),
        (
            "qwen2-yarn",
            |f| f.set("qwen2.attention.sliding_window", count(8)),
            &["`qwen2.attention.sliding_window` is 8"],
        ),
        (
            "qwen2-yarn",
            |f| f.set("qwen2.rope.scaling.yarn_log_multiplier", float(0.1)),
            &["`qwen2.rope.scaling.yarn_log_multiplier` is 0.1"],
        ),
        (
            "gemma3-text",
            |f| f.entries.retain(|(key, _)| !key.ends_with("sliding_window")),
            &["`gemma3.attention.sliding_window` is missing"],
        ),
        (
            "gemma3-text",
            |f| f.set("gemma3.attention.sliding_window", count(0)),
            &["`gemma3.attention.sliding_window` is 0"],
        ),
        (
            "granite-multipliers",
            |f| f.entries.retain(|(key, _)| key != "granite.attention.scale"),
            &["`granite.attention.scale` is missing"],
        ),
        (
            "granite-multipliers",
            |f| f.set("granite.logit_scale", float(-8.0)),
            &["`granite.logit_scale` is -8"],
        ),
    ];
    for (name, change, parts) in cases {
        let mut file = convert(&Checkpoint::open(&case(name)).unwrap());
        change(&mut file);
        let Err(error) = file.open() else { panic!("{name} is read: {parts:?}") };
        for part in [&["model.gguf"], parts].concat() {
            assert!(error.contains(part), "{name}: no {part:?} in: {error}");
        }
    }
}

#[test]
fn no_flipped_bit_does_harm() {
    for name in ["llama-biases", "phi3-fused", "gpt-neox-parallel", "gemma3-text"] {
        let file = convert(&Checkpoint::open(&case(name)).unwrap());
        let (_directory, path) = file.write();
        let bytes = fs::read(&path).unwrap();
        let data: usize = file.tensors.iter().map(|(.., values)| 4 * values.len()).sum();
        let tables = bytes.len() - data - 32 * file.tensors.len();
        // A step coprime to 8 visits every bit position.
        for bit in (0..8 * tables).step_by(101) {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &flipped).unwrap();
            if let Ok(checkpoint) = Checkpoint::open(&path) {
                checkpoint.tensor_names().for_each(|name| drop(checkpoint.read_matrix(name)));
            }
        }
    }
}
