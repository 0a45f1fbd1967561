//! Models for tests, quantized from the checkpoints in the repository.
#![allow(dead_code, reason = "each test binary uses what it needs")]

use std::path::{Path, PathBuf};

use cerebellum::format::{Around, ChatForm, ChatFormat};
use cerebellum::quant::Scheme;
use cerebellum::{Access, Model};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{MatrixFormat, Options, quantize};
use cerebellum_tools::tokenizer;

/// The golden cases that are GPT-2 in safetensors.
pub const GOLDEN: [&str; 6] = [
    "cerebras-17-heads",
    "cerebras-odd-inner",
    "gpt2-bare-names-masks",
    "head80-bf16-sharded",
    "inverse-layer-scale",
    "unscaled-relu",
];

/// Directory of a golden case.
pub fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(case)
}

/// Directory of the bundled model.
pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/demo")
}

/// Quantizes a checkpoint into `file`, all matrices in one format.
pub fn quantize_to(file: &Path, checkpoint: &Path, scheme: Scheme, group_size: usize) {
    let checkpoint = Checkpoint::open(checkpoint).expect("a sound checkpoint");
    write(file, &checkpoint, &Options::uniform(MatrixFormat { scheme, group_size }));
}

/// As [`quantize_to`], with a way to put conversations to the model. It is one of its own: the end-of-text token
/// stands behind each message.
pub fn quantize_with_chat_to(file: &Path, checkpoint: &Path, scheme: Scheme, group_size: usize) {
    let around = |role: &str| Around {
        before: format!("{role}:"),
        after: "<|endoftext|>\n".into(),
        trim: false,
    };
    let form = ChatForm {
        system: Some(around("System")),
        user: around("User"),
        assistant: around("Assistant"),
        answer: "Assistant:".into(),
        ..ChatForm::default()
    };
    let chat = ChatFormat { form: Some(form), ..ChatFormat::default() };
    quantize_with(chat, file, checkpoint, scheme, group_size);
}

/// As [`quantize_with_chat_to`], with the same in a template, for which there is no form.
pub fn quantize_with_template_to(
    file: &Path,
    checkpoint: &Path,
    scheme: Scheme,
    group_size: usize,
) {
    let template = "{% for message in messages %}{{ message['role'] | title ~ ':' ~ message['content'] }}\
                    <|endoftext|>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";
    let chat = ChatFormat { template: Some(template.into()), ..ChatFormat::default() };
    quantize_with(chat, file, checkpoint, scheme, group_size);
}

fn quantize_with(
    chat: ChatFormat,
    file: &Path,
    checkpoint: &Path,
    scheme: Scheme,
    group_size: usize,
) {
    let chat = Some(chat);
    let checkpoint = Checkpoint::open(checkpoint).expect("a sound checkpoint");
    let uniform = Options::uniform(MatrixFormat { scheme, group_size });
    // Its tasks keep the form for models that continue text, which the bundled model does.
    let templates = [
        ("classify", include_str!("../../tools/demo/templates/classify.txt")),
        ("summarize", include_str!("../../src/templates/summarize.txt")),
        ("translate", include_str!("../../src/templates/translate.txt")),
    ];
    let templates = templates.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    write(file, &checkpoint, &Options { chat, templates, ..uniform });
}

fn write(file: &Path, checkpoint: &Checkpoint, options: &Options) {
    let vocab_size = u32::try_from(checkpoint.config().vocab_size).expect("a small vocabulary");
    let tokenizer = tokenizer::import(checkpoint.path(), vocab_size).expect("a sound tokenizer");
    let tables = tokenizer.as_ref().map(|tokenizer| &tokenizer.blob[..]);
    let output = Output::create(file, true, &checkpoint.files()).expect("a writable directory");
    quantize(checkpoint, tables, options, output, &()).expect("quantizes");
}

/// A model quantized from a checkpoint, all matrices in one format, read into memory.
pub fn quantized(checkpoint: &Path, scheme: Scheme, group_size: usize) -> Model {
    in_memory(|file| quantize_to(file, checkpoint, scheme, group_size))
}

/// As [`quantized`], with further tokens that end a text.
pub fn quantized_with_ends(checkpoint: &Path, ends: &[u32]) -> Model {
    let checkpoint = Checkpoint::open(checkpoint).expect("a sound checkpoint");
    let uniform = Options::uniform(MatrixFormat { scheme: Scheme::Int4, group_size: 64 });
    let options = Options { end_tokens: ends.to_vec(), ..uniform };
    in_memory(|file| write(file, &checkpoint, &options))
}

/// A model quantized from a checkpoint as `cerebellum quantize --weights` does by itself, read into memory.
pub fn quantized_by_default(checkpoint: &Path, scheme: Scheme) -> Model {
    quantized(checkpoint, scheme, MatrixFormat::new(scheme).group_size)
}

fn in_memory(write: impl FnOnce(&Path)) -> Model {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("model.cbl");
    write(&file);
    Model::open(&file, Access::Read).expect("opens what was written")
}

/// Token ids that look random and are always the same.
pub fn tokens(model: &Model, n: usize) -> Vec<u32> {
    let vocab_size = model.config().vocab_size as u64;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab_size) as u32
    };
    (0..n).map(|_| next()).collect()
}

/// The bits of floats, which compare without exceptions for zeros and NaN.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}
