//! The reference against the formulas in plain loops of double precision, and gradients against central
//! differences: for random weights and every choice that a configuration has.

use std::collections::BTreeMap;

use cerebellum::format::network::{self, Part, Role, Shape, TensorId};
use cerebellum::format::{
    Activation, Biases, Config, LayerKind, MlpKind, NormKind, NormPlace, Positions, QueryKeyNorm,
    ResidualOrder,
};

use super::{Layer, Parallelism, Reference, Weights};
use crate::checkpoint::Result;
use crate::random::SplitMix;

/// More than attention takes at once.
const TOKENS: usize = 150;

/// A network of random weights.
struct Random {
    config: Config,
    tensors: BTreeMap<TensorId, Vec<f32>>,
    slopes: Vec<f32>,
    frequencies: Vec<f64>,
}

impl Random {
    fn new(config: &Config, seed: u64) -> Self {
        config.validate().unwrap();
        let mut random = SplitMix(seed);
        let tensors = network::tensors(config).into_iter().map(|tensor| {
            let (count, size) = match tensor.shape {
                Shape::Matrix([rows, columns]) => (rows * columns, (3.0 / columns as f64).sqrt()),
                Shape::Table([rows, columns]) => (rows * columns, 1.0),
                Shape::Vector(elements) => (elements, 0.5),
                Shape::Frequencies([bases, pairs]) => (bases * pairs, 1.0),
            };
            let is_norm =
                matches!(tensor.shape, Shape::Vector(_)) && tensor.id.part == Part::Weight;
            let middle = if is_norm { 1.0 } else { 0.0 };
            let value = |noise: f64| (middle + size * noise) as f32;
            (tensor.id, noise(&mut random, count).into_iter().map(value).collect())
        });
        let tensors = tensors.collect();
        let (bases, pairs) = match &config.positions {
            Positions::Rope { pairs, factors } => (factors.len(), *pairs),
            _ => (0, 0),
        };
        let frequencies = (0..bases * pairs).map(|i| {
            let (base, pair) = (100.0 * (1 + i / pairs) as f64, (i % pairs) as f64);
            base.powf(-pair / pairs as f64)
        });
        let frequencies = frequencies.collect();
        let slopes = match config.positions {
            Positions::Alibi { .. } => noise(&mut random, config.attention.heads),
            _ => Vec::new(),
        };
        let slopes = slopes.iter().map(|slope| -0.1 * slope.abs() as f32).collect();
        Self { config: config.clone(), tensors, slopes, frequencies }
    }

    fn get(&self, layer: Option<usize>, role: Role) -> Vec<f64> {
        self.find(TensorId { layer, ..TensorId::outside(role) }).unwrap()
    }

    fn find(&self, id: TensorId) -> Option<Vec<f64>> {
        Some(self.tensors.get(&id)?.iter().map(|&value| f64::from(value)).collect())
    }
}

impl Weights for Random {
    fn config(&self) -> &Config {
        &self.config
    }

    fn slopes(&self) -> Result<Vec<f32>> {
        Ok(self.slopes.clone())
    }

    fn frequencies(&self) -> Result<Vec<f64>> {
        Ok(self.frequencies.clone())
    }

    fn read(&self, id: TensorId) -> Result<Vec<f32>> {
        Ok(self.tensors[&id].clone())
    }
}

/// From -1 to 1.
fn noise(random: &mut SplitMix, count: usize) -> Vec<f64> {
    (0..count).map(|_| random.next() as i64 as f64 * 0.5f64.powi(63)).collect()
}

/// Every choice alone, from a small Llama, and what families put together.
fn variants() -> Vec<(&'static str, Config)> {
    let mut llama = Config::gpt2(29, 256, 24, 4, 3);
    llama.norm.kind = NormKind::Rms;
    llama.positions = Positions::Rope { pairs: 4, factors: vec![1.0] };
    llama.attention.kv_heads = 2;
    llama.attention.head_size = 8;
    llama.attention.scale = 8f32.powf(-0.5);
    llama.attention.biases = Biases::None;
    llama.attention.kinds = vec![LayerKind { window: None, base: Some(0) }];
    llama.mlp.kind = MlpKind::Gated;
    llama.mlp.activation = Activation::Silu;
    llama.mlp.inner = 40;
    llama.mlp.biases = false;
    let gpt2 = Config::gpt2(29, 256, 24, 4, 3);

    let mut variants = vec![("llama", llama.clone()), ("gpt2", gpt2)];
    let mut add = |name, change: &dyn Fn(&mut Config)| {
        let mut config = llama.clone();
        change(&mut config);
        variants.push((name, config));
    };
    let no_base = |c: &mut Config| c.attention.kinds[0].base = None;
    add("layer norms", &|c| c.norm.kind = NormKind::Layer);
    add("a large epsilon", &|c| c.norm.epsilon = 0.3);
    add("norms after", &|c| c.norm.place = NormPlace::After);
    add("norms before and after", &|c| c.norm.place = NormPlace::Both);
    add("layer norms before and after", &|c| {
        (c.norm.kind, c.norm.place) = (NormKind::Layer, NormPlace::Both);
    });
    add("learned positions", &|c| {
        no_base(c);
        c.positions = Positions::Learned;
    });
    add("ALiBi", &|c| {
        no_base(c);
        c.positions = Positions::Alibi { train_len: None };
    });
    add("shrinking ALiBi", &|c| {
        no_base(c);
        c.positions = Positions::Alibi { train_len: Some(60) };
    });
    add("a part of each head rotated, with a factor", &|c| {
        c.positions = Positions::Rope { pairs: 3, factors: vec![1.3] };
    });
    add("layers with other bases, or none", &|c| {
        c.positions = Positions::Rope { pairs: 4, factors: vec![1.0, 0.8] };
        c.attention.kinds =
            [Some(1), None, Some(0)].map(|base| LayerKind { window: None, base }).into();
        c.attention.layers = vec![0, 1, 2];
    });
    add("a head of keys each", &|c| c.attention.kv_heads = 4);
    add("one head of keys", &|c| c.attention.kv_heads = 1);
    add("narrow heads", &|c| {
        c.attention.head_size = 4;
        c.positions = Positions::Rope { pairs: 2, factors: vec![1.0] };
    });
    add("norms of each query and key", &|c| c.attention.query_key_norm = QueryKeyNorm::Head);
    add("norms of all queries and keys", &|c| c.attention.query_key_norm = QueryKeyNorm::Width);
    add("norms of queries in a network of layer norms", &|c| {
        c.norm.kind = NormKind::Layer;
        c.attention.query_key_norm = QueryKeyNorm::Head;
    });
    add("a short window", &|c| c.attention.kinds[0].window = Some(5));
    add("a long window", &|c| c.attention.kinds[0].window = Some(131));
    add("one layer with a window of itself", &|c| {
        c.attention.kinds.push(LayerKind { window: Some(1), base: Some(0) });
        c.attention.layers = vec![0, 1, 0];
    });
    for (activation, plain, gated) in [
        (Activation::Gelu, "plain, GELU", "gated, GELU"),
        (Activation::GeluTanh, "plain, tanh GELU", "gated, tanh GELU"),
        (Activation::Relu, "plain, ReLU", "gated, ReLU"),
        (Activation::Silu, "plain, SiLU", "gated, SiLU"),
    ] {
        add(plain, &|c| (c.mlp.kind, c.mlp.activation) = (MlpKind::Plain, activation));
        add(gated, &|c| c.mlp.activation = activation);
    }
    add("biases of queries, keys and values", &|c| c.attention.biases = Biases::Input);
    add("biases of attention", &|c| c.attention.biases = Biases::Both);
    add("biases of the MLP", &|c| c.mlp.biases = true);
    add("damped residuals", &|c| c.residual.scale = 0.3);
    add("parallel residuals", &|c| c.residual.order = ResidualOrder::Parallel);
    add("parallel residuals, norms after", &|c| {
        c.residual.order = ResidualOrder::Parallel;
        c.norm.place = NormPlace::After;
    });
    add("a scale of scores", &|c| c.attention.scale = 0.7);
    add("a scale of scores by layer", &|c| c.attention.scale_by_layer = true);
    add("scales of embeddings and logits", &|c| (c.embeddings_scale, c.logits_scale) = (3.0, 0.4));
    add("a tied head", &|c| c.tie_word_embeddings = true);
    add("Gemma", &|c| {
        c.norm.place = NormPlace::Both;
        c.attention.kv_heads = 1;
        c.attention.query_key_norm = QueryKeyNorm::Head;
        c.positions = Positions::Rope { pairs: 4, factors: vec![1.0, 1.0] };
        c.attention.kinds = vec![
            LayerKind { window: Some(20), base: Some(0) },
            LayerKind { window: None, base: Some(1) },
        ];
        c.attention.layers = vec![0, 0, 1];
        c.mlp.activation = Activation::GeluTanh;
        c.embeddings_scale = 24f32.sqrt();
        c.tie_word_embeddings = true;
    });
    add("Pythia", &|c| {
        c.norm.kind = NormKind::Layer;
        c.attention.kv_heads = 4;
        c.attention.head_size = 6;
        c.positions = Positions::Rope { pairs: 1, factors: vec![1.0] };
        c.attention.biases = Biases::Both;
        c.residual.order = ResidualOrder::Parallel;
        (c.mlp.kind, c.mlp.activation, c.mlp.biases) = (MlpKind::Plain, Activation::Gelu, true);
    });
    variants
}

/// Rows of tokens.
type Rows = Vec<Vec<f64>>;

fn linear(w: &Random, layer: usize, role: Role, x: &Rows) -> Rows {
    let id = TensorId::in_layer(layer, role);
    let (weight, bias) = (w.find(id).unwrap(), w.find(id.bias()));
    let mut out = product(&weight, x);
    for row in &mut out {
        for (o, y) in row.iter_mut().enumerate() {
            *y += bias.as_ref().map_or(0.0, |bias| bias[o]);
        }
    }
    out
}

fn product(weight: &[f64], x: &Rows) -> Rows {
    let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    x.iter().map(|x| weight.chunks(x.len()).map(|row| dot(row, x)).collect()).collect()
}

/// The norm of a network's kind; `x` itself where there is none.
fn norm(w: &Random, layer: Option<usize>, role: Role, x: &Rows) -> Rows {
    let id = TensorId { layer, ..TensorId::outside(role) };
    let Some(weight) = w.find(id) else { return x.clone() };
    let bias = w.find(id.bias());
    let normed = |x: &Vec<f64>| -> Vec<f64> {
        if w.config.norm.kind == NormKind::Rms {
            return rms_norm(x, &weight, f64::from(w.config.norm.epsilon));
        }
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        let deviation = (variance + f64::from(w.config.norm.epsilon)).sqrt();
        let bias = bias.as_ref().unwrap();
        (0..x.len()).map(|i| (x[i] - mean) / deviation * weight[i] + bias[i]).collect()
    };
    x.iter().map(normed).collect()
}

fn rms_norm(x: &[f64], weight: &[f64], epsilon: f64) -> Vec<f64> {
    let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    (0..x.len()).map(|i| x[i] / (mean_square + epsilon).sqrt() * weight[i]).collect()
}

/// Queries (0) or keys (1) of one row, normed and rotated: a vector for each head.
fn heads_of(w: &Random, layer: usize, which: usize, position: usize, row: &[f64]) -> Rows {
    let attention = &w.config.attention;
    let role = [Role::QueryNorm, Role::KeyNorm][which];
    let epsilon = f64::from(w.config.norm.epsilon);
    let mut row = row.to_vec();
    if attention.query_key_norm == QueryKeyNorm::Width {
        row = rms_norm(&row, &w.get(Some(layer), role), epsilon);
    }
    let mut heads: Rows = row.chunks(attention.head_size).map(<[f64]>::to_vec).collect();
    for head in &mut heads {
        if attention.query_key_norm == QueryKeyNorm::Head {
            *head = rms_norm(head, &w.get(Some(layer), role), epsilon);
        }
        if let (Positions::Rope { pairs, factors }, Some(base)) =
            (&w.config.positions, w.config.layer_kind(layer).base)
        {
            for pair in 0..*pairs {
                let angle = position as f64 * w.frequencies[base * pairs + pair];
                let (cos, sin) = (angle.cos() * factors[base], angle.sin() * factors[base]);
                let (a, b) = (head[pair], head[pair + pairs]);
                head[pair] = a * cos - b * sin;
                head[pair + pairs] = b * cos + a * sin;
            }
        }
    }
    heads
}

fn attention(w: &Random, layer: usize, x: &Rows) -> Rows {
    let attention = &w.config.attention;
    let qkv = linear(w, layer, Role::AttentionIn, x);
    let (h, k) = (attention.query_width(), attention.kv_width());
    let part = |which: usize, columns: std::ops::Range<usize>| -> Vec<Rows> {
        let rows = qkv.iter().enumerate();
        rows.map(|(t, row)| heads_of(w, layer, which, t, &row[columns.clone()])).collect()
    };
    let (queries, keys) = (part(0, 0..h), part(1, h..h + k));
    let mut scale = f64::from(attention.scale);
    if attention.scale_by_layer {
        scale /= (layer + 1) as f64;
    }
    let window = w.config.layer_kind(layer).window.unwrap_or(usize::MAX);
    let mut out = Rows::new();
    for (i, queries) in queries.iter().enumerate() {
        let mut gathered = Vec::new();
        for (head, query) in queries.iter().enumerate() {
            let shared = head / (attention.heads / attention.kv_heads);
            let slope = w.slopes.get(head).map_or(0.0, |&slope| f64::from(slope));
            let shrinks = match w.config.positions {
                Positions::Alibi { train_len: Some(length) } if i + 1 > length => {
                    length as f64 / (i + 1) as f64
                }
                _ => 1.0,
            };
            let seen: Vec<usize> = (0..=i).filter(|j| i - j < window).collect();
            let score = |&j: &usize| {
                let dot: f64 = query.iter().zip(&keys[j][shared]).map(|(q, k)| q * k).sum();
                (dot * scale + slope * shrinks * (i - j) as f64).exp()
            };
            let scores: Vec<f64> = seen.iter().map(score).collect();
            let sum: f64 = scores.iter().sum();
            for d in 0..attention.head_size {
                let column = h + k + shared * attention.head_size + d;
                let terms = seen.iter().zip(&scores).map(|(&j, p)| p / sum * qkv[j][column]);
                gathered.push(terms.sum());
            }
        }
        out.push(gathered);
    }
    linear(w, layer, Role::AttentionOut, &out)
}

fn mlp(w: &Random, layer: usize, x: &Rows) -> Rows {
    let activation = |x: f64| match w.config.mlp.activation {
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
    };
    let mut inner = linear(w, layer, Role::MlpUp, x);
    if w.config.mlp.kind == MlpKind::Gated {
        let gate = linear(w, layer, Role::MlpGate, x);
        for (row, gate) in inner.iter_mut().zip(&gate) {
            row.iter_mut().zip(gate).for_each(|(up, &gate)| *up *= activation(gate));
        }
    } else {
        inner.iter_mut().flatten().for_each(|up| *up = activation(*up));
    }
    linear(w, layer, Role::MlpDown, &inner)
}

/// Logits after every token, as the formulas say.
fn plain_logits(w: &Random, tokens: &[u32]) -> Vec<f64> {
    let (config, width) = (&w.config, w.config.n_embd);
    let embedding = w.get(None, Role::Embedding);
    let positions = w.find(TensorId::outside(Role::Positions));
    let row = |(t, &token): (usize, &u32)| -> Vec<f64> {
        let position = |i| positions.as_ref().map_or(0.0, |p| p[t * width + i]);
        let value = |i| embedding[token as usize * width + i] + position(i);
        (0..width).map(|i| value(i) * f64::from(config.embeddings_scale)).collect()
    };
    let mut x: Rows = tokens.iter().enumerate().map(row).collect();
    let add = |x: &Rows, branch: &Rows| -> Rows {
        let scale = f64::from(config.residual.scale);
        let rows = x.iter().zip(branch);
        rows.map(|(x, y)| x.iter().zip(y).map(|(x, y)| x + scale * y).collect()).collect()
    };
    for layer in 0..config.n_layer {
        let at = Some(layer);
        let branch = attention(w, layer, &norm(w, at, Role::AttentionNorm, &x));
        let y = add(&x, &norm(w, at, Role::AttentionOutNorm, &branch));
        let from = if config.residual.order == ResidualOrder::Parallel { &x } else { &y };
        let branch = mlp(w, layer, &norm(w, at, Role::MlpNorm, from));
        x = add(&y, &norm(w, at, Role::MlpOutNorm, &branch));
    }
    let h = norm(w, None, Role::FinalNorm, &x);
    let head = w.get(None, if config.tie_word_embeddings { Role::Embedding } else { Role::Head });
    let logits = product(&head, &h);
    logits.concat().iter().map(|logit| logit * f64::from(config.logits_scale)).collect()
}

#[test]
fn logits_are_those_of_the_formulas() {
    let mut random = SplitMix(3);
    let tokens: Vec<u32> = (0..TOKENS).map(|_| random.below(29) as u32).collect();
    for (seed, (name, config)) in variants().into_iter().enumerate() {
        let weights = Random::new(&config, seed as u64);
        let expected = plain_logits(&weights, &tokens);
        let size = expected.iter().fold(0.0, |max: f64, logit| max.max(logit.abs()));
        for parallelism in [Parallelism::Serial, Parallelism::Rayon] {
            let reference = Reference::load(&weights).unwrap().with_parallelism(parallelism);
            let found = reference.logits(&tokens).unwrap();
            let worst = found.iter().zip(&expected).fold(0.0, |worst: f64, (&found, expected)| {
                let error = (f64::from(found) - expected).abs();
                if error.is_nan() { f64::INFINITY } else { worst.max(error) }
            });
            assert!(worst < 1e-5 * size, "{name}: {worst:e} of {size}");
        }
    }
}

/// Along random directions and along the gradient itself, through a layer that is not the first.
#[test]
fn gradients_through_a_layer_are_its_derivatives() {
    for (seed, (name, config)) in variants().into_iter().enumerate() {
        let layer = Layer::load(&Random::new(&config, seed as u64), 1).unwrap();
        let mut random = SplitMix(seed as u64);
        let mut draw = || -> Vec<f32> {
            noise(&mut random, TOKENS * config.n_embd).iter().map(|&x| x as f32).collect()
        };
        let (x, weights) = (draw(), draw());
        let gradient = layer.backward(&x, weights.clone(), &mut |_, _, _| ());
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        for direction in [draw(), draw(), gradient.clone()] {
            // On a short step few of ReLU's inputs pass its kink.
            let has_kink = config.mlp.activation == Activation::Relu;
            let (length, tolerance) = if has_kink { (0.002, 1e-3) } else { (0.02, 2e-4) };
            let step = length / dot(&direction, &direction).sqrt() as f32;
            let loss = |step: f32| {
                let x: Vec<f32> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                dot(&layer.forward(&x, Parallelism::Serial, &mut |_, _| ()), &weights)
            };
            let expected = (loss(step) - loss(-step)) / f64::from(2.0 * step);
            let found = dot(&gradient, &direction);
            let size = (dot(&gradient, &gradient) * dot(&direction, &direction)).sqrt();
            assert!((found - expected).abs() < tolerance * size, "{name}: {found} {expected}");
        }
    }
}

/// A bias is added to an output at every token: the gradient by it is the sum of those by the output.
#[test]
fn gradients_by_outputs_of_matrices_are_derivatives() {
    let (mut compared, step) = (0, 1e-3);
    for (seed, (name, config)) in variants().into_iter().enumerate() {
        // A step may take inputs of ReLU past its kink.
        if config.mlp.activation == Activation::Relu {
            continue;
        }
        let mut layer = Layer::load(&Random::new(&config, seed as u64), 1).unwrap();
        let mut random = SplitMix(seed as u64);
        let mut draw = || -> Vec<f32> {
            noise(&mut random, TOKENS * config.n_embd).iter().map(|&x| x as f32).collect()
        };
        let (x, weights) = (draw(), draw());
        let mut sums = Vec::new();
        layer.backward(&x, weights.clone(), &mut |id, _, gradients| {
            let width = gradients.len() / TOKENS;
            let sum = |output: usize| -> f64 {
                gradients.iter().skip(output).step_by(width).map(|&g| f64::from(g)).sum()
            };
            sums.push((id, (0..width).map(sum).collect::<Vec<f64>>()));
        });
        for (id, sums) in sums {
            if layer.linear_mut(id).bias.is_none() {
                continue;
            }
            let size = sums.iter().fold(0.0, |max: f64, sum| max.max(sum.abs()));
            for output in [0, sums.len() - 1] {
                let mut loss = |step: f32| -> f64 {
                    let add = |layer: &mut Layer, step: f32| {
                        layer.linear_mut(id).bias.as_mut().expect("has one")[output] += step;
                    };
                    add(&mut layer, step);
                    let y = layer.forward(&x, Parallelism::Serial, &mut |_, _| ());
                    add(&mut layer, -step);
                    y.iter().zip(&weights).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
                };
                let expected = (loss(step) - loss(-step)) / f64::from(2.0 * step);
                let found = sums[output];
                assert!(
                    (found - expected).abs() < 5e-3 * size,
                    "{name} {id:?}: {found} {expected}"
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 0);
}
