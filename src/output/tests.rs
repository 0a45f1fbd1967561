use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::names::LONGEST_NAME;
use super::rename::{link_new, rename_new};
use super::*;

fn write(target: &Path, existing: Existing, content: &[u8]) -> Result<()> {
    let mut output = OutputFile::create(target, existing, Readers::AsUsual)?;
    output.file().write_all(content).unwrap();
    output.commit()
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_file_appears_when_committed() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    let mut output = OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap();
    output.file().write_all(b"content").unwrap();
    assert!(!target.exists());
    output.commit().unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"content");
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn a_dropped_output_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    drop(OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap());
    assert_eq!(entries(directory.path()), 0);
}

#[test]
fn replacing_must_be_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    write(&target, Existing::Keep, b"old").unwrap();
    let kept = write(&target, Existing::Keep, b"new");
    assert!(matches!(kept, Err(OutputError::Exists { .. })));
    assert_eq!(fs::read(&target).unwrap(), b"old");
    write(&target, Existing::Replace, b"new").unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"new");
}

#[test]
fn a_file_that_appears_meanwhile_is_kept() {
    for rename in [rename_new, link_new] {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        fs::write(&from, b"ours").unwrap();
        rename(&from, &to).unwrap();
        assert_eq!((fs::read(&to).unwrap(), entries(directory.path())), (b"ours".to_vec(), 1));
        fs::write(&from, b"theirs").unwrap();
        assert_eq!(rename(&from, &to).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    let output = OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap();
    fs::write(&target, b"theirs").unwrap();
    assert!(matches!(output.commit(), Err(OutputError::Exists { .. })));
    assert_eq!(fs::read(&target).unwrap(), b"theirs");
    assert_eq!(entries(directory.path()), 1);
}

#[test]
fn directories_and_missing_directories_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let create =
        |path: &Path| OutputFile::create(path, Existing::Replace, Readers::Owner).unwrap_err();
    for path in [directory.path(), Path::new("/"), &directory.path().join("new/"), Path::new("..")]
    {
        let error = create(path);
        assert!(matches!(error, OutputError::IsDirectory { .. }), "{path:?}: {error}");
    }
    let missing = directory.path().join("no/out");
    assert!(matches!(create(&missing), OutputError::NoDirectory { .. }));
    let below_a_file = directory.path().join("file/out");
    fs::write(directory.path().join("file"), b"").unwrap();
    assert!(create(&below_a_file).to_string().contains("file/out"));
}

#[test]
fn names_may_be_as_long_as_the_system_allows() {
    let directory = tempfile::tempdir().unwrap();
    for length in [1, LONGEST_NAME, LONGEST_NAME + 1, 255] {
        let target = directory.path().join("n".repeat(length));
        write(&target, Existing::Keep, b"content").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"content");
    }
    assert_eq!(entries(directory.path()), 4);
}

#[test]
fn temporary_files_have_names_that_nobody_guesses() {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    let names: std::collections::BTreeSet<_> = (0..50)
        .map(|_| {
            let output = OutputFile::create(&target, Existing::Keep, Readers::AsUsual).unwrap();
            let name = output.temporary().file_name().unwrap().to_str().unwrap().to_owned();
            assert!(name.starts_with(".out.") && name.ends_with(".cbl-tmp"), "{name}");
            assert_eq!(name.len(), ".out.".len() + 16 + ".cbl-tmp".len());
            name
        })
        .collect();
    assert_eq!(names.len(), 50);
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_replaced_file_hands_its_mode_on() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        for old in [0o640, 0o444, 0o777, 0o600, 0o4755] {
            fs::write(&target, b"old").unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(old)).unwrap();
            let output = OutputFile::create(&target, Existing::Replace, Readers::AsUsual).unwrap();
            assert_eq!(mode(output.temporary()), 0o600, "others could read it already");
            output.commit().unwrap();
            let found = fs::metadata(&target).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, old & 0o777, "{found:o}");
            fs::remove_file(&target).unwrap();
        }
    }

    #[test]
    fn what_only_the_owner_may_read_stays_so() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        for old in [None, Some(0o600), Some(0o644)] {
            if let Some(old) = old {
                fs::write(&target, b"old").unwrap();
                fs::set_permissions(&target, fs::Permissions::from_mode(old)).unwrap();
            }
            let output = OutputFile::create(&target, Existing::Replace, Readers::Owner).unwrap();
            assert_eq!(mode(output.temporary()), 0o600);
            output.commit().unwrap();
            assert_eq!(mode(&target), 0o600);
        }
    }

    #[test]
    fn a_new_file_is_as_readable_as_any() {
        let directory = tempfile::tempdir().unwrap();
        let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
        write(&ours, Existing::Keep, b"").unwrap();
        fs::write(&theirs, b"").unwrap();
        assert_eq!(mode(&ours), mode(&theirs));
    }

    #[test]
    fn links_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [file, link, chain, broken] =
            ["file", "link", "chain", "broken"].map(|name| directory.path().join(name));
        fs::write(&file, b"old").unwrap();
        symlink("file", &link).unwrap();
        symlink(&link, &chain).unwrap();
        for (path, content) in [(&link, b"one"), (&chain, b"two")] {
            write(path, Existing::Replace, content).unwrap();
            assert_eq!(fs::read(&file).unwrap(), content);
            assert!(path.is_symlink());
        }
        symlink("nowhere", &broken).unwrap();
        let error = write(&broken, Existing::Replace, b"new").unwrap_err();
        assert!(matches!(error, OutputError::BrokenLink { .. }), "{error}");
        assert!(broken.is_symlink() && !directory.path().join("nowhere").exists());
    }

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the path ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let socket = directory.path().join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [Path::new("/dev/null"), Path::new("/dev/full"), &pipe, &socket] {
            let error = write(path, Existing::Replace, b"new").unwrap_err();
            assert!(matches!(error, OutputError::NotAFile { .. }), "{path:?}: {error}");
            assert!(!fs::metadata(path).unwrap().is_file());
        }
    }

    #[test]
    fn leftovers_of_the_same_target_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let removed = [".out.0123456789abcdef.cbl-tmp", ".out.ffffffffffffffff.cbl-tmp"];
        let kept = [
            "out.tmp",
            ".out.cbl-tmp",
            ".out.0123456789abcde.cbl-tmp",
            ".out.0123456789abcdeg.cbl-tmp",
            ".other.0123456789abcdef.cbl-tmp",
            ".out.0123456789abcdef.cbl-tmp~",
        ];
        for name in removed.iter().chain(&kept) {
            fs::write(path(name), b"").unwrap();
        }
        // What only has such a name: a link, a pipe, a directory.
        let (link, pipe, folder) = (
            path(".out.1111111111111111.cbl-tmp"),
            path(".out.2222222222222222.cbl-tmp"),
            path(".out.3333333333333333.cbl-tmp"),
        );
        symlink("out.tmp", &link).unwrap();
        let name = std::ffi::CString::new(pipe.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: the path ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        fs::create_dir(&folder).unwrap();
        // One that is being written.
        let target = path("out");
        let other = OutputFile::create(&target, Existing::Replace, Readers::Owner).unwrap();
        assert!(removed.iter().all(|name| !path(name).exists()));
        write(&target, Existing::Replace, b"content").unwrap();
        assert!(other.temporary().exists());
        assert!(kept.iter().all(|name| path(name).exists()));
        assert!(link.is_symlink() && pipe.exists() && folder.exists());
        other.commit().unwrap();
        assert_eq!(entries(directory.path()), kept.len() + 3 + 1);
    }
}

/// Writers that begin, end and clean up in each other's way: all succeed, and readers always find one
/// whole file.
#[test]
fn many_writers_of_one_file_do_not_disturb_each_other() {
    const ROUNDS: u8 = 100;
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("out");
    let content = |writer: u8, round: u8| [writer, round].repeat(2000);
    write(&target, Existing::Keep, &content(9, 0)).unwrap();
    let writing = std::sync::atomic::AtomicUsize::new(4);
    let reads = std::thread::scope(|scope| {
        for writer in 0..4 {
            let (target, writing) = (&target, &writing);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    write(target, Existing::Replace, &content(writer, round)).unwrap();
                }
                writing.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            });
        }
        let mut reads = 0;
        while writing.load(std::sync::atomic::Ordering::Relaxed) > 0 {
            let found = fs::read(&target).unwrap();
            assert_eq!(found, content(found[0], found[1]));
            reads += 1;
        }
        reads
    });
    println!("| reads while 4 threads write {ROUNDS} times each | {reads}, all whole |");
    assert_eq!(entries(directory.path()), 1);
}
