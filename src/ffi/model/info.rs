//! Facts about a model, and the memory that a session of it takes.

use core::ffi::{CStr, c_char};

use super::shared::{Shared, cbl_model, with};
use crate::ffi::arguments::{Growing, GrowingOut};
use crate::ffi::boundary::Report;
use crate::ffi::options::{self, cbl_options};
use crate::ffi::status::cbl_status;
use crate::format::{Architecture, TensorKind};
use crate::plan::MemoryPlan;

/// Facts about a model. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_model_info {
    /// Name of the family of networks, such as "gpt2" or "llama". Static.
    pub architecture: *const c_char,
    /// Hash of the checkpoint that the model was made from: the name of the algorithm, a colon, and
    /// the hash. "" if the file does not contain it. Valid as long as the model.
    pub digest: *const c_char,
    /// Size of the model file in bytes.
    pub file_bytes: u64,
    /// Number of weights.
    pub parameters: u64,
    /// Bits per weight in the matrices, scales included.
    pub bits_per_weight: f64,
    /// Number of tokens `n`. Token ids are 0 to `n` - 1, and there are `n` logits.
    pub vocabulary: u32,
    /// Number of positions that the model was trained on. By default a session has at most this
    /// number. Only a model that measures distances by ALiBi, such as "btlm", can have more; see
    /// CBL_OPTION_CONTEXT.
    pub context: u32,
    /// Number of elements of an embedding.
    pub embedding: u32,
    /// Number of layers.
    pub layers: u32,
    /// Number of attention heads per layer.
    pub heads: u32,
    /// The token that ends a text, or -1.
    pub end_of_text: i32,
    /// Whether the file holds a tokenizer.
    pub has_tokenizer: bool,
    /// Whether the weights lie in a mapped file, and so take no private memory.
    pub is_mapped: bool,
}

// SAFETY: `repr(C)`, and zeros are null pointers, numbers and `false`.
unsafe impl Growing for cbl_model_info {
    const FIRST_SIZE: usize = size_of::<cbl_model_info>();
}

const _: () = assert!(size_of::<usize>() != 8 || size_of::<cbl_model_info>() == 72);

/// The memory that a session takes. Later versions may add fields at the end.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct cbl_memory_plan {
    /// Size of the model file. If the file is mapped, other processes share this memory, and the
    /// system can evict it. It is not part of the total.
    pub weights_bytes: u64,
    /// The cache of keys and values. A layer whose queries see a window of positions has a cache for the
    /// window, not for the context.
    pub cache_bytes: u64,
    /// Activations, logits, buffers of the sampler and buffers of each thread.
    pub scratch_bytes: u64,
    /// What the session allocates, or takes from the arena: `cache_bytes` + `scratch_bytes`.
    pub total_bytes: u64,
}

// SAFETY: `repr(C)`, and all numbers.
unsafe impl Growing for cbl_memory_plan {
    const FIRST_SIZE: usize = size_of::<cbl_memory_plan>();
}

/// Writes facts about a model to `*info`. `size` is `sizeof *info`.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_get_info(
    model: *const cbl_model,
    info: *mut cbl_model_info,
    size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = GrowingOut::new(info, size);
        with(model, Report::Nothing, |shared| {
            out?.set(&describe(shared));
            Ok(())
        })
    }
}

fn describe(shared: &Shared) -> cbl_model_info {
    let model = &shared.model;
    let config = model.config();
    let (mut parameters, mut weights, mut weight_bytes) = (0, 0, 0);
    for tensor in model.layout().tensors() {
        match &tensor.kind {
            TensorKind::Matrix(matrix) => {
                weights += matrix.tiles.rows() * matrix.tiles.cols();
                weight_bytes += tensor.range.len();
            }
            TensorKind::Vector | TensorKind::Positions | TensorKind::Frequencies => {
                parameters += tensor.shape.iter().product::<usize>();
            }
            TensorKind::Tokenizer | TensorKind::Checksums => {}
        }
    }
    // The format keeps all of these below 2^24.
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    cbl_model_info {
        architecture: architecture_name(config.architecture).as_ptr(),
        digest: shared.digest.as_ptr().cast(),
        file_bytes: model.file_bytes() as u64,
        parameters: (parameters + weights) as u64,
        bits_per_weight: weight_bytes as f64 * 8.0 / weights as f64,
        vocabulary: small(config.vocab_size),
        context: small(config.n_positions),
        embedding: small(config.n_embd),
        layers: small(config.n_layer),
        heads: small(config.attention.heads),
        end_of_text: config.eos_token_id.and_then(|id| i32::try_from(id).ok()).unwrap_or(-1),
        has_tokenizer: model.layout().get(crate::format::TOKENIZER).is_some(),
        is_mapped: model.is_mapped(),
    }
}

/// Writes to `*plan` what memory a session with these options takes, to the byte. Nothing is
/// allocated. `options` may be NULL. `size` is `sizeof *plan`.
///
/// Thread-safe. Errors: CBL_BAD_HANDLE, CBL_BAD_ARGUMENT, CBL_BAD_OPTION, CBL_NO_MEMORY if the
/// number of bytes is too large for a size_t, CBL_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cbl_model_plan(
    model: *const cbl_model,
    options: *const cbl_options,
    plan: *mut cbl_memory_plan,
    size: usize,
    message: *mut c_char,
    message_size: usize,
) -> cbl_status {
    // SAFETY: the caller's contract.
    unsafe {
        let out = GrowingOut::new(plan, size);
        with(model, Report::Buffer(message, message_size), |shared| {
            let out = out?;
            let planned = options::with(options, |options| {
                let mut session = options.session.clone();
                session.threads = options.pool.map_or(session.threads, |pool| pool.workers);
                Ok(shared.model.plan(&session)?)
            })?;
            out.set(&planned.into());
            Ok(())
        })
    }
}

impl From<MemoryPlan> for cbl_memory_plan {
    fn from(plan: MemoryPlan) -> Self {
        Self {
            weights_bytes: plan.weights_bytes as u64,
            cache_bytes: plan.kv_bytes as u64,
            scratch_bytes: plan.scratch_bytes as u64,
            total_bytes: plan.total_private_bytes as u64,
        }
    }
}

/// The name in a file's header.
fn architecture_name(architecture: Architecture) -> &'static CStr {
    match architecture {
        Architecture::Gpt2 => c"gpt2",
        Architecture::Btlm => c"btlm",
        Architecture::Llama => c"llama",
        Architecture::Mistral => c"mistral",
        Architecture::Qwen2 => c"qwen2",
        Architecture::Qwen3 => c"qwen3",
        Architecture::Gemma3 => c"gemma3",
        Architecture::SmolLm3 => c"smollm3",
        Architecture::Granite => c"granite",
        Architecture::Olmo2 => c"olmo2",
        Architecture::Phi3 => c"phi3",
        Architecture::GptNeox => c"gptneox",
    }
}
