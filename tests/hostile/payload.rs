//! Weights, scales and vectors that are not those that were written.

use cerebellum::KvType;
use cerebellum::format::{CHECKSUMS, FileLayout, TOKENIZER, Tensor, TensorKind, read_header};
use cerebellum::kernels::Isa;

use crate::base::{golden, tiny, tiny_btlm, tiny_int8, tiny_modern};
use crate::class::{Class, Outcome};
use crate::exercise::{CONTEXT, Way, Work, token};
use crate::parts::Parts;
use crate::random::Random;

fn layout(file: &[u8]) -> FileLayout {
    read_header(file).unwrap().1
}

fn tensor_at(layout: &FileLayout, byte: usize) -> &Tensor {
    layout.tensors().iter().find(|tensor| tensor.range.contains(&byte)).expect("no holes")
}

/// The part of everything that is done with a flipped bit: the eight of a byte share the ways to evaluate and
/// the caches, so that each byte meets all of them, and the same bit of the next byte meets the next.
/// With `HOSTILE_ALL` each bit meets all.
fn turn(bit: usize, file: &[u8]) -> Work {
    let everything = Work::everything(file);
    if std::env::var_os("HOSTILE_ALL").is_some() {
        return everything;
    }
    let turn = (bit / 8 + bit) % 8;
    let ways = [&Way::ALL[..1], &Way::ALL[1..2], &Way::ALL[2..], Way::ALL][turn % 4];
    let caches = [&[KvType::F16][..], &[KvType::Int8]][turn / 4];
    Work { ways, caches, classify: turn % 4 == 3, ..everything }
}

/// Flips a bit, and expects `verify` to name its tensor and only that. Damage to the table of checksums
/// is found on opening.
fn flip(
    class: &mut Class,
    file: &mut [u8],
    layout: &FileLayout,
    bit: usize,
    work: impl FnOnce(&[u8]) -> Work,
) {
    let tensor = tensor_at(layout, bit / 8);
    let case = format!("bit {bit}, in {}", tensor.name);
    file[bit / 8] ^= 1 << (bit % 8);
    let outcome = class.run_with(&case, file, &work(file));
    file[bit / 8] ^= 1 << (bit % 8);
    match &outcome.0 {
        Ok(ran) => assert_eq!(ran.damaged, [&*tensor.name], "{case}"),
        Err(_) => {
            assert_eq!(tensor.name, CHECKSUMS, "{case}");
            outcome.expect(&case, &["table", "checksum"]);
        }
    }
    let may_refuse = tensor.name == TOKENIZER;
    assert!(may_refuse || outcome.label() != "tokenizer", "{case}: {}", outcome.message());
}

#[test]
fn every_payload_bit() {
    let mut class = Class::new("every payload bit");
    for file in [tiny(), tiny_int8(), tiny_btlm(), tiny_modern()] {
        let layout = layout(file);
        let mut file = file.to_vec();
        for bit in 8 * layout.tensors()[0].range.start..8 * file.len() {
            flip(&mut class, &mut file, &layout, bit, |file| turn(bit, file));
        }
    }
    class.print();
}

/// Scalar kernels take ten times as long as others and would take most of the time, so only one case in
/// eight may get them, as the file decides.
#[test]
fn payload_bits_of_a_larger_model() {
    let vectors: Vec<Isa> =
        Isa::available().filter(|isa| !matches!(isa, Isa::Scalar | Isa::ScalarFma)).collect();
    let mut class = Class::new("10 000 payload bits");
    let layout = layout(golden());
    let (mut file, mut random) = (golden().to_vec(), Random::new(2));
    let start = layout.tensors()[0].range.start;
    for number in 0..10_000 {
        let bit = 8 * start + random.below(8 * (file.len() - start));
        flip(&mut class, &mut file, &layout, bit, |file| {
            let work = turn(bit, file);
            match vectors.get(number / 8 % vectors.len().max(1)) {
                Some(&isa) if number % 8 != 0 => Work { isa, ..work },
                _ => work,
            }
        });
    }
    class.print();
}

/// `docs/numbers.md` 1.4: a non-finite value is never swallowed. Every number that an evaluation uses
/// is made a NaN in turn, under every activation.
#[test]
fn not_a_number() {
    let mut class = Class::new("not a number");
    for activation in ["gelu", "gelu_tanh", "relu", "silu"] {
        for file in [tiny(), tiny_int8(), tiny_btlm(), tiny_modern()] {
            let mut parts = Parts::of(file);
            parts.metadata["config"]["mlp"]["activation"] = activation.into();
            let mut file = parts.file();
            let layout = layout(&file);
            for tensor in layout.tensors() {
                for (at, nan) in used_numbers(&layout, tensor) {
                    let case = format!("{activation}: {} at {at}", tensor.name);
                    let place = at..at + nan.len();
                    let before = file[place.clone()].to_vec();
                    file[place.clone()].copy_from_slice(&nan);
                    class.run(&case, &file).expect(&case, &["not finite"]);
                    file[place].copy_from_slice(&before);
                }
            }
        }
    }
    class.print();
}

/// Infinity may become finite on the way (`docs/numbers.md` section 7), but never a crash.
#[test]
fn infinite() {
    let mut class = Class::new("infinite or huge");
    for file in [tiny(), tiny_int8(), tiny_btlm(), tiny_modern()] {
        let layout = layout(file);
        let mut file = file.to_vec();
        for tensor in layout.tensors() {
            for (at, nan) in used_numbers(&layout, tensor) {
                let before = file[at..at + nan.len()].to_vec();
                for value in [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE / 2.0] {
                    let half = half::f16::from_f32(value).to_le_bytes();
                    let whole = value.to_le_bytes();
                    let widest = f64::from(value).to_le_bytes();
                    let bytes = match nan.len() {
                        2 => &half[..],
                        4 => &whole,
                        _ => &widest,
                    };
                    file[at..at + nan.len()].copy_from_slice(bytes);
                    let case = format!("{value} in {} at {at}", tensor.name);
                    let outcome: Outcome = class.run(&case, &file);
                    outcome.expect(&case, &["runs", "not finite"]);
                }
                file[at..at + before.len()].copy_from_slice(&before);
            }
        }
    }
    class.print();
}

/// Places of the floating-point numbers that evaluating all positions uses, with a NaN of their size.
/// Padding rows' scales are not, nor those of tokens that do not occur, if the head is a matrix of its own.
fn used_numbers(layout: &FileLayout, tensor: &Tensor) -> Vec<(usize, Vec<u8>)> {
    let half = half::f16::NAN.to_le_bytes().to_vec();
    let start = tensor.range.start;
    match &tensor.kind {
        TensorKind::Matrix(matrix) => {
            let tiles = matrix.tiles;
            let place = |row: usize, group| {
                start + row / 16 * tiles.panel_bytes() + tiles.scale_offset(row % 16, group)
            };
            let embedding_only =
                tensor.name == "wte.weight" && layout.get("lm_head.weight").is_some();
            let occurs =
                |row: &usize| (0..CONTEXT).any(|p| token(p, tiles.rows()) as usize == *row);
            let rows = (0..tiles.rows()).filter(|row| !embedding_only || occurs(row));
            rows.flat_map(|row| (0..tiles.groups()).map(move |group| place(row, group)))
                .map(|at| (at, half.clone()))
                .collect()
        }
        TensorKind::Positions => {
            tensor.range.clone().step_by(2).map(|at| (at, half.clone())).collect()
        }
        TensorKind::Vector => {
            let whole = f32::NAN.to_le_bytes().to_vec();
            tensor.range.clone().step_by(4).map(|at| (at, whole.clone())).collect()
        }
        TensorKind::Frequencies => {
            let whole = f64::NAN.to_le_bytes().to_vec();
            tensor.range.clone().step_by(8).map(|at| (at, whole.clone())).collect()
        }
        TensorKind::Tokenizer | TensorKind::Checksums => Vec::new(),
    }
}

/// All of the payload random, which no checksum is asked about.
#[test]
fn random_payload() {
    let mut class = Class::new("random payload");
    let mut random = Random::new(3);
    let mut parts = Parts::of(tiny_int8());
    for number in 0..1000 {
        for byte in &mut parts.data {
            *byte = random.bits() as u8;
        }
        class.run(number, &parts.file()).expect(number, &["not finite", "runs"]);
    }
    class.print();
}
