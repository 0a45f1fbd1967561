//! Paths that lead to something else than a regular file.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use cerebellum::{Access, Model};

use crate::class::{Class, Outcome};
use crate::exercise::Ran;

#[test]
fn not_a_regular_file() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    make_fifo(&at("pipe"));
    symlink(at("pipe"), at("link to a pipe")).unwrap();
    symlink(directory.path(), at("link to a directory")).unwrap();
    symlink(at("loop"), at("loop")).unwrap();
    symlink(at("nothing"), at("dangling")).unwrap();
    fs::write(at("empty"), b"").unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();

    let cases: [(PathBuf, &str); 15] = [
        (directory.path().to_owned(), "not a file"),
        (at("link to a directory"), "not a file"),
        (at("pipe"), "not a file"),
        (at("link to a pipe"), "not a file"),
        (at("socket"), "not a file"),
        ("/dev/zero".into(), "not a file"),
        ("/dev/null".into(), "not a file"),
        ("/dev/full".into(), "not a file"),
        ("/dev/urandom".into(), "not a file"),
        (at("loop"), "input/output"),
        (at("dangling"), "input/output"),
        (at("empty/below a file"), "input/output"),
        ("".into(), "input/output"),
        (at("empty"), "frame"),
        // Says that it has no bytes, and has some.
        ("/proc/self/status".into(), "frame, changed"),
    ];
    let mut class = Class::new("not a regular file");
    for (path, label) in cases {
        for access in [Access::Map, Access::Read] {
            let case = format!("{} ({access:?})", path.display());
            if label == "frame, changed" {
                let error = open(&path, access).0.err().expect("must be refused").to_string();
                assert!(error.contains("changed") || error.contains("not a cerebellum"), "{error}");
                continue;
            }
            let outcome = class.attempt(&case, &[], || open(&path, access).0);
            outcome.expect(&case, &[label]);
        }
    }
    class.print();
}

fn make_fifo(path: &Path) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: `path` is a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0, "mkfifo");
}

/// Opens on another thread: to open a pipe can take for ever.
fn open(path: &Path, access: Access) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let name = path.to_owned();
    std::thread::spawn(move || {
        let opened = Model::open(&name, access);
        let ran = || Ran { damaged: Vec::new(), tokenizer: Ok(()), evaluation: Ok(()) };
        let _ = sender.send(opened.map(|_| ran()));
    });
    let waited = receiver.recv_timeout(Duration::from_secs(10));
    Outcome(waited.unwrap_or_else(|_| panic!("opening {} takes for ever", path.display())))
}
