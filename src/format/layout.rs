//! Where each tensor lies: a function of the configuration, the schemes and the tokenizer's size.

use std::collections::BTreeMap;
use std::ops::Range;

use safetensors::Dtype;

use super::header::Listed;
use super::{ALIBI_SLOPES, CHECKSUMS, Config, FormatError, MatrixInfo, TOKENIZER};
use crate::quant::{EXPONENTS, TileLayout};

/// A matrix in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix {
    /// Shape, scheme and tile order.
    pub tiles: TileLayout,
    /// Every scale is multiplied by `2^exponent`.
    pub exponent: i32,
}

/// What a tensor's bytes are.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorKind {
    /// Quantized weights in the tile order.
    Matrix(Matrix),
    /// Float32 values: biases and layer norms.
    Vector,
    /// Float16 values: the position table.
    Positions,
    /// The tokenizer's tables.
    Tokenizer,
    /// The table of checksums.
    Checksums,
}

/// A tensor and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name in the file.
    pub name: String,
    /// What its bytes are.
    pub kind: TensorKind,
    /// Type in the safetensors header.
    pub dtype: Dtype,
    /// Shape in the safetensors header.
    pub shape: Vec<usize>,
    /// Its bytes: within the data as made by [`FileLayout::new`], within the file once it was read.
    pub range: Range<usize>,
}

/// Every tensor of a file, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct FileLayout {
    tensors: Vec<Tensor>,
    /// Places in `tensors` in the order of names, to search in: a hostile header may list tens of thousands.
    by_name: Vec<usize>,
}

impl FileLayout {
    /// The layout that `config`, `matrices` and the size of the tokenizer's tables imply, with places
    /// relative to the beginning of the data.
    pub fn new(
        config: &Config,
        matrices: &BTreeMap<String, MatrixInfo>,
        tokenizer_bytes: Option<usize>,
    ) -> Result<Self, FormatError> {
        let mut builder = Builder { tensors: Vec::new(), end: 0 };
        let expected = matrix_names(config);
        for (name, shape) in &expected {
            let info = matrices.get(name.as_str());
            let info = info.ok_or_else(|| FormatError::tensor(name, "missing in `tensors`"))?;
            builder.push_matrix(name, info, *shape)?;
        }
        let mut known: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        known.sort_unstable();
        // Both in the order of names: the first that differs is surplus, because none is missing.
        let mut known = known.into_iter();
        if let Some(surplus) = matrices.keys().find(|name| known.next() != Some(name.as_str())) {
            return Err(FormatError::tensor(surplus, "is not part of this architecture"));
        }
        check_gates(config, matrices)?;
        for (name, width) in vector_names(config) {
            builder.push(&name, TensorKind::Vector, Dtype::F32, vec![width])?;
        }
        if !config.alibi {
            let positions = vec![config.n_positions, config.n_embd];
            builder.push("wpe.weight", TensorKind::Positions, Dtype::F16, positions)?;
        }
        if let Some(bytes) = tokenizer_bytes {
            builder.push(TOKENIZER, TensorKind::Tokenizer, Dtype::U8, vec![bytes])?;
        }
        let entries = builder.tensors.len() + 2;
        builder.push(CHECKSUMS, TensorKind::Checksums, Dtype::U8, vec![4 * entries])?;
        let tensors = builder.tensors;
        let mut by_name: Vec<usize> = (0..tensors.len()).collect();
        by_name.sort_unstable_by_key(|&i| tensors[i].name.as_str());
        Ok(Self { tensors, by_name })
    }

    /// All tensors in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        let place = self.by_name.binary_search_by_key(&name, |&i| &self.tensors[i].name);
        Some(&self.tensors[self.by_name[place.ok()?]])
    }

    /// Bytes from the beginning of the data to its end.
    pub fn data_bytes(&self) -> usize {
        let (first, last) = (self.tensors.first(), self.tensors.last());
        first.zip(last).map_or(0, |(first, last)| last.range.end - first.range.start)
    }

    /// The same layout with places counted from the beginning of the file.
    pub(super) fn based_at(mut self, base: usize) -> Self {
        for tensor in &mut self.tensors {
            tensor.range = tensor.range.start + base..tensor.range.end + base;
        }
        self
    }

    /// Checks that the header lists exactly these tensors at exactly these places.
    pub(super) fn check_listed(&self, listed: &Listed) -> Result<(), FormatError> {
        for tensor in &self.tensors {
            let name = &tensor.name;
            let info = listed.get(name);
            let info = info.ok_or_else(|| FormatError::tensor(name, "missing in the header"))?;
            if info.dtype != tensor.dtype || info.shape != tensor.shape {
                let detail = format!(
                    "is {:?} {:?}, the configuration implies {:?} {:?}",
                    info.dtype, info.shape, tensor.dtype, tensor.shape
                );
                return Err(FormatError::tensor(name, detail));
            }
            if info.data_offsets != (tensor.range.start, tensor.range.end) {
                let detail = format!("lies at {:?}, not {:?}", info.data_offsets, tensor.range);
                return Err(FormatError::tensor(name, detail));
            }
        }
        match listed.keys().find(|name| self.get(name).is_none()) {
            Some(name) => Err(FormatError::tensor(name, "is not part of this format")),
            None => Ok(()),
        }
    }
}

struct Builder {
    tensors: Vec<Tensor>,
    end: usize,
}

impl Builder {
    fn push_matrix(
        &mut self,
        name: &str,
        info: &MatrixInfo,
        [rows, cols]: [usize; 2],
    ) -> Result<(), FormatError> {
        if info.shape != [rows, cols] {
            let detail = format!("has shape {:?}, expected [{rows}, {cols}]", info.shape);
            return Err(FormatError::tensor(name, detail));
        }
        if !EXPONENTS.contains(&info.exponent) {
            let detail = format!("exponent {} is not in {EXPONENTS:?}", info.exponent);
            return Err(FormatError::tensor(name, detail));
        }
        let tiles = TileLayout::new(rows, cols, info.scheme, info.group_size).ok_or_else(|| {
            let detail = format!("[{rows}, {cols}] in groups of {} cannot be", info.group_size);
            FormatError::tensor(name, detail)
        })?;
        let kind = TensorKind::Matrix(Matrix { tiles, exponent: info.exponent });
        self.push(name, kind, Dtype::U8, vec![tiles.panels(), tiles.panel_bytes()])
    }

    fn push(
        &mut self,
        name: &str,
        kind: TensorKind,
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> Result<(), FormatError> {
        let element = dtype.bitsize() / 8;
        let bytes = shape.iter().try_fold(element, |bytes, &n| bytes.checked_mul(n));
        let end = bytes.and_then(|bytes| self.end.checked_add(bytes));
        let end = end.filter(|&end| isize::try_from(end).is_ok());
        let end = end.ok_or_else(|| FormatError::tensor(name, "is too large for this machine"))?;
        self.tensors.push(Tensor {
            name: name.to_owned(),
            kind,
            dtype,
            shape,
            range: self.end..end,
        });
        self.end = end;
        Ok(())
    }
}

/// The gate of a gated MLP, and its bias.
const GATE: &str = "mlp.c_fc2";
const GATE_BIAS: &str = "mlp.c_fc2.bias";

/// Names and shapes `[out, in]` of the matrices, in file order.
pub fn matrix_names(config: &Config) -> Vec<(String, [usize; 2])> {
    let (e, f, v) = (config.n_embd, config.n_inner, config.vocab_size);
    let mut names = vec![("wte.weight".to_owned(), [v, e])];
    for layer in 0..config.n_layer {
        let of_layer = [
            ("attn.c_attn", [3 * e, e]),
            ("attn.c_proj", [e, e]),
            ("mlp.c_fc", [f, e]),
            (GATE, [f, e]),
            ("mlp.c_proj", [e, f]),
        ];
        let of_layer = of_layer.into_iter().filter(|&(name, _)| config.gated_mlp || name != GATE);
        names.extend(of_layer.map(|(name, shape)| (format!("h.{layer}.{name}.weight"), shape)));
    }
    if !config.tie_word_embeddings {
        names.push(("lm_head.weight".to_owned(), [v, e]));
    }
    names
}

/// A gate reads the same quantized rows as its `c_fc`, so their groups must be the same.
fn check_gates(
    config: &Config,
    matrices: &BTreeMap<String, MatrixInfo>,
) -> Result<(), FormatError> {
    let layers = if config.gated_mlp { config.n_layer } else { 0 };
    for layer in 0..layers {
        let gate = format!("h.{layer}.{GATE}.weight");
        let group_size = |name: &str| matrices.get(name).map(|info| info.group_size);
        if group_size(&gate) != group_size(&format!("h.{layer}.mlp.c_fc.weight")) {
            return Err(FormatError::tensor(&gate, "must have the same group size as mlp.c_fc"));
        }
    }
    Ok(())
}

/// Names and widths of the float32 vectors, in file order.
fn vector_names(config: &Config) -> Vec<(String, usize)> {
    let (e, f) = (config.n_embd, config.n_inner);
    let mut names = Vec::new();
    for layer in 0..config.n_layer {
        let of_layer = [
            ("ln_1.weight", e),
            ("ln_1.bias", e),
            ("attn.c_attn.bias", 3 * e),
            ("attn.c_proj.bias", e),
            ("ln_2.weight", e),
            ("ln_2.bias", e),
            ("mlp.c_fc.bias", f),
            (GATE_BIAS, f),
            ("mlp.c_proj.bias", e),
        ];
        let of_layer =
            of_layer.into_iter().filter(|&(name, _)| config.gated_mlp || name != GATE_BIAS);
        names.extend(of_layer.map(|(name, width)| (format!("h.{layer}.{name}"), width)));
    }
    names.extend([("ln_f.weight".to_owned(), e), ("ln_f.bias".to_owned(), e)]);
    if config.alibi {
        names.push((ALIBI_SLOPES.to_owned(), config.n_head));
    }
    names
}
