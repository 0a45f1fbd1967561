//! The kernels, which are symbolic links into the library's sources, and as much of the rest as they use:
//! see `Cargo.toml`.
#![allow(dead_code, unused_imports, missing_docs, reason = "the rest of the library is not here")]

pub mod kernels;
pub mod math;
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
