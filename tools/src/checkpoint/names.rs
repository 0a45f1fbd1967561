//! Tensor names: from what checkpoints call them to the canonical names, which
//! [`network`](cerebellum::format::network) knows.

/// The canonical form of a name in PyTorch's or safetensors files: `GPT2LMHeadModel` puts `transformer.` before all but the
/// head, `GPT2Model` and OpenAI's files do not.
pub fn canonical(stored: &str) -> String {
    stored.strip_prefix("transformer.").unwrap_or(stored).to_owned()
}

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

/// The layer `N` of a name `h.N.…`, whether or not a model has such a tensor.
pub fn layer(canonical: &str) -> Option<usize> {
    canonical.strip_prefix("h.")?.split_once('.')?.0.parse().ok()
}

/// Whether a tensor is a buffer that follows from the configuration, which files may carry and no
/// model needs: of the causal mask, `h.N.attn.bias` of shape `[1, 1, n_positions, n_positions]` and
/// the scalar `h.N.attn.masked_bias`; and of ALiBi, `relative_pe.slopes`.
pub fn is_buffer(canonical: &str, shape: &[usize]) -> bool {
    if canonical == "relative_pe.slopes" {
        return true;
    }
    let Some((_, rest)) = canonical.strip_prefix("h.").and_then(|name| name.split_once('.')) else {
        return false;
    };
    match rest {
        "attn.bias" => matches!(shape, [1, 1, from, to] if from == to),
        "attn.masked_bias" => shape.iter().product::<usize>() == 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_give_one_name() {
        assert_eq!(canonical("transformer.h.0.ln_1.weight"), "h.0.ln_1.weight");
        assert_eq!(canonical("h.0.ln_1.weight"), "h.0.ln_1.weight");
        assert_eq!(canonical("lm_head.weight"), "lm_head.weight");
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
        assert!(is_buffer("relative_pe.slopes", &[32, 1]));
        assert!(is_buffer("h.1.attn.bias", &[1, 1, 48, 48]));
        assert!(is_buffer("h.1.attn.masked_bias", &[]));
        assert!(!is_buffer("h.1.attn.bias", &[48]));
        assert!(!is_buffer("h.1.attn.c_attn.bias", &[192]));
        assert!(!is_buffer("attn.bias", &[1, 1, 48, 48]));
    }
}
