//! Fields of a `config.json` that change no logit, so that they need not be understood.

use serde_json::Value;

/// Fields about training, generation, serving and bookkeeping.
const HARMLESS: &[&str] = &[
    // What the file is, and who wrote it.
    "architectures",
    "auto_map",
    "dtype",
    "model_name",
    "name_or_path",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    // What transformers hands out beside logits, and how it computes.
    "attn_implementation",
    "cache_implementation",
    "chunk_size_feed_forward",
    "custom_pipeline",
    "custom_pipelines",
    "gradient_checkpointing",
    "is_decoder",
    "pretraining_tp",
    "return_dict",
    "return_dict_in_generate",
    "torchscript",
    "use_bfloat16",
    "use_cache",
    "use_mem_eff_path",
    // Initial weights, training.
    "embd_pdrop",
    "resid_pdrop",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "initializer_factor",
    "initializer_cutoff_factor",
    "max_sequence_length",
    "neftune_noise_alpha",
    "use_deepspeed_checkpointing",
    "model_max_length",
    "seq_length",
    "tf_legacy_loss",
    // Classifiers made of the model.
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    // Generation.
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "eos_token",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "encoder_no_repeat_ngram_size",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "pad_token",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// How names of harmless fields begin: transformers' own, and those of tools that trained or converted the model.
const PREFIXES: &[&str] =
    &["_", "init_", "output_", "unsloth_", "use_flash", "use_fused_", "use_sdpa"];
/// How they end: tokens are the tokenizer's business, and dropout is off.
const SUFFIXES: &[&str] = &["_token_id", "_token_ids", "_token_index", "dropout"];
/// What nanotron calls the class of a model: `is_llama_config`.
const CLASS: (&str, &str) = ("is_", "_config");

/// Whether a field changes no logit whatever its value is.
pub fn is_harmless(field: &str) -> bool {
    HARMLESS.contains(&field)
        || PREFIXES.iter().any(|prefix| field.starts_with(prefix))
        || SUFFIXES.iter().any(|suffix| field.ends_with(suffix))
        || field.starts_with(CLASS.0) && field.ends_with(CLASS.1)
}

/// Whether the value of an unknown field says that what it is about is off.
pub fn asks_for_nothing(field: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        // A part of each head that is the whole, and one expert, are what the model has without these fields.
        Value::Number(number) => {
            field == "partial_rotary_factor" && number.as_f64() == Some(1.0)
                || field == "num_local_experts" && matches!(number.as_u64(), Some(0))
        }
        _ => false,
    }
}
