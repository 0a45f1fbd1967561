//! The configuration as metadata entries.

use cerebellum::format::{Config, NormKind, Positions, ResidualOrder};

use super::limits::gemma3_pattern;
use super::precision::Precision;
use crate::checkpoint::gguf::Family;
use crate::checkpoint::{Base, Checkpoint, Scaling, activation_name};
use crate::gguf::{Header, gpt2, keys};
use crate::tokenizer::Vocabulary;

/// What YaRN's files need not say: how often pairs turn that keep their frequency, and those that do not.
const YARN_TURNS: (f64, f64) = (32.0, 1.0);
/// What files of a Gemma 3 need not say.
const GEMMA3_PATTERN: usize = 6;

/// A value of an entry.
enum Entry {
    Count(usize),
    Number(f32),
    Flag(bool),
    Text(&'static str),
}

/// Adds all entries but those of the tokenizer.
pub fn write(header: &mut Header, checkpoint: &Checkpoint, family: &Family, precision: Precision) {
    header.text(keys::ARCHITECTURE, family.architecture);
    if let Some(name) = checkpoint.name() {
        header.text(keys::NAME, name);
    }
    header.u32(keys::FILE_TYPE, precision.number());
    let config = checkpoint.config();
    if family.architecture == gpt2::ARCHITECTURE {
        for (field, key) in gpt2::KEYS {
            add(header, key, gpt2_entry(config, field));
        }
        return;
    }
    for (field, rest) in keys::FIELDS.iter().chain(family.fields) {
        add(header, &family.key(rest), entry(checkpoint, family, field));
    }
    add(header, &family.key(keys::VALUE_LENGTH), Some(Entry::Count(config.attention.head_size)));
    if let Some(base) = scaled_base(checkpoint) {
        for (field, rest) in keys::ROPE_SCALING {
            add(header, &family.key(rest), scaling_entry(base.scaling, field));
        }
    }
    if family.architecture == "gptneox" {
        header.text(gpt2::ACTIVATION, activation_name(config.mlp.activation));
    }
    header.f64s(keys::FREQUENCIES, &checkpoint.derived().frequencies);
}

/// The ids of the tokens that begin and end a text.
pub fn write_token_ids(
    header: &mut Header,
    checkpoint: &Checkpoint,
    tokenizer: Option<&Vocabulary>,
) {
    let bos = tokenizer.and_then(|tokenizer| tokenizer.bos).or(checkpoint.bos_token_id());
    for (field, key) in keys::TOKEN_FIELDS {
        let id = if field == "bos_token_id" { bos } else { checkpoint.config().eos_token_id };
        if let Some(id) = id {
            header.u32(key, id);
        }
    }
}

fn add(header: &mut Header, key: &str, entry: Option<Entry>) {
    match entry {
        None => {}
        Some(Entry::Count(count)) => {
            header.u32(key, u32::try_from(count).expect("bounded by the configuration's check"));
        }
        Some(Entry::Number(number)) => header.f32(key, number),
        Some(Entry::Flag(flag)) => header.bool(key, flag),
        Some(Entry::Text(text)) => header.text(key, text),
    }
}

/// The value of a field of GPT-2's `config.json`.
fn gpt2_entry(config: &Config, field: &str) -> Option<Entry> {
    Some(match field {
        "n_positions" => Entry::Count(config.n_positions),
        "n_embd" => Entry::Count(config.n_embd),
        "n_inner" => Entry::Count(config.mlp.inner),
        "n_layer" => Entry::Count(config.n_layer),
        "n_head" => Entry::Count(config.attention.heads),
        "layer_norm_epsilon" => Entry::Number(config.norm.epsilon),
        "activation_function" => Entry::Text(activation_name(config.mlp.activation)),
        // Ids of tokens come with the tokenizer.
        _ => return None,
    })
}

/// The value of a field of another family's; `None` if its files do not have it.
fn entry(checkpoint: &Checkpoint, family: &Family, field: &str) -> Option<Entry> {
    let config = checkpoint.config();
    let attention = &config.attention;
    let is = |architecture: &str| family.architecture == architecture;
    let only_if = |condition: bool, entry: Entry| condition.then_some(entry);
    let epsilon = |kind| only_if(config.norm.kind == kind, Entry::Number(config.norm.epsilon));
    let theta = |base: Option<&Base>| base.map(|base| Entry::Number(base.theta as f32));
    match field {
        "max_position_embeddings" => Some(Entry::Count(config.n_positions)),
        "hidden_size" => Some(Entry::Count(config.n_embd)),
        "intermediate_size" => Some(Entry::Count(config.mlp.inner)),
        "num_hidden_layers" => Some(Entry::Count(config.n_layer)),
        "num_attention_heads" => Some(Entry::Count(attention.heads)),
        "num_key_value_heads" => Some(Entry::Count(attention.kv_heads)),
        "head_dim" => Some(Entry::Count(attention.head_size)),
        "rms_norm_eps" => epsilon(NormKind::Rms),
        "layer_norm_eps" => epsilon(NormKind::Layer),
        // The last base is that of layers without windows.
        "rope_theta" => theta(checkpoint.bases().last()),
        "rope_local_base_freq" if is("gemma3") => theta(checkpoint.bases().first()),
        "rotary_dim" => match config.positions {
            Positions::Rope { pairs, .. } => Some(Entry::Count(2 * pairs)),
            _ => None,
        },
        "use_parallel_residual" => {
            let is_parallel = config.residual.order == ResidualOrder::Parallel;
            only_if(is("gptneox"), Entry::Flag(is_parallel))
        }
        "sliding_window" => {
            let window = attention.kinds.iter().find_map(|kind| kind.window);
            // A Gemma 3 must have one; as long as the context it is none.
            window.or(is("gemma3").then_some(config.n_positions)).map(Entry::Count)
        }
        "sliding_window_pattern" => {
            gemma3_pattern(config).filter(|every| *every != GEMMA3_PATTERN).map(Entry::Count)
        }
        "attention_multiplier" => Some(Entry::Number(attention.scale)),
        "embedding_multiplier" => Some(Entry::Number(config.embeddings_scale)),
        "residual_multiplier" => Some(Entry::Number(config.residual.scale)),
        "logits_scaling" => Some(Entry::Number(inverse(config.logits_scale))),
        _ => None,
    }
}

/// The base that the entries of scaling concern: one at most is scaled.
fn scaled_base(checkpoint: &Checkpoint) -> Option<Base> {
    let is_said =
        |base: &&Base| matches!(base.scaling, Scaling::Linear { .. } | Scaling::Yarn { .. });
    checkpoint.bases().iter().find(is_said).copied()
}

fn scaling_entry(scaling: Scaling, field: &str) -> Option<Entry> {
    let number = |number: f64| Some(Entry::Number(number as f32));
    match (scaling, field) {
        (Scaling::Linear { .. }, "rope_type") => Some(Entry::Text("linear")),
        (Scaling::Yarn { .. }, "rope_type") => Some(Entry::Text("yarn")),
        (Scaling::Linear { factor } | Scaling::Yarn { factor, .. }, "factor") => number(factor),
        (Scaling::Yarn { length, .. }, "original_max_position_embeddings") => {
            Some(Entry::Count(length))
        }
        (Scaling::Yarn { fast, .. }, "beta_fast") if fast != YARN_TURNS.0 => number(fast),
        (Scaling::Yarn { slow, .. }, "beta_slow") if slow != YARN_TURNS.1 => number(slow),
        _ => None,
    }
}

/// The number whose inverse in binary32 is `x`, which is such an inverse.
fn inverse(x: f32) -> f32 {
    let near = 1.0 / x;
    let candidates = [near, near.next_up(), near.next_down()];
    candidates.into_iter().find(|candidate| 1.0 / candidate == x).unwrap_or(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverses_are_found_again() {
        for numerator in 1..5000u16 {
            let scaling = f32::from(numerator) / 7.0;
            let stored = 1.0 / scaling;
            assert_eq!(1.0 / inverse(stored), stored, "{scaling}");
        }
    }
}
