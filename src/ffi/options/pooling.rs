//! Values of CBL_OPTION_POOLING.

/// Values of CBL_OPTION_POOLING: how the hidden states of a text's tokens become one embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_pooling {
    /// The mean of the hidden states.
    CBL_POOLING_MEAN = 0,
    /// The hidden state of the last token, which depends on all tokens before it.
    CBL_POOLING_LAST = 1,
}
