//! Sets of options: their keys, the values that are enumerations, what they say, and the functions that
//! set them.

mod classification;
mod constraint;
mod handle;
mod host;
mod keys;
mod made;
mod pooling;
mod setters;
mod settings;
mod values;

pub(super) use classification::Settings as Classification;
pub(super) use constraint::Setting as Form;
pub(super) use handle::{cbl_options, change, with};
pub(super) use made::Made;
pub(super) use settings::Options;
