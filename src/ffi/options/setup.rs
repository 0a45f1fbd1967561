//! The settings that sessions and batches are made with.

use super::settings::Options;
use crate::error::Result;
use crate::ffi::host::{Log, Pool};
use crate::memory::try_box;
use crate::session_options::SessionOptions;
use crate::threads::{Executor, HostTeam, Team};

/// The settings that a session or a batch is made with.
#[derive(Clone)]
pub struct Setup {
    pub options: SessionOptions,
    pool: Option<Pool>,
    pub log: Option<Log>,
}

impl Setup {
    pub fn of(options: &Options) -> Self {
        Self { options: options.session.clone(), pool: options.pool, log: options.log }
    }

    /// Runs the work: on the calling thread, on threads of its own, or on the host's pool.
    pub fn executor(&self) -> Result<Executor> {
        Ok(match self.pool {
            Some(pool) => Executor::Host(HostTeam::new(try_box(pool)?)),
            None if self.options.threads == 1 => Executor::Caller,
            None => Executor::Team(Team::new(self.options.threads)?),
        })
    }

    /// The number of threads that share the work.
    pub fn workers(&self) -> usize {
        self.pool.map_or(self.options.threads, |pool| pool.workers)
    }
}
