//! What is in a model file, in numbers: the result of `quantize` and of `inspect`.

use cerebellum::format::{Architecture, Config, FileLayout, Header, Source, Tensor, TensorKind};
use serde::Serialize;

/// The contents of a model file.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The family of the network.
    pub architecture: Architecture,
    /// Length of the file.
    pub file_bytes: u64,
    /// Number of weights, biases and position entries; tied ones count once.
    pub parameters: u64,
    /// Bits of all [`tensors`](Self::tensors) over `parameters`.
    pub bits_per_weight: f64,
    /// The model's shape.
    pub config: Config,
    /// The checkpoint it was made from.
    pub source: Option<Source>,
    /// The quantizer's version and options, as the file has them.
    pub quantizer: serde_json::Value,
    /// Bytes of the tokenizer's tables, if the file has them.
    pub tokenizer_bytes: Option<usize>,
    /// Names of the templates in the file.
    pub templates: Vec<String>,
    /// Everything that is computed with, in file order.
    pub tensors: Vec<TensorSummary>,
}

/// One tensor of a model file.
#[derive(Clone, Debug, Serialize)]
pub struct TensorSummary {
    /// Its name.
    pub name: String,
    /// `int4`, `int8`, `float16`, `float32` or `float64`.
    pub scheme: &'static str,
    /// Inputs that share a scale, in a quantized matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_size: Option<usize>,
    /// The true shape; of a matrix `[out, in]`.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: usize,
    /// All its bits, scales and padding included, over its elements.
    pub bits_per_weight: f64,
    /// Norm of the quantization error over the norm of the weights, of a quantized matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f32>,
}

impl Summary {
    /// The summary of a file with this header and layout.
    pub fn new(header: &Header, layout: &FileLayout, file_bytes: u64) -> Self {
        let tensors = layout.tensors().iter().filter_map(|t| TensorSummary::new(t, header));
        let tensors: Vec<TensorSummary> = tensors.collect();
        let parameters: usize = tensors.iter().map(TensorSummary::elements).sum();
        let bytes: usize = tensors.iter().map(|t| t.bytes).sum();
        let mut kinds = layout.tensors().iter();
        let tokenizer = kinds.find(|t| t.kind == TensorKind::Tokenizer);
        Self {
            architecture: header.config.architecture,
            file_bytes,
            parameters: parameters as u64,
            bits_per_weight: bits_per(bytes, parameters),
            config: header.config.clone(),
            source: header.source.clone(),
            quantizer: header.quantizer.value(),
            tokenizer_bytes: tokenizer.map(|t| t.range.len()),
            templates: header.templates.keys().cloned().collect(),
            tensors,
        }
    }

    /// An option that the quantizer recorded. The record may be any JSON, so that there may be none.
    pub fn option(&self, name: &str) -> Option<&serde_json::Value> {
        self.quantizer.get("options")?.get(name)
    }

    /// What the file records of each tensor's choice of format, if it was made under a budget of bits.
    pub fn choices(&self) -> Option<&[serde_json::Value]> {
        self.option("choices")?.as_array().map(Vec::as_slice)
    }

    /// The quantizer's record of itself, without what tables of tensors show.
    pub fn record(&self) -> serde_json::Value {
        let mut record = self.quantizer.clone();
        if let Some(options) = record.get_mut("options").and_then(|options| options.as_object_mut())
        {
            options.remove("choices");
            options.remove("exceptions");
        }
        record
    }
}

/// What a tensor's choice of format says under `field`.
pub fn choice_of<'a>(
    choices: &'a [serde_json::Value],
    tensor: &str,
    field: &str,
) -> Option<&'a serde_json::Value> {
    let is_of_tensor = |choice: &&serde_json::Value| {
        choice.get("tensor").and_then(|name| name.as_str()) == Some(tensor)
    };
    choices.iter().find(is_of_tensor)?.get(field)
}

impl TensorSummary {
    /// `None` for the tokenizer and the checksums.
    fn new(tensor: &Tensor, header: &Header) -> Option<Self> {
        let info = header.tensors.get(&tensor.name);
        let (scheme, shape) = match (&tensor.kind, info) {
            (TensorKind::Matrix(_), Some(info)) => (info.scheme.name(), info.shape.to_vec()),
            (TensorKind::Frequencies, _) => ("float64", tensor.shape.clone()),
            (TensorKind::Vector, _) => ("float32", tensor.shape.clone()),
            (TensorKind::Positions, _) => ("float16", tensor.shape.clone()),
            _ => return None,
        };
        let bytes = tensor.range.len();
        let mut summary = Self {
            name: tensor.name.clone(),
            scheme,
            group_size: info.map(|info| info.group_size),
            shape,
            bytes,
            bits_per_weight: 0.0,
            relative_error: info.and_then(|info| info.relative_error),
        };
        summary.bits_per_weight = bits_per(bytes, summary.elements());
        Some(summary)
    }

    /// Number of its elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

fn bits_per(bytes: usize, elements: usize) -> f64 {
    bytes as f64 * 8.0 / elements as f64
}
