//! Checkpoints of the families that people run: tiny ones with random weights (`tests/data/golden-modern`, which
//! transformers 5.24 made), read tensor by tensor.
//!
//! Of four cases only the configuration is kept, as others of the same family have the weights.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cerebellum::format::network::{self, Role, TensorId};
use cerebellum::format::{
    Activation, Architecture, Biases, Config, LayerKind, MlpKind, NormKind, NormPlace, Positions,
    QueryKeyNorm, ResidualOrder,
};
use cerebellum_tools::checkpoint::{Checkpoint, Parsed};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype as FileDtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

const CASES: [&str; 15] = [
    "gemma3-text",
    "gemma3-text-old-config",
    "gpt-neox-parallel",
    "granite-multipliers",
    "llama-biases",
    "llama-gqa-tied",
    "llama-mha-untied-sharded",
    "llama3-scaled-rope",
    "mistral-window",
    "olmo2-post-norm",
    "phi3-fused",
    "qwen2-bias",
    "qwen2-yarn",
    "qwen3-qk-norm",
    "smollm3-nope",
];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/golden-modern")
}

fn config_json(case: &str) -> Value {
    let bytes = fs::read(data().join(case).join("config.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn parse(json: &Value) -> Result<Parsed, String> {
    let parsed = Parsed::parse(json.to_string().as_bytes(), Path::new("config.json"));
    parsed.map_err(|error| error.to_string())
}

fn config(case: &str) -> Config {
    parse(&config_json(case)).unwrap().config
}

/// The cases whose weights are kept.
fn with_weights() -> impl Iterator<Item = &'static str> {
    CASES.into_iter().filter(|case| data().join(case).join("model.safetensors").exists())
}

/// Shape and values in float32.
type Stored = (Vec<usize>, Vec<f32>);

fn stored(directory: &Path) -> BTreeMap<String, Stored> {
    let bytes = fs::read(directory.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |tensor: &TensorView| -> Vec<f32> {
        let halves = || tensor.data().as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        match tensor.dtype() {
            FileDtype::F32 => {
                tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
            }
            FileDtype::F16 => halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
            _ => halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        }
    };
    let tensors = file.iter();
    tensors.map(|(name, t)| (name.to_owned(), (t.shape().to_vec(), values(&t)))).collect()
}

/// Inverse frequencies and factors, computed by Python from transformers' formulas.
#[derive(Deserialize)]
struct Rotation {
    factors: Vec<f64>,
    frequencies: Vec<Vec<f64>>,
}

#[test]
fn frequencies_are_those_of_transformers_formulas() {
    let file = fs::read(data().join("frequencies.json")).unwrap();
    let expected: BTreeMap<String, Rotation> = serde_json::from_slice(&file).unwrap();
    assert!(expected.keys().eq(&CASES));
    for (case, rotation) in expected {
        let parsed = parse(&config_json(&case)).unwrap();
        let Positions::Rope { pairs, factors } = parsed.config.positions else { panic!("{case}") };
        assert!(rotation.frequencies.iter().all(|base| base.len() == pairs), "{case}");
        assert_eq!(factors.len(), rotation.frequencies.len(), "{case}");
        let expected = rotation.frequencies.concat();
        assert_eq!(parsed.derived.frequencies.len(), expected.len(), "{case}");
        let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-14 * b.abs();
        assert!(parsed.derived.frequencies.iter().zip(&expected).all(near), "{case}");
        assert!(factors.iter().zip(&rotation.factors).all(near), "{case}");
    }
}

#[test]
fn each_family_is_what_it_is() {
    let config = |case| self::config(case);
    let one_kind = |config: &Config| {
        assert!(config.attention.layers.is_empty());
        config.attention.kinds[0]
    };
    let rotated = LayerKind { window: None, base: Some(0) };

    let llama = config("llama-gqa-tied");
    assert_eq!((llama.architecture, llama.vocab_size), (Architecture::Llama, 320));
    assert_eq!((llama.n_positions, llama.n_embd, llama.n_layer), (128, 72, 4));
    let attention = &llama.attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_size), (9, 3, 8));
    assert_eq!((attention.biases, attention.query_key_norm), (Biases::None, QueryKeyNorm::None));
    assert_eq!(attention.scale, 1.0 / 8f32.sqrt());
    assert_eq!((llama.mlp.kind, llama.mlp.inner), (MlpKind::Gated, 196));
    assert_eq!((llama.mlp.activation, llama.mlp.biases), (Activation::Silu, false));
    assert_eq!((llama.norm.kind, llama.norm.place), (NormKind::Rms, NormPlace::Before));
    assert_eq!(llama.norm.epsilon, 1e-5);
    assert_eq!((llama.residual.order, llama.residual.scale), (ResidualOrder::Sequential, 1.0));
    assert_eq!((llama.embeddings_scale, llama.logits_scale), (1.0, 1.0));
    assert_eq!((one_kind(&llama), llama.eos_token_id), (rotated, Some(2)));

    let biases = config("llama-biases");
    assert_eq!((biases.attention.biases, biases.mlp.biases), (Biases::Both, true));
    assert_eq!((biases.attention.kv_heads, biases.attention.head_size), (1, 20));
    assert_eq!(config("llama-mha-untied-sharded").attention.kv_heads, 4);

    let mistral = config("mistral-window");
    assert_eq!(one_kind(&mistral), LayerKind { window: Some(16), base: Some(0) });

    let qwen2 = config("qwen2-bias");
    assert_eq!((qwen2.attention.biases, one_kind(&qwen2)), (Biases::Input, rotated));

    let qwen3 = config("qwen3-qk-norm");
    assert_eq!(qwen3.attention.query_key_norm, QueryKeyNorm::Head);
    assert_eq!((qwen3.attention.biases, qwen3.attention.head_size), (Biases::None, 32));

    let smollm3 = config("smollm3-nope");
    assert_eq!(smollm3.attention.kinds, [rotated, LayerKind { window: None, base: None }]);
    assert_eq!(smollm3.attention.layers, [0, 0, 0, 1, 0]);

    let granite = config("granite-multipliers");
    assert_eq!((granite.embeddings_scale, granite.logits_scale), (12.0, 0.125));
    assert_eq!((granite.residual.scale, granite.attention.scale), (0.22, 0.015625));

    let olmo2 = config("olmo2-post-norm");
    assert_eq!(olmo2.norm.place, NormPlace::After);
    assert_eq!(olmo2.attention.query_key_norm, QueryKeyNorm::Width);

    let phi3 = config("phi3-fused");
    assert_eq!((phi3.architecture, one_kind(&phi3)), (Architecture::Phi3, rotated));

    let neox = config("gpt-neox-parallel");
    assert_eq!((neox.norm.kind, neox.mlp.kind), (NormKind::Layer, MlpKind::Plain));
    assert_eq!(neox.residual.order, ResidualOrder::Parallel);
    assert_eq!((neox.mlp.activation, neox.mlp.biases), (Activation::Gelu, true));
    assert_eq!(neox.attention.biases, Biases::Both);
    assert!(matches!(neox.positions, Positions::Rope { pairs: 2, .. }));
    let mut sequential = config_json("gpt-neox-parallel");
    sequential["use_parallel_residual"] = json!(false);
    let sequential = parse(&sequential).unwrap().config;
    assert_eq!(sequential.residual.order, ResidualOrder::Sequential);

    for case in ["gemma3-text", "gemma3-text-old-config"] {
        let gemma = config(case);
        assert_eq!(gemma.norm.place, NormPlace::Both);
        assert_eq!(gemma.attention.query_key_norm, QueryKeyNorm::Head);
        assert_eq!(gemma.embeddings_scale, 72f32.sqrt());
        assert_eq!(gemma.attention.scale, (1.0 / 48f64.sqrt()) as f32);
        let windowed = LayerKind { window: Some(16), base: Some(0) };
        let full = LayerKind { window: None, base: Some(1) };
        assert_eq!(gemma.attention.kinds, [windowed, full]);
        assert_eq!(gemma.attention.layers, [0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(gemma.mlp.activation, Activation::GeluTanh);
    }
}

/// What published files have and the cases have not.
#[test]
fn variants_of_published_configurations_are_read() {
    let with = |case, changes: Value| {
        let mut json = config_json(case);
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        parse(&json).unwrap()
    };
    // A window as long as the context is none; a file that says nothing has the class's.
    let window = |parsed: Parsed| parsed.config.attention.kinds[0].window;
    assert_eq!(window(with("mistral-window", json!({"sliding_window": null}))), None);
    assert_eq!(window(with("mistral-window", json!({"sliding_window": 128}))), None);
    assert_eq!(window(with("phi3-fused", json!({"sliding_window": 20}))), Some(20));
    let mut silent = config_json("mistral-window");
    silent.as_object_mut().unwrap().remove("sliding_window");
    silent["max_position_embeddings"] = json!(8192);
    assert_eq!(window(parse(&silent).unwrap()), Some(4096));

    // Qwen2's windows are in the upper layers, and off unless they are switched on.
    let upper = json!({"sliding_window": 8, "use_sliding_window": true, "max_window_layers": 2,
        "layer_types": null});
    let qwen2 = with("qwen2-bias", upper).config.attention;
    let windows: Vec<_> = qwen2.kinds.iter().map(|kind| kind.window).collect();
    assert_eq!((windows, qwen2.layers), (vec![None, Some(8)], vec![0, 0, 1]));
    assert_eq!(window(with("qwen2-bias", json!({"sliding_window": 131072}))), None);

    // Of several ends of text the first counts.
    let ends = with("llama-gqa-tied", json!({"eos_token_id": [5, 9]}));
    assert_eq!(ends.config.eos_token_id, Some(5));
    let neox = json!({"rope_parameters": null, "rotary_pct": 0.5, "rotary_emb_base": 10000,
        "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0});
    assert!(matches!(
        with("gpt-neox-parallel", neox).config.positions,
        Positions::Rope { pairs: 4, .. }
    ));
    // Files of transformers 4.45 have both names of both.
    let both = json!({"rope_parameters": null, "rotary_pct": 0.25, "partial_rotary_factor": 0.25,
        "rope_theta": 10000, "rotary_emb_base": 10000, "rope_scaling": null,
        "custom_pipeline": {"text-generation": {"impl": "h2oai_pipeline.Pipeline"}}});
    let both = with("gpt-neox-parallel", both);
    assert_eq!(both.config, config("gpt-neox-parallel"));
    let smollm3 = with("smollm3-nope", json!({"no_rope_layers": null, "layer_types": null}));
    assert_eq!(smollm3.config, config("smollm3-nope"));
    let scaled = json!({"rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let gemma = with("gemma3-text-old-config", scaled).derived.frequencies;
    let plain = parse(&config_json("gemma3-text-old-config")).unwrap().derived.frequencies;
    let (local, global) = (&plain[..9], plain[9..].iter().map(|f| f / 8.0));
    assert!(gemma.iter().copied().eq(local.iter().copied().chain(global)));
}

#[test]
fn what_would_change_the_computation_is_refused() {
    for (case, changes, parts) in [
        (
            "llama-gqa-tied",
            json!({"num_key_value_heads": 2}),
            "`num_key_value_heads` is 2, but must divide",
        ),
        ("llama-gqa-tied", json!({"hidden_act": "mish"}), "`hidden_act` is \"mish\""),
        ("llama-gqa-tied", json!({"hidden_size": 0}), "`hidden_size` is 0"),
        ("llama-gqa-tied", json!({"num_hidden_layers": null}), "`num_hidden_layers` is missing"),
        ("llama-gqa-tied", json!({"rms_norm_eps": 0}), "`rms_norm_eps` is 0"),
        ("llama-gqa-tied", json!({"eos_token_id": [320]}), "`eos_token_id` is [320]"),
        ("llama-gqa-tied", json!({"head_dim": 7}), "`partial_rotary_factor` makes 7 dimensions"),
        (
            "llama-gqa-tied",
            json!({"max_position_embeddings": 1 << 21}),
            "`max_position_embeddings` is 2097152",
        ),
        ("llama-gqa-tied", json!({"quantization_config": {"bits": 4}}), "`quantization_config` is"),
        ("llama-gqa-tied", json!({"logit_softcap": 30.0}), "`logit_softcap` is 30.0, which this"),
        ("llama-gqa-tied", json!({"rope_interleaved": true}), "`rope_interleaved` is true"),
        ("llama-gqa-tied", json!({"rope_theta": 0}), "`rope_theta` is 0"),
        (
            "llama-gqa-tied",
            json!({"rope_scaling": {"type": "dynamic", "factor": 2}}),
            "\"dynamic\"",
        ),
        (
            "llama-gqa-tied",
            json!({"rope_scaling": 3}),
            "`rope_scaling` is 3, but must be an object",
        ),
        ("mistral-window", json!({"sliding_window": 0}), "`sliding_window` is 0"),
        ("mistral-window", json!({"attention_bias": true}), "`attention_bias` is true"),
        ("mistral-window", json!({"layer_types": ["full_attention"]}), "`layer_types` lists 1"),
        ("phi3-fused", json!({"partial_rotary_factor": 0.2}), "`partial_rotary_factor`"),
        (
            "phi3-fused",
            json!({"rope_scaling": {"type": "longrope", "long_factor": [1], "short_factor": [1]}}),
            "`rope_scaling.type` is \"longrope\"",
        ),
        (
            "qwen2-bias",
            json!({"layer_types": ["full_attention", "chunked_attention", "full_attention"]}),
            "\"chunked_attention\"",
        ),
        ("smollm3-nope", json!({"no_rope_layers": [1, 1, 2, 0, 1]}), "`no_rope_layers`"),
        ("granite-multipliers", json!({"logits_scaling": 0}), "`logits_scaling` is 0"),
        ("granite-multipliers", json!({"residual_multiplier": -1}), "`residual_multiplier` is -1"),
        ("olmo2-post-norm", json!({"clip_qkv": 8.0}), "`clip_qkv` is 8.0"),
        ("gemma3-text", json!({"final_logit_softcapping": 30.0}), "`final_logit_softcapping`"),
        ("gemma3-text", json!({"use_bidirectional_attention": true}), "`use_bidirectional"),
        ("gemma3-text", json!({"query_pre_attn_scalar": 0}), "`query_pre_attn_scalar` is 0"),
        (
            "gpt-neox-parallel",
            json!({"rope_parameters": null, "rotary_pct": 2}),
            "`rotary_pct` is 2",
        ),
        ("gpt-neox-parallel", json!({"num_key_value_heads": 2}), "`num_key_value_heads`"),
        (
            "gpt-neox-parallel",
            json!({"rope_parameters": null, "rope_theta": 5000, "rotary_emb_base": 10000}),
            "`rotary_emb_base` is 10000, but `rope_theta` is 5000",
        ),
    ] {
        let mut json = config_json(case);
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        let Err(error) = parse(&json) else { panic!("{case} with {changes} is read") };
        let told = error.starts_with("config.json: ") && error.contains(parts);
        assert!(told, "{case} with {changes}: {error}");
    }
}

/// Rows of one tensor, put together by the definition from the stored ones.
fn expected(config: &Config, id: TensorId, get: &dyn Fn(&str) -> Stored) -> Vec<f32> {
    let whole = |names: &[&str]| names.iter().flat_map(|name| get(name).1).collect::<Vec<_>>();
    let attention = &config.attention;
    match (config.architecture, id.role) {
        (Architecture::GptNeox, Role::AttentionIn) => {
            let (shape, values) = get("attention.query_key_value");
            let columns = shape.get(1).copied().unwrap_or(1);
            let size = attention.head_size * columns;
            // Three parts, of each part all heads.
            let blocks = (0..3).flat_map(|p| (0..attention.heads).map(move |h| 3 * h + p));
            blocks.flat_map(|block| values[block * size..(block + 1) * size].to_vec()).collect()
        }
        (Architecture::Phi3, Role::AttentionIn) => whole(&["self_attn.qkv_proj"]),
        (Architecture::Phi3, Role::MlpGate | Role::MlpUp) => {
            let mut values = whole(&["mlp.gate_up_proj"]);
            let second = values.split_off(values.len() / 2);
            if id.role == Role::MlpGate { values } else { second }
        }
        (_, Role::AttentionIn) => {
            whole(&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"])
        }
        (Architecture::GptNeox, Role::AttentionOut) => whole(&["attention.dense"]),
        (Architecture::GptNeox, Role::MlpUp) => whole(&["mlp.dense_h_to_4h"]),
        (Architecture::GptNeox, Role::MlpDown) => whole(&["mlp.dense_4h_to_h"]),
        (_, Role::AttentionOut) => whole(&["self_attn.o_proj"]),
        (_, Role::MlpUp) => whole(&["mlp.up_proj"]),
        (_, Role::MlpGate) => whole(&["mlp.gate_proj"]),
        (_, Role::MlpDown) => whole(&["mlp.down_proj"]),
        (_, Role::QueryNorm) => whole(&["self_attn.q_norm"]),
        (_, Role::KeyNorm) => whole(&["self_attn.k_norm"]),
        (_, Role::AttentionNorm) => whole(&["input_layernorm"]),
        (_, Role::AttentionOutNorm) => whole(&["post_attention_layernorm"]),
        (_, Role::MlpOutNorm) => whole(&["post_feedforward_layernorm"]),
        (Architecture::Gemma3, Role::MlpNorm) => whole(&["pre_feedforward_layernorm"]),
        (_, Role::MlpNorm) => whole(&["post_attention_layernorm"]),
        (Architecture::GptNeox, Role::Embedding) => whole(&["embed_in"]),
        (Architecture::GptNeox, Role::FinalNorm) => whole(&["final_layer_norm"]),
        (_, Role::Embedding) => whole(&["embed_tokens"]),
        (_, Role::FinalNorm) => whole(&["norm"]),
        (_, Role::Head) => whole(&["lm_head"]),
        (_, other) => panic!("{other:?}"),
    }
}

fn is_norm(name: &str) -> bool {
    name.contains("ln_") || name.contains("_norm")
}

#[test]
fn every_tensor_is_the_rows_of_the_stored_ones() {
    let mut read = 0;
    for case in with_weights() {
        let checkpoint = Checkpoint::open(&data().join(case)).unwrap();
        let file = stored(&data().join(case));
        assert!(checkpoint.extra_tensors().is_empty() && checkpoint.notes().is_empty(), "{case}");
        let config = checkpoint.config();
        for name in checkpoint.tensor_names() {
            let id = TensorId::parse(name).unwrap();
            let get = |bare: &str| {
                let part = if name.ends_with("bias") { "bias" } else { "weight" };
                let layer = id.layer.map(|layer| format!("layers.{layer}.")).unwrap_or_default();
                let names = ["model.", "gpt_neox.", ""]
                    .map(|prefix| format!("{prefix}{layer}{bare}.{part}"));
                let found = names.iter().find_map(|name| file.get(name));
                found.unwrap_or_else(|| panic!("{case}: {names:?}")).clone()
            };
            let mut expected = expected(config, id, &get);
            if config.architecture == Architecture::Gemma3 && is_norm(name) {
                expected.iter_mut().for_each(|weight| *weight += 1.0);
            }
            let tensor = checkpoint.tensor(name).unwrap();
            let (rows, columns) = (tensor.rows(), tensor.columns());
            assert_eq!(rows * columns, expected.len(), "{case}: {name}");
            assert!(tensor.read_rows(0..rows).unwrap() == expected, "{case}: {name}");
            assert!(tensor.read_f32().unwrap() == expected, "{case}: {name}");
            // Ranges over the pieces' borders.
            for (first, last) in (0..rows).step_by(7).map(|first| (first, rows.min(first + 33))) {
                let part = tensor.read_rows(first..last).unwrap();
                assert!(
                    part == expected[first * columns..last * columns],
                    "{case}: {name} {first}"
                );
            }
            read += 1;
        }
        let bytes: u64 = checkpoint
            .tensor_names()
            .map(|name| checkpoint.tensor(name).unwrap().stored_bytes())
            .sum();
        let size = fs::metadata(data().join(case).join("model.safetensors")).unwrap().len();
        assert!(bytes < size && bytes + 16_000 > size, "{case}: {bytes} of {size}");
    }
    assert!(read > 350, "{read}");
}

/// A multimodal Gemma 3: its text model's names have a prefix, its text model's configuration is within.
#[test]
fn the_text_model_of_a_multimodal_checkpoint_is_read() {
    let plain = Checkpoint::open(&data().join("gemma3-text")).unwrap();
    let bytes = fs::read(data().join("gemma3-text/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let zeros = [0; 8];
    let image = || TensorView::new(FileDtype::F32, vec![2], &zeros).unwrap();
    for (prefix, images) in [
        ("language_model.model.", ["vision_tower.a.weight", "multi_modal_projector.b"]),
        ("model.language_model.", ["model.vision_tower.a.weight", "model.multi_modal_projector.b"]),
    ] {
        let directory = TempDir::new().unwrap();
        let rename = |name: String| name.replace("model.", prefix);
        let tensors = file.tensors().into_iter().map(|(name, tensor)| (rename(name), tensor));
        let images = images.map(|name| (name.to_owned(), image()));
        let all = safetensors::serialize(tensors.chain(images), None).unwrap();
        fs::write(directory.path().join("model.safetensors"), all).unwrap();
        let mut text = config_json("gemma3-text");
        text.as_object_mut().unwrap().remove("eos_token_id");
        let outer = json!({"model_type": "gemma3", "text_config": text, "eos_token_id": [2, 106],
            "vision_config": {"hidden_size": 8}, "mm_tokens_per_image": 256,
            "boi_token_index": 255_999, "initializer_range": 0.02});
        fs::write(directory.path().join("config.json"), outer.to_string()).unwrap();
        let checkpoint = Checkpoint::open(directory.path()).unwrap();
        assert_eq!(checkpoint.config(), plain.config());
        assert!(checkpoint.extra_tensors().is_empty());
        let notes = checkpoint.notes().concat();
        assert!(
            notes.contains("only the language model") && notes.contains("2 tensors"),
            "{notes}"
        );
        for name in plain.tensor_names() {
            let (plain, read) = (plain.read_f32(name).unwrap(), checkpoint.read_f32(name).unwrap());
            assert!(plain == read, "{name}");
        }
    }
    // Google's 12B, whose file has only what differs from the class.
    let parsed = parse(&json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255_999,
        "eoi_token_index": 256_000, "eos_token_id": [1, 106], "image_token_index": 262_144,
        "initializer_range": 0.02, "mm_tokens_per_image": 256, "model_type": "gemma3",
        "text_config": {"hidden_size": 3840, "intermediate_size": 15_360,
            "model_type": "gemma3_text", "num_attention_heads": 16, "num_hidden_layers": 48,
            "num_key_value_heads": 8, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024},
        "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152},
    }));
    let parsed = parsed.unwrap();
    let attention = &parsed.config.attention;
    assert_eq!((attention.head_size, attention.kv_heads, attention.scale), (256, 8, 1.0 / 16.0));
    assert_eq!((parsed.config.vocab_size, parsed.tied), (262_208, Some(true)));
    assert_eq!((parsed.config.eos_token_id, parsed.config.n_positions), (Some(1), 131_072));
    assert_eq!(parsed.derived.frequencies[128], 0.125);
}

/// The case's checkpoint with changed tensors and configuration.
fn changed(
    case: &str,
    config: Value,
    without: &str,
    with: &[(&str, &[usize])],
) -> Result<Checkpoint, String> {
    let directory = TempDir::new().unwrap();
    let mut json = config_json(case);
    for (key, value) in config.as_object().unwrap() {
        json[key] = value.clone();
    }
    fs::write(directory.path().join("config.json"), json.to_string()).unwrap();
    let bytes = fs::read(data().join(case).join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let kept = file.tensors().into_iter().filter(|(name, _)| name != without);
    let zeros = vec![0; 1 << 16];
    let more = with.iter().map(|(name, shape)| {
        let bytes = &zeros[..4 * shape.iter().product::<usize>()];
        ((*name).to_owned(), TensorView::new(FileDtype::F32, shape.to_vec(), bytes).unwrap())
    });
    let all = safetensors::serialize(kept.chain(more), None).unwrap();
    fs::write(directory.path().join("model.safetensors"), all).unwrap();
    Checkpoint::open(directory.path()).map_err(|error| error.to_string())
}

#[test]
fn tensors_that_contradict_the_configuration_are_refused() {
    let layer = |rest: &str| format!("model.layers.1.{rest}");
    let (query, key) = (layer("self_attn.q_proj.weight"), layer("self_attn.k_proj.bias"));
    let (fused, up) = (layer("self_attn.qkv_proj.weight"), layer("mlp.gate_up_proj.weight"));
    let neox = "gpt_neox.layers.1.attention.query_key_value.bias";
    let none = json!({});
    for (case, config, without, with, parts) in [
        (
            "mistral-window",
            &none,
            &query[..],
            None,
            vec!["tensor layers.1.self_attn.q_proj.weight is missing", "`num_hidden_layers`"],
        ),
        (
            "mistral-window",
            &none,
            &query,
            Some((&query[..], vec![32, 64])),
            vec![&query, "shape [32, 64]", "asks for [64, 64]"],
        ),
        (
            "mistral-window",
            &none,
            "",
            Some((&key, vec![32])),
            vec![&key, "asks for no such tensor"],
        ),
        ("qwen2-yarn", &none, &key, None, vec!["layers.1.self_attn.k_proj.bias is missing"]),
        (
            "qwen2-yarn",
            &json!({"num_hidden_layers": 1, "layer_types": null}),
            "",
            None,
            vec!["beyond `num_hidden_layers` = 1"],
        ),
        (
            "phi3-fused",
            &none,
            &fused,
            Some((&fused, vec![64, 64])),
            vec![&fused, "asks for [128, 64]"],
        ),
        ("phi3-fused", &none, &up, Some((&up, vec![144, 64])), vec![&up, "asks for [288, 64]"]),
        ("gpt-neox-parallel", &none, neox, Some((neox, vec![96])), vec![neox, "asks for [192]"]),
        (
            "olmo2-post-norm",
            &json!({"num_key_value_heads": 2}),
            "",
            None,
            vec!["k_proj.weight has shape [64, 64]"],
        ),
        (
            "granite-multipliers",
            &json!({"tie_word_embeddings": false}),
            "",
            None,
            vec!["lm_head.weight is missing"],
        ),
    ] {
        let with: Vec<_> = with.iter().map(|(name, shape)| (*name, &shape[..])).collect();
        let Err(error) = changed(case, config.clone(), without, &with) else {
            panic!("{case} is read: {parts:?}")
        };
        for part in parts {
            assert!(error.contains(part), "{case}: no {part:?} in: {error}");
        }
    }
    // Buffers of older files do no harm, nor does a name that older files have.
    let buffers: [(&str, &[usize]); 3] = [
        ("gpt_neox.layers.0.attention.bias", &[1, 1, 4, 4]),
        ("gpt_neox.layers.0.attention.masked_bias", &[]),
        ("gpt_neox.layers.2.attention.rotary_emb.inv_freq", &[2]),
    ];
    let digest = |buffers| {
        let checkpoint = changed("gpt-neox-parallel", none.clone(), "", buffers).unwrap();
        assert!(checkpoint.extra_tensors().is_empty());
        checkpoint.digest()
    };
    assert_eq!(digest(&buffers), digest(&[]));
    let other = changed("gpt-neox-parallel", none.clone(), neox, &[(neox, &[192])]);
    assert_ne!(other.unwrap().digest(), digest(&[]));
    let head: [(&str, &[usize]); 1] = [("embed_out.weight", &[256, 64])];
    let older = changed("gpt-neox-parallel", json!({"vocab_size": 256}), "lm_head.weight", &head);
    assert!(older.unwrap().read_f32("lm_head.weight").unwrap().iter().all(|weight| *weight == 0.0));
}

/// `config.json` of published models, and how many millions of weights the models have.
#[test]
fn published_configurations_are_read() {
    let llama_3_1 = json!({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 128_000,
        "eos_token_id": [128_001, 128_008, 128_009], "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 14_336, "max_position_embeddings": 131_072,
        "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
        "rope_theta": 500_000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128_256});
    let smollm2 = json!({"architectures": ["LlamaForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
        "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 32, "num_hidden_layers": 24, "num_key_value_heads": 32,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null,
        "rope_theta": 130_000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers_version": "4.42.3", "transformers.js_config": {"dtype": "q4",
        "kv_cache_dtype": {"q4f16": "float16"}}, "use_cache": true, "vocab_size": 49_152,
        "is_llama_config": true, "rope_interleaved": false});
    let granite = json!({"architectures": ["GraniteForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "attention_multiplier": 0.0078125, "bos_token_id": 0,
        "embedding_multiplier": 12.0, "eos_token_id": 0, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 12_800,
        "logits_scaling": 16.0, "max_position_embeddings": 131_072, "mlp_bias": false,
        "model_type": "granite", "num_attention_heads": 32, "num_hidden_layers": 40,
        "num_key_value_heads": 8, "pad_token_id": 0, "residual_multiplier": 0.22,
        "rms_norm_eps": 1e-05, "rope_scaling": null, "rope_theta": 10_000_000.0,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
        "transformers_version": "4.49.0", "vocab_size": 49_159});
    let olmo2 = json!({"_name_or_path": "allenai/open_instruct_dev",
        "architectures": ["Olmo2ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "eos_token_id": 100_257, "hidden_act": "silu", "hidden_size": 4096,
        "initializer_range": 0.02, "intermediate_size": 11_008, "max_position_embeddings": 4096,
        "model_type": "olmo2", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "pad_token_id": 100_277, "rms_norm_eps": 1e-06,
        "rope_scaling": null, "rope_theta": 500_000, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.47.0.dev0", "use_cache": false,
        "vocab_size": 100_352});
    let qwen3 = json!({"architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
        "attention_dropout": 0.0, "bos_token_id": 151_643, "eos_token_id": 151_645,
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
        "intermediate_size": 3072, "max_position_embeddings": 40_960, "max_window_layers": 28,
        "model_type": "qwen3", "num_attention_heads": 16, "num_hidden_layers": 28,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": null,
        "rope_theta": 1_000_000, "sliding_window": null, "tie_word_embeddings": true,
        "torch_dtype": "bfloat16", "transformers_version": "4.51.0", "use_cache": true,
        "use_sliding_window": false, "vocab_size": 151_936});
    let phi3 = json!({"_name_or_path": "Phi-3-mini-4k-instruct",
        "architectures": ["Phi3ForCausalLM"], "attention_dropout": 0.0,
        "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 1,
        "embd_pdrop": 0.0, "eos_token_id": 32_000, "hidden_act": "silu", "hidden_size": 3072,
        "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096,
        "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 32, "original_max_position_embeddings": 4096,
        "pad_token_id": 32_000, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_scaling": null,
        "rope_theta": 10_000.0, "sliding_window": 2047, "tie_word_embeddings": false,
        "torch_dtype": "bfloat16", "transformers_version": "4.40.2", "use_cache": true,
        "attention_bias": false, "vocab_size": 32_064});
    let pythia = json!({"_name_or_path": "EleutherAI/pythia-6.9b-deduped",
        "architectures": ["GPTNeoXForCausalLM"], "attention_bias": true, "attention_dropout": 0.0,
        "bos_token_id": 0, "classifier_dropout": 0.1, "eos_token_id": 0, "hidden_act": "gelu",
        "hidden_dropout": 0.0, "hidden_size": 4096, "initializer_range": 0.02,
        "intermediate_size": 16_384, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048,
        "model_type": "gpt_neox", "num_attention_heads": 32, "num_hidden_layers": 32,
        "partial_rotary_factor": 0.25, "rope_scaling": null, "rope_theta": 10_000,
        "rotary_emb_base": 10_000, "rotary_pct": 0.25, "tie_word_embeddings": false,
        "torch_dtype": "float16", "transformers_version": "4.45.2", "use_cache": true,
        "use_parallel_residual": true, "vocab_size": 50_432});
    for (name, json, millions) in [
        ("Llama 3.1 8B", llama_3_1, 8030),
        ("SmolLM2 1.7B", smollm2, 1711),
        ("Granite 3.3 8B", granite, 8170),
        ("OLMo 2 7B", olmo2, 7298),
        ("Qwen3 0.6B", qwen3, 596),
        ("Phi-3 mini", phi3, 3821),
        ("Pythia 6.9B", pythia, 6857),
    ] {
        let parsed = parse(&json).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut config = parsed.config;
        config.tie_word_embeddings = parsed.tied.unwrap();
        let tensors = network::tensors(&config);
        let elements = |tensor: &network::Described| tensor.dimensions().iter().product::<usize>();
        let all: usize = tensors.iter().map(elements).sum();
        assert_eq!(all / 1_000_000, millions, "{name}");
    }
}

/// Whatever stands in a field, the file is read or refused.
#[test]
fn no_value_of_any_field_does_harm() {
    let values = [
        json!(0),
        json!(1),
        json!(-1),
        json!(7),
        json!(1 << 20),
        json!(u64::MAX),
        json!(0.5),
        json!(1e300),
        json!(true),
        json!("linear"),
        json!([]),
        json!([1]),
        json!({}),
        json!(null),
        json!({"rope_type": "yarn", "factor": 1e6}),
        json!({"rope_type": "yarn", "factor": 2, "beta_fast": 1e-6, "beta_slow": 1e6}),
        json!({"type": "llama3", "factor": 2, "low_freq_factor": 1, "high_freq_factor": 1e6,
            "original_max_position_embeddings": 1}),
    ];
    for case in CASES {
        let whole = config_json(case);
        let more = ["rope_parameters", "rope_scaling", "head_dim", "partial_rotary_factor"];
        let fields: Vec<&str> =
            whole.as_object().unwrap().keys().map(String::as_str).chain(more).collect();
        for (field, value) in fields.iter().flat_map(|f| values.iter().map(move |v| (f, v))) {
            let mut json = whole.clone();
            json[*field] = value.clone();
            if let Ok(parsed) = parse(&json) {
                let config = &parsed.config;
                config.validate().unwrap();
                assert!(parsed.derived.frequencies.iter().all(|f| *f > 0.0 && *f <= 1.0));
                let Positions::Rope { pairs, factors } = &config.positions else { panic!() };
                assert_eq!(parsed.derived.frequencies.len(), pairs * factors.len());
            }
        }
    }
}
