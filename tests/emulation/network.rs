//! Sections 2 to 9 and 12: the network, token by token.

use super::arithmetic::{add, div, fma, fma_chain, mul, sqrt, sub, sum16, to_float16};
use super::file::{File, Matrix};
use super::functions::Functions;
use super::rope::{Base, rotate};

/// Type of the cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    F16,
    Int8,
}

/// Section 6: a layer norm, or, without a bias, an RMS norm.
struct Norm {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    epsilon: f32,
}

struct Linear {
    matrix: Matrix,
    bias: Option<Vec<f32>>,
}

struct Layer {
    ln_1: Option<Norm>,
    c_attn: Linear,
    query_key_norms: Option<(Norm, Norm)>,
    attn_proj: Linear,
    attn_ln_out: Option<Norm>,
    ln_2: Option<Norm>,
    c_fc: Linear,
    /// `None` without a gate.
    c_fc2: Option<Linear>,
    mlp_proj: Linear,
    mlp_ln_out: Option<Norm>,
    /// Section 7: what queries are multiplied by.
    query_scale: f32,
    /// The positions that a query sees; `None` if all until its own.
    window: Option<usize>,
    /// The base of rotation; `None` without.
    base: Option<usize>,
}

/// Integers and their common scale: section 3.
struct Quantized {
    values: Vec<i32>,
    scale: f32,
}

/// One position's key or value of one head, as the cache keeps it.
enum Stored {
    F16(Vec<f32>),
    Int8(Quantized),
}

/// Cached keys and values of one head: a pair per position.
type Head = Vec<(Stored, Stored)>;

pub struct Network {
    functions: Functions,
    activation: String,
    n_embd: usize,
    heads: usize,
    kv_heads: usize,
    head_size: usize,
    wte: Matrix,
    /// The table of learned positions.
    wpe: Option<Vec<f32>>,
    /// Slopes times log2(e), a head each; `None` without ALiBi.
    slopes: Option<Vec<f32>>,
    /// The length beyond which they shrink.
    alibi_train_len: Option<usize>,
    bases: Vec<Base>,
    /// Whether attention and MLP read the same.
    parallel: bool,
    residual_scale: f32,
    embeddings_scale: f32,
    logits_scale: f32,
    layers: Vec<Layer>,
    ln_f: Norm,
    /// `None` when tied.
    head: Option<Matrix>,
}

impl Network {
    pub fn new(file: &File) -> Self {
        let functions = Functions::new();
        let layers = 0..file.count("/n_layer");
        let positions = file.config("/positions");
        let alibi = positions.get("alibi");
        let slope = |slope| mul(slope, functions.constant("LOG2E"));
        let slopes = || file.vector("alibi.slopes").into_iter().map(slope).collect();
        Self {
            activation: file.word("/mlp/activation").to_owned(),
            n_embd: file.count("/n_embd"),
            heads: file.count("/attention/heads"),
            kv_heads: file.count("/attention/kv_heads"),
            head_size: file.count("/attention/head_size"),
            wte: file.matrix("wte.weight"),
            wpe: (positions == "learned").then(|| file.positions()),
            slopes: alibi.map(|_| slopes()),
            alibi_train_len: alibi.and_then(|a| a["train_len"].as_u64()).map(|n| n as usize),
            bases: file.bases(),
            parallel: file.word("/residual/order") == "parallel",
            residual_scale: file.number("/residual/scale"),
            embeddings_scale: file.number("/embeddings_scale"),
            logits_scale: file.number("/logits_scale"),
            layers: layers.map(|n| Layer::new(file, n, &functions)).collect(),
            ln_f: Norm::new(file, "ln_f"),
            head: (!file.flag("/tie_word_embeddings")).then(|| file.matrix("lm_head.weight")),
            functions,
        }
    }

    /// Section 9: the logits after every token.
    pub fn logits(&self, tokens: &[u32], cache: Cache) -> Vec<Vec<f32>> {
        let heads = |_| (0..self.kv_heads).map(|_| Head::new()).collect();
        let mut caches: Vec<Vec<Head>> = self.layers.iter().map(heads).collect();
        let logits = tokens.iter().enumerate().map(|(position, &token)| {
            let mut x = self.embed(token as usize, position);
            for (layer, heads) in self.layers.iter().zip(&mut caches) {
                self.layer(layer, heads, cache, &mut x);
            }
            let x = self.ln_f.forward(&x);
            let logits = product(self.head.as_ref().unwrap_or(&self.wte), &x);
            scale_by(logits, self.logits_scale)
        });
        logits.collect()
    }

    /// Section 5.
    fn embed(&self, token: usize, position: usize) -> Vec<f32> {
        let wte = &self.wte;
        let weight = |i: usize| {
            let scale = mul(wte.scales[token][i / wte.group_size], wte.unit);
            mul(wte.weights[token][i] as f32, scale)
        };
        let mut x = hadamard(&(0..self.n_embd).map(weight).collect::<Vec<_>>());
        if let Some(wpe) = &self.wpe {
            let positions = &wpe[position * self.n_embd..];
            x.iter_mut().zip(positions).for_each(|(x, &position)| *x = add(*x, position));
        }
        scale_by(x, self.embeddings_scale)
    }

    /// Section 9.
    fn layer(&self, layer: &Layer, heads: &mut [Head], cache: Cache, x: &mut [f32]) {
        let input = x.to_vec();
        let attended = self.attention(layer, heads, cache, &normed(&layer.ln_1, &input));
        self.add(x, attended, &layer.attn_ln_out);
        let input = if self.parallel { input } else { x.to_vec() };
        let made = self.mlp(layer, &normed(&layer.ln_2, &input));
        self.add(x, made, &layer.mlp_ln_out);
    }

    /// What attention or MLP gave is normed, multiplied, and added to the stream.
    fn add(&self, x: &mut [f32], y: Vec<f32>, after: &Option<Norm>) {
        let y = scale_by(normed(after, &y), self.residual_scale);
        for (x, y) in x.iter_mut().zip(y) {
            *x = add(y, *x);
        }
    }

    fn mlp(&self, layer: &Layer, y: &[f32]) -> Vec<f32> {
        let activate = |x: &f32| self.functions.activation(&self.activation, *x);
        let inner = layer.c_fc.forward(y);
        let inner: Vec<f32> = match &layer.c_fc2 {
            None => inner.iter().map(activate).collect(),
            Some(c_fc2) => {
                let gate = c_fc2.forward(y);
                inner.iter().zip(&gate).map(|(&y, gate)| mul(y, activate(gate))).collect()
            }
        };
        layer.mlp_proj.forward(&inner)
    }

    /// Sections 7, 9 and 12, of the position behind those that are cached.
    fn attention(&self, layer: &Layer, heads: &mut [Head], cache: Cache, y: &[f32]) -> Vec<f32> {
        let (size, position) = (self.head_size, heads[0].len());
        let mut qkv = layer.c_attn.forward(y);
        let values = qkv.split_off((self.heads + self.kv_heads) * size);
        let mut keys = qkv.split_off(self.heads * size);
        let mut queries = qkv;
        if let Some((query_norm, key_norm)) = &layer.query_key_norms {
            queries = norm_each(query_norm, &queries);
            keys = norm_each(key_norm, &keys);
        }
        if let Some(base) = layer.base {
            let angles = self.bases[base].angles(position);
            for head in queries.chunks_mut(size).chain(keys.chunks_mut(size)) {
                rotate(head, &angles);
            }
        }
        for (h, head) in heads.iter_mut().enumerate() {
            let part = h * size..(h + 1) * size;
            head.push(store(&keys[part.clone()], &values[part], cache));
        }
        let attended = queries.chunks(size).enumerate().flat_map(|(h, query)| {
            let slope = self.slopes.as_ref().map(|slopes| self.shrunk(slopes[h], position + 1));
            self.attend(query, layer, slope, &heads[h / (self.heads / self.kv_heads)])
        });
        layer.attn_proj.forward(&attended.collect::<Vec<f32>>())
    }

    /// Section 7, the slope of a query that sees this many keys.
    fn shrunk(&self, slope: f32, keys: usize) -> f32 {
        match self.alibi_train_len {
            Some(length) if keys > length => mul(slope, div(length as f32, keys as f32)),
            _ => slope,
        }
    }

    /// Section 7, for the last position of `head`.
    fn attend(&self, query: &[f32], layer: &Layer, slope: Option<f32>, head: &Head) -> Vec<f32> {
        let query: Vec<f32> = query.iter().map(|&q| mul(q, layer.query_scale)).collect();
        let quantized = quantize(&hadamard(&query));
        let score = |(key, _): &(Stored, Stored)| match key {
            Stored::F16(key) => fma_chain(query.iter().copied().zip(key.iter().copied())),
            Stored::Int8(key) => {
                let dot = dot(&quantized.values, &key.values);
                mul(dot as f32, mul(quantized.scale, key.scale))
            }
        };
        let biased = |j: usize, s: f32| match slope {
            Some(slope) => fma(slope, (head.len() - 1 - j) as f32, s),
            None => s,
        };
        let seen = layer.window.map_or(0, |window| head.len().saturating_sub(window));
        let mut segments = (seen / 256..head.len().div_ceil(256)).map(|segment| {
            let positions = seen.max(256 * segment)..head.len().min(256 * (segment + 1));
            let scores = positions.clone().map(|j| biased(j, score(&head[j])));
            self.segment(&scores.collect::<Vec<f32>>(), positions.start, &head[positions])
        });
        let (mut m1, mut l, mut o) = segments.next().unwrap();
        for (m2, l2, o2) in segments {
            let m = m1.max(m2);
            let a1 = self.functions.exp2(sub(m1, m));
            let a2 = self.functions.exp2(sub(m2, m));
            l = fma(l2, a2, mul(l, a1));
            for (o, o2) in o.iter_mut().zip(o2) {
                *o = fma(o2, a2, mul(*o, a1));
            }
            m1 = m;
        }
        let inverse = div(1.0, l);
        o.into_iter().map(|o| mul(o, inverse)).collect()
    }

    /// A segment's maximum, sum of weights and weighted values; `start` is its first position.
    fn segment(
        &self,
        scores: &[f32],
        start: usize,
        segment: &[(Stored, Stored)],
    ) -> (f32, f32, Vec<f32>) {
        let m = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let p: Vec<f32> = scores.iter().map(|&s| self.functions.exp2(sub(s, m))).collect();
        // Lanes are those of the position; what is before the first adds nothing to them.
        let lanes = std::iter::repeat_n(0.0, start % 16).chain(p.iter().copied());
        let l = sum16(lanes, add);
        let value = |j: usize, d: usize| match &segment[j].1 {
            Stored::F16(value) => (p[j], value[d]),
            Stored::Int8(value) => (mul(p[j], value.scale), value.values[d] as f32),
        };
        let o = |d| fma_chain((0..p.len()).map(|j| value(j, d)));
        (m, l, (0..self.head_size).map(o).collect())
    }
}

impl Layer {
    fn new(file: &File, n: usize, functions: &Functions) -> Self {
        let linear = |part: &str, biased: bool| Linear {
            matrix: file.matrix(&format!("h.{n}.{part}.weight")),
            bias: biased.then(|| file.vector(&format!("h.{n}.{part}.bias"))),
        };
        let norm = |part: &str, is_there: bool| {
            is_there.then(|| Norm::new(file, &format!("h.{n}.{part}")))
        };
        let place = file.word("/norm/place");
        let (before, after) = (place != "after", place != "before");
        let biases = file.word("/attention/biases");
        let rms = |part: &str| Norm {
            weight: file.vector(&format!("h.{n}.attn.{part}.weight")),
            bias: None,
            epsilon: file.number("/norm/epsilon"),
        };
        let query_key_norm = file.word("/attention/query_key_norm") != "none";
        let mlp_biases = file.flag("/mlp/biases");
        let mut a = file.number("/attention/scale");
        if file.flag("/attention/scale_by_layer") {
            a = div(a, (n + 1) as f32);
        }
        Self {
            ln_1: norm("ln_1", before),
            c_attn: linear("attn.c_attn", biases != "none"),
            query_key_norms: query_key_norm.then(|| (rms("q_norm"), rms("k_norm"))),
            attn_proj: linear("attn.c_proj", biases == "both"),
            attn_ln_out: norm("attn.ln_out", after),
            ln_2: norm("ln_2", before),
            c_fc: linear("mlp.c_fc", mlp_biases),
            c_fc2: (file.word("/mlp/kind") == "gated").then(|| linear("mlp.c_fc2", mlp_biases)),
            mlp_proj: linear("mlp.c_proj", mlp_biases),
            mlp_ln_out: norm("mlp.ln_out", after),
            query_scale: mul(a, functions.constant("LOG2E")),
            window: file.of_kind(n, "window"),
            base: file.of_kind(n, "base"),
        }
    }
}

impl Norm {
    fn new(file: &File, name: &str) -> Self {
        let layer = file.word("/norm/kind") == "layer";
        Self {
            weight: file.vector(&format!("{name}.weight")),
            bias: layer.then(|| file.vector(&format!("{name}.bias"))),
            epsilon: file.number("/norm/epsilon"),
        }
    }

    /// Section 6.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), self.weight.len());
        let n = x.len() as f32;
        let Some(bias) = &self.bias else {
            let squares = sum16(x.iter().copied(), |lane, x| fma(x, x, lane));
            let factor = div(1.0, sqrt(add(div(squares, n), self.epsilon)));
            return x.iter().zip(&self.weight).map(|(&x, &w)| mul(mul(x, factor), w)).collect();
        };
        let mean = div(sum16(x.iter().copied(), add), n);
        let d: Vec<f32> = x.iter().map(|&x| sub(x, mean)).collect();
        let variance = div(sum16(d.iter().copied(), |lane, d| fma(d, d, lane)), n);
        let rstd = div(1.0, sqrt(add(variance, self.epsilon)));
        let y = |i: usize| fma(mul(d[i], rstd), self.weight[i], bias[i]);
        (0..x.len()).map(y).collect()
    }
}

/// What a norm makes of `x`, or `x` where there is none.
fn normed(norm: &Option<Norm>, x: &[f32]) -> Vec<f32> {
    norm.as_ref().map_or_else(|| x.to_vec(), |norm| norm.forward(x))
}

/// Norms each part of `x` that is as long as the norm's weight.
fn norm_each(norm: &Norm, x: &[f32]) -> Vec<f32> {
    x.chunks(norm.weight.len()).flat_map(|part| norm.forward(part)).collect()
}

impl Linear {
    /// Section 4 with the bias, if there is one.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let y = product(&self.matrix, x);
        match &self.bias {
            Some(bias) => y.into_iter().zip(bias).map(|(y, &bias)| add(y, bias)).collect(),
            None => y,
        }
    }
}

/// Section 4 without bias.
fn product(matrix: &Matrix, x: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), matrix.cols);
    let x = hadamard(x);
    let groups: Vec<Quantized> = x.chunks(matrix.group_size).map(quantize).collect();
    let row = |r: usize| {
        let mut acc = 0.0;
        for (g, x) in groups.iter().enumerate() {
            // The padding's weights meet no input.
            let n = dot(&x.values, &matrix.weights[r][g * matrix.group_size..]);
            let t = mul(x.scale, matrix.unit);
            let c = mul(matrix.scales[r][g], t);
            acc = fma(n as f32, c, acc);
        }
        acc
    };
    (0..matrix.rows).map(row).collect()
}

/// The transform of section 2.
fn hadamard(x: &[f32]) -> Vec<f32> {
    let mut x = x.to_vec();
    for start in (0..x.len() / 64).map(|block| 64 * block) {
        for d in [1, 2, 4, 8, 16, 32] {
            for i in (start..start + 64).filter(|i| i & d == 0) {
                (x[i], x[i + d]) = (add(x[i], x[i + d]), sub(x[i], x[i + d]));
            }
        }
        x[start..start + 64].iter_mut().for_each(|x| *x = mul(*x, 0.125));
    }
    x
}

/// Exact, over the values that both have.
fn dot(a: &[i32], b: &[i32]) -> i32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Section 3, one group.
fn quantize(x: &[f32]) -> Quantized {
    let m = x.iter().fold(0f32, |m, x| m.max(x.abs()));
    if m < f32::powi(2.0, -100) {
        return Quantized { values: vec![0; x.len()], scale: 0.0 };
    }
    let r = div(127.0, m);
    let values = x.iter().map(|&x| mul(x, r).round_ties_even() as i32).collect();
    Quantized { values, scale: div(m, 127.0) }
}

/// Section 7: what the cache keeps of a key and a value.
fn store(key: &[f32], value: &[f32], cache: Cache) -> (Stored, Stored) {
    let halves = |x: &[f32]| Stored::F16(x.iter().map(|&x| to_float16(x)).collect());
    match cache {
        Cache::F16 => (halves(key), halves(value)),
        Cache::Int8 => (Stored::Int8(quantize(&hadamard(key))), Stored::Int8(quantize(value))),
    }
}

/// A multiplier of the whole row, which is not applied if it is 1.
fn scale_by(x: Vec<f32>, factor: f32) -> Vec<f32> {
    if factor == 1.0 {
        return x;
    }
    x.into_iter().map(|x| mul(x, factor)).collect()
}
