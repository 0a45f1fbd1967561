//! What a host can give the library: a log, a callback for progress, memory, a thread pool. How to call
//! them.

mod callback;
mod log;
mod memory;
mod pool;
mod progress;

pub(super) use callback::{Callback, HostEnvironment};
pub(super) use log::{Log, cbl_log_callback, cbl_log_level, log};
pub(super) use memory::Arena;
pub(super) use pool::{Pool, cbl_parallel_callback};
pub(super) use progress::{OnProgress, cbl_progress_callback};
