//! The C interface: `include/cerebellum.h` is generated from the comments of this module's files, in
//! the order of [`SECTIONS`](../../tests/c_header.rs); `tests/c_header.rs` fails if they drift apart.
//!
//! What every function here keeps to:
//!
//! - **Arguments are checked** as far as an address can be: null, alignment, the handle's tag, lengths,
//!   numbers that stand for an enumeration. What remains, that memory is as large as it is said to be
//!   and that a handle was not freed, is the caller's part; it is the contract behind every
//!   `SAFETY` comment here that says "the caller's contract".
//! - **Nothing unwinds** into C ([`boundary`]), and a panic poisons the handle it happened in.
//! - **Shared state is locked without waiting**: a session or a set of options that is in use, by
//!   another thread or further up the stack, gives `CBL_BUSY`.
//! - **No infallible allocation** once a model is open, text and constraints apart.
#![allow(non_camel_case_types, reason = "types are named as in C")]

mod arguments;
mod boundary;
mod constraint;
mod handle;
mod last_failure;
mod locked;
mod message;
#[cfg(feature = "capi-test-panics")]
mod test_panics;

// The header's sections.
mod batch;
mod batch_pull;
mod classify;
mod generate;
mod host;
mod model;
mod options;
mod pull;
mod saved;
mod score;
mod session;
mod status;
mod template;
mod text;
mod version;
