//! Functions of the host's, and the floating-point environment that they run in.

use std::cell::Cell;

use crate::fp_env::Environment;

thread_local! {
    /// The host's environment during this thread's innermost call.
    static HOST: Cell<Option<Environment>> = const { Cell::new(None) };
}

/// The host's floating-point environment, which is back when this is dropped.
pub struct HostEnvironment {
    /// That of the call around the callback which this call comes from.
    outer: Option<Environment>,
}

impl HostEnvironment {
    pub fn leave() -> Self {
        let host = Environment::current();
        let outer = HOST.replace(Some(host));
        host.change_to(host.with_default_control());
        Self { outer }
    }
}

impl Drop for HostEnvironment {
    fn drop(&mut self) {
        if let Some(host) = HOST.replace(self.outer) {
            host.set();
        }
    }
}

/// A function of the host's. It finds the environment that the host called the library in, and what it
/// changes there stays changed.
#[derive(Clone, Copy)]
pub struct Callback<F>(F);

impl<F: Copy> Callback<F> {
    pub fn new(function: F) -> Self {
        Self(function)
    }

    /// Calls it by `call`.
    pub fn call<T>(self, call: impl FnOnce(F) -> T) -> T {
        let Some(host) = HOST.get() else { return call(self.0) };
        let ours = Environment::current();
        ours.change_to(host);
        // Unwinding would abort: the host's functions must not throw.
        let result = call(self.0);
        let host = Environment::current();
        HOST.set(Some(host));
        host.change_to(ours);
        result
    }
}
