//! The option `--kv`.

use cerebellum::KvType;
use clap::ValueEnum;

/// Type of the cached keys and values, as written on the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum Kv {
    /// Float16
    #[default]
    F16,
    /// Int8 with a scale for each head and position: about half the bytes
    Int8,
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => Self::F16,
            Kv::Int8 => Self::Int8,
        }
    }
}
