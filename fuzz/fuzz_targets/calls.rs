//! Sequences of calls of sessions and batches, which the bytes choose.

#![no_main]

#[path = "../../tests/hostile/calls.rs"]
#[allow(dead_code)]
mod calls;
#[path = "../../tests/hostile/choices.rs"]
#[allow(dead_code)]
mod choices;
#[path = "../../tests/hostile/exercise.rs"]
#[allow(dead_code)]
mod exercise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| calls::calls(bytes));
