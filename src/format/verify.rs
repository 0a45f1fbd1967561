//! Checksums of the header and of every tensor.

use alloc::string::String;
use alloc::vec::Vec;

use super::{CHECKSUMS, FileLayout, FormatError};
use crate::checksum::Checksum;
use crate::error::Result;
use crate::tell::{TELL_EVERY, Tell};

/// The format's checksum: CRC-32 as in zlib and PNG.
pub fn checksum(bytes: &[u8]) -> u32 {
    Checksum::of(bytes)
}

/// A tensor whose bytes are not those that were written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The tensor's name.
    pub tensor: String,
    /// The checksum that was written.
    pub expected: u32,
    /// The checksum of the bytes that are there.
    pub found: u32,
}

/// Checks every tensor of a file whose header was read; returns those that are damaged.
pub fn verify(file: &[u8], layout: &FileLayout) -> Vec<Fault> {
    verify_telling(file, layout, &mut |_, _| Ok(())).expect("nobody gives up")
}

/// As [`verify`], telling how many bytes were checked.
pub(crate) fn verify_telling(
    file: &[u8],
    layout: &FileLayout,
    tell: &mut Tell,
) -> Result<Vec<Fault>> {
    let table = table(file, layout).chunks_exact(4);
    let stored = table.map(|entry| u32::from_le_bytes(entry.try_into().expect("chunks of 4")));
    let tensors = layout.tensors().iter().filter(|t| t.name != CHECKSUMS);
    let total = tensors.clone().map(|tensor| tensor.range.len() as u64).sum();
    let (mut faults, mut done) = (Vec::new(), 0);
    tell(done, total)?;
    for (tensor, expected) in tensors.zip(stored) {
        let mut hasher = Checksum::new();
        for piece in file[tensor.range.clone()].chunks(TELL_EVERY) {
            hasher.update(piece);
            done += piece.len() as u64;
            // Small tensors are not worth a word.
            if piece.len() == TELL_EVERY {
                tell(done, total)?;
            }
        }
        let found = hasher.finish();
        if found != expected {
            faults.push(Fault { tensor: tensor.name.clone(), expected, found });
        }
    }
    tell(total, total)?;
    Ok(faults)
}

/// Checks the table of checksums against its own checksum.
pub(super) fn check_table(file: &[u8], layout: &FileLayout) -> Result<(), FormatError> {
    let (entries, ends) =
        table(file, layout).split_last_chunk::<8>().expect("two entries at least");
    let stored = u32::from_le_bytes(ends[..4].try_into().expect("four of eight bytes"));
    if checksum(entries) == stored { Ok(()) } else { Err(FormatError::ChecksumTable) }
}

fn table<'a>(file: &'a [u8], layout: &FileLayout) -> &'a [u8] {
    let tensor = layout.tensors().last().expect("a layout ends with the checksums");
    &file[tensor.range.clone()]
}
