//! A model file's weights in float32.

use std::io;
use std::path::{Path, PathBuf};

use cerebellum::format::network::{Role, TensorId};
use cerebellum::format::{
    Access, Config, FileLayout, Matrix, ModelBytes, Tensor, TensorKind, read_header,
};
use cerebellum::quant::{PANEL_ROWS, hadamard, power_of_two};
use half::f16;

use crate::checkpoint::{self, Error};
use crate::reference::Weights;

/// What a model file's weights stand for, as float32, so that the reference can run them: what rounding
/// the weights costs, without that of the activations and of the cache.
pub struct StoredWeights {
    path: PathBuf,
    file: ModelBytes,
    layout: FileLayout,
    config: Config,
}

impl StoredWeights {
    /// Opens a model file.
    ///
    /// # Errors
    /// Those of opening a model.
    pub fn open(path: &Path) -> cerebellum::Result<Self> {
        let file = ModelBytes::open(path, Access::Map)?;
        let (header, layout) = read_header(file.get()?)?;
        Ok(Self { path: path.to_owned(), file, layout, config: header.config })
    }

    /// A tensor and its bytes.
    fn tensor(&self, name: &str) -> checkpoint::Result<(&Tensor, &[u8])> {
        let tensor = self.layout.get(name).ok_or_else(|| Error::UnknownTensor {
            tensor: name.to_owned(),
            location: self.path.clone(),
        })?;
        let changed = |e| Error::Io { path: self.path.clone(), source: io::Error::other(e) };
        Ok((tensor, &self.file.get().map_err(changed)?[tensor.range.clone()]))
    }

    /// The bytes of a tensor that follows from the configuration; none if the model has no such tensor.
    fn derived(&self, role: Role) -> checkpoint::Result<&[u8]> {
        let name = TensorId::outside(role).name();
        if self.layout.get(&name).is_none() {
            return Ok(&[]);
        }
        Ok(self.tensor(&name)?.1)
    }
}

impl Weights for StoredWeights {
    fn config(&self) -> &Config {
        &self.config
    }

    fn slopes(&self) -> checkpoint::Result<Vec<f32>> {
        let bytes = self.derived(Role::Slopes)?.as_chunks().0;
        Ok(bytes.iter().map(|&slope| f32::from_le_bytes(slope)).collect())
    }

    fn frequencies(&self) -> checkpoint::Result<Vec<f64>> {
        let bytes = self.derived(Role::Frequencies)?.as_chunks().0;
        Ok(bytes.iter().map(|&frequency| f64::from_le_bytes(frequency)).collect())
    }

    fn read(&self, id: TensorId) -> checkpoint::Result<Vec<f32>> {
        let (tensor, bytes) = self.tensor(&id.name())?;
        Ok(match &tensor.kind {
            TensorKind::Matrix(matrix) => dequantize(matrix, bytes),
            TensorKind::Positions => {
                let halves = bytes.as_chunks().0.iter();
                halves.map(|&half| f16::from_le_bytes(half).to_f32()).collect()
            }
            _ => bytes.as_chunks().0.iter().map(|&float| f32::from_le_bytes(float)).collect(),
        })
    }
}

/// `[rows, cols]` of a matrix: its integers times their scales, transformed back (`docs/numbers.md`).
fn dequantize(matrix: &Matrix, bytes: &[u8]) -> Vec<f32> {
    let (tiles, factor) = (&matrix.tiles, power_of_two(matrix.exponent));
    let mut values = Vec::with_capacity(tiles.rows() * tiles.cols());
    for row in 0..tiles.rows() {
        let panel = &bytes[row / PANEL_ROWS * tiles.panel_bytes()..][..tiles.panel_bytes()];
        let row = row % PANEL_ROWS;
        for group in 0..tiles.groups() {
            let scale = tiles.scale(panel, row, group).to_f32() * factor;
            let first = group * tiles.group_size();
            let last = tiles.cols().min(first + tiles.group_size());
            values
                .extend((first..last).map(|col| f32::from(tiles.weight(panel, row, col)) * scale));
        }
        let start = values.len() - tiles.cols();
        hadamard(&mut values[start..]);
    }
    values
}
