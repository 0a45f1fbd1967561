//! Batches.

mod cancel;
mod generate;
mod make;
mod on_demand;
mod prompts;
mod running;
mod sequences;
mod state;
