//! Which tensors a model of a given configuration must have.

use super::config::Config;
use super::names::{EMBEDDING, HEAD, POSITIONS};
use super::storage::Layout;

/// A tensor the model needs.
pub(super) struct Expected {
    /// The canonical name.
    pub name: String,
    /// The shape as used: `[out, in]`, `[rows, columns]` or `[elements]`.
    pub shape: Vec<usize>,
    /// Whether it is the weight of a linear layer, which may be stored the other way round.
    pub linear: bool,
}

impl Expected {
    /// The shape as stored in this layout.
    pub fn stored_shape(&self, layout: Layout) -> Vec<usize> {
        let mut shape = self.shape.clone();
        if self.linear && layout == Layout::Conv1d {
            shape.reverse();
        }
        shape
    }
}

/// Every tensor of the model, in the order the forward pass uses them: the canonical order.
pub(super) fn expected(config: &Config, tied: bool) -> Vec<Expected> {
    let (embd, inner) = (config.n_embd, config.n_inner);
    let mut list = List(Vec::new());
    list.plain(EMBEDDING, &[config.vocab_size, embd]);
    if config.alibi.is_none() {
        list.plain(POSITIONS, &[config.n_positions, embd]);
    }
    for layer in 0..config.n_layer {
        let name = |part: &str| format!("h.{layer}.{part}");
        list.layer_norm(&name("ln_1"), embd);
        list.linear(&name("attn.c_attn"), embd, 3 * embd);
        list.linear(&name("attn.c_proj"), embd, embd);
        list.layer_norm(&name("ln_2"), embd);
        list.linear(&name("mlp.c_fc"), embd, inner);
        if config.gated_mlp {
            list.linear(&name("mlp.c_fc2"), embd, inner);
        }
        list.linear(&name("mlp.c_proj"), inner, embd);
    }
    list.layer_norm("ln_f", embd);
    if !tied {
        list.plain(HEAD, &[config.vocab_size, embd]);
    }
    list.0
}

struct List(Vec<Expected>);

impl List {
    fn plain(&mut self, name: &str, shape: &[usize]) {
        self.0.push(Expected { name: name.to_owned(), shape: shape.to_owned(), linear: false });
    }

    fn layer_norm(&mut self, name: &str, width: usize) {
        self.plain(&format!("{name}.weight"), &[width]);
        self.plain(&format!("{name}.bias"), &[width]);
    }

    fn linear(&mut self, name: &str, n_in: usize, n_out: usize) {
        let weight = format!("{name}.weight");
        self.0.push(Expected { name: weight, shape: vec![n_out, n_in], linear: true });
        self.plain(&format!("{name}.bias"), &[n_out]);
    }
}
