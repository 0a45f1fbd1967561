//! What tensors are stored as.

/// What matrices are stored as. Vectors and positions are float32 in any case, as llama.cpp has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
}

impl Precision {
    /// ggml's number of the tensor type, which is also llama.cpp's of a file of such tensors.
    pub fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}
