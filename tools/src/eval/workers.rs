//! Independent pieces of work, each done by one thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Result;
use crate::threads;

/// Calls `work` for every index below `count`, each worker on a thread of its own taking the next one
/// (as many workers as there are threads to be had),
/// and returns the results in order. `advance` is told of each that is done. After an error the
/// others stop.
pub(super) fn share_out<W: Send, T: Send>(
    workers: Vec<W>,
    count: usize,
    advance: &(dyn Fn() + Sync),
    work: impl Fn(&mut W, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let mut done = Vec::new();
    done.resize_with(count, || None);
    let done = Mutex::new(done);
    let work = |mut worker: W| -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(());
            }
            let result = work(&mut worker, index).inspect_err(|_| {
                next.store(count, Ordering::Relaxed); // the others need not go on
            })?;
            done.lock().expect("no thread panics with the lock")[index] = Some(result);
            advance();
        }
    };
    let outcomes = threads::run(workers, |worker, _| work(worker));
    outcomes.into_iter().collect::<Result<()>>()?;
    let done = done.into_inner().expect("no thread panics with the lock");
    Ok(done.into_iter().map(|result| result.expect("all were taken up")).collect())
}
