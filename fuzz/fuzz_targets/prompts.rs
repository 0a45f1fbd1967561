//! Texts from any prompt by any options: sampling, stop strings, forms, templates; of models that are there,
//! or of the model file that the last bytes are.

#![no_main]

#[path = "../../tests/hostile/choices.rs"]
#[allow(dead_code)]
mod choices;
#[path = "../../tests/hostile/exercise.rs"]
#[allow(dead_code)]
mod exercise;
#[path = "../../tests/hostile/parts.rs"]
#[allow(dead_code)]
mod parts;
#[path = "../../tests/hostile/prompts.rs"]
#[allow(dead_code)]
mod prompts;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = prompts::prompts(bytes);
});
