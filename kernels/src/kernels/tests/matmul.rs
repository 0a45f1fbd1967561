//! Matrix products.

use std::fmt::Debug;
use std::ops::Range;

use super::inputs::*;
use super::report::*;
use crate::kernels::*;
use crate::quant::{GROUP_SIZES, TileLayout};

/// A matrix product with everything it needs.
struct Product {
    tiles: TileLayout,
    bytes: Vec<u8>,
    rows: Rows,
    bias: Option<Vec<f32>>,
    epilogue: Epilogue,
    cells: Vec<f32>,
}

impl Product {
    fn new(tiles: TileLayout, tokens: usize, kinds: (Bytes, Floats), random: &mut Random) -> Self {
        let x: Vec<f32> = (0..tokens)
            .flat_map(|t| {
                // The last token is ordinary, so that a bad one is seen to spoil only itself.
                let kind = if t + 1 < tokens { kinds.1 } else { Floats::Ordinary };
                kind.row(tiles.cols(), random)
            })
            .collect();
        Self {
            tiles,
            bytes: kinds.0.matrix(tiles, random),
            rows: Rows::quantize(scalar(), &x, tiles),
            bias: random.pick(&[true, false]).then(|| Floats::Ordinary.row(tiles.rows(), random)),
            epilogue: random.pick(&EPILOGUES),
            cells: Floats::Ordinary.row(tokens * tiles.rows(), random),
        }
    }

    fn run(&self, kernels: &Kernels, panels: Range<usize>) -> Vec<f32> {
        let mut cells = self.cells.clone();
        let out = CellWriter::new(&mut cells, self.tiles.rows());
        let job = Matmul {
            weights: Weights::new(self.tiles, 0.25, &self.bytes),
            input: self.rows.get(),
            bias: self.bias.as_deref(),
            epilogue: self.epilogue,
        };
        // SAFETY: one thread, and the cells are used through this writer only.
        unsafe { kernels.matmul(&job, panels, &out) };
        cells
    }

    fn compare(&self, kernels: &Kernels, kinds: impl Debug, report: &mut Report) {
        // Also part of the panels, which must leave the others' cells alone.
        let panels = self.tiles.panels();
        for panels in [0..panels, panels / 2..panels] {
            let case = format!(
                "{:?} tokens {} {:?} bias {} panels {panels:?} {kinds:?}",
                self.tiles,
                self.rows.get().values.len() / self.tiles.padded_cols(),
                self.epilogue,
                self.bias.is_some()
            );
            let got = self.run(kernels, panels.clone());
            report.case(case, &got, &self.run(scalar(), panels));
        }
    }
}

#[test]
fn matmul_equals_the_definition() {
    const TOKENS: [usize; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 71, 107];
    each_table("matmul", |kernels, report| {
        let random = &mut Random(1);
        for tiles in layouts(&[1, 15, 16, 17, 33], &COLS) {
            for tokens in TOKENS {
                let large = tiles.rows() * tiles.cols() * tokens > 300_000;
                // Three schemes share everything behind the lookup.
                let shared = tiles.scheme().levels().is_some();
                if large && random.below(4) > 0
                    || shared && random.below(3) > 0
                    || !report.wants_next()
                {
                    continue;
                }
                let kinds = (random.pick(&BYTES), random.pick(&FLOATS));
                Product::new(tiles, tokens, kinds, random).compare(kernels, kinds, report);
            }
        }
    });
}

/// The largest sums there are, where 16 bits are just enough.
#[test]
fn matmul_holds_the_extremes() {
    each_table("matmul of extremes", |kernels, report| {
        let random = &mut Random(2);
        for tiles in layouts(&[16], &[128, 256]) {
            for bytes in BYTES {
                for floats in [Floats::Constant, Floats::Extreme] {
                    for tokens in [1, 6] {
                        let product = Product::new(tiles, tokens + 1, (bytes, floats), random);
                        product.compare(kernels, (bytes, floats), report);
                    }
                }
            }
        }
    });
}

/// A million dot products of 128 random weights with random inputs.
#[test]
#[ignore = "takes a minute"]
fn matmul_sweep() {
    each_table("matmul sweep", |kernels, report| {
        let random = &mut Random(3);
        for scheme in SCHEMES {
            for round in 0..1000 {
                let group = random.pick(&GROUP_SIZES);
                let tiles = TileLayout::new(128, 128, scheme, group).expect("sound");
                let kinds = (Bytes::Any, random.pick(&FLOATS[..3]));
                let product = Product::new(tiles, 1 + round % 16, kinds, random);
                product.compare(kernels, kinds, report);
            }
        }
    });
}
