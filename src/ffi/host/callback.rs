//! The host's functions, and the floating-point environment that they run in.

use core::cell::Cell;

use crate::fp_env::Environment;

thread_local! {
    /// The environment that the host had when it made this thread's innermost call.
    static HOST: Cell<Option<Environment>> = const { Cell::new(None) };
}

/// The host's floating-point environment during a call. Dropping this restores it.
pub struct HostEnvironment {
    /// If a callback made this call: the environment of the call around the callback.
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

/// A function of the host. It runs in the environment in which the host called the library, and may
/// change that environment.
#[derive(Clone, Copy)]
pub struct Callback<F>(F);

impl<F: Copy> Callback<F> {
    pub fn new(function: F) -> Self {
        Self(function)
    }

    /// Gives the function to `call`, which calls it.
    pub fn call<T>(self, call: impl FnOnce(F) -> T) -> T {
        let Some(host) = HOST.get() else { return call(self.0) };
        let ours = Environment::current();
        ours.change_to(host);
        // The host's functions must not throw: unwinding out of them aborts.
        let result = call(self.0);
        let host = Environment::current();
        HOST.set(Some(host));
        host.change_to(ours);
        result
    }
}
