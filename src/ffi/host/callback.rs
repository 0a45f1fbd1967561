//! The host's functions, and the floating-point environment that they run in.

use crate::ffi::thread;
use crate::fp_env::Environment;

/// The host's floating-point environment during a call. Dropping this restores it.
pub struct HostEnvironment {
    /// If a callback made this call: the environment of the call around the callback.
    outer: Option<Environment>,
}

impl HostEnvironment {
    pub fn leave() -> Self {
        let host = Environment::current();
        let outer = thread::replace_host(Some(host));
        host.change_to(host.with_default_control());
        Self { outer }
    }
}

impl Drop for HostEnvironment {
    fn drop(&mut self) {
        if let Some(host) = thread::replace_host(self.outer) {
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
        let Some(host) = thread::host() else { return call(self.0) };
        let ours = Environment::current();
        ours.change_to(host);
        // The host's functions must not throw: unwinding out of them aborts.
        let result = call(self.0);
        let host = Environment::current();
        thread::replace_host(Some(host));
        host.change_to(ours);
        result
    }
}
