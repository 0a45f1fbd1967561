//! Reading and writing bytes: the standard library's traits, or where there is none a few of them under the same
//! names.

#[cfg(not(feature = "std"))]
mod bare;

#[cfg(not(feature = "std"))]
pub use bare::{Cursor, Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
#[cfg(feature = "std")]
pub(crate) use std::io::{Cursor, Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};
