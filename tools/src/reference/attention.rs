//! Causal multi-head attention over a whole sequence.

use cerebellum::format::{Config, Positions};

use super::layers::add;
use super::matmul::{View, ViewMut, matmul, matmul_of_columns, matmul_transposed};
use super::parallel::Parallelism;

/// Queries handled at once: bounds the scores to `QUERIES · tokens`, and leaves out most of the
/// upper triangle that the causal mask would throw away.
const QUERIES: usize = 128;

/// The sizes of one attention layer.
#[derive(Clone)]
pub(super) struct Heads {
    n_head: usize,
    head_dim: usize,
    /// What scores are multiplied by.
    scale: f32,
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
            n_head: attention.heads,
            head_dim: attention.head_size,
            scale: (f64::from(attention.scale) / divisor as f64) as f32,
            slopes,
            train_len: match config.positions {
                Positions::Alibi { train_len } => train_len,
                _ => None,
            },
        }
    }

    /// What a head's distances are multiplied by for a query that sees `keys` keys, its own among them.
    fn slope(&self, head: usize, keys: usize) -> f32 {
        let slope = self.slopes.get(head).copied().unwrap_or(0.0);
        match self.train_len {
            Some(length) if keys > length => slope * (length as f32 / keys as f32),
            _ => slope,
        }
    }

    /// `qkv`: (tokens, 3 · n_embd), queries, keys and values of all heads side by side
    /// → (tokens, n_embd), the heads' outputs side by side.
    pub fn attend(&self, qkv: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let n_embd = self.n_head * self.head_dim;
        let tokens = qkv.len() / (3 * n_embd);
        let mut by_head = vec![0.0; tokens * n_embd]; // (n_head, tokens, head_dim)
        let one_head = tokens * self.head_dim;
        parallelism.for_each_chunk(&mut by_head, one_head, |head, out| {
            Head::new(self, qkv, head).attend(out);
        });

        let mut out = vec![0.0; tokens * n_embd]; // (tokens, n_head, head_dim)
        for (head, values) in by_head.chunks(one_head).enumerate() {
            let first = head * self.head_dim;
            for (row, value) in out.chunks_mut(n_embd).zip(values.chunks(self.head_dim)) {
                row[first..first + self.head_dim].copy_from_slice(value);
            }
        }
        out
    }

    /// `qkv` as for [`attend`](Self::attend); `grad`: a loss's gradient by the heads' outputs, (tokens,
    /// n_embd) → by `qkv`, (tokens, 3 · n_embd). On the calling thread.
    pub fn backward(&self, qkv: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; qkv.len()];
        for head in 0..self.n_head {
            Head::new(self, qkv, head).backward(grad, &mut out);
        }
        out
    }
}

/// One head at work: `softmax(scale · Q Kᵀ + slope · distance) V` with keys after the query left out.
struct Head<'a> {
    heads: &'a Heads,
    /// (tokens, 3 · n_embd)
    qkv: &'a [f32],
    index: usize,
    tokens: usize,
}

impl<'a> Head<'a> {
    fn new(heads: &'a Heads, qkv: &'a [f32], index: usize) -> Self {
        let tokens = qkv.len() / (3 * heads.n_head * heads.head_dim);
        Self { heads, qkv, index, tokens }
    }

    /// Where the head's queries (0), keys (1) or values (2) begin in a row of `qkv`.
    fn column(&self, which: usize) -> usize {
        (which * self.heads.n_head + self.index) * self.heads.head_dim
    }

    /// Rows of queries (0), keys (1) or values (2): (rows, head_dim).
    fn part(&self, which: usize, first: usize, rows: usize) -> View<'a> {
        let stride = 3 * self.heads.n_head * self.heads.head_dim;
        View::new(
            &self.qkv[first * stride + self.column(which)..],
            rows,
            self.heads.head_dim,
            stride,
        )
    }

    /// `out`: (tokens, head_dim).
    fn attend(&self, out: &mut [f32]) {
        let dim = self.heads.head_dim;
        let mut scores = vec![0.0; QUERIES.min(self.tokens) * self.tokens];
        for (block, out) in out.chunks_mut(QUERIES * dim).enumerate() {
            let (first, queries) = (block * QUERIES, out.len() / dim);
            let keys = first + queries;
            let scores = &mut scores[..queries * keys]; // (queries, keys)
            self.probabilities(first, scores);
            let scores = View::new(scores, queries, keys, keys);
            let values = self.part(2, 0, keys);
            matmul(ViewMut::new(out, queries, dim, dim), 1.0, scores, values, Parallelism::Serial);
        }
    }

    /// How much the queries from `first` on attend to each key up to their own, (queries, keys); the keys
    /// end with the last query.
    fn probabilities(&self, first: usize, scores: &mut [f32]) {
        let queries = QUERIES.min(self.tokens - first);
        let keys = first + queries;
        let (q, k) = (self.part(0, first, queries), self.part(1, 0, keys));
        let view = ViewMut::new(scores, queries, keys, keys);
        matmul_transposed(view, self.heads.scale, q, k, Parallelism::Serial);
        for (query, row) in scores.chunks_mut(keys).enumerate() {
            let (seen, unseen) = row.split_at_mut(first + query + 1);
            let slope = self.heads.slope(self.index, seen.len());
            for (distance, score) in seen.iter_mut().rev().enumerate() {
                *score += slope * distance as f32;
            }
            softmax(seen);
            unseen.fill(0.0);
        }
    }

    /// Fills this head's columns of `out`, the gradient by `qkv`, from `grad`, the gradient by the outputs.
    ///
    /// With `P` the probabilities and `G` the gradient by the head's output, the gradient by `V` is `Pᵀ G`,
    /// that by the scores `S = P ∘ (G Vᵀ - rows(P ∘ G Vᵀ))`, by `Q` and `K` `scale · S K` and `scale · Sᵀ Q`.
    fn backward(&self, grad: &[f32], out: &mut [f32]) {
        let Heads { n_head, head_dim: dim, scale, .. } = *self.heads;
        let (n_embd, stride) = (n_head * dim, 3 * n_head * dim);
        let size = QUERIES.min(self.tokens) * self.tokens;
        let (mut scores, mut by_scores) = (vec![0.0; size], vec![0.0; size]);
        let mut product = vec![0.0; self.tokens * dim];
        let mut add_rows = |which: usize, first: usize, product: &[f32]| {
            for (row, product) in out.chunks_mut(stride).skip(first).zip(product.chunks(dim)) {
                add(&mut row[self.column(which)..][..dim], product);
            }
        };
        for first in (0..self.tokens).step_by(QUERIES) {
            let queries = QUERIES.min(self.tokens - first);
            let keys = first + queries;
            let scores = &mut scores[..queries * keys]; // (queries, keys)
            let by_scores = &mut by_scores[..queries * keys]; // (queries, keys)
            self.probabilities(first, scores);
            let grad = &grad[first * n_embd + self.index * dim..];
            let grad = View::new(grad, queries, dim, n_embd);
            let probabilities = View::new(scores, queries, keys, keys);

            let by_values = &mut product[..keys * dim];
            matmul_of_columns(ViewMut::new(by_values, keys, dim, dim), 1.0, probabilities, grad);
            add_rows(2, 0, by_values);

            let view = ViewMut::new(by_scores, queries, keys, keys);
            matmul_transposed(view, 1.0, grad, self.part(2, 0, keys), Parallelism::Serial);
            for (row, p) in by_scores.chunks_mut(keys).zip(scores.chunks(keys)) {
                let pairs = row.iter().zip(p);
                let mean = pairs.map(|(g, p)| f64::from(*g) * f64::from(*p)).sum::<f64>() as f32;
                row.iter_mut().zip(p).for_each(|(g, p)| *g = p * (*g - mean));
            }
            let by_scores = View::new(by_scores, queries, keys, keys);

            let by_queries = &mut product[..queries * dim];
            let view = ViewMut::new(by_queries, queries, dim, dim);
            matmul(view, scale, by_scores, self.part(1, 0, keys), Parallelism::Serial);
            add_rows(0, first, by_queries);

            let by_keys = &mut product[..keys * dim];
            let view = ViewMut::new(by_keys, keys, dim, dim);
            matmul_of_columns(view, scale, by_scores, self.part(0, first, queries));
            add_rows(1, 0, by_keys);
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
