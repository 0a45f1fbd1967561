//! What a debugger or an emulator does for a program without an operating system. On a board of your own, write to its
//! serial port instead.

use core::arch::asm;
use core::fmt;

const WRITE0: usize = 0x04;
const GET_CMDLINE: usize = 0x15;
const EXIT_EXTENDED: usize = 0x20;
const APPLICATION_EXIT: usize = 0x20026;

/// # Safety
/// `argument` is what the operation takes.
unsafe fn call(operation: usize, argument: usize) -> usize {
    let result;
    #[cfg(target_arch = "arm")]
    // SAFETY: the caller's contract.
    unsafe {
        asm!("bkpt 0xab", inlateout("r0") operation => result, in("r1") argument);
    }
    #[cfg(target_arch = "riscv32")]
    // SAFETY: the caller's contract. The three instructions are known by their sequence, and must not be compressed.
    unsafe {
        asm!(
            ".balign 16",
            ".option push",
            ".option norvc",
            "slli zero, zero, 0x1f",
            "ebreak",
            "srai zero, zero, 7",
            ".option pop",
            inlateout("a0") operation => result,
            in("a1") argument,
        );
    }
    result
}

/// Where text goes.
pub struct Out;

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut piece = [0_u8; 64];
        for bytes in text.as_bytes().chunks(piece.len() - 1) {
            piece[..bytes.len()].copy_from_slice(bytes);
            piece[bytes.len()] = 0;
            // SAFETY: takes a text that ends with a zero.
            unsafe { call(WRITE0, piece.as_ptr() as usize) };
        }
        Ok(())
    }
}

/// What the emulator was given as arguments, as `-semihosting-config arg=NAME,arg=...` says.
pub fn command_line(buffer: &mut [u8]) -> &str {
    let block = [buffer.as_mut_ptr() as usize, buffer.len()];
    // SAFETY: takes a buffer and its length, and writes the text's length in its place.
    let failed = unsafe { call(GET_CMDLINE, (&raw const block) as usize) };
    // SAFETY: as above.
    let length = unsafe { (&raw const block[1]).read_volatile() };
    match failed {
        0 => core::str::from_utf8(&buffer[..length.min(buffer.len())]).unwrap_or_default(),
        _ => "",
    }
}

/// Ends the emulator.
pub fn exit(code: usize) -> ! {
    let block = [APPLICATION_EXIT, code];
    // SAFETY: takes a reason and a code.
    unsafe { call(EXIT_EXTENDED, (&raw const block) as usize) };
    loop {
        core::hint::spin_loop();
    }
}
