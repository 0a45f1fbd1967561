//! Where there are no files.

use crate::error::Result;

/// The bytes of a file: there are none.
pub(super) enum FileBytes {}

impl FileBytes {
    pub(super) fn checked(&self) -> &[u8] {
        match *self {}
    }

    pub(super) fn check_unchanged(&self) -> Result<()> {
        match *self {}
    }

    pub(super) fn is_mapped(&self) -> bool {
        match *self {}
    }
}
