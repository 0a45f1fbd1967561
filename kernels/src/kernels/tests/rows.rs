//! What works on one token's row: quantizing, norms, rotations, the embedding.

use super::cache::{Cache, KINDS, compare_caches};
use super::inputs::*;
use super::report::*;
use crate::kernels::*;
use crate::quant::{GROUP_SIZES, TileLayout};

#[test]
fn quantize_equals_the_definition() {
    each_table("quantize", |kernels, report| {
        let random = &mut Random(4);
        for tiles in layouts(&[1], &COLS) {
            for kind in FLOATS {
                let x = kind.row(2 * tiles.cols(), random);
                let case = format!("{tiles:?} {kind:?}");
                let got = Rows::quantize(kernels, &x, tiles);
                let want = Rows::quantize(scalar(), &x, tiles);
                report.case(format!("values {case}"), &got.values, &want.values);
                report.case(format!("scales {case}"), &got.scales, &want.scales);
                report.case(format!("corrections {case}"), &got.corrections, &want.corrections);
            }
        }
    });
}

#[test]
fn norms_equal_the_definition() {
    each_table("norms", |kernels, report| {
        let random = &mut Random(5);
        for n in (1..=49).chain([64, 80, 128, 250, 256, 768, 1088, 2048, 8192]) {
            for kind in FLOATS {
                let [x, weight, bias] =
                    [kind, Floats::Ordinary, Floats::Ordinary].map(|kind| kind.row(n, random));
                let layer = LayerNorm { weight: &weight, bias: &bias, epsilon: 1e-5 };
                let rms = RmsNorm { weight: &weight, epsilon: 1e-6 };
                let run = |kernels: &Kernels| {
                    let mut outs = [vec![99.0; n], vec![99.0; n], weight.clone()];
                    kernels.layer_norm(&x, &layer, &mut outs[0]);
                    kernels.rms_norm(&x, &rms, &mut outs[1]);
                    kernels.add(&mut outs[2], &x);
                    outs
                };
                let (got, want) = (run(kernels), run(scalar()));
                report.case(format!("layer {n} {kind:?}"), &got[0], &want[0]);
                report.case(format!("RMS {n} {kind:?}"), &got[1], &want[1]);
                let sums: Vec<f32> = weight.iter().zip(&x).map(|(&y, &x)| y + x).collect();
                report.case(format!("add {n} {kind:?}"), &got[2], &sums);
            }
        }
    });
}

#[test]
fn rotations_equal_the_definition() {
    each_table("rotations", |kernels, report| {
        let random = &mut Random(11);
        for pairs in (1..=34).chain([40, 64, 128]) {
            for kind in FLOATS {
                let head = kind.row(2 * pairs + random.below(9), random);
                let frequencies: Vec<f64> =
                    (0..pairs).map(|_| f64::from(random.unit().abs())).collect();
                let position = random.below((1 << 20) + 1) as u32;
                let run = |kernels: &Kernels| {
                    let (mut cos, mut sin) = (vec![99.0; pairs], vec![99.0; pairs]);
                    kernels.angles(position, &frequencies, 1.25, (&mut cos, &mut sin));
                    let mut rotated = head.clone();
                    kernels.rotate(&mut rotated, &cos, &sin);
                    [cos, sin, rotated]
                };
                let (got, want) = (run(kernels), run(scalar()));
                for (what, (got, want)) in ["cos", "sin", "head"].iter().zip(got.iter().zip(&want))
                {
                    report.case(format!("{what} {pairs} {kind:?}"), got, want);
                }
            }
        }
    });
}

#[test]
fn embed_equals_the_definition() {
    each_table("embed", |kernels, report| {
        let random = &mut Random(6);
        for tiles in layouts(&[1, 33], &COLS) {
            for kind in BYTES {
                let bytes = kind.matrix(tiles, random);
                let position: Vec<u16> = (0..tiles.cols()).map(|_| random.bits() as u16).collect();
                let position = random.pick(&[None, Some(&position[..])]);
                let (row, scale) = (random.below(tiles.rows()), random.pick(&[1.0, 14.6]));
                let weights = Weights::new(tiles, 0.5, &bytes);
                let row = EmbeddingRow::new(weights, row, position, scale);
                let run = |kernels: &Kernels| {
                    let mut out = vec![99.0; tiles.cols()];
                    kernels.embed(&row, &mut out);
                    out
                };
                let has_position = position.is_some();
                let case = format!("{tiles:?} {kind:?} row {} {has_position} {scale}", row.row);
                report.case(case, &run(kernels), &run(scalar()));
            }
        }
    });
}

/// A million random rows for each kernel that works on one token's row.
#[test]
#[ignore = "takes minutes"]
fn rows_sweep() {
    each_table("rows sweep", |kernels, report| {
        let random = &mut Random(10);
        for _ in 0..1_000_000 {
            let kind = random.pick(&FLOATS);
            let (n, scheme) = (1 + random.below(80), random.pick(&SCHEMES));
            let tiles = TileLayout::new(1, n, scheme, random.pick(&GROUP_SIZES)).expect("sound");
            let [x, weight, bias] =
                [kind, Floats::Ordinary, Floats::Ordinary].map(|kind| kind.row(n, random));
            let bytes = random.pick(&BYTES).matrix(tiles, random);
            if !report.wants_next() {
                continue;
            }
            let norm = LayerNorm { weight: &weight, bias: &bias, epsilon: 1e-5 };
            let rms = RmsNorm { weight: &weight, epsilon: 1e-6 };
            let row = EmbeddingRow::new(Weights::new(tiles, 0.5, &bytes), 0, None, 1.0);
            let run = |kernels: &Kernels| {
                let mut outs = [0; 3].map(|_| vec![99.0; n]);
                kernels.layer_norm(&x, &norm, &mut outs[0]);
                kernels.rms_norm(&x, &rms, &mut outs[1]);
                kernels.embed(&row, &mut outs[2]);
                (Rows::quantize(kernels, &x, tiles), outs)
            };
            let (got, want) = (run(kernels), run(scalar()));
            let case = format_args!("{tiles:?} {kind:?}");
            report.case(format_args!("values {case}"), &got.0.values, &want.0.values);
            report.case(format_args!("scales {case}"), &got.0.scales, &want.0.scales);
            report.case(
                format_args!("corrections {case}"),
                &got.0.corrections,
                &want.0.corrections,
            );
            for (what, i) in [("layer norm", 0), ("RMS norm", 1), ("embedded", 2)] {
                report.case(format_args!("{what} {case}"), &got.1[i], &want.1[i]);
            }
            for kv in KINDS {
                let [mut got, mut want] = [0; 2].map(|_| Cache::new(kv, KEY_PANEL, n));
                kernels.store(&mut got.get_mut(), n % KEY_PANEL, &x, &weight);
                scalar().store(&mut want.get_mut(), n % KEY_PANEL, &x, &weight);
                compare_caches(&format!("{kv:?} {case}"), &got, &want, report);
            }
        }
    });
}
