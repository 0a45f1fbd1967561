#![no_main]

#[path = "../../tests/hostile/importers.rs"]
#[allow(dead_code)]
mod importers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| importers::checkpoint_gguf(bytes));
