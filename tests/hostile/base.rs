//! The sound files that the hostile ones are made from.

use std::path::Path;
use std::sync::OnceLock;

use cerebellum::quant::Scheme;
use cerebellum::text::{EncodeOptions, Tokenizer};
use cerebellum::{Model, TokenizerBytes};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use cerebellum_tools::tokenizer::{AddedToken, Vocabulary, from_vocabulary};
use serde_json::json;

use crate::exercise::AlignedBytes;

#[path = "../../tools/tests/common/mod.rs"]
pub mod checkpoints;
#[path = "../emulation/configurations.rs"]
#[allow(dead_code, reason = "the emulation uses the others")]
mod configurations;
#[path = "../emulation/random_file.rs"]
#[allow(dead_code, reason = "the emulation uses the others")]
mod random_file;

use random_file::{Matrices, random_file};

/// One layer of width 6 with a tokenizer, int4: small enough to try every bit of it.
pub fn tiny() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| tiny_model(MatrixFormat { scheme: Scheme::Int4, group_size: 32 }, true))
}

/// The same model, int8 and without a tokenizer.
pub fn tiny_int8() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| tiny_model(MatrixFormat { scheme: Scheme::Int8, group_size: 64 }, false))
}

/// ALiBi, a gated MLP, a head of its own and multipliers, int8.
pub fn tiny_btlm() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let mut model = checkpoints::Model::random(24, 5, 6, 5);
        for (name, like) in [
            ("lm_head.weight", "wte.weight"),
            ("h.0.mlp.c_fc2.weight", "h.0.mlp.c_fc.weight"),
            ("h.0.mlp.c_fc2.bias", "h.0.mlp.c_fc.bias"),
        ] {
            model.add(name, model.tensors()[like].clone());
        }
        model.remove("wpe.weight");
        for (field, value) in [
            ("model_type", json!("btlm")),
            ("tie_word_embeddings", json!(false)),
            ("position_embedding_type", json!("alibi")),
            ("activation_function", json!("swiglu")),
            ("mup_embeddings_scale", json!(8.0)),
            ("mup_width_scale", json!(0.5)),
            ("alibi_scaling", json!({"type": "linear", "train_seq_len": 3})),
        ] {
            model.configure(field, value);
        }
        let directory = tempfile::tempdir().unwrap();
        model.write(directory.path());
        model_file(directory.path(), MatrixFormat { scheme: Scheme::Int8, group_size: 32 }, None)
    })
}

/// Two kinds of layers, one with a window; rotated positions, RMS norms before and after and of each head,
/// a gate, int4.
pub fn tiny_modern() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| random_file(&configurations::tiny(), Matrices::Int4))
}

/// A model with two layers, several panels and groups.
pub fn golden() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let case = "tests/data/golden/cerebras-odd-inner";
        let case = Path::new(env!("CARGO_MANIFEST_DIR")).join(case);
        model_file(&case, MatrixFormat::new(Scheme::Int4), None)
    })
}

fn tiny_model(format: MatrixFormat, with_tokenizer: bool) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    checkpoints::Model::random(24, 5, 6, 5).write(directory.path());
    let tokenizer = with_tokenizer.then(tokenizer);
    model_file(directory.path(), format, tokenizer.as_deref())
}

fn model_file(checkpoint: &Path, format: MatrixFormat, tokenizer: Option<&[u8]>) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("model.cbl");
    let output = Output::create::<&Path>(&target, false, &[]).unwrap();
    let checkpoint = Checkpoint::open(checkpoint).unwrap();
    quantize(&checkpoint, tokenizer, &Options::uniform(format), output, &()).unwrap();
    std::fs::read(target).unwrap()
}

/// A tokenizer's table.
pub fn tokenizer() -> Vec<u8> {
    from_vocabulary(vocabulary(), Path::new("tokenizer"), 24).unwrap().blob
}

/// Letters, merges, a special and an ordinary added token.
pub fn vocabulary() -> Vocabulary {
    let tokens = ["a", "b", "c", "\u{120}", "ab", "abb", "\u{120}ab", "\u{f0}", "\u{bf}"];
    let merges = [("a", "b"), ("ab", "b"), ("\u{120}", "ab")];
    let added = |id, content: &str, special| AddedToken {
        id,
        content: content.into(),
        special,
        ..Default::default()
    };
    Vocabulary {
        tokens: tokens.map(str::to_owned).into_iter().zip(0..).collect(),
        merges: merges.map(|(left, right)| (left.to_owned(), right.to_owned())).to_vec(),
        added: vec![added(12, "<|end|>", true), added(13, "abba", false)],
        ..Vocabulary::default()
    }
}

/// Keeps an encoder alive from here on: the next ones share its regular expression, which takes longer to
/// compile, in tests without optimization, than all that becomes of a small file.
pub fn keep_an_encoder() {
    static KEPT: OnceLock<Tokenizer<TokenizerBytes>> = OnceLock::new();
    KEPT.get_or_init(|| {
        let model = Model::borrow(AlignedBytes::copy(tiny())).unwrap();
        let tokenizer = model.tokenizer().unwrap();
        tokenizer.encode("", EncodeOptions::default()).unwrap();
        tokenizer
    });
}
