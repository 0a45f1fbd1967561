//! What Cerebellum computes with: the kernels, the order of the weights they read, and the functions of
//! one number.
//!
//! This package is internal to `cerebellum`, which re-exports what is of use; anything may change between versions.
//!
//! A package of its own so that a build for a small device can optimize it for speed and all the rest
//! for size, and so that its tests can be built without the rest where processors are emulated.
//! `docs/numbers.md` defines what it computes, bit for bit.
//!
//! It allocates nothing. Where there is no operating system (`target_os = "none"`), and so no standard library, it
//! does without: [`float`] and `kernels::detect` have what differs.

#![cfg_attr(target_os = "none", no_std)]

pub mod float;
pub mod kernels;
pub mod math;
pub mod quant;
