//! A file is opened with too little memory, and with just enough: what `.ci/bare` asks for.

use alloc::vec::Vec;
use core::fmt::Write;

use cerebellum::{Error, Model, Result};

use crate::heap;
use crate::semihosting::Out;

/// With how many bytes of free memory the file is opened. With fewer there must be an error, with more none.
pub fn run(file: &'static [u8], out: &mut Out) -> Result<()> {
    const STEP: usize = 64;
    let (all, mut least) = (heap::free(), None);
    for free in (0..all.min(256 << 10)).step_by(STEP) {
        let mut taken = Vec::<u8>::new();
        let bytes = all - free;
        taken.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
        match Model::borrow(file) {
            Ok(_) => _ = least.get_or_insert(free),
            Err(Error::OutOfMemory { .. }) if least.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    let _ = writeln!(out, "opened with {} bytes", least.unwrap_or(usize::MAX));
    Ok(())
}
