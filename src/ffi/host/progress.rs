//! The host's callback for the progress of opening a model.

use core::ffi::c_void;
use core::ops::ControlFlow;

use super::callback::Callback;
use crate::open_options::{OpenProgress, OpenStage};

/// What takes time while a model is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum cbl_stage {
    /// CBL_ACCESS_READ: the file is read into memory.
    CBL_STAGE_READ = 1,
    /// CBL_OPTION_VERIFY: the checksums are computed.
    CBL_STAGE_VERIFY = 2,
}

/// Receives how far a model is opened: a cbl_stage, and that `done` of `total` bytes of this stage
/// are done. It is called at the beginning of each stage, every few mebibytes and at the end, on
/// the thread that opens the model. Return false to give up: the opening call then returns
/// CBL_CANCELLED. The callback must not throw or longjmp.
pub type cbl_progress_callback =
    Option<unsafe extern "C" fn(user: *mut c_void, stage: i32, done: u64, total: u64) -> bool>;

/// A callback for progress and its user data.
#[derive(Clone, Copy)]
pub struct OnProgress {
    callback: Callback<unsafe extern "C" fn(*mut c_void, i32, u64, u64) -> bool>,
    user: *mut c_void,
}

// SAFETY: as for `Log`.
unsafe impl Send for OnProgress {}
// SAFETY: as for `Log`.
unsafe impl Sync for OnProgress {}

impl OnProgress {
    /// None without a callback.
    pub fn new(callback: cbl_progress_callback, user: *mut c_void) -> Option<Self> {
        callback.map(|function| Self { callback: Callback::new(function), user })
    }

    pub fn tell(self, progress: OpenProgress) -> ControlFlow<()> {
        let OpenProgress { stage, done, total } = progress;
        let stage = match stage {
            OpenStage::Read => cbl_stage::CBL_STAGE_READ,
            OpenStage::Verify => cbl_stage::CBL_STAGE_VERIFY,
        };
        // SAFETY: the contract of `cbl_options_set_progress`.
        let goes_on =
            self.callback.call(|tell| unsafe { tell(self.user, stage as i32, done, total) });
        if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}
