//! Telling how far the quantizer is.

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
}

/// Tells nobody.
impl Observer for () {}
