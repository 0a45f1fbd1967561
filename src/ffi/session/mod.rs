//! Sessions.

mod cancel;
mod generate;
mod make;
mod on_demand;
mod running;
mod saved;
mod state;
mod stats;
mod tokens;

pub(super) use generate::{cbl_text_callback, pass_on};
pub(super) use state::{Inner, cbl_session, work};
