//! Where each tensor lies: a function of the configuration, the schemes and the tokenizer's size.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use serde::Serialize;

use super::header::METADATA;
use super::json::{Json, Object, Reader, members, names};
use super::network::{self, Described, Role, Shape, TensorId};
use super::{ByName, CHECKSUMS, Config, FormatError, TOKENIZER};
use crate::heap;
use crate::quant::{EXPONENTS, Scheme, TileLayout};

/// What the metadata says of one matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f32>,
}

members!(MatrixInfo { scheme, group_size, shape, exponent, relative_error });

impl Json for Scheme {
    fn read(reader: &mut Reader) -> Self {
        Self::ALL[reader.choice(&Self::ALL.map(Self::name))]
    }
}

/// A tensor as the header lists it.
struct Listed {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

members!(Listed { dtype, shape, data_offsets });

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

/// A tensor's type in the safetensors header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// Bytes.
    U8,
    /// Float16.
    F16,
    /// Float32.
    F32,
    /// Float64.
    F64,
}

names!(Dtype { U8 = "U8", F16 = "F16", F32 = "F32", F64 = "F64" });

impl Dtype {
    const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
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

impl Tensor {
    /// How many bytes of it a token reads that is evaluated alone: all, but of an embedding the 16 rows that lie in
    /// the same lines as the token's, beside all if it is the head, too; of learned positions a row.
    pub fn bytes_of_token(&self, config: &Config) -> usize {
        let all = self.range.len();
        match &self.kind {
            TensorKind::Matrix(matrix) if self.id == Some(TensorId::outside(Role::Embedding)) => {
                matrix.tiles.panel_bytes() + if config.tie_word_embeddings { all } else { 0 }
            }
            TensorKind::Matrix(_) | TensorKind::Vector | TensorKind::Frequencies => all,
            TensorKind::Positions => all / config.n_positions,
            TensorKind::Tokenizer | TensorKind::Checksums => 0,
        }
    }
}

/// A part of a file that is worth a copy in faster memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightsCopy {
    /// Whole tensors, one after the other.
    pub range: Range<usize>,
    /// How many bytes of the file a token reads less.
    pub saved_bytes: usize,
}

/// Matrices that every layer has: two of attention, two of the MLP.
const LEAST_MATRICES: usize = 4;

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
        infos: &ByName<MatrixInfo>,
        tokenizer_bytes: Option<usize>,
    ) -> Result<Self, FormatError> {
        // So the list of the network's tensors is no longer than the header's.
        if config.n_layer > infos.len() / LEAST_MATRICES {
            let detail = format!("{} with {} matrices in all", config.n_layer, infos.len());
            return Err(FormatError::config("n_layer", detail));
        }
        let mut builder = Builder { tensors: Vec::new(), end: 0 };
        let network = network::tensors(config);
        for (id, shape) in matrices(&network) {
            let name = id.name();
            let info = infos.get(&name);
            let info = info.ok_or_else(|| FormatError::tensor(&name, "missing in `tensors`"))?;
            builder.push_matrix(id, &name, info, shape)?;
        }
        let known = builder.tensors.len();
        check_readers(&network, infos)?;
        // The widest numbers first: each is aligned to its size, as matrices are to 64 bytes.
        for wanted in [Dtype::F64, Dtype::F32, Dtype::F16] {
            for Described { id, shape } in &network {
                let (kind, dtype, shape) = match shape {
                    Shape::Matrix(_) => continue,
                    Shape::Frequencies(shape) => (TensorKind::Frequencies, Dtype::F64, &shape[..]),
                    Shape::Vector(elements) => {
                        (TensorKind::Vector, Dtype::F32, core::slice::from_ref(elements))
                    }
                    Shape::Table(shape) => (TensorKind::Positions, Dtype::F16, &shape[..]),
                };
                if dtype == wanted {
                    builder.push(Some(*id), &id.name(), kind, dtype, shape.to_vec())?;
                }
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
        let layout = Self { tensors, by_name };
        // Matrices come first, and none is missing.
        let is_known = |name: &&String| layout.index(name).is_some_and(|index| index < known);
        match infos.keys().find(|name| !is_known(name)) {
            Some(surplus) => Err(FormatError::tensor(surplus, "is not part of this architecture")),
            None => Ok(layout),
        }
    }

    /// All tensors in file order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index(name).map(|index| &self.tensors[index])
    }

    /// The tensors, one after the other, that save a token most bytes of the file if they are copied to `room` bytes
    /// of other memory; none if none fits.
    pub fn worth_copying(&self, config: &Config, room: usize) -> WeightsCopy {
        let (mut best, mut saved_bytes) = (WeightsCopy::default(), 0);
        let mut first = self.tensors.iter();
        for last in &self.tensors {
            saved_bytes += last.bytes_of_token(config);
            while let Some(tensor) = first.as_slice().first() {
                let range = tensor.range.start..last.range.end;
                if range.len() <= room {
                    if saved_bytes > best.saved_bytes {
                        best = WeightsCopy { range, saved_bytes };
                    }
                    break;
                }
                saved_bytes -= tensor.bytes_of_token(config);
                first.next();
            }
        }
        best
    }

    fn index(&self, name: &str) -> Option<usize> {
        let place = self.by_name.binary_search_by_key(&name, |&i| &self.tensors[i].name);
        Some(self.by_name[place.ok()?])
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

    /// Checks that the header lists exactly these tensors at exactly these places, and none twice.
    pub(super) fn check_listed(&self, listed: &Object) -> Result<(), FormatError> {
        let mut seen = vec![false; self.tensors.len()];
        for (name, mut reader) in listed.members().filter(|(name, _)| name != METADATA) {
            let index = self.index(&name);
            let index =
                index.ok_or_else(|| FormatError::tensor(&name, "is not part of this format"))?;
            if core::mem::replace(&mut seen[index], true) {
                reader.twice(&name);
            }
            let (tensor, info) = (&self.tensors[index], Listed::read(&mut reader));
            listed.check()?;
            if info.dtype != tensor.dtype.name() || info.shape != tensor.shape {
                let detail = format!(
                    "is {} {}, the configuration implies {} {}",
                    info.dtype,
                    Dimensions(&info.shape),
                    tensor.dtype.name(),
                    Dimensions(&tensor.shape)
                );
                return Err(FormatError::tensor(&name, detail));
            }
            let [start, end] = info.data_offsets;
            if (start..end) != tensor.range {
                let Range { start: first, end: last } = tensor.range;
                let detail = format!("lies at {start}..{end}, not {first}..{last}");
                return Err(FormatError::tensor(&name, detail));
            }
        }
        match seen.iter().position(|seen| !seen) {
            Some(index) => {
                Err(FormatError::tensor(&self.tensors[index].name, "missing in the header"))
            }
            None => Ok(()),
        }
    }
}

/// A shape in a message.
struct Dimensions<'a>(&'a [usize]);

impl fmt::Display for Dimensions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("[")?;
        for (i, dimension) in self.0.iter().enumerate() {
            write!(f, "{}{dimension}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
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
            let detail =
                format!("has shape {}, expected [{rows}, {cols}]", Dimensions(&info.shape));
            return Err(FormatError::tensor(name, detail));
        }
        if !EXPONENTS.contains(&info.exponent) {
            let (least, most) = (EXPONENTS.start(), EXPONENTS.end());
            let detail = format!("exponent {} is not in {least}..={most}", info.exponent);
            return Err(FormatError::tensor(name, detail));
        }
        let tiles = TileLayout::new(rows, cols, info.scheme, info.group_size).ok_or_else(|| {
            let detail = format!("[{rows}, {cols}] in groups of {} cannot be", info.group_size);
            FormatError::tensor(name, detail)
        })?;
        let kind = TensorKind::Matrix(Matrix { tiles, exponent: info.exponent });
        self.push(Some(id), name, kind, Dtype::U8, vec![tiles.panels(), tiles.panel_bytes()])
    }

    fn push(
        &mut self,
        id: Option<TensorId>,
        name: &str,
        kind: TensorKind,
        dtype: Dtype,
        shape: Vec<usize>,
    ) -> Result<(), FormatError> {
        let element = dtype.bytes();
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
fn check_readers(network: &[Described], infos: &ByName<MatrixInfo>) -> Result<(), FormatError> {
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
