//! What llama.cpp calls tensors in GGUF files.
//!
//! Its llama rotates neighbours, dimensions `2 i` and `2 i + 1` of a head, where Hugging Face's rotates `i`
//! and `i + D / 2`: the converter puts the rows of queries and keys in that order, for every family that it
//! converts like Llama.

use cerebellum::format::network::Role;

use super::{Names, Piece, Rows, piece, whole};

/// GPT-2's. Linear layers are `[out, in]` (and listed the other way round, as all shapes are).
pub const GPT2: Names = Names {
    prefixes: &[],
    renamed: &[],
    layer: "blk.",
    count: "block_count",
    tables: &[&GPT2_TABLE],
    left_out: &[],
    is_strict: false,
    norm_offset: 0.0,
};

const GPT2_TABLE: [(Role, &[Piece]); 10] = [
    (Role::Embedding, &[whole("token_embd")]),
    (Role::Positions, &[whole("position_embd")]),
    (Role::FinalNorm, &[whole("output_norm")]),
    (Role::Head, &[whole("output")]),
    (Role::AttentionNorm, &[whole("attn_norm")]),
    (Role::AttentionIn, &[whole("attn_qkv")]),
    (Role::AttentionOut, &[whole("attn_output")]),
    (Role::MlpNorm, &[whole("ffn_norm")]),
    (Role::MlpUp, &[whole("ffn_up")]),
    (Role::MlpDown, &[whole("ffn_down")]),
];

/// Those of families whose rows stand as in Hugging Face's files.
pub const PLAIN: Names = Names { tables: &[&SPLIT_TABLE, &MODERN_TABLE], is_strict: true, ..GPT2 };

/// Those of families that are converted like Llama.
pub const INTERLEAVED: Names =
    Names { tables: &[&INTERLEAVED_TABLE, &MODERN_TABLE], is_strict: true, ..GPT2 };

/// Phi-3's: two of its matrices are two or three of others'.
pub const PHI3: Names = Names { tables: &[&PHI3_TABLE, &MODERN_TABLE], is_strict: true, ..GPT2 };

/// GPT-NeoX's. The converter puts queries, keys and values of all heads one after the other.
pub const GPT_NEOX: Names = Names { is_strict: true, ..GPT2 };

const MODERN_TABLE: [(Role, &[Piece]); 13] = [
    (Role::Embedding, &[whole("token_embd")]),
    (Role::FinalNorm, &[whole("output_norm")]),
    (Role::Head, &[whole("output")]),
    (Role::AttentionNorm, &[whole("attn_norm")]),
    (Role::QueryNorm, &[whole("attn_q_norm")]),
    (Role::KeyNorm, &[whole("attn_k_norm")]),
    (Role::AttentionOut, &[whole("attn_output")]),
    (Role::AttentionOutNorm, &[whole("post_attention_norm")]),
    (Role::MlpNorm, &[whole("ffn_norm")]),
    (Role::MlpUp, &[whole("ffn_up")]),
    (Role::MlpGate, &[whole("ffn_gate")]),
    (Role::MlpDown, &[whole("ffn_down")]),
    (Role::MlpOutNorm, &[whole("post_ffw_norm")]),
];

const SPLIT_TABLE: [(Role, &[Piece]); 1] = [(
    Role::AttentionIn,
    &[piece("attn_q", Rows::Queries), piece("attn_k", Rows::Keys), piece("attn_v", Rows::Values)],
)];

const INTERLEAVED_TABLE: [(Role, &[Piece]); 1] = [(
    Role::AttentionIn,
    &[
        piece("attn_q", Rows::InterleavedQueries),
        piece("attn_k", Rows::InterleavedKeys),
        piece("attn_v", Rows::Values),
    ],
)];

const PHI3_TABLE: [(Role, &[Piece]); 3] = [
    (Role::AttentionIn, &[whole("attn_qkv")]),
    (Role::MlpGate, &[piece("ffn_up", Rows::FirstHalf)]),
    (Role::MlpUp, &[piece("ffn_up", Rows::SecondHalf)]),
];

#[cfg(test)]
mod tests {
    use cerebellum::format::network::TensorId;

    use super::*;

    #[test]
    fn canonical_names_have_those_of_gpt2() {
        for (canonical, stored) in [
            ("wte.weight", "token_embd.weight"),
            ("wpe.weight", "position_embd.weight"),
            ("h.0.ln_1.bias", "blk.0.attn_norm.bias"),
            ("h.11.attn.c_attn.weight", "blk.11.attn_qkv.weight"),
            ("h.1.attn.c_proj.weight", "blk.1.attn_output.weight"),
            ("h.1.ln_2.weight", "blk.1.ffn_norm.weight"),
            ("h.1.mlp.c_fc.bias", "blk.1.ffn_up.bias"),
            ("h.1.mlp.c_proj.weight", "blk.1.ffn_down.weight"),
            ("ln_f.weight", "output_norm.weight"),
            ("lm_head.weight", "output.weight"),
        ] {
            let id = TensorId::parse(canonical).unwrap();
            assert_eq!(GPT2.pieces(id), [(stored.to_owned(), Rows::All)]);
        }
        assert_eq!(GPT2.split_layer("blk.7.ffn_gate.weight"), Some((7, "ffn_gate.weight")));
        assert_eq!(GPT2.split_layer("rope_freqs.weight"), None);
    }
}
