//! Tensor names: which stored tensors, and which of their rows, make a tensor of the
//! [`network`](cerebellum::format::network).
//!
//! Each format has one table for each family whose names differ: here those of PyTorch's and safetensors
//! files, in [`gguf`] those of GGUF. Nothing else knows a stored name.

pub mod gguf;

use cerebellum::format::Architecture;
use cerebellum::format::network::{Part, Role, TensorId};

/// What a format calls the tensors of a family.
#[derive(Debug)]
pub struct Names {
    /// What may stand before a name: each is taken off once, in this order.
    pub prefixes: &'static [&'static str],
    /// Names that older files have, and those of newer files.
    pub renamed: &'static [(&'static str, &'static str)],
    /// What stands before a layer's number.
    pub layer: &'static str,
    /// The field of the configuration that says how many layers there are.
    pub count: &'static str,
    /// What each role's tensors are called. The first table that has a role counts.
    pub tables: &'static [&'static [(Role, &'static [Piece])]],
    /// How names of tensors begin that belong to no decoder: of images, for example.
    pub left_out: &'static [&'static str],
    /// Whether a tensor in a layer that the configuration does not ask for is an error: it would change
    /// what the layer computes.
    pub is_strict: bool,
    /// What is added to the weights of norms.
    pub norm_offset: f32,
}

/// A stored tensor that a tensor of the network consists of, or is a part of.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Its name, without prefixes, without its layer's number, without `.weight` or `.bias`.
    pub name: &'static str,
    /// Which rows it has, or which of its rows are taken.
    pub rows: Rows,
}

/// Which rows of a matrix, or elements of a bias, a stored tensor has, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All of them.
    All,
    /// Those of all query heads.
    Queries,
    /// Those of all query heads; of each head, rows `i` and `i + D / 2` stand side by side.
    InterleavedQueries,
    /// Those of all key heads.
    Keys,
    /// Those of all key heads, as [`InterleavedQueries`](Self::InterleavedQueries).
    InterleavedKeys,
    /// Those of all value heads.
    Values,
    /// Of each head query, key and value, and so from head to head.
    ByHead,
    /// The first half of the stored tensor's.
    FirstHalf,
    /// The second half of the stored tensor's.
    SecondHalf,
}

impl Names {
    /// Those of PyTorch's and safetensors files.
    pub fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::Gemma3 => &GEMMA3,
            Architecture::Olmo2 => &OLMO2,
            Architecture::Phi3 => &PHI3,
            Architecture::GptNeox => &GPT_NEOX,
            Architecture::Gpt2 | Architecture::Btlm => &GPT2,
            _ => &LLAMA,
        }
    }

    /// A name without the prefixes that some files have, as newer files have it.
    pub fn bare<'a>(&self, stored: &'a str) -> &'a str {
        let strip = |name: &'a str, prefix: &&str| name.strip_prefix(prefix).unwrap_or(name);
        let bare = self.prefixes.iter().fold(stored, strip);
        self.renamed.iter().find(|(older, _)| *older == bare).map_or(bare, |(_, newer)| newer)
    }

    /// The stored tensors that a tensor consists of, by bare name.
    pub fn pieces(&self, id: TensorId) -> Vec<(String, Rows)> {
        let entries = self.tables.iter().flat_map(|table| table.iter());
        let entry = entries.into_iter().find(|(role, _)| *role == id.role);
        let part = match id.part {
            Part::Weight => "weight",
            Part::Bias => "bias",
        };
        let name = |piece: &Piece| match id.layer {
            Some(layer) => format!("{}{layer}.{}.{part}", self.layer, piece.name),
            None => format!("{}.{part}", piece.name),
        };
        match entry {
            Some((_, pieces)) => pieces.iter().map(|piece| (name(piece), piece.rows)).collect(),
            // No family of this table has the role; the canonical name is as good as any.
            None => vec![(id.name(), Rows::All)],
        }
    }

    /// The layer of a bare name, and what follows, whether or not a model has such a tensor.
    pub fn split_layer<'a>(&self, bare: &'a str) -> Option<(usize, &'a str)> {
        let (layer, rest) = bare.strip_prefix(self.layer)?.split_once('.')?;
        Some((layer.parse().ok()?, rest))
    }

    /// Whether a tensor is a buffer that follows from the configuration, which files may carry and no
    /// model needs: of the causal mask, `attn.bias` of shape `[1, 1, n, n]` and the scalar `attn.masked_bias`;
    /// of ALiBi `relative_pe.slopes`; of rotated positions `rotary_emb.inv_freq`.
    pub fn is_buffer(&self, bare: &str, shape: &[usize]) -> bool {
        let is_in = |buffers: &[&str], name: &str| buffers.contains(&name);
        if is_in(&["relative_pe.slopes", "rotary_emb.inv_freq"], bare) {
            return true;
        }
        match self.split_layer(bare) {
            Some((_, "attn.bias" | "attention.bias")) => {
                matches!(shape, [1, 1, from, to] if from == to)
            }
            Some((_, "attn.masked_bias" | "attention.masked_bias")) => {
                shape.iter().product::<usize>() == 1
            }
            Some((_, rest)) => {
                is_in(&["self_attn.rotary_emb.inv_freq", "attention.rotary_emb.inv_freq"], rest)
            }
            None => false,
        }
    }
}

/// A tensor stored by itself, or with others whose rows follow in the network's order.
pub const fn whole(name: &'static str) -> Piece {
    Piece { name, rows: Rows::All }
}

/// Some rows of a tensor.
pub const fn piece(name: &'static str, rows: Rows) -> Piece {
    Piece { name, rows }
}

/// OpenAI's names; `GPT2LMHeadModel` puts `transformer.` before all but the head.
const GPT2: Names = Names {
    prefixes: &["transformer."],
    renamed: &[],
    layer: "h.",
    count: "n_layer",
    // The canonical names.
    tables: &[],
    left_out: &[],
    is_strict: false,
    norm_offset: 0.0,
};

const COUNT: &str = "num_hidden_layers";

const LLAMA: Names = Names {
    prefixes: &["model."],
    renamed: &[],
    layer: "layers.",
    count: COUNT,
    tables: &[&LLAMA_TABLE],
    left_out: &[],
    is_strict: true,
    norm_offset: 0.0,
};

const LLAMA_TABLE: [(Role, &[Piece]); 12] = [
    (Role::Embedding, &[whole("embed_tokens")]),
    (Role::AttentionNorm, &[whole("input_layernorm")]),
    (
        Role::AttentionIn,
        &[
            piece("self_attn.q_proj", Rows::Queries),
            piece("self_attn.k_proj", Rows::Keys),
            piece("self_attn.v_proj", Rows::Values),
        ],
    ),
    (Role::QueryNorm, &[whole("self_attn.q_norm")]),
    (Role::KeyNorm, &[whole("self_attn.k_norm")]),
    (Role::AttentionOut, &[whole("self_attn.o_proj")]),
    (Role::MlpNorm, &[whole("post_attention_layernorm")]),
    (Role::MlpUp, &[whole("mlp.up_proj")]),
    (Role::MlpGate, &[whole("mlp.gate_proj")]),
    (Role::MlpDown, &[whole("mlp.down_proj")]),
    (Role::FinalNorm, &[whole("norm")]),
    (Role::Head, &[whole("lm_head")]),
];

/// Norms are stored less one. Multimodal checkpoints have `language_model.` inside or outside of `model.`.
const GEMMA3: Names = Names {
    prefixes: &["model.", "language_model.", "model."],
    tables: &[&GEMMA3_TABLE, &LLAMA_TABLE],
    left_out: &["vision_tower.", "multi_modal_projector."],
    norm_offset: 1.0,
    ..LLAMA
};

const GEMMA3_TABLE: [(Role, &[Piece]); 3] = [
    (Role::AttentionOutNorm, &[whole("post_attention_layernorm")]),
    (Role::MlpNorm, &[whole("pre_feedforward_layernorm")]),
    (Role::MlpOutNorm, &[whole("post_feedforward_layernorm")]),
];

const OLMO2: Names = Names { tables: &[&OLMO2_TABLE, &LLAMA_TABLE], ..LLAMA };

const OLMO2_TABLE: [(Role, &[Piece]); 2] = [
    (Role::AttentionOutNorm, &[whole("post_attention_layernorm")]),
    (Role::MlpOutNorm, &[whole("post_feedforward_layernorm")]),
];

const PHI3: Names = Names { tables: &[&PHI3_TABLE, &LLAMA_TABLE], ..LLAMA };

const PHI3_TABLE: [(Role, &[Piece]); 3] = [
    (Role::AttentionIn, &[whole("self_attn.qkv_proj")]),
    (Role::MlpGate, &[piece("mlp.gate_up_proj", Rows::FirstHalf)]),
    (Role::MlpUp, &[piece("mlp.gate_up_proj", Rows::SecondHalf)]),
];

const GPT_NEOX: Names = Names {
    prefixes: &["gpt_neox."],
    renamed: &[("embed_out.weight", "lm_head.weight")],
    tables: &[&GPT_NEOX_TABLE],
    ..LLAMA
};

const GPT_NEOX_TABLE: [(Role, &[Piece]); 9] = [
    (Role::Embedding, &[whole("embed_in")]),
    (Role::AttentionNorm, &[whole("input_layernorm")]),
    (Role::AttentionIn, &[piece("attention.query_key_value", Rows::ByHead)]),
    (Role::AttentionOut, &[whole("attention.dense")]),
    (Role::MlpNorm, &[whole("post_attention_layernorm")]),
    (Role::MlpUp, &[whole("mlp.dense_h_to_4h")]),
    (Role::MlpDown, &[whole("mlp.dense_4h_to_h")]),
    (Role::FinalNorm, &[whole("final_layer_norm")]),
    (Role::Head, &[whole("lm_head")]),
];

/// What training frameworks put before every name of a checkpoint when the model was wrapped:
/// `torch.compile`, and `DataParallel` or `DistributedDataParallel`.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// The wrappers before all of these names, in any order and nesting. A prefix that some names lack belongs
/// to the others.
pub fn wrapper<'a>(names: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut prefix = String::new();
    loop {
        let is_everywhere = |wrapper: &&&str| {
            let longer = format!("{prefix}{wrapper}");
            // Of no names at all every wrapper would be a prefix.
            names.clone().next().is_some() && names.clone().all(|name| name.starts_with(&longer))
        };
        match WRAPPERS.iter().find(is_everywhere) {
            Some(wrapper) => prefix += wrapper,
            None => return prefix,
        }
    }
}

/// Whether a tensor is part of an adapter that was not merged into its model (PEFT's LoRA).
pub fn is_adapter(stored: &str) -> bool {
    stored.contains(".lora_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_prefixes_are_one() {
        for name in ["transformer.h.0.ln_1.weight", "h.0.ln_1.weight"] {
            assert_eq!(GPT2.bare(name), "h.0.ln_1.weight");
        }
        assert_eq!(GPT2.bare("lm_head.weight"), "lm_head.weight");
        for name in [
            "layers.0.input_layernorm.weight",
            "model.layers.0.input_layernorm.weight",
            "language_model.model.layers.0.input_layernorm.weight",
            "model.language_model.layers.0.input_layernorm.weight",
        ] {
            assert_eq!(GEMMA3.bare(name), "layers.0.input_layernorm.weight");
        }
        assert_eq!(GPT_NEOX.bare("gpt_neox.layers.3.x"), "layers.3.x");
        assert_eq!(GPT_NEOX.bare("embed_out.weight"), "lm_head.weight");
    }

    #[test]
    fn canonical_names_of_gpt2_are_its_own() {
        let id = TensorId::in_layer(7, Role::AttentionIn).bias();
        assert_eq!(GPT2.pieces(id), [(id.name(), Rows::All)]);
    }

    #[test]
    fn a_family_has_its_own_names_before_shared_ones() {
        let pieces = |names: &Names, role| names.pieces(TensorId::in_layer(2, role));
        let one = |name: &str| [(name.to_owned(), Rows::All)];
        assert_eq!(pieces(&LLAMA, Role::MlpNorm), one("layers.2.post_attention_layernorm.weight"));
        assert_eq!(
            pieces(&GEMMA3, Role::MlpNorm),
            one("layers.2.pre_feedforward_layernorm.weight")
        );
        assert_eq!(pieces(&GEMMA3, Role::MlpDown), one("layers.2.mlp.down_proj.weight"));
        let queries = ("layers.2.self_attn.q_proj.bias".to_owned(), Rows::Queries);
        assert_eq!(LLAMA.pieces(TensorId::in_layer(2, Role::AttentionIn).bias())[0], queries);
        let gate = ("layers.2.mlp.gate_up_proj.weight".to_owned(), Rows::FirstHalf);
        assert_eq!(pieces(&PHI3, Role::MlpGate), [gate]);
    }

    #[test]
    fn wrappers_are_those_of_all_names() {
        let wrapper = |names: &[&str]| wrapper(names.iter().copied());
        assert_eq!(wrapper(&["_orig_mod.wte.weight", "_orig_mod.ln_f.bias"]), "_orig_mod.");
        assert_eq!(wrapper(&["module._orig_mod.wte.weight"]), "module._orig_mod.");
        assert_eq!(wrapper(&["_orig_mod.module.module.a"]), "_orig_mod.module.module.");
        assert_eq!(wrapper(&["module.wte.weight", "ln_f.bias"]), "");
        assert_eq!(wrapper(&["wte.weight"]), "");
        assert_eq!(wrapper(&[]), "");
    }

    #[test]
    fn only_buffers_are_buffers() {
        assert!(GPT2.is_buffer("relative_pe.slopes", &[32, 1]));
        assert!(GPT2.is_buffer("h.1.attn.bias", &[1, 1, 48, 48]));
        assert!(GPT2.is_buffer("h.1.attn.masked_bias", &[]));
        assert!(!GPT2.is_buffer("h.1.attn.bias", &[48]));
        assert!(!GPT2.is_buffer("h.1.attn.c_attn.bias", &[192]));
        assert!(!GPT2.is_buffer("attn.bias", &[1, 1, 48, 48]));
        assert!(LLAMA.is_buffer("layers.1.self_attn.rotary_emb.inv_freq", &[32]));
        assert!(GPT_NEOX.is_buffer("layers.1.attention.bias", &[1, 1, 48, 48]));
        assert!(!GPT_NEOX.is_buffer("layers.1.attention.dense.bias", &[48]));
    }
}
