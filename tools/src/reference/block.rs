//! One layer of the network, whole or in the steps between its matrix products.

use cerebellum::format::network::{Role, TensorId};
use cerebellum::format::{Config, MlpKind};

use super::Visit;
use super::attention::Heads;
use super::error::Result;
use super::layers::{LayerNorm, Linear, activate, activate_backward, add, multiply};
use super::parallel::Parallelism;
use super::weights::Weights;

/// One layer: attention and MLP, each behind a layer norm and around a residual connection.
#[derive(Clone)]
pub(crate) struct Block {
    pub ln_1: LayerNorm,
    heads: Heads,
    pub c_attn: Linear,    // n_embd → 3 · n_embd
    pub attn_proj: Linear, // n_embd → n_embd
    pub ln_2: LayerNorm,
    pub c_fc: Linear,         // n_embd → n_inner
    pub gate: Option<Linear>, // n_embd → n_inner
    pub mlp_proj: Linear,     // n_inner → n_embd
}

impl Block {
    pub fn load(weights: &impl Weights, layer: usize) -> Result<Self> {
        let config = weights.config();
        let norm = |role| LayerNorm::load(weights, TensorId::in_layer(layer, role));
        let linear = |role| Linear::load(weights, TensorId::in_layer(layer, role));
        Ok(Self {
            ln_1: norm(Role::AttentionNorm)?,
            heads: Heads::new(config, weights.slopes()?, layer),
            c_attn: linear(Role::AttentionIn)?,
            attn_proj: linear(Role::AttentionOut)?,
            ln_2: norm(Role::MlpNorm)?,
            c_fc: linear(Role::MlpUp)?,
            gate: match config.mlp.kind {
                MlpKind::Gated => Some(linear(Role::MlpGate)?),
                _ => None,
            },
            mlp_proj: linear(Role::MlpDown)?,
        })
    }

    /// Adds attention, then the MLP, to the residual stream `x`: (tokens, n_embd). `visit` gets the input
    /// of each matrix product; a gate's is its companion's.
    pub fn forward(&self, x: &mut [f32], config: &Config, parallelism: Parallelism, visit: Visit) {
        let mut h = self.ln_1.forward(x, parallelism); // (tokens, n_embd)
        visit(self.c_attn.id, &mut h);
        let mut h = self.attend(&h, parallelism); // (tokens, n_embd)
        visit(self.attn_proj.id, &mut h);
        add(x, &self.attn_proj.forward(&h, parallelism));

        let mut h = self.ln_2.forward(x, parallelism); // (tokens, n_embd)
        visit(self.c_fc.id, &mut h);
        if let Some(gate) = &self.gate {
            visit(gate.id, &mut h);
        }
        let mut h = self.hidden(&h, config, parallelism); // (tokens, n_inner)
        visit(self.mlp_proj.id, &mut h);
        add(x, &self.mlp_proj.forward(&h, parallelism));
    }

    /// `x`: the layer's input; `grad`: a loss's gradient by its output → by its input; (tokens, n_embd) all.
    /// On the calling thread.
    pub fn backward(&self, x: &[f32], grad: &mut [f32], config: &Config) {
        let serial = Parallelism::Serial;
        let qkv = self.c_attn.forward(&self.ln_1.forward(x, serial), serial);
        let mut middle = x.to_vec(); // between attention and MLP
        let gathered = self.heads.attend(&qkv, serial);
        add(&mut middle, &self.attn_proj.forward(&gathered, serial));

        let h = self.ln_2.forward(&middle, serial);
        let by_h = self.hidden_backward(&h, self.mlp_proj.backward(grad), config);
        add(grad, &self.ln_2.backward(&middle, &by_h));

        let by_qkv = self.heads.backward(&qkv, &self.attn_proj.backward(grad));
        add(grad, &self.ln_1.backward(x, &self.c_attn.backward(&by_qkv)));
    }

    /// `h`: the input of [`hidden`](Self::hidden); `grad`: a loss's gradient by its output, (tokens,
    /// n_inner) → by `h`, (tokens, n_embd).
    fn hidden_backward(&self, h: &[f32], mut grad: Vec<f32>, config: &Config) -> Vec<f32> {
        let serial = Parallelism::Serial;
        let up = self.c_fc.forward(h, serial);
        let Some(gate) = &self.gate else {
            activate_backward(config.mlp.activation, &up, &mut grad);
            return self.c_fc.backward(&grad);
        };
        let before = gate.forward(h, serial);
        let mut by_gate = grad.clone();
        multiply(&mut by_gate, &up);
        activate_backward(config.mlp.activation, &before, &mut by_gate);
        let mut activated = before;
        activate(config.mlp.activation, &mut activated, serial);
        multiply(&mut grad, &activated);
        let mut by_h = self.c_fc.backward(&grad);
        add(&mut by_h, &gate.backward(&by_gate));
        by_h
    }

    /// The linear layer with the weight `id`.
    ///
    /// # Panics
    /// If it is another layer's.
    pub fn linear_mut(&mut self, id: TensorId) -> &mut Linear {
        [&mut self.c_attn, &mut self.attn_proj, &mut self.c_fc, &mut self.mlp_proj]
            .into_iter()
            .chain(self.gate.as_mut())
            .find(|linear| linear.id == id)
            .expect("one of this layer's matrices")
    }

    /// The linear layers that read the first layer norm's output, or those that read the second's.
    pub fn readers(&self, first: bool) -> Vec<&Linear> {
        if first {
            vec![&self.c_attn]
        } else {
            [&self.c_fc].into_iter().chain(&self.gate).collect()
        }
    }

    /// As [`readers`](Self::readers), to be changed.
    pub fn readers_mut(&mut self, first: bool) -> Vec<&mut Linear> {
        match first {
            true => vec![&mut self.c_attn],
            false => [&mut self.c_fc].into_iter().chain(&mut self.gate).collect(),
        }
    }

    /// `h`: (tokens, n_embd), normalized → (tokens, n_embd), what enters `attn_proj`.
    pub fn attend(&self, h: &[f32], parallelism: Parallelism) -> Vec<f32> {
        let qkv = self.c_attn.forward(h, parallelism); // (tokens, 3 · n_embd)
        self.heads.attend(&qkv, parallelism)
    }

    /// `h`: (tokens, n_embd), normalized → (tokens, n_inner), what enters `mlp_proj`.
    pub fn hidden(&self, h: &[f32], config: &Config, parallelism: Parallelism) -> Vec<f32> {
        let mut up = self.c_fc.forward(h, parallelism); // (tokens, n_inner)
        match &self.gate {
            None => {
                activate(config.mlp.activation, &mut up, parallelism);
                up
            }
            Some(gate) => {
                let mut gate = gate.forward(h, parallelism); // (tokens, n_inner)
                activate(config.mlp.activation, &mut gate, parallelism);
                multiply(&mut gate, &up);
                gate
            }
        }
    }
}
