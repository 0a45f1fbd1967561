//! Causal multi-head attention over a whole sequence.

use crate::checkpoint::Alibi;

use super::matmul::{View, ViewMut, matmul, matmul_transposed};
use super::parallel::Parallelism;

/// Queries handled at once: bounds the scores to `QUERIES · tokens`, and leaves out most of the
/// upper triangle that the causal mask would throw away.
const QUERIES: usize = 128;

/// The sizes of one attention layer.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub n_head: usize,
    pub head_dim: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

impl Heads {
    /// `qkv`: (tokens, 3 · n_embd), queries, keys and values of all heads side by side
    /// → (tokens, n_embd), the heads' outputs side by side.
    pub fn attend(&self, qkv: &[f32], alibi: Option<Alibi>, parallelism: Parallelism) -> Vec<f32> {
        let n_embd = self.n_head * self.head_dim;
        let tokens = qkv.len() / (3 * n_embd);
        let mut by_head = vec![0.0; tokens * n_embd]; // (n_head, tokens, head_dim)
        let one_head = tokens * self.head_dim;
        let slopes = alibi.map(|alibi| alibi.slopes(self.n_head)); // (n_head)
        parallelism.for_each_chunk(&mut by_head, one_head, |head, out| {
            let bias = |keys| match (alibi, &slopes) {
                (Some(alibi), Some(slopes)) => slopes[head] * alibi.shrink(keys),
                _ => 0.0,
            };
            self.attend_head(qkv, head, bias, tokens, out);
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

    /// One head: `softmax(scale · Q Kᵀ + slope · distance) V` with keys after the query left out.
    /// `slope`: of a query that sees so many keys; `out`: (tokens, head_dim).
    fn attend_head(
        &self,
        qkv: &[f32],
        head: usize,
        slope: impl Fn(usize) -> f32,
        tokens: usize,
        out: &mut [f32],
    ) {
        let (dim, n_embd) = (self.head_dim, self.n_head * self.head_dim);
        let part = |which: usize, from: usize, rows: usize| {
            let first = from * 3 * n_embd + which * n_embd + head * dim;
            View::new(&qkv[first..], rows, dim, 3 * n_embd) // (rows, head_dim)
        };
        let mut scores = vec![0.0; QUERIES.min(tokens) * tokens];
        for (block, out) in out.chunks_mut(QUERIES * dim).enumerate() {
            let (first, queries) = (block * QUERIES, out.len() / dim);
            let keys = first + queries;
            let scores = &mut scores[..queries * keys]; // (queries, keys)
            let (q, k, v) = (part(0, first, queries), part(1, 0, keys), part(2, 0, keys));

            let view = ViewMut::new(scores, queries, keys, keys);
            matmul_transposed(view, self.scale, q, k, Parallelism::Serial);
            for (query, row) in scores.chunks_mut(keys).enumerate() {
                let (seen, unseen) = row.split_at_mut(first + query + 1);
                let slope = slope(seen.len());
                for (distance, score) in seen.iter_mut().rev().enumerate() {
                    *score += slope * distance as f32;
                }
                softmax(seen);
                unseen.fill(0.0);
            }
            let scores = View::new(scores, queries, keys, keys);
            matmul(ViewMut::new(out, queries, dim, dim), 1.0, scores, v, Parallelism::Serial);
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
