//! Rotated positions (RoPE, Su et al., arXiv 2104.09864; `docs/numbers.md` section 12).

use super::parallel::Parallelism;

/// The rotation of a layer's queries and keys: dimension `i` of a head with `i + pairs`.
#[derive(Clone)]
pub(crate) struct Rotation {
    /// Radians a position, (pairs).
    pub frequencies: Vec<f64>,
    /// What cosine and sine are multiplied by.
    pub factor: f64,
    /// Heads of queries and of keys, which come first in a row.
    pub heads: usize,
    pub head_size: usize,
    /// Width of queries, keys and values.
    pub width: usize,
}

impl Rotation {
    /// `qkv`: (tokens, (H + 2 K) D), the first at position 0 → the same.
    pub fn forward(&self, qkv: &[f32], parallelism: Parallelism) -> Vec<f32> {
        self.turn(qkv, 1.0, parallelism)
    }

    /// `grad`: a loss's gradient by the output → by the input, both as wide as it. A rotation is undone by
    /// the opposite one, which is its transpose; the factor stays.
    pub fn backward(&self, grad: &[f32]) -> Vec<f32> {
        self.turn(grad, -1.0, Parallelism::Serial)
    }

    fn turn(&self, qkv: &[f32], direction: f64, parallelism: Parallelism) -> Vec<f32> {
        let (mut out, pairs) = (qkv.to_vec(), self.frequencies.len());
        parallelism.for_each_chunk(&mut out, self.width, |position, row| {
            let turn = |frequency: &f64| {
                let angle = position as f64 * frequency;
                (libm::cos(angle) * self.factor, libm::sin(angle) * self.factor * direction)
            };
            let turns: Vec<_> = self.frequencies.iter().map(turn).collect();
            for head in row.chunks_mut(self.head_size).take(self.heads) {
                for (i, (cos, sin)) in turns.iter().enumerate() {
                    let (a, b) = (f64::from(head[i]), f64::from(head[i + pairs]));
                    head[i] = (a * cos - b * sin) as f32;
                    head[i + pairs] = (b * cos + a * sin) as f32;
                }
            }
        });
        out
    }
}
