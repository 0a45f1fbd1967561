//! Keeping pages in memory.

/// Pages that stay in memory as long as this lives.
pub(crate) struct PageLock {
    #[cfg_attr(
        not(all(unix, feature = "std")),
        expect(dead_code, reason = "no page is ever locked there")
    )]
    start: usize,
    #[cfg_attr(not(all(unix, feature = "std")), expect(dead_code, reason = "as above"))]
    bytes: usize,
}

#[cfg(all(unix, feature = "std"))]
mod unix {
    use core::ptr::without_provenance;
    use std::io;

    use super::PageLock;
    use crate::error::{Error, Result};

    impl PageLock {
        /// Brings the pages that hold `bytes` bytes from `start` into memory, and keeps them there. The
        /// memory outlives the lock.
        pub fn new(start: *const u8, bytes: usize) -> Result<Self> {
            // SAFETY: the system looks at the addresses, and refuses those where there is no memory; the
            // contents stay as they are.
            if bytes > 0 && unsafe { libc::mlock(start.cast(), bytes) } != 0 {
                let source = io::Error::last_os_error();
                return Err(Error::PageLock { bytes, limit: limit(), source });
            }
            Ok(Self { start: start.addr(), bytes })
        }
    }

    impl Drop for PageLock {
        /// Pages at the edges may hold what somebody else has locked, so they stay: two at most, until the
        /// system takes them back.
        fn drop(&mut self) {
            let page = page_bytes();
            let first = self.start.next_multiple_of(page);
            let end = (self.start + self.bytes) / page * page;
            if first < end {
                // SAFETY: as for `mlock`. A failure leaves pages locked, which harms nothing.
                unsafe { libc::munlock(without_provenance(first), end - first) };
            }
        }
    }

    fn page_bytes() -> usize {
        // SAFETY: asks for a number.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(page).ok().filter(|&page| page > 0).unwrap_or(1 << 16)
    }

    /// The bytes that the process may lock; `None` for any number.
    fn limit() -> Option<u64> {
        let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: 0 };
        // SAFETY: `limit` is valid for writing.
        let answer = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
        #[allow(clippy::unnecessary_cast, reason = "of another type on some systems")]
        let bytes = limit.rlim_cur as u64;
        (answer == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(bytes)
    }
}

#[cfg(not(all(unix, feature = "std")))]
mod other {
    use super::PageLock;
    use crate::error::{Error, Result};

    impl PageLock {
        /// Not on this system.
        pub fn new(_: *const u8, bytes: usize) -> Result<Self> {
            Err(Error::PageLock {
                bytes,
                limit: None,
                source: crate::io::ErrorKind::Unsupported.into(),
            })
        }
    }
}
