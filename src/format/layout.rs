//! Where each tensor lies: a function of the configuration, the schemes and the tokenizer's size.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::{Deserialize, Serialize};

use super::network::{self, Described, Shape, TensorId};
use super::{CHECKSUMS, Config, FormatError, TOKENIZER};
use crate::heap;
use crate::quant::{EXPONENTS, Scheme, TileLayout};

/// What the metadata says of one matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MatrixInfo {
    /// How its weights are stored.
    pub scheme: Scheme,
    /// Inputs that share a scale.
    pub group_size: usize,
    /// The true shape, `[out, in]`.
    pub shape: [usize; 2],
    /// Every scale is multiplied by `2^exponent`.
    pub exponent: i32,
    /// Norm of the quantization error over the norm of the weights, for information.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f32>,
}

/// Tensors as listed in the header.
pub(super) type Listed = BTreeMap<String, TensorInfo>;

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
    /// Float64 values: the inverse frequencies of rotated positions.
    Frequencies,
    /// The tokenizer's tables.
    Tokenizer,
    /// The table of checksums.
    Checksums,
}

/// A tensor and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Which of the network's tensors it is, if it is one.
    pub id: Option<TensorId>,
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
    /// The layout that `config`, the matrices' `infos` and the size of the tokenizer's tables imply, with places
    /// relative to the beginning of the data.
    pub fn new(
        config: &Config,
        infos: &BTreeMap<String, MatrixInfo>,
        tokenizer_bytes: Option<usize>,
    ) -> Result<Self, FormatError> {
        let mut builder = Builder { tensors: Vec::new(), end: 0 };
        let network = network::tensors(config);
        let expected: Vec<_> =
            matrices(&network).map(|(id, shape)| (id, id.name(), shape)).collect();
        for (id, name, shape) in &expected {
            let info = infos.get(name.as_str());
            let info = info.ok_or_else(|| FormatError::tensor(name, "missing in `tensors`"))?;
            builder.push_matrix(*id, name, info, *shape)?;
        }
        let mut known: Vec<&str> = expected.iter().map(|(_, name, _)| name.as_str()).collect();
        heap::sort(&mut known, |a, b| a < b);
        // Both in the order of names: the first that differs is surplus, because none is missing.
        let mut known = known.into_iter();
        if let Some(surplus) = infos.keys().find(|name| known.next() != Some(name.as_str())) {
            return Err(FormatError::tensor(surplus, "is not part of this architecture"));
        }
        check_readers(&network, infos)?;
        // The widest numbers first: each is aligned to its size, as matrices are to 64 bytes.
        for Described { id, shape } in &network {
            if let Shape::Frequencies(shape) = *shape {
                builder.push_values(*id, TensorKind::Frequencies, Dtype::F64, &shape)?;
            }
        }
        for Described { id, shape } in &network {
            if let Shape::Vector(elements) = *shape {
                builder.push_values(*id, TensorKind::Vector, Dtype::F32, &[elements])?;
            }
        }
        for Described { id, shape } in &network {
            if let Shape::Table(shape) = *shape {
                builder.push_values(*id, TensorKind::Positions, Dtype::F16, &shape)?;
            }
        }
        if let Some(bytes) = tokenizer_bytes {
            builder.push(None, TOKENIZER, TensorKind::Tokenizer, Dtype::U8, vec![bytes])?;
        }
        let entries = builder.tensors.len() + 2;
        builder.push(None, CHECKSUMS, TensorKind::Checksums, Dtype::U8, vec![4 * entries])?;
        let tensors = builder.tensors;
        let mut by_name: Vec<usize> = (0..tensors.len()).collect();
        heap::sort(&mut by_name, |&a, &b| tensors[a].name < tensors[b].name);
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
        id: TensorId,
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
        self.push(Some(id), name, kind, Dtype::U8, vec![tiles.panels(), tiles.panel_bytes()])
    }

    fn push_values(
        &mut self,
        id: TensorId,
        kind: TensorKind,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<(), FormatError> {
        self.push(Some(id), &id.name(), kind, dtype, shape.to_vec())
    }

    fn push(
        &mut self,
        id: Option<TensorId>,
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
            id,
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

/// Names and shapes `[out, in]` of the matrices, in file order.
pub fn matrix_names(config: &Config) -> Vec<(String, [usize; 2])> {
    matrices(&network::tensors(config)).map(|(id, shape)| (id.name(), shape)).collect()
}

fn matrices(network: &[Described]) -> impl Iterator<Item = (TensorId, [usize; 2])> {
    network.iter().filter_map(|tensor| match tensor.shape {
        Shape::Matrix(shape) => Some((tensor.id, shape)),
        _ => None,
    })
}

/// Matrices of a layer that read the same quantized rows, as a gate and its companion do, must have the
/// same groups.
fn check_readers(
    network: &[Described],
    infos: &BTreeMap<String, MatrixInfo>,
) -> Result<(), FormatError> {
    let reads = |id: TensorId| (id.layer, id.role.reads());
    let mut before: Option<(TensorId, String)> = None;
    for (id, _) in matrices(network).filter(|(id, _)| id.layer.is_some()) {
        let name = id.name();
        if let Some((other, other_name)) = &before
            && reads(*other) == reads(id)
            && infos.get(other_name).map(|info| info.group_size)
                != infos.get(&name).map(|info| info.group_size)
        {
            let detail = format!("must have the same group size as {other_name}");
            return Err(FormatError::tensor(&name, detail));
        }
        before = Some((id, name));
    }
    Ok(())
}
