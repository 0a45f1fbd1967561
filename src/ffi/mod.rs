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

// What every function stands on.
mod arguments;
mod boundary;
mod failure;
mod handle;
mod host;
mod last_failure;
mod locked;
mod message;
mod on_demand;
mod status;
mod stop_reason;
#[cfg(feature = "capi-test-panics")]
mod test_panics;

// The functions and types, as `SECTIONS` groups them.
mod batch;
mod classify;
mod model;
mod options;
mod score;
mod session;
mod status_text;
mod template;
mod text;
mod version;
