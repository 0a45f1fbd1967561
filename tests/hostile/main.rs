//! Hostile model files (`SECURITY.md`): whatever the bytes, opening, verifying and running them ends
//! in a result or an error, in bounded time and memory. A panic, a signal or a broken bound fails.
//!
//! Each class of files is a test; `cargo test --test hostile -- --nocapture` prints a table of what
//! became of them. While a class runs, the file it tries lies in `target/tmp/hostile/`, so that a crash
//! leaves it there. Files that were once a fault are replayed from `tests/data/hostile/`.
//!
//! `HOSTILE_MUTATION=n` replays one random mutation, `HOSTILE_MUTATIONS=n` sets how many are tried.
//! `HOSTILE_PROMPTS=n` sets how many random prompts are tried.
//! `HOSTILE_ALL=1` evaluates the model with each payload bit in all ways and with both caches.

mod allocations;
mod amplification;
mod base;
mod bits;
mod bombs;
mod calls;
mod changes;
mod chats;
mod choices;
mod class;
mod corpus;
mod exercise;
mod export;
mod fields;
mod file_chat;
mod file_templates;
mod importers;
mod mutations;
mod not_a_file;
mod parts;
mod payload;
mod prompts;
mod random;
mod templates;
mod tensors;
mod texts;
mod tokenizers;
mod truncation;
