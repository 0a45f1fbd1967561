//! Runs a program on a terminal, and gives what it wrote there.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::{Command, ExitStatus, Stdio};
use std::ptr;

/// Runs `command` with its standard output and standard error on a new terminal, which changes nothing of
/// what is written to it.
pub fn on_terminal(mut command: Command) -> (ExitStatus, String) {
    let (mut ours, mut theirs) = (0, 0);
    // SAFETY: both places take a descriptor; the terminal gets its defaults, and nobody asks for its name.
    let code = unsafe {
        libc::openpty(&mut ours, &mut theirs, ptr::null_mut(), ptr::null_mut(), ptr::null_mut())
    };
    assert_eq!(code, 0, "no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: the call gave both descriptors to us.
    let (mut ours, theirs) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    // SAFETY: plain numbers, which the next call fills in.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `settings` is a place for the answer, and then the answer.
    unsafe {
        assert_eq!(libc::tcgetattr(theirs.as_raw_fd(), &mut settings), 0);
        libc::cfmakeraw(&mut settings);
        assert_eq!(libc::tcsetattr(theirs.as_raw_fd(), libc::TCSANOW, &settings), 0);
    }
    command.stdin(Stdio::null()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    // Our copies of their end, without which reading ends when the program does.
    drop(command);
    let (mut written, mut buffer) = (Vec::new(), [0; 4096]);
    // When the other end is closed, Linux gives an error, other systems the end of the file.
    while let Ok(count @ 1..) = ours.read(&mut buffer) {
        written.extend(&buffer[..count]);
    }
    (child.wait().unwrap(), String::from_utf8(written).unwrap())
}

/// The first character that a terminal would obey instead of showing it; line breaks and tabs are none.
pub fn first_obeyed(text: &str) -> Option<char> {
    let is_obeyed = |c: &char| {
        c.is_control() && !matches!(c, '\n' | '\t')
            || ('\u{202a}'..='\u{202e}').contains(c)
            || ('\u{2066}'..='\u{2069}').contains(c)
    };
    text.chars().find(is_obeyed)
}
