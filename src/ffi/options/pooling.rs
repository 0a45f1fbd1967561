//! Values of CBL_OPTION_POOLING.

/// Values of CBL_OPTION_POOLING: how the hidden states of a text's tokens become one embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_pooling {
    /// Their mean.
    CBL_POOLING_MEAN = 0,
    /// The last token's, which has seen all the others.
    CBL_POOLING_LAST = 1,
}
