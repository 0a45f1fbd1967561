//! Where a file has the weights that operations use.

use core::ops::Range;

use crate::format::network::TensorId;
use crate::format::{FileLayout, TensorKind};
use crate::quant::{TileLayout, power_of_two};

/// A matrix's layout and place.
#[derive(Clone)]
pub(crate) struct MatrixAt {
    /// Shape, scheme and tile order.
    pub tiles: TileLayout,
    /// `2^exponent`, the factor common to all scales.
    pub scale: f32,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

/// A matrix and its bias, if it has one.
pub(crate) struct LinearAt {
    pub matrix: MatrixAt,
    pub bias: Option<Range<usize>>,
}

/// A norm's places. Only a layer norm has a bias.
pub(crate) struct NormAt {
    pub weight: Range<usize>,
    pub bias: Option<Range<usize>>,
}

/// Looks weights up in a layout that [`read_header`](crate::format::read_header) has validated.
pub(super) struct Places<'a>(pub &'a FileLayout);

impl Places<'_> {
    /// The place of a tensor, if the network has it.
    pub fn find(&self, id: TensorId) -> Option<Range<usize>> {
        self.0.get(&id.name()).map(|tensor| tensor.range.clone())
    }

    /// A matrix of the network.
    pub fn matrix(&self, id: TensorId) -> MatrixAt {
        let tensor = self.0.get(&id.name()).expect("read_header requires every tensor");
        match &tensor.kind {
            TensorKind::Matrix(matrix) => MatrixAt {
                tiles: matrix.tiles,
                scale: power_of_two(matrix.exponent),
                range: tensor.range.clone(),
            },
            _ => unreachable!("{} is laid out as something else", id.name()),
        }
    }

    /// A matrix of the network, and its bias if it has one.
    pub fn linear(&self, id: TensorId) -> LinearAt {
        LinearAt { matrix: self.matrix(id), bias: self.find(id.bias()) }
    }

    /// A norm, if the network has it.
    pub fn norm(&self, id: TensorId) -> Option<NormAt> {
        Some(NormAt { weight: self.find(id)?, bias: self.find(id.bias()) })
    }
}
