//! Sections 2 to 9: the network, token by token.

use super::arithmetic::{add, div, fma, fma_chain, mul, sqrt, sub, sum16, to_float16};
use super::file::{File, Matrix};
use super::functions::Functions;

/// Type of the cached keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    F16,
    Int8,
}

struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

struct Linear {
    matrix: Matrix,
    bias: Vec<f32>,
}

struct Layer {
    ln_1: LayerNorm,
    c_attn: Linear,
    attn_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    /// `None` without a gate.
    c_fc2: Option<Linear>,
    mlp_proj: Linear,
    /// Section 7: what queries are multiplied by.
    query_scale: f32,
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
    n_head: usize,
    wte: Matrix,
    /// `None` with ALiBi.
    wpe: Option<Vec<f32>>,
    /// Slopes times log2(e), a head each; `None` without ALiBi.
    slopes: Option<Vec<f32>>,
    /// The length beyond which they shrink.
    alibi_train_len: Option<usize>,
    embeddings_scale: f32,
    logits_scale: f32,
    layers: Vec<Layer>,
    ln_f: LayerNorm,
    /// `None` when tied.
    head: Option<Matrix>,
}

impl Network {
    pub fn new(file: &File) -> Self {
        let functions = Functions::new();
        let layers = 0..file.count("n_layer");
        let alibi = file.flag("alibi");
        let slope = |slope| mul(slope, functions.constant("LOG2E"));
        Self {
            activation: file.config("activation").as_str().unwrap().to_owned(),
            n_embd: file.count("n_embd"),
            n_head: file.count("n_head"),
            wte: file.matrix("wte.weight"),
            wpe: (!alibi).then(|| file.positions()),
            slopes: alibi.then(|| file.vector("alibi.slopes").into_iter().map(slope).collect()),
            alibi_train_len: file.config("alibi_train_len").as_u64().map(|length| length as usize),
            embeddings_scale: file.factor("embeddings_scale"),
            logits_scale: file.factor("logits_scale"),
            layers: layers.map(|n| Layer::new(file, n, &functions)).collect(),
            ln_f: LayerNorm::new(file, "ln_f"),
            head: (!file.flag("tie_word_embeddings")).then(|| file.matrix("lm_head.weight")),
            functions,
        }
    }

    /// Section 9: the logits after every token.
    pub fn logits(&self, tokens: &[u32], cache: Cache) -> Vec<Vec<f32>> {
        let heads = |_| (0..self.n_head).map(|_| Head::new()).collect();
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
        let embedding = |i: usize| {
            let scale = mul(wte.scales[token][i / wte.group_size], wte.unit);
            let weight = mul(wte.weights[token][i] as f32, scale);
            match &self.wpe {
                Some(wpe) => add(weight, wpe[position * self.n_embd + i]),
                None => weight,
            }
        };
        scale_by((0..self.n_embd).map(embedding).collect(), self.embeddings_scale)
    }

    fn layer(&self, layer: &Layer, heads: &mut [Head], cache: Cache, x: &mut [f32]) {
        let qkv = layer.c_attn.forward(&layer.ln_1.forward(x));
        let size = self.n_embd / self.n_head;
        let mut attended = Vec::new();
        for (h, head) in heads.iter_mut().enumerate() {
            let part = |which: usize| &qkv[which * self.n_embd + h * size..][..size];
            head.push((store(part(1), cache), store(part(2), cache)));
            let slope = self.slopes.as_ref().map(|slopes| self.shrunk(slopes[h], head.len()));
            attended.extend(self.attend(part(0), layer.query_scale, slope, head));
        }
        add_to(x, &layer.attn_proj.forward(&attended));

        let normed = layer.ln_2.forward(x);
        let activate = |x: &f32| self.functions.activation(&self.activation, *x);
        let inner = layer.c_fc.forward(&normed);
        let inner: Vec<f32> = match &layer.c_fc2 {
            None => inner.iter().map(activate).collect(),
            Some(c_fc2) => {
                let gate = c_fc2.forward(&normed);
                inner.iter().zip(&gate).map(|(&y, gate)| mul(y, activate(gate))).collect()
            }
        };
        add_to(x, &layer.mlp_proj.forward(&inner));
    }

    /// Section 7, the slope of a query that sees this many keys.
    fn shrunk(&self, slope: f32, keys: usize) -> f32 {
        match self.alibi_train_len {
            Some(length) if keys > length => mul(slope, div(length as f32, keys as f32)),
            _ => slope,
        }
    }

    /// Section 7, for the last position of `head`.
    fn attend(&self, query: &[f32], query_scale: f32, slope: Option<f32>, head: &Head) -> Vec<f32> {
        let query: Vec<f32> = query.iter().map(|&q| mul(q, query_scale)).collect();
        let quantized = quantize(&query);
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
        let mut segments = head.chunks(256).enumerate().map(|(i, segment)| {
            let scores = (256 * i..).zip(segment).map(|(j, cached)| biased(j, score(cached)));
            self.segment(&scores.collect::<Vec<f32>>(), segment)
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

    /// A segment's maximum, sum of weights and weighted values.
    fn segment(&self, scores: &[f32], segment: &[(Stored, Stored)]) -> (f32, f32, Vec<f32>) {
        let m = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let p: Vec<f32> = scores.iter().map(|&s| self.functions.exp2(sub(s, m))).collect();
        let l = sum16(p.iter().copied(), add);
        let value = |j: usize, d: usize| match &segment[j].1 {
            Stored::F16(value) => (p[j], value[d]),
            Stored::Int8(value) => (mul(p[j], value.scale), value.values[d] as f32),
        };
        let o = |d| fma_chain((0..p.len()).map(|j| value(j, d)));
        (m, l, (0..self.n_embd / self.n_head).map(o).collect())
    }
}

impl Layer {
    fn new(file: &File, n: usize, functions: &Functions) -> Self {
        let linear = |part: &str| Linear {
            matrix: file.matrix(&format!("h.{n}.{part}.weight")),
            bias: file.vector(&format!("h.{n}.{part}.bias")),
        };
        let mut a = 1.0;
        if file.flag("scale_attn_weights") {
            let size = (file.count("n_embd") / file.count("n_head")) as f32;
            a = div(1.0, if file.flag("scale_qk_dot_by_d") { size } else { sqrt(size) });
        }
        if file.flag("scale_attn_by_inverse_layer_idx") {
            a = div(a, (n + 1) as f32);
        }
        Self {
            ln_1: LayerNorm::new(file, &format!("h.{n}.ln_1")),
            c_attn: linear("attn.c_attn"),
            attn_proj: linear("attn.c_proj"),
            ln_2: LayerNorm::new(file, &format!("h.{n}.ln_2")),
            c_fc: linear("mlp.c_fc"),
            c_fc2: file.flag("gated_mlp").then(|| linear("mlp.c_fc2")),
            mlp_proj: linear("mlp.c_proj"),
            query_scale: mul(a, functions.constant("LOG2E")),
        }
    }
}

impl LayerNorm {
    fn new(file: &File, name: &str) -> Self {
        Self {
            weight: file.vector(&format!("{name}.weight")),
            bias: file.vector(&format!("{name}.bias")),
            epsilon: file.config("layer_norm_epsilon").as_f64().unwrap() as f32,
        }
    }

    /// Section 6.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let n = x.len() as f32;
        let mean = div(sum16(x.iter().copied(), add), n);
        let d: Vec<f32> = x.iter().map(|&x| sub(x, mean)).collect();
        let variance = div(sum16(d.iter().copied(), |lane, d| fma(d, d, lane)), n);
        let rstd = div(1.0, sqrt(add(variance, self.epsilon)));
        let y = |i: usize| fma(mul(d[i], rstd), self.weight[i], self.bias[i]);
        (0..x.len()).map(y).collect()
    }
}

impl Linear {
    /// Section 4 with the bias.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let y = product(&self.matrix, x);
        y.into_iter().zip(&self.bias).map(|(y, &bias)| add(y, bias)).collect()
    }
}

/// Section 4 without bias.
fn product(matrix: &Matrix, x: &[f32]) -> Vec<f32> {
    assert_eq!(x.len(), matrix.cols);
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

/// Section 7: what the cache keeps of a key or value.
fn store(x: &[f32], cache: Cache) -> Stored {
    match cache {
        Cache::F16 => Stored::F16(x.iter().map(|&x| to_float16(x)).collect()),
        Cache::Int8 => Stored::Int8(quantize(x)),
    }
}

/// The residual: what a matrix gave is added to the stream.
fn add_to(x: &mut [f32], y: &[f32]) {
    for (x, &y) in x.iter_mut().zip(y) {
        *x = add(y, *x);
    }
}

/// A multiplier of the whole row, which is not applied if it is 1.
fn scale_by(x: Vec<f32>, factor: f32) -> Vec<f32> {
    if factor == 1.0 {
        return x;
    }
    x.into_iter().map(|x| mul(x, factor)).collect()
}
