//! Adapters: what PEFT saves of a fine-tuned model, small matrices that change another model's weights.
//! They cannot be converted without that model, so a directory of one is named for what it is.

use std::path::Path;

use super::error::{Error, Result};
use super::storage::read_json;
use crate::json::{self, Object};

pub(crate) const CONFIG: &str = "adapter_config.json";
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Fails if `directory`, in which there is no model, holds an adapter.
pub(super) fn refuse(directory: &Path) -> Result<()> {
    let config = directory.join(CONFIG);
    let mut files = [CONFIG].into_iter().chain(WEIGHTS).map(|name| directory.join(name));
    match files.find(|file| file.exists()) {
        Some(path) => Err(Error::Adapter { path, base: base(&config) }),
        None => Ok(()),
    }
}

/// The model that the adapter changes, if its configuration says so.
fn base(config: &Path) -> Option<String> {
    let bytes = read_json(config, MAX_CONFIG_BYTES).ok()?;
    let config: Object = json::parse(&bytes).ok()?;
    config.get("base_model_name_or_path").ok()?
}
