//! What quantization cost, as one page of HTML to read, print and send: no script, nothing from the
//! network, the same bytes for the same measurements.
//!
//! `measured.rs` has what a page shows, `page.rs` the sections in their order, `plots.rs` the drawings and
//! `axis.rs` their scales. The `maud` crate escapes whatever is put in.

mod axis;
mod measured;
mod page;
mod plots;

pub use measured::{Measured, Report, Step, Text, schemes};

impl Report {
    /// The page.
    ///
    /// # Panics
    /// If there is no model.
    pub fn html(&self) -> String {
        page::page(self)
    }
}
