//! What the options say of sessions and batches.

use super::settings::Options;
use crate::error::Result;
use crate::ffi::host::{Log, Pool};
use crate::memory::try_box;
use crate::session_options::SessionOptions;
use crate::threads::{Executor, HostTeam, Team};

/// What a session is made with.
#[derive(Clone)]
pub struct Made {
    pub options: SessionOptions,
    pool: Option<Pool>,
    pub log: Option<Log>,
}

impl Made {
    pub fn with(options: &Options) -> Self {
        Self { options: options.session.clone(), pool: options.pool, log: options.log }
    }

    /// Threads of its own, or the host's.
    pub fn executor(&self) -> Result<Executor> {
        Ok(match self.pool {
            Some(pool) => Executor::Host(HostTeam::new(try_box(pool)?)),
            None if self.options.threads == 1 => Executor::Caller,
            None => Executor::Team(Team::new(self.options.threads)?),
        })
    }

    /// How many share the work.
    pub fn workers(&self) -> usize {
        self.pool.map_or(self.options.threads, |pool| pool.workers)
    }
}
