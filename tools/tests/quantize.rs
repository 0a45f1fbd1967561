//! The quantizer's files, read back with the runtime's reader and with the safetensors library, and
//! compared with the checkpoint.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cerebellum::format::{FileLayout, Header, Matrix, TensorKind, read_header, verify};
use cerebellum::quant::{PANEL_ROWS, Scheme, hadamard};
use cerebellum_tools::checkpoint::Checkpoint;
use cerebellum_tools::output::Output;
use cerebellum_tools::quantize::{Error, MatrixFormat, Options, Result, quantize};
use cerebellum_tools::summary::Summary;
use common::{Model, demo, golden};
use half::f16;
use safetensors::SafeTensors;
use tempfile::tempdir;

fn format(scheme: Scheme, group_size: usize) -> MatrixFormat {
    MatrixFormat { scheme, group_size }
}

const FORMATS: [MatrixFormat; 7] = [
    MatrixFormat { scheme: Scheme::Int4, group_size: 32 },
    MatrixFormat { scheme: Scheme::Int4, group_size: 64 },
    MatrixFormat { scheme: Scheme::Int4, group_size: 128 },
    MatrixFormat { scheme: Scheme::Int8, group_size: 128 },
    MatrixFormat { scheme: Scheme::Nl4, group_size: 64 },
    MatrixFormat { scheme: Scheme::Tc3, group_size: 32 },
    MatrixFormat { scheme: Scheme::Tc2, group_size: 128 },
];

fn run(
    directory: &Path,
    tokenizer: Option<&[u8]>,
    options: &Options,
    target: &Path,
) -> Result<Summary> {
    let checkpoint = Checkpoint::open(directory)?;
    let output = Output::create(target, false, &checkpoint.files())?;
    quantize(&checkpoint, tokenizer, options, output, &())
}

/// The file's bytes, and what was reported of it.
fn file_of(directory: &Path, tokenizer: Option<&[u8]>, options: &Options) -> (Vec<u8>, Summary) {
    let place = tempdir().unwrap();
    let target = place.path().join("model.cbl");
    let summary = run(directory, tokenizer, options, &target).unwrap();
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "leftovers beside the file: {left:?}");
    let file = fs::read(&target).unwrap();
    assert_eq!(summary.file_bytes, file.len() as u64);
    (file, summary)
}

fn open(file: &[u8]) -> (Header, FileLayout) {
    let (header, layout) = read_header(file).unwrap();
    assert_eq!(verify(file, &layout), []);
    (header, layout)
}

fn matrix<'a>(file: &'a [u8], layout: &FileLayout, name: &str) -> (Matrix, &'a [u8]) {
    let tensor = layout.get(name).unwrap();
    match tensor.kind {
        TensorKind::Matrix(matrix) => (matrix, &file[tensor.range.clone()]),
        _ => panic!("{name} is no matrix"),
    }
}

/// Every weight of a stored matrix, by the formula of `docs/numbers.md` section 2 in binary64.
fn dequantize(matrix: Matrix, bytes: &[u8]) -> Vec<f64> {
    let tiles = matrix.tiles;
    let unit = f64::from(matrix.exponent).exp2();
    let mut weights = Vec::new();
    for row in 0..tiles.rows() {
        let panel = &bytes[row / PANEL_ROWS * tiles.panel_bytes()..][..tiles.panel_bytes()];
        for col in 0..tiles.cols() {
            let scale = tiles.scale(panel, row % PANEL_ROWS, col / tiles.group_size());
            let weight = tiles.weight(panel, row % PANEL_ROWS, col);
            weights.push(f64::from(weight) * scale.to_f64() * unit);
        }
        let start = weights.len() - tiles.cols();
        hadamard(&mut weights[start..]);
    }
    weights
}

fn relative_error(found: &[f64], exact: &[f32]) -> f64 {
    assert_eq!(found.len(), exact.len());
    let error: f64 = found.iter().zip(exact).map(|(f, &e)| (f - f64::from(e)).powi(2)).sum();
    (error / exact.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>()).sqrt()
}

/// The relative error that weights may have.
fn bound(scheme: Scheme) -> f64 {
    match scheme {
        Scheme::Int8 => 0.01,
        Scheme::Int4 => 0.13,
        Scheme::Nl4 => 0.11,
        Scheme::Tc3 => 0.2,
        Scheme::Tc2 => 0.4,
    }
}

#[test]
fn golden_checkpoints_become_valid_files_close_to_them() {
    for directory in golden() {
        let checkpoint = Checkpoint::open(&directory).unwrap();
        for format in FORMATS {
            let (file, _) = file_of(&directory, None, &Options::uniform(format));
            let (header, layout) = open(&file);
            for (name, info) in header.tensors.iter() {
                let (matrix, bytes) = matrix(&file, &layout, name);
                let exact = checkpoint.read_matrix(name).unwrap();
                let found = relative_error(&dequantize(matrix, bytes), &exact);
                let reported = f64::from(info.relative_error.unwrap());
                let case = format!("{} {name} {format:?}", directory.display());
                assert!((found / reported - 1.0).abs() < 1e-3, "{case}: {found}, not {reported}");
                let bound = bound(format.scheme);
                assert!(found < bound, "{case}: {found}");
            }
        }
    }
}

#[test]
fn the_safetensors_library_opens_the_file() {
    for directory in golden() {
        let checkpoint = Checkpoint::open(&directory).unwrap();
        let (file, _) = file_of(&directory, None, &Options::uniform(FORMATS[1]));
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let (_, layout) = open(&file);
        for tensor in layout.tensors() {
            let view = tensors.tensor(&tensor.name).unwrap();
            let dtype = format!("{:?}", view.dtype());
            assert_eq!((&*dtype, view.shape()), (tensor.dtype.name(), &tensor.shape[..]));
            let stored = match tensor.kind {
                TensorKind::Vector => checkpoint.read_f32(&tensor.name).unwrap(),
                TensorKind::Positions => checkpoint.read_f32(&tensor.name).unwrap(),
                _ => continue,
            };
            let bytes: Vec<u8> = match tensor.kind {
                TensorKind::Vector => stored.iter().flat_map(|v| v.to_le_bytes()).collect(),
                _ => stored.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            };
            assert_eq!(view.data(), bytes, "{}", tensor.name);
        }
        let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
        let keys: Vec<_> = metadata.metadata().as_ref().unwrap().keys().collect();
        assert_eq!(keys, ["cerebellum"]);
    }
}

#[test]
fn bytes_do_not_depend_on_the_number_of_threads() {
    for format in [FORMATS[1], FORMATS[3], FORMATS[5]] {
        let options = Options::uniform(format);
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| file_of(&demo(), None, &options).0)
        };
        let one = on(1);
        for threads in [1, 2, 3, 7] {
            assert!(on(threads) == one, "{threads} threads give another file");
        }
    }
}

#[test]
fn the_search_beats_the_plain_rule_on_trained_weights() {
    let checkpoint = Checkpoint::open(&demo()).unwrap();
    for (format, factor) in
        [(FORMATS[0], 0.85), (FORMATS[1], 0.85), (FORMATS[2], 0.84), (FORMATS[3], 0.98)]
    {
        let (file, _) = file_of(&demo(), None, &Options::uniform(format));
        let (header, layout) = open(&file);
        for name in header.tensors.keys() {
            let exact = checkpoint.read_matrix(name).unwrap();
            let (matrix, bytes) = matrix(&file, &layout, name);
            let found = relative_error(&dequantize(matrix, bytes), &exact);
            let mut transformed = exact;
            transformed.chunks_mut(matrix.tiles.cols()).for_each(hadamard);
            let plain = plain_rule(&transformed, matrix.tiles.cols(), format);
            let plain = relative_error(&plain, &transformed);
            assert!(found < factor * plain, "{name} {format:?}: {found}, plain rule {plain}");
        }
    }
}

/// Quantized by the rule everyone starts from, scale = largest / 7 (or 127), and back.
fn plain_rule(weights: &[f32], cols: usize, format: MatrixFormat) -> Vec<f64> {
    let limit = f64::from(format.scheme.range().1);
    let groups = weights.chunks(cols).flat_map(|row| row.chunks(format.group_size));
    let quantized = groups.flat_map(|group| {
        let max = group.iter().fold(0.0, |max, w| f64::from(w.abs()).max(max));
        let scale = if max > 0.0 { max / limit } else { 1.0 };
        group.iter().map(move |&w| (f64::from(w) / scale).round_ties_even() * scale)
    });
    quantized.collect()
}

#[test]
fn formats_can_differ_by_matrix() {
    let exceptions = BTreeMap::from([
        ("wte.weight".to_owned(), format(Scheme::Int8, 128)),
        ("h.0.mlp.c_fc.weight".to_owned(), format(Scheme::Int4, 32)),
    ]);
    let options = Options { exceptions: exceptions.clone(), ..Options::uniform(FORMATS[1]) };
    let (file, _) = file_of(&golden()[0], None, &options);
    let (header, _) = open(&file);
    for (name, info) in header.tensors.iter() {
        let expected = exceptions.get(name).unwrap_or(&options.format);
        assert_eq!((info.scheme, info.group_size), (expected.scheme, expected.group_size));
    }

    let place = tempdir().unwrap();
    let fails =
        |options: &Options| run(&golden()[0], None, options, &place.path().join("x")).unwrap_err();
    let unknown = BTreeMap::from([("h.99.mlp.c_fc.weight".to_owned(), FORMATS[0])]);
    let unknown = Options { exceptions: unknown, ..Options::uniform(FORMATS[1]) };
    assert!(matches!(fails(&unknown), Error::UnknownMatrix(name) if name.contains("99")));
    let group_size = Options::uniform(format(Scheme::Int4, 48));
    assert!(matches!(fails(&group_size), Error::GroupSize(48)));
}

#[test]
fn a_tokenizer_is_stored_and_not_counted() {
    let (file, with) = file_of(&demo(), Some(b"any bytes"), &Options::uniform(FORMATS[1]));
    let (_, layout) = open(&file);
    assert_eq!(&file[layout.get("tokenizer").unwrap().range.clone()], b"any bytes");
    let (_, without) = file_of(&demo(), None, &Options::uniform(FORMATS[1]));
    assert_eq!((with.tokenizer_bytes, without.tokenizer_bytes), (Some(9), None));
    assert_eq!(with.bits_per_weight, without.bits_per_weight);
}

#[test]
fn provenance_is_recorded() {
    let (file, _) = file_of(&demo(), None, &Options::uniform(FORMATS[0]));
    let (header, _) = open(&file);
    let source = header.source.unwrap();
    let digest = Checkpoint::open(&demo()).unwrap().digest().to_hex();
    assert_eq!(source.digest, format!("blake3:{digest}"));
    let on_disk = fs::metadata(demo().join("model.safetensors")).unwrap().len();
    assert!(source.bytes < on_disk && source.bytes > on_disk - 65536, "{source:?}");
    assert_eq!(header.quantizer.value()["options"]["group_size"], 32);
    assert_eq!(header.quantizer.value()["options"]["weights"], "int4");
}

#[test]
fn parameters_and_bits_are_those_of_the_arithmetic() {
    let (file, summary) = file_of(&demo(), None, &Options::uniform(FORMATS[1]));
    // Vocabulary 4096, 512 positions, width 256, 6 layers, inner width 1024, tied.
    let matrices = 4096 * 256 + 6 * (4 * 256 * 256 + 2 * 256 * 1024);
    let vectors = 6 * (9 * 256 + 1024) + 2 * 256;
    let positions = 512 * 256;
    assert_eq!(summary.parameters, (matrices + vectors + positions) as u64);
    // 4 bits and a 64th of a float16 each; every width is a multiple of 64, every height of 16.
    let bits = matrices as f64 * 4.25 + vectors as f64 * 32.0 + positions as f64 * 16.0;
    assert_eq!(summary.bits_per_weight, bits / summary.parameters as f64);
    open(&file);
}

/// Widths that fill neither a group, nor a panel, nor a chunk of rows.
#[test]
fn odd_shapes_are_padded_and_stay_close() {
    let place = tempdir().unwrap();
    Model::random(1301, 5, 201, 331).write(place.path());
    let checkpoint = Checkpoint::open(place.path()).unwrap();
    for format in FORMATS {
        let (file, _) = file_of(place.path(), None, &Options::uniform(format));
        let (header, layout) = open(&file);
        for name in header.tensors.keys() {
            let (matrix, bytes) = matrix(&file, &layout, name);
            let exact = checkpoint.read_matrix(name).unwrap();
            let error = relative_error(&dequantize(matrix, bytes), &exact);
            assert!(error < bound(format.scheme), "{name} {format:?}: {error}");
        }
    }
}

#[test]
fn a_matrix_of_zeros_has_no_relative_error() {
    let place = tempdir().unwrap();
    let mut model = Model::random(7, 5, 12, 20);
    model.values("h.0.mlp.c_fc.weight").fill(-0.0);
    model.write(place.path());
    let (file, _) = file_of(place.path(), None, &Options::uniform(FORMATS[1]));
    let (header, layout) = open(&file);
    assert_eq!(header.tensors.get("h.0.mlp.c_fc.weight").unwrap().relative_error, None);
    let (matrix, bytes) = matrix(&file, &layout, "h.0.mlp.c_fc.weight");
    assert!(dequantize(matrix, bytes).iter().all(|w| w.to_bits() == 0), "zeros are +0");
}

/// The reserved space must hold the header whatever the numbers turn out to be.
#[test]
fn extreme_magnitudes_fit_the_header() {
    for factor in [1e-38, 1e-20, 1e-7, 1.0, 1e4, 4e6] {
        let place = tempdir().unwrap();
        let mut model = Model::random(7, 5, 12, 20);
        for tensor in ["wte.weight", "h.0.attn.c_attn.weight", "h.0.mlp.c_proj.weight"] {
            model.values(tensor).iter_mut().for_each(|w| *w *= factor);
        }
        model.write(place.path());
        open(&file_of(place.path(), None, &Options::uniform(FORMATS[3])).0);
    }
}

#[test]
fn values_that_cannot_be_stored_are_named_and_leave_nothing() {
    let cases = [
        ("wpe.weight", 65520.0, "tensor wpe.weight holds 65520 at index [1, 3]"),
        ("wte.weight", 5e6, "tensor wte.weight holds a weight of magnitude 5000000"),
        ("wte.weight", f32::NAN, "holds NaN at index [1, 3]"),
        ("ln_f.bias", f32::INFINITY, "tensor ln_f.bias holds inf at index"),
    ];
    for (tensor, value, message) in cases {
        let place = tempdir().unwrap();
        let mut model = Model::random(7, 5, 12, 20);
        let values = model.values(tensor);
        let at = values.len().min(16) - 1;
        values[at] = value;
        model.write(&place.path().join("checkpoint"));
        let target = place.path().join("model.cbl");
        let options = Options::uniform(FORMATS[1]);
        let error = run(&place.path().join("checkpoint"), None, &options, &target).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "{tensor}: leftovers");
    }
}

/// 65519.996 is the largest float32 that rounds to the largest float16.
#[test]
fn positions_round_to_nearest() {
    let place = tempdir().unwrap();
    let mut model = Model::random(7, 5, 12, 20);
    model.values("wpe.weight")[..4].copy_from_slice(&[
        65519.996,
        -65519.996,
        1.0 + 1.0 / 2048.0,
        1e-8,
    ]);
    model.write(place.path());
    let (file, _) = file_of(place.path(), None, &Options::uniform(FORMATS[1]));
    let (_, layout) = open(&file);
    let bytes = &file[layout.get("wpe.weight").unwrap().range.clone()][..8];
    let bits: Vec<u16> = bytes.as_chunks().0.iter().map(|&half| u16::from_le_bytes(half)).collect();
    assert_eq!(bits, [0x7bff, 0xfbff, 0x3c00, 0x0000]);
}
