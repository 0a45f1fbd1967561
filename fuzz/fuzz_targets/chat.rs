//! Any template with any messages, within a bound of time and memory.

#![no_main]

#[path = "../../tests/hostile/allocations.rs"]
#[allow(dead_code)]
mod allocations;
#[path = "../../tests/hostile/chats.rs"]
mod chats;

use std::time::Instant;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let start = Instant::now();
    let (_, peak) = allocations::peak_of_process(|| chats::chat(bytes));
    let bound = chats::most_memory(bytes);
    assert!(peak <= bound, "{peak} bytes of memory, more than {bound}");
    assert!(start.elapsed() < chats::TIME);
});
