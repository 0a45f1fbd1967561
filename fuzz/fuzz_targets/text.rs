//! Any text by the tokenizers of all families, ours and those of the `tokenizers` library: the same tokens.

#![no_main]

#[path = "../../tests/common/families.rs"]
mod families;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| families::check_bytes(bytes));
