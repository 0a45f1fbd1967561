//! Writing a checkpoint as a GPT-2 model that llama.cpp can run.
//!
//! Tensors go through in chunks of rows, so that memory does not grow with the model.

use std::io::{self, BufWriter, Write};

use cerebellum::format::network::{Role, TensorId};
use cerebellum::format::{Activation, MlpKind, Positions};
use cerebellum::text::layout;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::checkpoint::names::gguf as names;
use crate::checkpoint::{self, Checkpoint, Tensor, activation_name};
use crate::gguf::{DEFAULT_ALIGNMENT, Header, TensorHead, gpt2, keys};
use crate::output::{self, Output};
use crate::tokenizer::Vocabulary;

/// Values written at once.
const CHUNK: usize = 1 << 18;

/// What matrices are stored as. Vectors and positions are float32 in any case, as llama.cpp has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
}

impl Precision {
    /// ggml's number of the tensor type, which is also llama.cpp's of a file of such tensors.
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// What became of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Length of the file.
    pub file_bytes: u64,
    /// Number of its tensors.
    pub tensors: usize,
    /// In what llama.cpp's results will differ, one sentence each, to be shown to the user.
    pub warnings: Vec<String>,
}

/// Why a checkpoint could not be exported. No file is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The checkpoint could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The output could not be written.
    #[error(transparent)]
    Output(#[from] output::Error),
    /// llama.cpp's GPT-2 would compute something else.
    #[error(
        "{}: llama.cpp's GPT-2 does not know what {field} in config.json asks for, and would compute \
         something else: the model cannot be exported to GGUF",
        checkpoint.display()
    )]
    BeyondLlama {
        /// The checkpoint.
        checkpoint: std::path::PathBuf,
        /// The field.
        field: &'static str,
    },
    /// The tokenizer has an option that GGUF has no entry for.
    #[error(
        "the tokenizer does not split text by GPT-2's regular expression, which GGUF cannot say: export without a tokenizer"
    )]
    Tokenizer,
    /// A weight is too large for float16.
    #[error(
        "tensor {tensor} holds {value}, more than float16's largest value 65504: export with \
         --type f32"
    )]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
    },
}

/// Writes `checkpoint` into `output` as a GGUF file of llama.cpp's architecture `gpt2`, with the
/// `tokenizer` if there is one.
///
/// # Errors
/// [`WriteError`]. The output is removed then.
pub fn export(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Vocabulary>,
    precision: Precision,
    mut output: Output,
) -> Result<Exported, WriteError> {
    let warnings = check(checkpoint, tokenizer)?;
    let tensors: Vec<Planned> = plan(checkpoint, precision)?;
    let mut header = Header::default();
    metadata(&mut header, checkpoint, tokenizer, precision);
    let heads: Vec<TensorHead> = tensors.iter().map(Planned::head).collect();
    let header = header.finish(&heads);

    let end = tensors.last().expect("a model has tensors").end();
    let file_bytes = (header.len() + end) as u64;
    let mut file = BufWriter::new(output.file());
    let written = write(&mut file, &header, &tensors);
    drop(file);
    match written {
        Ok(()) => {}
        Err(Failure::Io(source)) => return Err(output.error("write", source).into()),
        Err(Failure::Other(error)) => return Err(error),
    }
    output.commit()?;
    Ok(Exported { file_bytes, tensors: tensors.len(), warnings })
}

/// What llama.cpp cannot compute is an error, what it computes a little differently a warning.
fn check(
    checkpoint: &Checkpoint,
    tokenizer: Option<&Vocabulary>,
) -> Result<Vec<String>, WriteError> {
    let config = checkpoint.config();
    let other_activation =
        !matches!(config.mlp.activation, Activation::Gelu | Activation::GeluTanh);
    let attention = &config.attention;
    let usual_scale = 1.0 / (attention.head_size as f32).sqrt();
    let beyond = [
        ("position_embedding_type", config.positions != Positions::Learned),
        ("activation_function", config.mlp.kind == MlpKind::Gated || other_activation),
        ("mup_embeddings_scale", config.embeddings_scale != 1.0),
        ("mup_output_alpha or mup_width_scale", config.logits_scale != 1.0),
        ("mup_scale_qk_dot_by_d or scale_attn_weights", attention.scale != usual_scale),
        ("scale_attn_by_inverse_layer_idx", attention.scale_by_layer),
    ];
    if let Some((field, _)) = beyond.into_iter().find(|(_, beyond)| *beyond) {
        return Err(WriteError::BeyondLlama { checkpoint: checkpoint.path().to_owned(), field });
    }
    if tokenizer.is_some_and(|tokenizer| {
        tokenizer.kind != layout::BYTE_LEVEL_BPE || tokenizer.rule != layout::SPLIT_GPT2
    }) {
        return Err(WriteError::Tokenizer);
    }
    let mut warnings = Vec::new();
    if config.mlp.activation == Activation::Gelu {
        warnings.push(
            "the model was trained with the exact GELU, but llama.cpp computes its tanh \
             approximation: its logits will differ slightly"
                .to_owned(),
        );
    }
    let strips =
        |token: &crate::tokenizer::AddedToken| token.lstrip || token.rstrip || token.single_word;
    if tokenizer.is_some_and(|tokenizer| tokenizer.added.iter().any(strips)) {
        warnings.push(
            "GGUF cannot say that an added token swallows white space or matches whole words \
             only: texts with such tokens may be encoded differently"
                .to_owned(),
        );
    }
    Ok(warnings)
}

/// A tensor of the file to be.
struct Planned<'a> {
    tensor: Tensor<'a>,
    stored_name: String,
    precision: Precision,
    /// From the beginning of the data.
    offset: usize,
}

impl Planned<'_> {
    /// What the file's table says of it.
    fn head(&self) -> TensorHead<'_> {
        TensorHead {
            name: &self.stored_name,
            // The file has linear layers as `[out, in]`, as the rows of a tensor are.
            shape: match self.tensor.shape().len() {
                0 | 1 => vec![self.tensor.columns()],
                _ => vec![self.tensor.rows(), self.tensor.columns()],
            },
            kind: self.precision.number(),
            offset: self.offset,
        }
    }

    fn elements(&self) -> usize {
        self.tensor.rows() * self.tensor.columns()
    }

    /// Where its bytes end.
    fn end(&self) -> usize {
        self.offset + self.elements() * self.precision.bytes()
    }
}

fn plan(checkpoint: &Checkpoint, precision: Precision) -> Result<Vec<Planned<'_>>, WriteError> {
    let mut planned: Vec<Planned> = Vec::new();
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name)?;
        let vector = tensor.shape().len() < 2
            || TensorId::parse(name).is_some_and(|id| id.role == Role::Positions);
        let end = planned.last().map_or(0, Planned::end);
        planned.push(Planned {
            stored_name: names::gpt2(name).expect("`check` let only GPT-2 through"),
            precision: if vector { Precision::F32 } else { precision },
            offset: end.next_multiple_of(DEFAULT_ALIGNMENT),
            tensor,
        });
    }
    Ok(planned)
}

fn metadata(
    header: &mut Header,
    checkpoint: &Checkpoint,
    tokenizer: Option<&Vocabulary>,
    precision: Precision,
) {
    let config = checkpoint.config();
    header.text(keys::ARCHITECTURE, gpt2::ARCHITECTURE);
    if let Some(name) = checkpoint.path().file_name().and_then(|name| name.to_str()) {
        header.text(keys::NAME, name);
    }
    header.u32(keys::FILE_TYPE, precision.number());
    for (field, key) in gpt2::KEYS {
        let count = match field {
            "n_positions" => Some(config.n_positions),
            "n_embd" => Some(config.n_embd),
            "n_inner" => Some(config.mlp.inner),
            "n_layer" => Some(config.n_layer),
            "n_head" => Some(config.attention.heads),
            "bos_token_id" => checkpoint.bos_token_id().map(|id| id as usize),
            "eos_token_id" => config.eos_token_id.map(|id| id as usize),
            "layer_norm_epsilon" => {
                header.f32(key, config.norm.epsilon);
                None
            }
            _ => {
                header.text(key, activation_name(config.mlp.activation));
                None
            }
        };
        if let Some(count) = count {
            header.u32(key, u32::try_from(count).expect("bounded by the configuration's check"));
        }
    }
    match tokenizer {
        Some(tokenizer) => tokenizer_metadata(header, tokenizer, config.vocab_size),
        None => {
            header.text(keys::TOKENIZER, "no_vocab");
            let vocab_size = u32::try_from(config.vocab_size).expect("bounded likewise");
            header.u32(keys::VOCAB_SIZE, vocab_size);
        }
    }
}

fn tokenizer_metadata(header: &mut Header, tokenizer: &Vocabulary, vocab_size: usize) {
    let (tokens, types) = tokenizer.to_lists(vocab_size);
    let merges: Vec<String> =
        tokenizer.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    header.text(keys::TOKENIZER, "gpt2");
    header.text(keys::PRE_TOKENIZER, "gpt-2");
    header.texts(keys::TOKENS, &tokens);
    header.i32s(keys::TOKEN_TYPES, types.into_iter().map(|kind| kind.to_gguf()));
    header.texts(keys::MERGES, &merges);
    let adds_space = tokenizer.flags & layout::ADD_PREFIX_SPACE != 0;
    header.bool(keys::ADD_PREFIX_SPACE, adds_space);
    header.bool(keys::ADD_BOS, tokenizer.flags & layout::ADD_BOS != 0);
}

enum Failure {
    Io(io::Error),
    Other(WriteError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn write(file: &mut impl Write, header: &[u8], tensors: &[Planned]) -> Result<(), Failure> {
    file.write_all(header)?;
    let mut at = 0;
    for planned in tensors {
        let padding = planned.offset - at;
        file.write_all(&[0; DEFAULT_ALIGNMENT][..padding])?;
        write_tensor(file, planned)?;
        at = planned.end();
    }
    Ok(file.flush()?)
}

fn write_tensor(file: &mut impl Write, planned: &Planned) -> Result<(), Failure> {
    let (tensor, rows) = (&planned.tensor, planned.tensor.rows());
    let step = (CHUNK / tensor.columns()).max(1);
    let mut halves = Vec::new();
    for first in (0..rows).step_by(step) {
        let values = tensor.read_rows(first..rows.min(first + step));
        let values = values.map_err(|error| Failure::Other(error.into()))?;
        let bytes: Vec<u8> = match planned.precision {
            Precision::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Precision::F16 => {
                halves.resize(values.len(), f16::ZERO);
                halves.convert_from_f32_slice(&values);
                if let Some(at) = halves.iter().position(|half| !half.is_finite()) {
                    let (tensor, value) = (tensor.name().to_owned(), values[at]);
                    return Err(Failure::Other(WriteError::TooLarge { tensor, value }));
                }
                halves.iter().flat_map(|half| half.to_le_bytes()).collect()
            }
        };
        file.write_all(&bytes)?;
    }
    Ok(())
}
