//! What kernels take.

mod attention;
mod cells;
mod matmul;
mod norm;

pub use self::attention::*;
pub use self::cells::CellWriter;
pub use self::matmul::*;
pub use self::norm::{LayerNorm, RmsNorm};
