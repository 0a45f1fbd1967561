//! Causal attention over a whole sequence.

use std::ops::Range;

use cerebellum::format::{Config, Positions};

use super::elementwise::add;
use super::matmul::{View, ViewMut, matmul, matmul_of_columns, matmul_transposed};
use super::parallel::Parallelism;

/// Queries handled at once: bounds the scores to `QUERIES · tokens`, and leaves out most of the
/// upper triangle that the causal mask would throw away.
const QUERIES: usize = 128;

/// The heads of one attention layer.
#[derive(Clone)]
pub(crate) struct Heads {
    /// Of queries.
    heads: usize,
    /// Query heads that share a head of keys and values.
    group: usize,
    head_size: usize,
    /// What scores are multiplied by.
    scale: f32,
    /// The positions that a query sees, its own among them; `None` if it sees all until its own.
    window: Option<usize>,
    /// ALiBi's, `[H]`; empty without ALiBi.
    slopes: Vec<f32>,
    /// The length beyond which slopes shrink.
    train_len: Option<usize>,
}

impl Heads {
    /// Those of layer `layer`.
    pub fn new(config: &Config, slopes: Vec<f32>, layer: usize) -> Self {
        let attention = &config.attention;
        let divisor = if attention.scale_by_layer { layer + 1 } else { 1 };
        Self {
            heads: attention.heads,
            group: attention.group(),
            head_size: attention.head_size,
            scale: (f64::from(attention.scale) / divisor as f64) as f32,
            window: config.layer_kind(layer).window,
            slopes,
            train_len: match config.positions {
                Positions::Alibi { train_len } => train_len,
                _ => None,
            },
        }
    }

    /// Width of all queries side by side.
    fn query_width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Width of queries, keys and values.
    fn width(&self) -> usize {
        (self.heads + 2 * self.heads / self.group) * self.head_size
    }

    /// What a head's distances are multiplied by for a query with so many positions until its own.
    fn slope(&self, head: usize, positions: usize) -> f32 {
        let slope = self.slopes.get(head).copied().unwrap_or(0.0);
        match self.train_len {
            Some(length) if positions > length => slope * (length as f32 / positions as f32),
            _ => slope,
        }
    }

    /// The first position that a query sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }

    /// `qkv`: (tokens, (H + 2 K) D), queries, keys and values of all heads side by side
    /// → (tokens, H D), the heads' outputs side by side.
    pub fn forward(&self, qkv: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let (width, size) = (self.query_width(), self.head_size);
        let tokens = qkv.len() / self.width();
        let mut by_head = vec![0.0; tokens * width]; // (H, tokens, D)
        parallelism.for_each_chunk(&mut by_head, tokens * size, |head, out| {
            Head::new(self, qkv, head).forward(out);
        });

        let mut out = vec![0.0; tokens * width]; // (tokens, H, D)
        for (head, values) in by_head.chunks(tokens * size).enumerate() {
            for (row, value) in out.chunks_mut(width).zip(values.chunks(size)) {
                row[head * size..][..size].copy_from_slice(value);
            }
        }
        out
    }

    /// `qkv` as for [`forward`](Self::forward); `grad`: a loss's gradient by the heads' outputs, (tokens,
    /// H D) → by `qkv`, (tokens, (H + 2 K) D). On the calling thread.
    pub fn backward(&self, qkv: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; qkv.len()];
        for head in 0..self.heads {
            Head::new(self, qkv, head).backward(grad, &mut out);
        }
        out
    }
}

/// One query head at work: `softmax(scale · Q Kᵀ + slope · distance) V` with the keys left out that a query
/// does not see.
struct Head<'a> {
    heads: &'a Heads,
    /// (tokens, (H + 2 K) D)
    qkv: &'a [f32],
    index: usize,
    tokens: usize,
    /// Where its queries, keys and values begin in a row of `qkv`.
    columns: [usize; 3],
}

/// Queries, keys or values.
#[derive(Clone, Copy)]
enum Which {
    Query,
    Key,
    Value,
}

impl<'a> Head<'a> {
    fn new(heads: &'a Heads, qkv: &'a [f32], index: usize) -> Self {
        let (kv_heads, shared) = (heads.heads / heads.group, index / heads.group);
        let columns = [index, heads.heads + shared, heads.heads + kv_heads + shared];
        let columns = columns.map(|head| head * heads.head_size);
        Self { heads, qkv, index, tokens: qkv.len() / heads.width(), columns }
    }

    /// Rows of queries, keys or values: (rows, D).
    fn part(&self, which: Which, rows: Range<usize>) -> View<'a> {
        let stride = self.heads.width();
        let first = rows.start * stride + self.columns[which as usize];
        View::new(&self.qkv[first..], rows.len(), self.heads.head_size, stride)
    }

    /// Blocks of queries, each with the keys that some of them see.
    fn blocks(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<'a> {
        let (heads, tokens) = (self.heads, self.tokens);
        (0..tokens).step_by(QUERIES).map(move |first| {
            let end = tokens.min(first + QUERIES);
            (first..end, heads.first_seen(first)..end)
        })
    }

    /// `out`: (tokens, D).
    fn forward(&self, out: &mut [f32]) {
        let size = self.heads.head_size;
        let mut scores = vec![0.0; QUERIES.min(self.tokens) * self.tokens];
        for ((queries, keys), out) in self.blocks().zip(out.chunks_mut(QUERIES * size)) {
            let (rows, columns) = (queries.len(), keys.len());
            let scores = &mut scores[..rows * columns]; // (queries, keys)
            self.probabilities(queries, keys.clone(), scores);
            let scores = View::new(scores, rows, columns, columns);
            let values = self.part(Which::Value, keys);
            let out = ViewMut::new(out, rows, size, size);
            matmul(out, 1.0, scores, values, Parallelism::Serial);
        }
    }

    /// How much queries attend to keys, (queries, keys).
    fn probabilities(&self, queries: Range<usize>, keys: Range<usize>, scores: &mut [f32]) {
        let (q, k) =
            (self.part(Which::Query, queries.clone()), self.part(Which::Key, keys.clone()));
        let view = ViewMut::new(scores, queries.len(), keys.len(), keys.len());
        matmul_transposed(view, self.heads.scale, q, k, Parallelism::Serial);
        for (position, row) in queries.zip(scores.chunks_mut(keys.len())) {
            let (row, after) = row.split_at_mut(position + 1 - keys.start);
            let (before, seen) = row.split_at_mut(self.heads.first_seen(position) - keys.start);
            let slope = self.heads.slope(self.index, position + 1);
            for (distance, score) in seen.iter_mut().rev().enumerate() {
                *score += slope * distance as f32;
            }
            softmax(seen);
            before.fill(0.0);
            after.fill(0.0);
        }
    }

    /// Adds the gradient by `qkv` to this head's columns of `out`, from `grad`, the gradient by the outputs.
    ///
    /// With `P` the probabilities and `G` the gradient by the head's output, the gradient by `V` is `Pᵀ G`,
    /// that by the scores `S = P ∘ (G Vᵀ - rows(P ∘ G Vᵀ))`, by `Q` and `K` `scale · S K` and `scale · Sᵀ Q`.
    fn backward(&self, grad: &[f32], out: &mut [f32]) {
        let Heads { head_size, scale, .. } = *self.heads;
        let (width, stride) = (self.heads.query_width(), self.heads.width());
        let most = QUERIES.min(self.tokens) * self.tokens;
        let (mut scores, mut by_scores) = (vec![0.0; most], vec![0.0; most]);
        let mut product = vec![0.0; self.tokens * head_size];
        let mut add_rows = |which: Which, first: usize, product: &[f32]| {
            for (row, product) in out.chunks_mut(stride).skip(first).zip(product.chunks(head_size))
            {
                add(&mut row[self.columns[which as usize]..][..head_size], product);
            }
        };
        for (queries, keys) in self.blocks() {
            let (rows, columns) = (queries.len(), keys.len());
            let scores = &mut scores[..rows * columns]; // (queries, keys)
            let by_scores = &mut by_scores[..rows * columns]; // (queries, keys)
            self.probabilities(queries.clone(), keys.clone(), scores);
            let grad = &grad[queries.start * width + self.index * head_size..];
            let grad = View::new(grad, rows, head_size, width);
            let probabilities = View::new(scores, rows, columns, columns);

            let by_values = &mut product[..columns * head_size];
            let view = ViewMut::new(by_values, columns, head_size, head_size);
            matmul_of_columns(view, 1.0, probabilities, grad);
            add_rows(Which::Value, keys.start, by_values);

            let view = ViewMut::new(by_scores, rows, columns, columns);
            let values = self.part(Which::Value, keys.clone());
            matmul_transposed(view, 1.0, grad, values, Parallelism::Serial);
            for (row, p) in by_scores.chunks_mut(columns).zip(scores.chunks(columns)) {
                let pairs = row.iter().zip(p);
                let mean = pairs.map(|(g, p)| f64::from(*g) * f64::from(*p)).sum::<f64>() as f32;
                row.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
            }
            let by_scores = View::new(by_scores, rows, columns, columns);

            let by_queries = &mut product[..rows * head_size];
            let view = ViewMut::new(by_queries, rows, head_size, head_size);
            let k = self.part(Which::Key, keys.clone());
            matmul(view, scale, by_scores, k, Parallelism::Serial);
            add_rows(Which::Query, queries.start, by_queries);

            let by_keys = &mut product[..columns * head_size];
            let view = ViewMut::new(by_keys, columns, head_size, head_size);
            matmul_of_columns(view, scale, by_scores, self.part(Which::Query, queries));
            add_rows(Which::Key, keys.start, by_keys);
        }
    }
}

/// `exp(xᵢ − max) / Σ exp(xⱼ − max)`, in place; the sum is in double precision.
fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in &mut *x {
        *x = (*x - max).exp();
        sum += f64::from(*x);
    }
    let scale = (1.0 / sum) as f32;
    x.iter_mut().for_each(|x| *x *= scale);
}
