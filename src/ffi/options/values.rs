//! Options whose values are enumerations.

/// Values of CBL_OPTION_ACCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_access {
    /// Map the file: opens in milliseconds, and its pages are shared and can be evicted. Replace the
    /// file only by renaming another one over it. If it was changed in place, calls that need it give
    /// CBL_MODEL_CHANGED; but truncating it in the middle of a call raises SIGBUS.
    CBL_ACCESS_MAP = 0,
    /// Read the file into memory: nothing that happens to it matters any more.
    CBL_ACCESS_READ = 1,
}

/// Values of CBL_OPTION_CACHE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_cache {
    /// Keys and values as float16.
    CBL_CACHE_F16 = 0,
    /// Keys and values as int8, about half the memory.
    CBL_CACHE_INT8 = 1,
}
