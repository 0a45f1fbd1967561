//! The kernels, and as much of the library as they use: see `Cargo.toml`.
#![allow(dead_code, unused_imports, missing_docs, reason = "the rest of the library is not here")]

#[path = "../../src/kernels/mod.rs"]
pub mod kernels;
#[path = "../../src/math.rs"]
pub mod math;
#[path = "../../src/quant/mod.rs"]
pub mod quant;

pub mod error {
    #[derive(Debug)]
    pub enum Error {
        Option { name: &'static str, detail: String },
    }

    pub type Result<T> = std::result::Result<T, Error>;
}

pub mod format {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Activation {
        Gelu,
        GeluTanh,
        Relu,
        Silu,
    }
}

pub mod kv_cache {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum KvType {
        F16,
        Int8,
    }
}
