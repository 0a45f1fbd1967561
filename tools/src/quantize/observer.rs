//! Telling how far the quantizer is.

use std::time::Duration;

/// Is told how far the quantizer is. All methods do nothing unless implemented.
pub trait Observer {
    /// Begins; so many weights will be quantized.
    fn begin(&self, weights: u64) {
        let _ = weights;
    }

    /// Turns to a tensor, or to another task of that name.
    fn turn_to(&self, task: &str) {
        let _ = task;
    }

    /// Has quantized so many more weights.
    fn advance(&self, weights: u64) {
        let _ = weights;
    }

    /// Is likely to need so much longer, by what the first layer took.
    fn expect(&self, left: Duration) {
        let _ = left;
    }
}

/// Tells nobody.
impl Observer for () {}
