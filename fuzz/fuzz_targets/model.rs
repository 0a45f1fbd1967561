//! A model file: opened, verified, run (`exercise`). The checksums are made to match, because a fuzzer
//! cannot guess them.

#![no_main]

#[path = "../../tests/hostile/exercise.rs"]
#[allow(dead_code)]
mod exercise;
#[path = "../../tests/hostile/parts.rs"]
#[allow(dead_code)]
mod parts;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = exercise::exercise(&parts::from_fuzzer(bytes));
});
