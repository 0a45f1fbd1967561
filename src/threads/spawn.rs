//! Starts threads without the standard library's, where there are POSIX threads, and in browsers, where it
//! has none. Miri has too few of POSIX's functions, and loom replaces threads.
//!
//! Three things that a host may count on come with POSIX threads:
//! - a lack of memory is an error (`std::thread` aborts the process);
//! - the starting thread is left without thread-local destructors, which would keep a shared library
//!   from being unloaded by `dlclose`;
//! - signals of the host's are not delivered to these threads, which know nothing of its handlers.
//!   (A fault, such as SIGBUS, always goes to the thread that caused it.)

use std::io;

/// What a thread does from its start to its end.
pub(super) trait Life: Sync {
    /// Must not unwind.
    fn live(&self);
}

#[cfg(all(unix, not(any(miri, all(model_checked, test)))))]
pub(super) use posix::{Thread, spawn};
#[cfg(not(any(
    all(unix, not(any(miri, all(model_checked, test)))),
    all(target_family = "wasm", target_feature = "atomics")
)))]
pub(super) use standard::{Thread, spawn};
#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub(super) use web::{Thread, check, spawn};

/// Stack of a thread, in bytes. Kernels keep their tiles in registers and their buffers in the session but
/// for some KiB, so they need little; explicit, because defaults range from 128 KiB (musl) to 8 MiB.
pub(super) const STACK_SIZE: usize = 512 << 10;

#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
mod web;

#[cfg(all(unix, not(any(miri, all(model_checked, test)))))]
mod posix {
    use super::{Life, io};
    use std::ffi::c_void;
    use std::io::Write;
    use std::mem::MaybeUninit;
    use std::ptr;

    /// A running thread.
    #[derive(Debug)]
    pub(in super::super) struct Thread(libc::pthread_t);

    impl Thread {
        /// Waits until the thread has ended.
        pub fn join(self) {
            // SAFETY: the thread was started joinable, and is joined once: this takes it.
            unsafe { libc::pthread_join(self.0, ptr::null_mut()) };
        }
    }

    /// Starts a thread with a stack of so many bytes that lives `life`, named `cerebellum-` and its index.
    ///
    /// # Safety
    /// `life` stays valid until the thread has ended.
    pub(in super::super) unsafe fn spawn<T: Life>(
        index: usize,
        life: *const T,
        stack: usize,
    ) -> io::Result<Thread> {
        let attributes = Attributes::new(stack)?;
        let _blocked = Blocked::new();
        let mut id = MaybeUninit::uninit();
        // SAFETY: the pointers are valid; `start` gets what it expects, valid as long as it runs.
        check(unsafe {
            let life = life.cast_mut().cast();
            libc::pthread_create(id.as_mut_ptr(), &attributes.0, start::<T>, life)
        })?;
        // SAFETY: `pthread_create` succeeded.
        let id = unsafe { id.assume_init() };
        name(id, index);
        Ok(Thread(id))
    }

    extern "C" fn start<T: Life>(life: *mut c_void) -> *mut c_void {
        // SAFETY: `spawn` passes a T that outlives the thread, and T is Sync.
        unsafe { &*life.cast::<T>() }.live();
        ptr::null_mut()
    }

    fn check(code: libc::c_int) -> io::Result<()> {
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
    }

    struct Attributes(libc::pthread_attr_t);

    impl Attributes {
        fn new(stack: usize) -> io::Result<Self> {
            let mut attributes = MaybeUninit::uninit();
            // SAFETY: the pointer is valid for the call, which initializes what it points to.
            check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
            // SAFETY: it is initialized now.
            let mut attributes = Self(unsafe { attributes.assume_init() });
            let size = stack.max(libc::PTHREAD_STACK_MIN);
            // SAFETY: the attributes are initialized.
            check(unsafe { libc::pthread_attr_setstacksize(&mut attributes.0, size) })?;
            Ok(attributes)
        }
    }

    impl Drop for Attributes {
        fn drop(&mut self) {
            // SAFETY: they are initialized and not used again.
            unsafe { libc::pthread_attr_destroy(&mut self.0) };
        }
    }

    /// Signals blocked in this thread until dropped; a thread started meanwhile keeps them blocked.
    struct Blocked(libc::sigset_t);

    impl Blocked {
        fn new() -> Self {
            /// What a thread does to itself, and what profilers count with.
            const KEPT: [libc::c_int; 6] = [
                libc::SIGSEGV,
                libc::SIGBUS,
                libc::SIGFPE,
                libc::SIGILL,
                libc::SIGTRAP,
                libc::SIGPROF,
            ];
            let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            // SAFETY: the pointers are valid, `all` is initialized by the first call and `before` by
            // the last; none fails with valid arguments.
            unsafe {
                libc::sigfillset(all.as_mut_ptr());
                for signal in KEPT {
                    libc::sigdelset(all.as_mut_ptr(), signal);
                }
                libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
                Self(before.assume_init())
            }
        }
    }

    impl Drop for Blocked {
        fn drop(&mut self) {
            // SAFETY: the set is initialized.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
        }
    }

    /// For debuggers and `top`. A failure would not matter.
    fn name(thread: libc::pthread_t, index: usize) {
        // With the zero at its end; Linux allows 16 bytes.
        let mut name = [0_u8; 16];
        let _ = write!(&mut name[..15], "cerebellum-{index}");
        #[cfg(any(target_os = "linux", target_os = "android"))]
        // SAFETY: the thread has not been joined, and the name ends with a zero.
        unsafe {
            libc::pthread_setname_np(thread, name.as_ptr().cast());
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let _ = (thread, name);
    }
}

/// Everywhere else, and under the model checker.
#[cfg(not(any(
    all(unix, not(any(miri, all(model_checked, test)))),
    all(target_family = "wasm", target_feature = "atomics")
)))]
mod standard {
    use super::super::sync::{Builder, JoinHandle};
    use super::{Life, io};

    /// A running thread.
    #[derive(Debug)]
    pub(in super::super) struct Thread(JoinHandle<()>);

    impl Thread {
        /// Waits until the thread has ended.
        pub fn join(self) {
            // `Life::live` does not unwind, so it has no panic to report.
            let _ = self.0.join();
        }
    }

    /// As the POSIX one.
    ///
    /// # Safety
    /// `life` stays valid until the thread has ended.
    pub(in super::super) unsafe fn spawn<T: Life + 'static>(
        index: usize,
        life: *const T,
        stack: usize,
    ) -> io::Result<Thread> {
        /// Crosses to the thread.
        struct Shared<T>(*const T);
        // SAFETY: it is used as a shared reference to a T, and T is Sync.
        unsafe impl<T: Sync> Send for Shared<T> {}

        let life = Shared(life);
        let body = move || {
            let Shared(life) = { life };
            // SAFETY: the caller's contract.
            unsafe { &*life }.live();
        };
        let builder = Builder::new().name(format!("cerebellum-{index}")).stack_size(stack);
        Ok(Thread(builder.spawn(body)?))
    }
}
