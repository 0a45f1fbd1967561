//! Random changes of sound files, reproducible by number.

use crate::base::{golden, tiny, tiny_btlm, tiny_int8, tiny_modern};
use crate::class::Class;
use crate::parts::{assemble, seal, split};
use crate::random::Random;

const MUTATIONS: u64 = 100_000;
const INTERESTING: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 32, 1 << 63, u64::MAX];
const WORDS: [&str; 16] = [
    "null",
    "true",
    "[]",
    "{}",
    "-1",
    "1e999",
    "0.5",
    "\"\"",
    "18446744073709551615",
    "9007199254740993",
    ",",
    ":",
    "\"int8\"",
    "\"F16\"",
    "\\\"",
    "[[[[",
];

#[test]
fn random_mutations() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let mut class = Class::new("random mutations");
    let numbers = match number("HOSTILE_MUTATION") {
        Some(one) => one..one + 1,
        None => 0..number("HOSTILE_MUTATIONS").unwrap_or(MUTATIONS),
    };
    for number in numbers {
        let replay = "replay with HOSTILE_MUTATION";
        class.run(format_args!("{replay}={number}"), &mutated(number));
    }
    class.print();
}

/// Mutation `number`.
fn mutated(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    // The larger file takes most of the time, so it is rarely chosen.
    let base = match random.below(64) {
        0 => golden(),
        n if n % 4 == 1 => tiny_int8(),
        n if n % 4 == 2 => tiny_btlm(),
        n if n % 4 == 3 => tiny_modern(),
        _ => tiny(),
    };
    let changes = 1 + random.below(4);
    match random.below(8) {
        // Whatever happens to files: the checksums say so, or nearly always.
        0 => changed(base.to_vec(), changes, &mut random, change_bytes),
        // The JSON and the tensors changed apart, and the checksums made to match.
        1..=4 => {
            let (json, data) = split(base).expect("a sound file");
            let json = json.trim_ascii_end().to_vec();
            assemble(&changed(json, changes, &mut random, change_text), data)
        }
        5 => {
            let (json, data) = split(base).expect("a sound file");
            assemble(json, &changed(data.to_vec(), changes, &mut random, change_bytes))
        }
        _ => {
            let mut file = changed(base.to_vec(), changes, &mut random, change_bytes);
            seal(&mut file);
            file
        }
    }
}

fn changed(
    mut bytes: Vec<u8>,
    changes: usize,
    random: &mut Random,
    change: fn(&mut Vec<u8>, &mut Random),
) -> Vec<u8> {
    for _ in 0..changes {
        if !bytes.is_empty() {
            change(&mut bytes, random);
        }
    }
    bytes
}

fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    let length = 1 + random.below(64.min(bytes.len() - at));
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.bits() as u8,
        2 => {
            let value = random.pick(&INTERESTING).to_le_bytes();
            let width = random.pick(&[1, 2, 4, 8]).min(bytes.len() - at);
            bytes[at..at + width].copy_from_slice(&value[..width]);
        }
        3 => bytes[at..at + length].fill(random.pick(&[0, 0x7f, 0xff])),
        4 => drop(bytes.drain(at..at + length)),
        5 => {
            let copy = bytes[at..at + length].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, copy);
        }
        6 => {
            let to = random.below(bytes.len() - length + 1);
            bytes.copy_within(at..at + length, to);
        }
        _ => bytes.truncate(at),
    }
}

/// Changes that keep most of a JSON text well-formed.
fn change_text(bytes: &mut Vec<u8>, random: &mut Random) {
    let from = random.below(bytes.len());
    let next = |bytes: &[u8], is: fn(&u8) -> bool| {
        bytes[from..].iter().position(is).map_or(from, |at| from + at)
    };
    match random.below(6) {
        // A number.
        0..=2 => {
            let start = next(bytes, u8::is_ascii_digit);
            let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let old: Option<u64> = std::str::from_utf8(&bytes[start..start + digits])
                .ok()
                .and_then(|n| n.parse().ok());
            let new = match (random.below(4), old) {
                (0, Some(old)) => old.wrapping_add(1),
                (1, Some(old)) => old.wrapping_sub(1),
                (2, Some(old)) => old.wrapping_mul(2),
                _ => random.pick(&INTERESTING),
            };
            bytes.splice(start..start + digits, new.to_string().into_bytes());
        }
        // A value, or what stands for one.
        3 => {
            let start = next(bytes, |byte| b":[,".contains(byte)) + 1;
            let start = start.min(bytes.len());
            let rest = bytes[start..].iter().position(|byte| b",]}".contains(byte));
            let word = random.pick(&WORDS).as_bytes().to_vec();
            bytes.splice(start..start + rest.unwrap_or(0), word);
        }
        // A letter.
        4 => {
            let at = next(bytes, u8::is_ascii_alphabetic);
            bytes[at] = b'a' + random.below(26) as u8;
        }
        _ => change_bytes(bytes, random),
    }
}
