//! Configurations (`docs/format.md`, "Header") of small networks like those of published families, and of
//! one that is like none.

use serde_json::{Value, json};

/// A change of a configuration: a JSON pointer, and the value there.
type Change = (&'static str, Value);

/// Two layers of a Llama of width 48: heads of 16, two of them for one of keys and values.
pub fn llama() -> Value {
    json!({
        "architecture": "llama",
        "vocab_size": 61, "n_positions": 2048, "n_embd": 48, "n_layer": 2,
        "norm": { "kind": "rms", "place": "before", "epsilon": 1e-5 },
        "positions": { "rope": { "pairs": 8, "factors": [1.0] } },
        "attention": {
            "heads": 4, "kv_heads": 2, "head_size": 16, "scale": 0.25, "scale_by_layer": false,
            "query_key_norm": "none", "biases": "none",
            "kinds": [{ "window": null, "base": 0 }],
        },
        "mlp": { "kind": "gated", "inner": 80, "activation": "silu", "biases": false },
        "residual": { "order": "sequential", "scale": 1.0 },
        "embeddings_scale": 1.0, "logits_scale": 1.0,
        "tie_word_embeddings": false, "eos_token_id": 7,
    })
}

/// A Llama with these changes.
fn with(changes: &[Change]) -> Value {
    let mut config = llama();
    for (pointer, value) in changes {
        let place = config.pointer_mut(pointer);
        *place.unwrap_or_else(|| panic!("no {pointer}")) = value.clone();
    }
    config
}

/// `Changes` of `attention` that are not in a Llama's.
fn with_layers(mut config: Value, layers: &[u8]) -> Value {
    config["attention"]["layers"] = layers.into();
    config
}

/// Windows in all layers.
pub fn mistral(window: usize) -> Value {
    with(&[
        ("/architecture", json!("mistral")),
        ("/attention/kinds", json!([{ "window": window, "base": 0 }])),
        ("/attention/kv_heads", json!(1)),
    ])
}

/// Biases of queries, keys and values.
pub fn qwen2() -> Value {
    with(&[("/architecture", json!("qwen2")), ("/attention/biases", json!("input"))])
}

/// Norms of each head; heads wider than their share of the width.
pub fn qwen3() -> Value {
    with(&[
        ("/architecture", json!("qwen3")),
        ("/n_embd", json!(40)),
        ("/attention/head_size", json!(32)),
        ("/attention/scale", json!(0.17677669)),
        ("/attention/query_key_norm", json!("head")),
        ("/positions/rope/pairs", json!(16)),
        ("/tie_word_embeddings", json!(true)),
    ])
}

/// Four norms a layer, layers with and without a window, a base of rotation for each kind.
pub fn gemma3(window: usize) -> Value {
    let config = with(&[
        ("/architecture", json!("gemma3")),
        ("/n_layer", json!(3)),
        ("/norm/place", json!("both")),
        ("/norm/epsilon", json!(1e-6)),
        ("/positions/rope/factors", json!([1.0, 1.0])),
        ("/attention/kv_heads", json!(1)),
        ("/attention/scale", json!(0.17)),
        ("/attention/query_key_norm", json!("head")),
        (
            "/attention/kinds",
            json!([{ "window": window, "base": 0 }, { "window": null, "base": 1 }]),
        ),
        ("/mlp/activation", json!("gelu_tanh")),
        ("/embeddings_scale", json!(6.928_203)),
        ("/tie_word_embeddings", json!(true)),
    ]);
    with_layers(config, &[0, 1, 0])
}

/// Norms after attention and MLP only, norms of all queries and of all keys together.
pub fn olmo2() -> Value {
    with(&[
        ("/architecture", json!("olmo2")),
        ("/norm/place", json!("after")),
        ("/norm/epsilon", json!(1e-6)),
        ("/attention/query_key_norm", json!("width")),
        ("/attention/kv_heads", json!(4)),
    ])
}

/// Multipliers everywhere.
pub fn granite() -> Value {
    with(&[
        ("/architecture", json!("granite")),
        ("/attention/scale", json!(0.015625)),
        ("/residual/scale", json!(0.22)),
        ("/embeddings_scale", json!(12.0)),
        ("/logits_scale", json!(0.125)),
    ])
}

/// Layer norms, a quarter of each head rotated, attention and MLP side by side, no gate, biases.
pub fn gptneox() -> Value {
    with(&[
        ("/architecture", json!("gptneox")),
        ("/norm/kind", json!("layer")),
        ("/positions/rope/pairs", json!(2)),
        ("/attention/kv_heads", json!(4)),
        ("/attention/biases", json!("both")),
        ("/mlp/kind", json!("plain")),
        ("/mlp/activation", json!("gelu")),
        ("/mlp/biases", json!(true)),
        ("/residual/order", json!("parallel")),
    ])
}

/// Every second layer without rotation.
pub fn smollm3() -> Value {
    let kinds = json!([{ "window": null, "base": 0 }, { "window": null, "base": null }]);
    let config = with(&[("/architecture", json!("smollm3")), ("/attention/kinds", kinds)]);
    with_layers(config, &[0, 1])
}

/// Everything at once: heads of 17, three for one of keys and values; three pairs rotated by two bases with
/// factors; windows of several lengths; norms of queries and keys over their width; both norms of a
/// layer; attention and MLP side by side with a factor; scores divided by the layer's number; multipliers.
pub fn odd(window: usize) -> Value {
    let config = with(&[
        ("/vocab_size", json!(53)),
        ("/n_embd", json!(37)),
        ("/n_layer", json!(4)),
        ("/norm/place", json!("both")),
        ("/positions/rope", json!({ "pairs": 3, "factors": [1.182_726_9, 0.75] })),
        ("/attention/heads", json!(6)),
        ("/attention/head_size", json!(17)),
        ("/attention/scale", json!(0.31)),
        ("/attention/scale_by_layer", json!(true)),
        ("/attention/query_key_norm", json!("width")),
        ("/attention/biases", json!("input")),
        (
            "/attention/kinds",
            json!([
                { "window": null, "base": null },
                { "window": window, "base": 1 },
                { "window": 2 * window + 1, "base": 0 },
                { "window": 1, "base": 1 },
            ]),
        ),
        ("/mlp/inner", json!(51)),
        ("/mlp/activation", json!("relu")),
        ("/mlp/biases", json!(true)),
        ("/residual", json!({ "order": "parallel", "scale": 0.6 })),
        ("/embeddings_scale", json!(3.3)),
        ("/logits_scale", json!(0.4)),
        ("/tie_word_embeddings", json!(true)),
    ]);
    with_layers(config, &[1, 0, 2, 3])
}

/// The other half of the choices: layer norms after only, norms of each head, biases everywhere, no gate,
/// side by side, ALiBi that shrinks, windows.
pub fn odd_alibi(window: usize) -> Value {
    let kinds = json!([{ "window": window, "base": null }, { "window": null, "base": null }]);
    let config = with(&[
        ("/n_embd", json!(50)),
        ("/norm", json!({ "kind": "layer", "place": "after", "epsilon": 3e-5 })),
        ("/positions", json!({ "alibi": { "train_len": 301 } })),
        ("/attention/heads", json!(3)),
        ("/attention/kv_heads", json!(1)),
        ("/attention/head_size", json!(24)),
        ("/attention/scale_by_layer", json!(true)),
        ("/attention/query_key_norm", json!("head")),
        ("/attention/biases", json!("both")),
        ("/attention/kinds", kinds),
        ("/mlp", json!({ "kind": "plain", "inner": 33, "activation": "silu", "biases": true })),
        ("/residual", json!({ "order": "parallel", "scale": 1.7 })),
        ("/tie_word_embeddings", json!(true)),
    ]);
    with_layers(config, &[0, 1])
}

/// Learned positions with windows, a gate without biases, layer norms before, side by side.
pub fn odd_learned(window: usize) -> Value {
    with(&[
        ("/norm", json!({ "kind": "layer", "place": "before", "epsilon": 1e-5 })),
        ("/positions", json!("learned")),
        ("/attention/kv_heads", json!(1)),
        ("/attention/kinds", json!([{ "window": window, "base": null }])),
        ("/residual", json!({ "order": "parallel", "scale": 0.5 })),
    ])
}

/// GPT-2 with what the BTLM family has more.
pub fn btlm(train_len: Option<usize>) -> Value {
    with(&[
        ("/architecture", json!("btlm")),
        ("/vocab_size", json!(83)),
        ("/n_positions", json!(256)),
        ("/n_embd", json!(57)),
        ("/norm", json!({ "kind": "layer", "place": "before", "epsilon": 1e-5 })),
        ("/positions", json!({ "alibi": { "train_len": train_len } })),
        ("/attention/heads", json!(3)),
        ("/attention/kv_heads", json!(3)),
        ("/attention/head_size", json!(19)),
        ("/attention/scale", json!(0.052_631_58)),
        ("/attention/biases", json!("both")),
        ("/attention/kinds", json!([{ "window": null, "base": null }])),
        ("/mlp", json!({ "kind": "gated", "inner": 90, "activation": "silu", "biases": true })),
        ("/embeddings_scale", json!(14.6)),
        ("/logits_scale", json!(0.22)),
        ("/tie_word_embeddings", json!(true)),
    ])
}

/// As small as can be, with two kinds of layers, to try every bit of.
pub fn tiny() -> Value {
    let kinds = json!([{ "window": 2, "base": 1 }, { "window": null, "base": 0 }]);
    let config = with(&[
        ("/architecture", json!("gemma3")),
        ("/vocab_size", json!(24)),
        ("/n_positions", json!(40)),
        ("/n_embd", json!(6)),
        ("/norm/place", json!("both")),
        ("/positions/rope", json!({ "pairs": 1, "factors": [1.0, 0.75] })),
        ("/attention/heads", json!(2)),
        ("/attention/kv_heads", json!(1)),
        ("/attention/head_size", json!(4)),
        ("/attention/query_key_norm", json!("head")),
        ("/attention/biases", json!("input")),
        ("/attention/kinds", kinds),
        ("/mlp/inner", json!(5)),
        ("/residual", json!({ "order": "parallel", "scale": 0.6 })),
        ("/tie_word_embeddings", json!(true)),
    ]);
    with_layers(config, &[0, 1])
}

/// Any configuration: each choice and number is drawn.
pub fn random(draw: &mut impl FnMut(usize) -> usize) -> Value {
    let kv_heads = 1 + draw(3);
    let heads = kv_heads * (1 + draw(5));
    let head_size = 2 + draw(70);
    let layers = 1 + draw(3);
    let bases = 1 + draw(3);
    let kinds = 1 + draw(4);
    let positions = match draw(4) {
        0 => json!("learned"),
        1 => json!({ "alibi": { "train_len": (draw(2) == 1).then_some(200) } }),
        _ => {
            let factors: Vec<f64> = (0..bases).map(|_| 0.1 * (1 + draw(20)) as f64).collect();
            json!({ "rope": { "pairs": 1 + draw(head_size / 2), "factors": factors } })
        }
    };
    let rotates = positions.get("rope").is_some();
    let mut pick = |words: &[&'static str]| words[draw(words.len())];
    let mut config = with(&[
        ("/norm/kind", json!(pick(&["layer", "rms"]))),
        ("/norm/place", json!(pick(&["before", "after", "both"]))),
        ("/attention/query_key_norm", json!(pick(&["none", "head", "width"]))),
        ("/attention/biases", json!(pick(&["none", "input", "both"]))),
        ("/mlp/kind", json!(pick(&["plain", "gated"]))),
        ("/mlp/activation", json!(pick(&["gelu", "gelu_tanh", "relu", "silu"]))),
        ("/residual/order", json!(pick(&["sequential", "parallel"]))),
    ]);
    let kinds: Vec<Value> = (0..kinds)
        .map(|_| {
            let window = [None, Some(1 + draw(300)), Some(1 + draw(40))][draw(3)];
            let base = (rotates && draw(3) > 0).then(|| draw(bases));
            json!({ "window": window, "base": base })
        })
        .collect();
    if draw(2) == 1 {
        let of_layers: Vec<usize> = (0..layers).map(|_| draw(kinds.len())).collect();
        config["attention"]["layers"] = json!(of_layers);
    }
    let factor = [1.0, 0.3, 1.0, 2.1][draw(4)];
    let numbers = [
        ("/vocab_size", json!(8 + draw(60))),
        ("/n_embd", json!(1 + draw(150))),
        ("/n_layer", json!(layers)),
        ("/positions", positions),
        ("/attention/heads", json!(heads)),
        ("/attention/kv_heads", json!(kv_heads)),
        ("/attention/head_size", json!(head_size)),
        ("/attention/scale", json!(0.05 + 0.01 * draw(40) as f64)),
        ("/attention/scale_by_layer", json!(draw(2) == 1)),
        ("/attention/kinds", json!(kinds)),
        ("/mlp/inner", json!(1 + draw(200))),
        ("/mlp/biases", json!(draw(2) == 1)),
        ("/residual/scale", json!(factor)),
        ("/embeddings_scale", json!(1.0 + draw(2) as f64)),
        ("/logits_scale", json!(1.0 - 0.3 * draw(2) as f64)),
        ("/tie_word_embeddings", json!(draw(2) == 1)),
    ];
    for (pointer, value) in numbers {
        *config.pointer_mut(pointer).unwrap() = value;
    }
    config
}
