#![no_main]

#[path = "../../tests/hostile/allocations.rs"]
#[allow(dead_code)]
mod allocations;
#[path = "../../tests/hostile/importers.rs"]
#[allow(dead_code)]
mod importers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    importers::parse_within_bounds(importers::config, bytes);
});
