//! Every kernel table against the scalar definition, bit for bit, at the sizes where code changes its
//! path. `docs/numbers.md` leaves open only the bits of a NaN.
//!
//! For a slow (emulated) processor: `CEREBELLUM_ISA` compares that table alone, and `KERNEL_CASES=16`
//! takes every 16th case of the long tests.

use std::fmt::{Debug, Display};
use std::ops::Range;

use super::*;
use crate::quant::{GROUP_SIZES, Scheme, TileLayout};

const SCHEMES: [Scheme; 2] = [Scheme::Int4, Scheme::Int8];

const EPILOGUES: [Epilogue; 9] = [
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

fn scalar() -> &'static Kernels {
    Kernels::new(Isa::Scalar).expect("always supported")
}

/// Runs a comparison with every table but the scalar one, and with the generic bodies over plain arrays;
/// reports all failures of a table together.
fn each_table(name: &str, compare: impl Fn(&'static Kernels, &mut Report)) {
    let forced = std::env::var("CEREBELLUM_ISA")
        .ok()
        .filter(|name| !name.is_empty())
        .map(|name| Isa::from_name(&name).expect("the name of an instruction set"));
    for &isa in Isa::ALL.iter().filter(|&&isa| isa != Isa::Scalar) {
        if forced.is_some_and(|forced| forced != isa) {
            continue;
        }
        match Kernels::new(isa) {
            Some(kernels) => compare_table(name, isa.name(), kernels, &compare),
            None => println!("{name}: {isa} SKIPPED, this processor does not support it"),
        }
    }
    if forced.is_none() {
        compare_table(name, "portable", &portable::TABLE, &compare);
    }
}

fn compare_table(
    name: &str,
    table: &str,
    kernels: &'static Kernels,
    compare: impl Fn(&'static Kernels, &mut Report),
) {
    let mut report = Report::default();
    compare(kernels, &mut report);
    println!("{name}: {table} compared in {} cases", report.cases);
    assert!(report.cases > 0);
    let shown = report.failures.iter().take(20).map(|f| format!("\n  {f}")).collect::<String>();
    let count = report.failures.len();
    assert!(count == 0, "{name}: {table} differs in {count} of {} cases:{shown}", report.cases);
}

#[derive(Default)]
struct Report {
    offered: usize,
    cases: usize,
    failures: Vec<String>,
}

impl Report {
    /// Whether the next case of a long test is to be run.
    fn wants_next(&mut self) -> bool {
        let every = std::env::var("KERNEL_CASES").map_or(1, |n| n.parse().expect("a number"));
        self.offered += 1;
        self.offered.is_multiple_of(every)
    }

    /// Counts a case; `want` is what the definition gives.
    fn case<T: Same + Debug>(&mut self, case: impl Display, got: &[T], want: &[T]) {
        self.cases += 1;
        assert_eq!(got.len(), want.len());
        if let Some(i) = (0..got.len()).find(|&i| !got[i].same(&want[i])) {
            self.failures.push(format!("{case}: [{i}] is {:?}, not {:?}", got[i], want[i]));
        }
    }
}

/// Equality under the contract.
trait Same {
    fn same(&self, other: &Self) -> bool;
}

impl Same for f32 {
    fn same(&self, other: &Self) -> bool {
        self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan()
    }
}

macro_rules! same_if_equal {
    ($($t:ty),*) => {
        $(impl Same for $t {
            fn same(&self, other: &Self) -> bool {
                self == other
            }
        })*
    };
}
same_if_equal!(i8, Correction);

/// SplitMix64 (Steele et al., 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in -1..1.
    fn unit(&mut self) -> f32 {
        (self.bits() as i32) as f32 / 2f32.powi(31)
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// What kind of floats a row holds.
#[derive(Clone, Copy, Debug)]
enum Floats {
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

const FLOATS: [Floats; 8] = [
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
    fn row(self, n: usize, random: &mut Random) -> Vec<f32> {
        let mut row: Vec<f32> = (0..n).map(|_| self.one(random)).collect();
        let at = random.below(n);
        match self {
            Self::Infinity => row[at] = random.pick(&[f32::INFINITY, f32::NEG_INFINITY]),
            Self::NotANumber => row[at] = f32::NAN,
            _ => {}
        }
        row
    }

    fn one(self, random: &mut Random) -> f32 {
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
enum Bytes {
    /// Every value, and scales of every size and sign.
    Any,
    /// The lowest weights everywhere.
    Lowest,
    /// The highest.
    Highest,
    /// Any, and some scales are not finite.
    BadScales,
}

const BYTES: [Bytes; 4] = [Bytes::Any, Bytes::Lowest, Bytes::Highest, Bytes::BadScales];

impl Bytes {
    fn matrix(self, tiles: TileLayout, random: &mut Random) -> Vec<u8> {
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
struct Rows {
    values: Vec<i8>,
    scales: Vec<f32>,
    corrections: Vec<Correction>,
    tiles: TileLayout,
}

impl Rows {
    fn quantize(kernels: &Kernels, x: &[f32], tiles: TileLayout) -> Self {
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

    fn get(&self) -> QuantizedRows<'_> {
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

/// Every combination of scheme, group size, and the given rows and columns.
fn layouts<'a>(rows: &'a [usize], cols: &'a [usize]) -> impl Iterator<Item = TileLayout> + 'a {
    let shapes = rows.iter().flat_map(|&rows| cols.iter().map(move |&cols| (rows, cols)));
    shapes.flat_map(|(rows, cols)| {
        SCHEMES.into_iter().flat_map(move |scheme| {
            GROUP_SIZES.map(|group| TileLayout::new(rows, cols, scheme, group).expect("sound"))
        })
    })
}

const COLS: [usize; 12] = [1, 4, 31, 32, 33, 64, 65, 127, 128, 129, 250, 1088];

#[test]
fn matmul_equals_the_definition() {
    const TOKENS: [usize; 15] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 17, 71, 107];
    each_table("matmul", |kernels, report| {
        let random = &mut Random(1);
        for tiles in layouts(&[1, 15, 16, 17, 33], &COLS) {
            for tokens in TOKENS {
                let large = tiles.rows() * tiles.cols() * tokens > 300_000;
                if large && random.below(4) > 0 || !report.wants_next() {
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

/// Owned [`HeadCache`], full of NaN, infinities and junk where nothing was stored.
#[derive(Clone)]
enum Cache {
    F16 { keys: Vec<u16>, values: Vec<u16> },
    Int8 { keys: Vec<i8>, key_scales: Vec<f32>, values: Vec<i8>, value_scales: Vec<f32> },
}

impl Cache {
    fn new(kind: CacheKind, positions: usize, size: usize) -> Self {
        let positions = positions.next_multiple_of(KEY_PANEL);
        match kind {
            CacheKind::F16 => {
                let junk = [0x7e00, 0x7c00, 0xfc00].into_iter().cycle();
                let junk: Vec<u16> = junk.take(positions * size).collect();
                Self::F16 { keys: junk.clone(), values: junk }
            }
            CacheKind::Int8 => {
                // The padding of a step is zero.
                let keys = positions * size.next_multiple_of(KEY_STEP);
                Self::Int8 {
                    keys: vec![0; keys],
                    key_scales: vec![f32::NAN; positions],
                    values: vec![-128; positions * size],
                    value_scales: vec![f32::NAN; positions],
                }
            }
        }
    }

    fn get(&self) -> HeadCache<'_> {
        match self {
            Self::F16 { keys, values } => HeadCache::F16 { keys, values },
            Self::Int8 { keys, key_scales, values, value_scales } => {
                HeadCache::Int8 { keys, key_scales, values, value_scales }
            }
        }
    }

    fn get_mut(&mut self) -> HeadCacheMut<'_> {
        match self {
            Self::F16 { keys, values } => HeadCacheMut::F16 { keys, values },
            Self::Int8 { keys, key_scales, values, value_scales } => {
                HeadCacheMut::Int8 { keys, key_scales, values, value_scales }
            }
        }
    }
}

const HEAD_SIZES: [usize; 12] = [1, 4, 7, 8, 16, 20, 32, 64, 80, 96, 128, 256];
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CacheKind {
    F16,
    Int8,
}

const KINDS: [CacheKind; 2] = [CacheKind::F16, CacheKind::Int8];

#[test]
fn store_equals_the_definition() {
    each_table("store", |kernels, report| {
        let random = &mut Random(7);
        for (size, kind) in HEAD_SIZES.into_iter().flat_map(|size| KINDS.map(|kind| (size, kind))) {
            for floats in FLOATS {
                let [mut got, mut want] = [0; 2].map(|_| Cache::new(kind, SEGMENT, size));
                // The last ones come around.
                for position in [0, 1, 15, 16, 31, 255, 256 + 2, 7 * 256 + 3] {
                    let [key, value] = [0; 2].map(|_| floats.row(size, random));
                    kernels.store(&mut got.get_mut(), position, &key, &value);
                    scalar().store(&mut want.get_mut(), position % SEGMENT, &key, &value);
                }
                let case = format!("{size} {kind:?} {floats:?}");
                compare_caches(&case, &got, &want, report);
            }
        }
    });
}

fn compare_caches(case: &str, got: &Cache, want: &Cache, report: &mut Report) {
    let halves =
        |bits: &[u16]| -> Vec<f32> { bits.iter().map(|&bits| scalar::f16_to_f32(bits)).collect() };
    match (got.get(), want.get()) {
        (HeadCache::F16 { keys: k1, values: v1 }, HeadCache::F16 { keys: k2, values: v2 }) => {
            report.case(format!("keys {case}"), &halves(k1), &halves(k2));
            report.case(format!("values {case}"), &halves(v1), &halves(v2));
        }
        (
            HeadCache::Int8 { keys: k1, key_scales: ks1, values: v1, value_scales: vs1 },
            HeadCache::Int8 { keys: k2, key_scales: ks2, values: v2, value_scales: vs2 },
        ) => {
            report.case(format!("keys {case}"), k1, k2);
            report.case(format!("key scales {case}"), ks1, ks2);
            report.case(format!("values {case}"), v1, v2);
            report.case(format!("value scales {case}"), vs1, vs2);
        }
        _ => unreachable!("caches of one type"),
    }
}

/// Attention of `tokens` tokens, the first at `position`, of the second of three groups of heads.
struct Attend {
    cache: Cache,
    /// Cached positions.
    capacity: usize,
    shape: Shape,
    queries: Vec<f32>,
    slopes: Option<Vec<f32>>,
    train_len: Option<usize>,
}

/// What a call attends to with what.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: CacheKind,
    /// Of a head.
    size: usize,
    group: usize,
    position: usize,
    tokens: usize,
    window: Option<usize>,
}

impl Shape {
    /// A group of one that sees all.
    fn plain(kind: CacheKind, size: usize, position: usize, tokens: usize) -> Self {
        Self { kind, size, group: 1, position, tokens, window: None }
    }

    /// How many positions the queries see together.
    fn span(&self) -> usize {
        let seen = self.position + self.tokens;
        self.window.map_or(seen, |window| seen.min(window.saturating_add(self.tokens - 1)))
    }

    fn end(&self) -> usize {
        self.position + self.tokens
    }
}

impl Attend {
    /// With a cache of `capacity` positions, which holds what the queries see.
    fn new(shape: Shape, capacity: usize, floats: Floats, random: &mut Random) -> Self {
        let mut cache = Cache::new(shape.kind, capacity, shape.size);
        // What no query sees stays junk.
        for p in shape.end() - shape.span()..shape.end() {
            // Now and then a position is bad; those after it must not spoil those before.
            let kind = if random.below(64) == 0 { floats } else { Floats::Ordinary };
            let [key, value] = [0; 2].map(|_| kind.row(shape.size, random));
            scalar().store(&mut cache.get_mut(), p, &key, &value);
        }
        let queries = floats.row(shape.tokens * 3 * shape.group * shape.size, random);
        let lengths = [None, Some(1), Some(shape.position + 2), Some(1 << 24)];
        let train_len = random.pick(&lengths);
        let slopes = (0..shape.group).map(|g| -0.36 / (g + 1) as f32).collect();
        let slopes = random.pick(&[false, false, true]).then_some(slopes);
        Self { cache, capacity, shape, queries, slopes, train_len }
    }

    fn run(&self, kernels: &Kernels) -> Vec<f32> {
        let Shape { size, group, position, tokens, window, .. } = self.shape;
        let width = 3 * group * size;
        let first = group * size;
        // The output's rows have a length of their own.
        let out_width = width + 5;
        let padded = MOST_QUERIES * padded_head_size(size);
        let [mut queries, mut sums] = [0; 2].map(|_| vec![f32::NAN; padded]);
        let mut part = vec![f32::NAN; QUERY_BLOCK * padded_head_size(size)];
        let mut queries_i8 = vec![99; padded];
        let mut scores = vec![f32::NAN; QUERY_BLOCK * SEGMENT];
        let mut scratch = AttentionScratch {
            queries: &mut queries,
            queries_i8: &mut queries_i8,
            scores: &mut scores,
            sums: &mut sums,
            part: &mut part,
        };
        let mut cells = vec![99.0; tokens * out_width];
        let out = CellWriter::new(&mut cells, out_width);
        let at_once = MOST_QUERIES / group;
        for first_token in (0..tokens).step_by(at_once) {
            let job = Attention {
                cache: self.cache.get(),
                queries: &self.queries,
                stride: width,
                columns: first..first + size,
                group,
                tokens: first_token..tokens.min(first_token + at_once),
                position,
                window,
                scale: 0.4,
                bias: self
                    .slopes
                    .as_deref()
                    .map(|slopes| Alibi { slopes, train_len: self.train_len }),
            };
            // SAFETY: one thread, and the cells are used through this writer only.
            unsafe { kernels.attend(&job, &mut scratch, &out) };
        }
        cells
    }

    fn compare(&self, kernels: &Kernels, floats: Floats, report: &mut Report) {
        let Self { shape, capacity, slopes, train_len, .. } = self;
        let bias = slopes.as_ref().map(|_| train_len);
        let case = format!("{shape:?} of {capacity} {floats:?} {bias:?}");
        report.case(case, &self.run(kernels), &self.run(scalar()));
    }
}

#[test]
fn attend_equals_the_definition() {
    const POSITIONS: [usize; 12] = [0, 1, 14, 15, 16, 17, 63, 250, 254, 255, 256, 600];
    each_table("attend", |kernels, report| {
        let random = &mut Random(8);
        for (size, kind) in HEAD_SIZES.into_iter().flat_map(|size| KINDS.map(|kind| (size, kind))) {
            for position in POSITIONS {
                for tokens in [1, 2, 3, 4, 5, 6, 7, 20, MOST_QUERIES + 1] {
                    if !report.wants_next() {
                        continue;
                    }
                    let floats = random.pick(&FLOATS);
                    let shape = Shape::plain(kind, size, position, tokens);
                    Attend::new(shape, shape.end(), floats, random)
                        .compare(kernels, floats, report);
                }
            }
        }
    });
}

const GROUPS: [usize; 6] = [1, 2, 3, 4, 8, 9];

const WINDOWS: [Option<usize>; 11] = [
    None,
    Some(1),
    Some(2),
    Some(15),
    Some(16),
    Some(17),
    Some(255),
    Some(256),
    Some(257),
    Some(512),
    Some(1000),
];

/// Some shape with this group and window, and the positions that its cache has: as many as there were,
/// or a ring that has come around, several times mostly.
fn grouped(
    (kind, size): (CacheKind, usize),
    (group, window): (usize, Option<usize>),
    random: &mut Random,
) -> (Shape, usize) {
    let tokens = random.pick(&[1, 2, 3, 7, 20, MOST_QUERIES / group, MOST_QUERIES / group + 1]);
    let position = random.pick(&[0, 14, 250, 255, 256, 505, 767, 1023, 1024, 1100, 2300]);
    let mut shape = Shape { kind, size, group, position, tokens, window };
    // Most cases are small, so that there can be many.
    if size * group * tokens * shape.span() > 2_000_000 && random.below(8) > 0 {
        shape.tokens = 1 + random.below(2);
    }
    let ring = shape.span().next_multiple_of(SEGMENT);
    let capacities = [shape.end(), ring, ring, ring + SEGMENT];
    (shape, random.pick(&capacities))
}

#[test]
fn attend_of_groups_and_windows_equals_the_definition() {
    each_table("attend of groups and windows", |kernels, report| {
        let random = &mut Random(12);
        for cache in HEAD_SIZES.into_iter().flat_map(|size| KINDS.map(|kind| (kind, size))) {
            for window in WINDOWS {
                for _ in 0..2 {
                    let group = random.pick(&GROUPS);
                    if !report.wants_next() {
                        continue;
                    }
                    let floats = random.pick(&FLOATS);
                    let (shape, capacity) = grouped(cache, (group, window), random);
                    Attend::new(shape, capacity, floats, random).compare(kernels, floats, report);
                }
            }
        }
    });
}

/// A ring gives the bits of a cache that still has all positions.
#[test]
fn a_ring_changes_nothing() {
    for kernels in [scalar(), Kernels::best()] {
        let random = &mut Random(13);
        for window in WINDOWS.into_iter().flatten() {
            for kind in KINDS {
                let (shape, _) = grouped((kind, 20), (random.pick(&GROUPS), Some(window)), random);
                let seed = random.bits();
                let of_capacity = |capacity: usize| {
                    let job = Attend::new(shape, capacity, Floats::Ordinary, &mut Random(seed));
                    job.run(kernels).into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let ring = of_capacity(shape.span().next_multiple_of(SEGMENT));
                assert!(ring == of_capacity(shape.end()), "{shape:?}");
            }
        }
    }
}

/// A group gives the bits of its members alone.
#[test]
fn a_group_changes_nothing() {
    for kernels in [scalar(), Kernels::best()] {
        let random = &mut Random(14);
        for (group, kind) in GROUPS.into_iter().flat_map(|group| KINDS.map(|kind| (group, kind))) {
            let (shape, capacity) = grouped((kind, 20), (group, random.pick(&WINDOWS)), random);
            let mut job = Attend::new(shape, capacity, Floats::Ordinary, random);
            let together = job.run(kernels);
            let slopes = job.slopes.take();
            job.shape.group = 1;
            let queries = std::mem::take(&mut job.queries);
            let rows = |member: usize| {
                // The group is the second of three, as its only member is.
                let width = 3 * group * shape.size;
                let first = (group + member) * shape.size;
                let row = |row: &[f32]| {
                    let mut alone = vec![0.0; 3 * shape.size];
                    alone[shape.size..][..shape.size].copy_from_slice(&row[first..][..shape.size]);
                    alone
                };
                queries.chunks_exact(width).flat_map(row).collect::<Vec<_>>()
            };
            for member in 0..group {
                job.queries = rows(member);
                job.slopes = slopes.as_ref().map(|slopes| vec![slopes[member]]);
                let alone = job.run(kernels);
                let (width, width_alone) =
                    (together.len() / shape.tokens, alone.len() / shape.tokens);
                for (together, alone) in together.chunks(width).zip(alone.chunks(width_alone)) {
                    let together = &together[(group + member) * shape.size..][..shape.size];
                    let alone = &alone[shape.size..][..shape.size];
                    assert!(together.iter().zip(alone).all(|(a, b)| a.same(b)), "{shape:?}");
                }
            }
        }
    }
}

/// The definition against the formulas in binary64: which positions a query of which head sees.
#[test]
fn the_definition_attends_to_the_window() {
    let random = &mut Random(15);
    for window in WINDOWS {
        let (size, group, position, tokens) = (8, 3, random.pick(&[0, 270, 1100]), 5);
        let kind = CacheKind::F16;
        let shape = Shape { kind, size, group, position, tokens, window };
        let capacity = shape.span().next_multiple_of(SEGMENT);
        let mut job = Attend::new(shape, capacity, Floats::Ordinary, random);
        job.slopes = None;
        let rows = |random: &mut Random| -> Vec<Vec<f32>> {
            (0..shape.end()).map(|_| Floats::Ordinary.row(size, random)).collect()
        };
        let (keys, values) = (rows(random), rows(random));
        for (p, (key, value)) in keys.iter().zip(&values).enumerate() {
            scalar().store(&mut job.cache.get_mut(), p, key, value);
        }
        let cells = job.run(scalar());
        let rounded = |x: f32| f64::from(half::f16::from_f32(x).to_f32());
        for (token, member) in (0..tokens).flat_map(|t| (0..group).map(move |m| (t, m))) {
            let head = (group + member) * size;
            let query = &job.queries[token * 3 * group * size + head..][..size];
            let at = position + token;
            let (mut sum, mut out) = (0.0, vec![0.0; size]);
            for j in (0..=at).filter(|j| window.is_none_or(|window| at < j + window)) {
                let dot = |(&q, &k): (&f32, &f32)| f64::from(q) * 0.4 * rounded(k);
                let weight = query.iter().zip(&keys[j]).map(dot).sum::<f64>().exp2();
                sum += weight;
                for (out, &value) in out.iter_mut().zip(&values[j]) {
                    *out += weight * rounded(value);
                }
            }
            let row = &cells[token * (cells.len() / tokens) + head..][..size];
            for (&got, want) in row.iter().zip(out) {
                let want = want / sum;
                assert!((f64::from(got) - want).abs() < 1e-5, "{shape:?}: {got}, not {want}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "capacity")]
fn a_ring_too_small_is_refused() {
    let shape = Shape { window: Some(250), ..Shape::plain(CacheKind::F16, 4, 600, 8) };
    Attend::new(shape, SEGMENT, Floats::Ordinary, &mut Random(16)).run(scalar());
}

#[test]
#[should_panic(expected = "capacity")]
fn a_cache_that_is_no_ring_is_refused() {
    let mut cache = Cache::new(CacheKind::F16, 320, 4);
    scalar().store(&mut cache.get_mut(), 320, &[1.0; 4], &[1.0; 4]);
}

/// A million random dot products of queries with keys, and as many weighted values.
#[test]
#[ignore = "takes a minute"]
fn attend_sweep() {
    each_table("attend sweep", |kernels, report| {
        let random = &mut Random(9);
        for round in 0..400 {
            let cache = (KINDS[round % 2], random.pick(&HEAD_SIZES[6..]));
            let floats = random.pick(&[Floats::Ordinary, Floats::Extreme, Floats::AnyMagnitude]);
            let group = 1 + random.below(12);
            let window = Some(1 + random.below(1400)).filter(|&window| window <= 700);
            let tokens = 1 + random.below(1 + 12 / group);
            let (shape, _) = grouped(cache, (group, window), random);
            let shape = Shape { position: random.below(1200), tokens, ..shape };
            let capacity = shape.span().next_multiple_of(SEGMENT);
            Attend::new(shape, capacity, floats, random).compare(kernels, floats, report);
        }
    });
}
