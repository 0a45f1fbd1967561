//! Quantized matrices and rows, and their product.

use serde::{Serialize, Serializer};

use crate::quant::{PANEL_ROWS, Scheme, TileLayout};

/// A quantized matrix in place.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// Shape, scheme and tile order.
    pub tiles: TileLayout,
    /// `2^exponent`, the factor common to all scales.
    pub scale: f32,
    bytes: &'a [u8],
}

impl<'a> Weights<'a> {
    /// A matrix over its bytes. Panics unless there are exactly as many as the layout needs.
    pub fn new(tiles: TileLayout, scale: f32, bytes: &'a [u8]) -> Self {
        assert_eq!(bytes.len(), tiles.bytes(), "matrix bytes do not fit the layout");
        Self { tiles, scale, bytes }
    }

    /// The bytes of one panel of 16 rows.
    #[inline(always)]
    pub fn panel(&self, panel: usize) -> &'a [u8] {
        let size = self.tiles.panel_bytes();
        &self.bytes[panel * size..][..size]
    }
}

/// One token's embedding.
pub struct EmbeddingRow<'a> {
    /// The matrix.
    pub weights: Weights<'a>,
    /// The panel that holds the row.
    pub panel: &'a [u8],
    /// The row within the panel.
    pub row: usize,
    /// The position's embedding `[n_embd]` as float16 bits, if the model has one.
    pub position: Option<&'a [u16]>,
    /// What the sum is multiplied by.
    pub scale: f32,
}

impl<'a> EmbeddingRow<'a> {
    /// Row `row` of `weights`, with its position and scale.
    pub fn new(weights: Weights<'a>, row: usize, position: Option<&'a [u16]>, scale: f32) -> Self {
        let panel = weights.panel(row / PANEL_ROWS);
        Self { weights, panel, row: row % PANEL_ROWS, position, scale }
    }
}

/// Tokens' rows as they enter a matrix: integers in -127..=127, their groups' scales, and what the
/// weights' offset takes away from their products.
#[derive(Clone, Copy)]
pub struct QuantizedRows<'a> {
    /// `[tokens][padded_cols]`.
    pub values: &'a [i8],
    /// `[tokens][groups]`.
    pub scales: &'a [f32],
    /// `[tokens][blocks]`: -8 times a block's sum, the first two and the last two inputs of every step
    /// apart ([`Correction`]).
    pub corrections: &'a [Correction],
    /// Inputs with the last group's padding.
    pub padded_cols: usize,
    /// Groups per token.
    pub groups: usize,
    /// Blocks per token ([`block_size`](crate::quant::block_size)).
    pub blocks: usize,
}

/// The zero-point correction of a block, with which its sum of products begins. Int4 weights are stored
/// with an offset of 8, so it is -8 times the sum of inputs 0 and 1 of every step, and -8 times that of
/// inputs 2 and 3. The two together, times [`correction_factor`], are the correction for other schemes.
///
/// They lie apart because a product of bytes on x86 sums neighbours in 16 bits, where the two can
/// still wrap around harmlessly ([`block_size`](crate::quant::block_size)).
pub type Correction = [i16; 2];

/// By what a [`Correction`] is multiplied for the weights of a scheme: their offset over that of int4.
#[inline(always)]
pub const fn correction_factor(scheme: Scheme) -> i16 {
    (scheme.offset() / Scheme::Int4.offset()) as i16
}

impl<'a> QuantizedRows<'a> {
    /// Values, scales and corrections of one token.
    #[inline(always)]
    pub fn token(&self, token: usize) -> (&'a [i8], &'a [f32], &'a [Correction]) {
        (
            &self.values[token * self.padded_cols..][..self.padded_cols],
            &self.scales[token * self.groups..][..self.groups],
            &self.corrections[token * self.blocks..][..self.blocks],
        )
    }
}

/// Where one token's quantized row goes.
pub struct QuantizedRowMut<'a> {
    /// `[padded_cols]`.
    pub values: &'a mut [i8],
    /// `[groups]`.
    pub scales: &'a mut [f32],
    /// `[blocks]`.
    pub corrections: &'a mut [Correction],
}

/// The non-linearity between the two halves of an MLP (`docs/elementary-functions.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * Phi(x)`, exact: Cerebras-GPT.
    Gelu,
    /// The tanh form (Hendrycks & Gimpel, 2016): OpenAI's GPT-2 (`gelu_new`).
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
}

impl Activation {
    /// All non-linearities.
    pub const ALL: [Self; 4] = [Self::Gelu, Self::GeluTanh, Self::Relu, Self::Silu];

    /// The name used in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_tanh",
            Self::Relu => "relu",
            Self::Silu => "silu",
        }
    }
}

impl Serialize for Activation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What happens to an output after its bias was added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Epilogue {
    /// It replaces the cell.
    Store,
    /// It is added to the cell: the residual.
    AddTo,
    /// It, times a factor, is added to the cell: the residual of a model that scales its branches.
    AddScaled(f32),
    /// The activation of it replaces the cell.
    Activate(Activation),
    /// It multiplies the cell: the gate.
    MultiplyTo,
    /// It, times a factor, replaces the cell: logits.
    Scale(f32),
}

/// A matrix product: every row of `weights` with every token of `input`.
pub struct Matmul<'a> {
    /// `[out, in]`.
    pub weights: Weights<'a>,
    /// `[tokens, in]`.
    pub input: QuantizedRows<'a>,
    /// `[out]`.
    pub bias: Option<&'a [f32]>,
    /// What happens after the bias.
    pub epilogue: Epilogue,
}

impl Matmul<'_> {
    /// Tokens of the input.
    #[inline(always)]
    pub fn tokens(&self) -> usize {
        self.input.values.len() / self.input.padded_cols
    }
}
