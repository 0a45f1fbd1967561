//! The C interface.
//!
//! `tests/c_header.rs` generates `include/cerebellum.h` from the comments of these files: its
//! [`SECTIONS`](../../tests/c_header.rs) list the files of each section. The test fails if the header
//! and the files differ.
//!
//! The files are layers: no two of them use each other, not even through others. From below: status
//! codes, failures and the host's callbacks; the boundary, arguments and handles; options; models;
//! sessions and batches; scores, classification, templates and conversations.
//!
//! Every function here keeps these rules:
//!
//! - **Arguments are checked** as far as an address allows: null, alignment, the handle's tag, lengths,
//!   numbers that stand for an enumeration. The caller answers for the rest: that memory is as large as
//!   stated, and that a handle is not freed. A `SAFETY` comment calls that "the caller's contract".
//! - **Nothing unwinds** into C ([`boundary`]). A panic poisons the handle of its call.
//! - **Shared state is locked without waiting.** A session or a set of options that is in use, by another
//!   thread or further up the stack, gives `CBL_BUSY`.
//! - **No infallible allocation** once a model is open, except for text and constraints.
#![allow(non_camel_case_types, reason = "types are named as in C")]

// Parts that every function uses.
mod arguments;
#[cfg(target_os = "none")]
mod bare;
mod boundary;
mod failure;
#[cfg(feature = "std")]
mod files;
#[cfg(not(feature = "std"))]
#[path = "no_files.rs"]
mod files;
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
#[cfg(not(feature = "std"))]
#[path = "no_threads.rs"]
mod thread;
#[cfg(feature = "std")]
mod thread;
#[cfg(not(feature = "std"))]
#[path = "no_unwinding.rs"]
mod unwinding;
#[cfg(feature = "std")]
mod unwinding;

// The functions and types of the header.
mod batch;
mod chat;
mod classify;
mod model;
mod options;
mod score;
mod session;
mod start;
mod status_text;
mod template;
mod text;
mod version;
