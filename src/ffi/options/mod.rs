//! Sets of options: the keys, the values that are enumerations, the settings, and the functions that
//! change them.

mod chat;
mod classification;
mod constraint;
mod handle;
mod host;
mod keys;
mod pooling;
mod setters;
mod settings;
mod setup;
mod values;

pub(super) use chat::Setting as ChatSetting;
pub(super) use classification::Settings as Classification;
pub(super) use constraint::Setting as Form;
pub(super) use handle::{cbl_options, change, with};
pub(super) use settings::Options;
pub(super) use setup::Setup;
