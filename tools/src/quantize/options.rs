//! What to make of a checkpoint.

use std::collections::BTreeMap;

use cerebellum::format::{ChatFormat, MAX_TEMPLATES_BYTES, is_template_name};
use cerebellum::quant::{GROUP_SIZES, Scheme};

use super::error::{Error, Result};
use crate::calibrate::Calibration;

/// How a matrix is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixFormat {
    /// The integers that weights become.
    pub scheme: Scheme,
    /// Inputs that share a scale: 32, 64 or 128.
    pub group_size: usize,
}

impl MatrixFormat {
    /// A scheme with the group size that suits most models: 64.
    pub fn new(scheme: Scheme) -> Self {
        Self { scheme, group_size: 64 }
    }
}

/// What to make of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The format of every matrix,
    pub format: MatrixFormat,
    /// except of these, by canonical name.
    pub exceptions: BTreeMap<String, MatrixFormat>,
    /// The text whose activations decide how weights are rounded; without one, each weight becomes the
    /// nearest that its group can have.
    pub calibration: Option<Calibration>,
    /// Bits per weight that the file may have on average, tokenizer aside. Formats are chosen for each
    /// matrix then, by what they cost on the calibration text; `format` and `exceptions` do not matter.
    pub bits: Option<f64>,
    /// Templates by name that the file is to hold.
    pub templates: BTreeMap<String, String>,
    /// How the model is put conversations.
    pub chat: Option<ChatFormat>,
    /// Tokens that end a text, besides the configuration's end-of-text token.
    pub end_tokens: Vec<u32>,
}

impl Options {
    /// One format for all matrices.
    pub fn uniform(format: MatrixFormat) -> Self {
        let (exceptions, templates) = (BTreeMap::new(), BTreeMap::new());
        Self {
            format,
            exceptions,
            calibration: None,
            bits: None,
            templates,
            chat: None,
            end_tokens: Vec::new(),
        }
    }

    /// Checks all but the budget, for a model of these matrices.
    pub(super) fn check(&self, matrices: &[(String, [usize; 2])]) -> Result<()> {
        for format in self.exceptions.values().chain([&self.format]) {
            if !GROUP_SIZES.contains(&format.group_size) {
                return Err(Error::GroupSize(format.group_size));
            }
        }
        self.check_templates()?;
        let known = |name: &String| matrices.iter().any(|(matrix, _)| matrix == name);
        match self.exceptions.keys().find(|name| !known(name)) {
            Some(name) => Err(Error::UnknownMatrix(name.clone())),
            None => Ok(()),
        }
    }

    fn check_templates(&self) -> Result<()> {
        if let Some(name) = self.templates.keys().find(|name| !is_template_name(name)) {
            return Err(Error::Templates(format!("{name:?} is no name of a template")));
        }
        let bytes = serde_json::to_string(&self.templates).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_TEMPLATES_BYTES {
            let detail = format!("they take {bytes} bytes, {MAX_TEMPLATES_BYTES} are allowed");
            return Err(Error::Templates(detail));
        }
        Ok(())
    }
}
