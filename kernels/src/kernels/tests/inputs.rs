//! What kernels are given.

use crate::kernels::*;
use crate::quant::{GROUP_SIZES, Scheme, TileLayout, hadamard};

pub const SCHEMES: [Scheme; 5] = Scheme::ALL;

pub const EPILOGUES: [Epilogue; 9] = [
    Epilogue::Store,
    Epilogue::AddTo,
    Epilogue::AddScaled(0.263),
    Epilogue::MultiplyTo,
    Epilogue::Scale(0.222),
    Epilogue::Activate(Activation::Gelu),
    Epilogue::Activate(Activation::GeluTanh),
    Epilogue::Activate(Activation::Relu),
    Epilogue::Activate(Activation::Silu),
];

/// SplitMix64 (Steele et al., 2014).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in -1..1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() as i32) as f32 / 2f32.powi(31)
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What kind of floats a row holds.
#[derive(Clone, Copy, Debug)]
pub enum Floats {
    /// Around 1, of either sign.
    Ordinary,
    /// All of one magnitude: quantized, all are 127 or -127.
    Extreme,
    /// All equal: quantized, all 127.
    Constant,
    Zeros,
    /// Subnormals, and so small that a group counts as zero.
    Tiny,
    /// Every magnitude a float can have.
    AnyMagnitude,
    /// Ordinary, but for one.
    Infinity,
    /// Ordinary, but for one.
    NotANumber,
}

pub const FLOATS: [Floats; 8] = [
    Floats::Ordinary,
    Floats::Extreme,
    Floats::Constant,
    Floats::Zeros,
    Floats::Tiny,
    Floats::AnyMagnitude,
    Floats::Infinity,
    Floats::NotANumber,
];

impl Floats {
    pub fn row(self, n: usize, random: &mut Random) -> Vec<f32> {
        let mut row: Vec<f32> = (0..n).map(|_| self.one(random)).collect();
        let at = random.below(n);
        match self {
            Self::Infinity => row[at] = random.pick(&[f32::INFINITY, f32::NEG_INFINITY]),
            Self::NotANumber => row[at] = f32::NAN,
            // So that what is quantized, after the transform, is what it says. Nothing is rounded.
            Self::Extreme | Self::Constant => hadamard(&mut row),
            _ => {}
        }
        row
    }

    pub fn one(self, random: &mut Random) -> f32 {
        match self {
            Self::Extreme => random.pick(&[1.5, -1.5]),
            Self::Constant => 3.0,
            Self::Zeros => random.pick(&[0.0, -0.0]),
            Self::Tiny => f32::from_bits(random.bits() as u32 & 0x80ff_ffff),
            // Below 2^97, so that some sums and products stay finite.
            Self::AnyMagnitude => {
                random.unit() * 2f32.powi(random.below(200) as i32 - 100) * 2f32.powi(-3)
            }
            _ => random.unit() * random.pick(&[1.0, 1.0, 4.0]),
        }
    }
}

/// What kind of bytes a matrix holds.
#[derive(Clone, Copy, Debug)]
pub enum Bytes {
    /// Every value, and scales of every size and sign.
    Any,
    /// The lowest weights everywhere.
    Lowest,
    /// The highest.
    Highest,
    /// Any, and some scales are not finite.
    BadScales,
}

pub const BYTES: [Bytes; 4] = [Bytes::Any, Bytes::Lowest, Bytes::Highest, Bytes::BadScales];

impl Bytes {
    pub fn matrix(self, tiles: TileLayout, random: &mut Random) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..tiles.bytes()).map(|_| random.bits() as u8).collect();
        for panel in bytes.chunks_exact_mut(tiles.panel_bytes()) {
            let (weights, scales) = panel.split_at_mut(tiles.scales_offset());
            match self {
                Self::Lowest => weights.fill(0),
                Self::Highest => weights.fill(0xff),
                Self::Any | Self::BadScales => {}
            }
            for scale in scales.chunks_exact_mut(2) {
                let bits = (random.bits() as u16).to_le_bytes();
                let finite = half::f16::from_le_bytes(bits).is_finite();
                let allowed = finite || matches!(self, Self::BadScales) && random.below(8) == 0;
                scale.copy_from_slice(if allowed { &bits } else { &[0x01, 0xbc] });
            }
        }
        bytes
    }
}

/// Owned [`QuantizedRows`].
pub struct Rows {
    pub values: Vec<i8>,
    pub scales: Vec<f32>,
    pub corrections: Vec<Correction>,
    pub tiles: TileLayout,
}

impl Rows {
    pub fn quantize(kernels: &Kernels, x: &[f32], tiles: TileLayout) -> Self {
        let tokens = x.len() / tiles.cols();
        let mut rows = Self {
            // Nothing may be left over.
            values: vec![99; tokens * tiles.padded_cols()],
            scales: vec![99.0; tokens * tiles.groups()],
            corrections: vec![[99; 2]; tokens * tiles.blocks()],
            tiles,
        };
        for (t, x) in x.chunks_exact(tiles.cols()).enumerate() {
            let out = QuantizedRowMut {
                values: &mut rows.values[t * tiles.padded_cols()..][..tiles.padded_cols()],
                scales: &mut rows.scales[t * tiles.groups()..][..tiles.groups()],
                corrections: &mut rows.corrections[t * tiles.blocks()..][..tiles.blocks()],
            };
            kernels.quantize(x, tiles.group_size(), out);
        }
        rows
    }

    pub fn get(&self) -> QuantizedRows<'_> {
        QuantizedRows {
            values: &self.values,
            scales: &self.scales,
            corrections: &self.corrections,
            padded_cols: self.tiles.padded_cols(),
            groups: self.tiles.groups(),
            blocks: self.tiles.blocks(),
        }
    }
}

/// Every combination of scheme, group size, and the given rows and columns.
pub fn layouts<'a>(rows: &'a [usize], cols: &'a [usize]) -> impl Iterator<Item = TileLayout> + 'a {
    let shapes = rows.iter().flat_map(|&rows| cols.iter().map(move |&cols| (rows, cols)));
    shapes.flat_map(|(rows, cols)| {
        SCHEMES.into_iter().flat_map(move |scheme| {
            GROUP_SIZES.map(|group| TileLayout::new(rows, cols, scheme, group).expect("sound"))
        })
    })
}

pub const COLS: [usize; 12] = [1, 4, 31, 32, 33, 64, 65, 127, 128, 129, 250, 1088];
