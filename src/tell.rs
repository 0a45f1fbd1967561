//! Telling how far an operation over many bytes is.

use crate::error::Result;

/// Who is told of bytes that are done, and of how many in total; an error gives up.
pub(crate) type Tell<'a> = dyn FnMut(u64, u64) -> Result<()> + 'a;

/// So many bytes are done between two times that somebody is told: a millisecond or two.
pub(crate) const TELL_EVERY: usize = 4 << 20;
