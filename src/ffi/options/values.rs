//! Options whose values are enumerations.

/// Values of CBL_OPTION_ACCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_access {
    /// Map the file. Opening takes milliseconds. The pages are shared with other processes, and the
    /// system can evict them. To replace the file, rename another file over it. If the file is
    /// changed in place, calls that need it give CBL_MODEL_CHANGED. If it is truncated during a
    /// call, the system raises SIGBUS.
    CBL_ACCESS_MAP = 0,
    /// Read the file into memory. Later changes to the file do not matter.
    CBL_ACCESS_READ = 1,
}

/// Values of CBL_OPTION_CACHE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_cache {
    /// Keys and values as float16.
    CBL_CACHE_F16 = 0,
    /// Keys and values as int8, in about half the memory.
    CBL_CACHE_INT8 = 1,
}
