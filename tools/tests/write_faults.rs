//! Faults while a model file is written: whatever happens, the target is absent, what it was, or
//! complete.
//!
//! `strace` makes chosen system calls of the binary fail or kill it. Where it, or the right to mount,
//! is missing, a test says on standard error that it was not run.
#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::Model;
use tempfile::{TempDir, tempdir};

const BINARY: &str = env!("CARGO_BIN_EXE_cerebellum");
const OLD: &[u8] = b"what was there before";
const SIGKILL: i32 = 9;

/// Every system call that changes what is on the disk.
const CALLS: &str = "write,pwrite64,writev,ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat";
/// Writes that an error message takes, at most.
const MESSAGE_WRITES: usize = 8;
/// Calls that create and close what the others work on.
const OPENING: &str = "openat,fchmod";

/// Says that a test was not run, past the harness, which would keep it to itself.
fn not_run(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** NOT RUN: {test}: {why} ***");
}

fn works(command: &str, arguments: &[&str]) -> bool {
    Command::new(command).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn can_trace(test: &str) -> bool {
    let works = works("strace", &["-f", "true"]);
    if !works {
        not_run(test, "strace is missing or may not trace; install the package strace");
    }
    works
}

fn can_mount(test: &str) -> bool {
    let works = works("unshare", &["-m", "mount", "-t", "tmpfs", "none", "/mnt"]);
    if !works {
        not_run(test, "mounting needs root (or run the tests under `unshare -Urm`)");
    }
    works
}

/// A small checkpoint, the file it makes, and a directory to write into.
struct Place {
    directory: TempDir,
    checkpoint: PathBuf,
    complete: Vec<u8>,
}

/// What the target may be once the quantizer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Before,
    Complete,
}

impl Place {
    fn new() -> Self {
        let directory = tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let checkpoint = directory.path().join("checkpoint");
        Model::random(97, 5, 48, 70).write(&checkpoint);
        let mut place = Self { directory, checkpoint, complete: Vec::new() };
        fs::create_dir(place.out()).unwrap();
        let output = place.quantize(&place.target()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        place.complete = fs::read(place.target()).unwrap();
        place.reset(false);
        place
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn target(&self) -> PathBuf {
        self.out().join("model.cbl")
    }

    fn arguments(&self, target: &Path) -> Vec<OsString> {
        let (checkpoint, target) = (self.checkpoint.clone().into(), target.to_owned().into());
        let words = |words: &str| words.split(' ').map(OsString::from).collect::<Vec<_>>();
        [
            words("quantize"),
            vec![checkpoint],
            words("-o"),
            vec![target],
            words("--no-calibration --force -q -t 1"),
        ]
        .concat()
    }

    fn quantize(&self, target: &Path) -> Command {
        let mut command = Command::new(BINARY);
        command.args(self.arguments(target));
        command
    }

    /// The quantizer under strace with these options.
    fn traced(&self, options: &[&str]) -> Output {
        let log = self.directory.path().join("log");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(log).args(options).arg(BINARY);
        command.args(self.arguments(&self.target())).output().unwrap()
    }

    /// How often one thread makes each of these calls, at most.
    fn calls(&self, names: &str) -> BTreeMap<String, usize> {
        let output = self.traced(&["-e", &format!("trace={names}")]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut by_thread = BTreeMap::<(String, String), usize>::new();
        for line in fs::read_to_string(self.directory.path().join("log")).unwrap().lines() {
            // A line is `<thread> <call>(<arguments>) = <result>`, or about the end of a thread.
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let Some((call, _)) = call.trim_start().split_once('(') else { continue };
            *by_thread.entry((thread.to_owned(), call.to_owned())).or_default() += 1;
        }
        let mut most = BTreeMap::new();
        for ((_, call), count) in by_thread {
            let entry = most.entry(call).or_insert(0);
            *entry = count.max(*entry);
        }
        most
    }

    /// What a writer without care would take for its own.
    fn users_file(&self) -> PathBuf {
        self.out().join("model.cbl.tmp")
    }

    /// A directory without a target, or one with an old file. What killed runs left stays.
    fn reset(&self, old: bool) {
        for path in [self.target(), self.users_file()] {
            let _ = fs::remove_file(path);
        }
        if old {
            fs::write(self.target(), OLD).unwrap();
            fs::set_permissions(self.target(), fs::Permissions::from_mode(0o640)).unwrap();
        }
    }

    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.out()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Temporary files that are left.
    fn leftovers(&self) -> Vec<String> {
        let own = [self.target(), self.users_file()];
        let others = self.entries().into_iter();
        others.filter(|name| !own.contains(&self.out().join(name))).collect()
    }

    fn state(&self, old: bool, case: &str) -> State {
        match fs::read(self.target()) {
            Err(e) => {
                assert!(!old && e.kind() == std::io::ErrorKind::NotFound, "{case}: {e}");
                State::Before
            }
            Ok(content) if content == self.complete => {
                let mode = fs::metadata(self.target()).unwrap().mode() & 0o777;
                assert!(!old || mode == 0o640, "{case}: mode {mode:o}");
                State::Complete
            }
            Ok(content) => {
                assert!(old && content == OLD, "{case}: {} bytes that are neither", content.len());
                State::Before
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// SIGKILL at every call that changes the disk. What it was writing stays, under a name that says so.
fn killed(test: &str, old: bool) {
    if !can_trace(test) {
        return;
    }
    let place = Place::new();
    let calls = place.calls(&format!("{CALLS},{OPENING}"));
    assert!(calls["write"] > 10 && calls["fsync"] >= 2, "{calls:?}");
    assert!(calls.keys().any(|call| call.starts_with("rename")), "{calls:?}");
    let (mut states, mut leftovers) = (BTreeMap::<State, usize>::new(), 0);
    for (call, count) in calls {
        for number in 1..=count {
            let case = format!("{call} {number}");
            // Each run finds what the one before has left, and one file of the user's.
            place.reset(old);
            fs::write(place.users_file(), b"the user's").unwrap();
            let inject = format!("inject={call}:signal=KILL:when={number}");
            let output = place.traced(&["-e", &format!("trace={call}"), "-e", &inject]);
            assert_eq!(output.status.signal(), Some(SIGKILL), "{case}");
            *states.entry(place.state(old, &case)).or_default() += 1;
            for name in place.leftovers() {
                let ours = name.starts_with(".model.cbl.") && name.ends_with(".cbl-tmp");
                assert!(ours, "{case} leaves {name}");
                leftovers += 1;
            }
        }
    }
    println!("| {test} | {states:?} |");
    assert!(states.len() == 2, "killed before the rename only, or after it only: {states:?}");
    // What is left does not stand in the way of the next attempt, which removes it.
    assert!(leftovers > 10, "{leftovers}");
    fs::write(place.users_file(), b"the user's").unwrap();
    assert!(place.quantize(&place.target()).output().unwrap().status.success());
    assert_eq!(place.state(old, "the next attempt"), State::Complete);
    assert_eq!(place.leftovers(), [""; 0]);
    assert_eq!(fs::read(place.users_file()).unwrap(), b"the user's");
}

#[test]
fn killed_while_writing_a_new_file() {
    killed("killed while writing a new file", false);
}

#[test]
fn killed_while_replacing_a_file() {
    killed("killed while replacing a file", true);
}

/// Every call fails once; the quantizer says so, leaves no temporary file, and never half a target.
#[test]
fn every_call_fails_once() {
    let test = "every call fails once";
    if !can_trace(test) {
        return;
    }
    let place = Place::new();
    // Replacing a file takes the most calls.
    place.reset(true);
    let calls = place.calls("write,fsync,fchmod,rename,renameat,renameat2");
    assert!(calls.contains_key("fchmod"), "{calls:?}");
    let mut states = BTreeMap::<State, usize>::new();
    for (old, (call, count)) in
        [false, true].iter().flat_map(|old| calls.iter().map(move |c| (*old, c)))
    {
        let errors: &[&str] = if call == "write" { &["ENOSPC", "EIO"] } else { &["EIO"] };
        for (error, number) in errors.iter().flat_map(|e| (1..=*count).map(move |n| (e, n))) {
            let case = format!("{call} {number}: {error}");
            place.reset(old);
            let inject = format!("inject={call}:error={error}:when={number}");
            let output = place.traced(&["-e", &format!("trace={call}"), "-e", &inject]);
            let state = place.state(old, &case);
            *states.entry(state).or_default() += 1;
            assert_eq!(place.leftovers(), [""; 0], "{case}");
            let message = text(&output.stderr);
            match output.status.code() {
                // Calls are counted by thread, and this message is the main thread's first.
                Some(1) if call == "write" && number <= MESSAGE_WRITES => {}
                Some(1) => assert!(message.contains("os error"), "{case}: {message}"),
                Some(0) => assert_eq!(state, State::Complete, "{case}: {message}"),
                _ => panic!("{case}: {}: {message}", output.status),
            }
        }
    }
    println!("| {test} | {states:?} |");
}

/// Two faults: one that ends the work, and then removing the temporary file fails, too. The message is of the
/// first one, the target is what it was, and the next run removes what is left.
#[test]
fn a_fault_while_cleaning_up_does_no_more_harm() {
    let test = "a fault while cleaning up does no more harm";
    if !can_trace(test) {
        return;
    }
    let place = Place::new();
    let calls = place.calls("write,fsync,rename");
    let (mut cases, mut left) = (0, 0);
    for (old, (call, count)) in
        [false, true].iter().flat_map(|old| calls.iter().map(move |call| (*old, call)))
    {
        // The last write is the report, and the last sync that of the directory: then the file is there.
        let before = if call == "rename" { *count } else { count - 1 };
        for number in (1..=before).step_by(1 + before / 12) {
            let case = format!("{call} {number}");
            place.reset(old);
            let fault = format!("inject={call}:error=EIO:when={number}");
            let unlink = "inject=unlink,unlinkat:error=EACCES";
            let trace = format!("trace={call},unlink,unlinkat");
            let output = place.traced(&["-e", &trace, "-e", &fault, "-e", unlink]);
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{case}: {message}");
            assert!(!message.contains("Permission denied"), "{case}: {message}");
            assert_eq!(place.state(old, &case), State::Before, "{case}");
            cases += 1;
            left += place.leftovers().len();
        }
        assert!(place.quantize(&place.target()).output().unwrap().status.success());
        assert_eq!(place.leftovers(), [""; 0], "{call}");
    }
    println!("| {test} | {cases} |");
    assert!(cases > 10 && left >= cases, "{left} files of {cases} cases");
}

/// A library whose `read` and `write` do a part of what they are asked for, as they may.
const SHORT: &str = r#"
#define _GNU_SOURCE
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
static size_t part(size_t n) { return n > 2 ? (n + 2) / 3 : n; }
ssize_t read(int fd, void *to, size_t n) { return syscall(SYS_read, fd, to, part(n)); }
ssize_t write(int fd, const void *from, size_t n) { return syscall(SYS_write, fd, from, part(n)); }
"#;

/// Reads and writes may be short: what is missing is read or written next.
#[test]
fn short_reads_and_writes_are_continued() {
    let test = "short reads and writes are continued";
    let place = Place::new();
    let source = place.directory.path().join("short.c");
    let library = place.directory.path().join("short.so");
    fs::write(&source, SHORT).unwrap();
    let arguments = ["-shared", "-fPIC", "-O1", "-o", library.to_str().unwrap()];
    if !works("gcc", &[&arguments[..], &[source.to_str().unwrap()]].concat()) {
        return not_run(test, "gcc is missing");
    }
    let report = place.out().join("report.html");
    for short in [false, true] {
        let mut command = place.quantize(&place.target());
        command.arg("--report").arg(&report);
        if short {
            command.env("LD_PRELOAD", &library);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(place.state(false, "short"), State::Complete);
        let page = fs::read(&report).unwrap();
        fs::remove_file(&report).unwrap();
        fs::write(place.out().join(if short { "short.html" } else { "whole.html" }), page).unwrap();
    }
    let [short, whole] =
        ["short.html", "whole.html"].map(|name| fs::read(place.out().join(name)).unwrap());
    assert!(short == whole, "the report was cut");
    let mut verify = Command::new(BINARY);
    verify.arg("verify").arg(place.target()).env("LD_PRELOAD", &library);
    assert!(verify.output().unwrap().status.success());
}

/// POSIX lets a write be interrupted: it is no error, and is repeated.
#[test]
fn interrupted_writes_are_repeated() {
    let test = "interrupted writes are repeated";
    if !can_trace(test) {
        return;
    }
    let place = Place::new();
    for number in 1..=place.calls("write")["write"] {
        place.reset(false);
        let inject = format!("inject=write:error=EINTR:when={number}");
        let output = place.traced(&["-e", "trace=write", "-e", &inject]);
        assert!(output.status.success(), "{number}: {}", text(&output.stderr));
        assert_eq!(place.state(false, &inject), State::Complete);
    }
}

/// A write that claims to have written a byte, and has not: reading back finds it.
#[test]
fn a_write_that_lies_is_found() {
    let test = "a write that lies is found";
    if !can_trace(test) {
        return;
    }
    let place = Place::new();
    let mut found = 0;
    let writes = place.calls("write")["write"];
    for number in 1..=writes {
        place.reset(true);
        let inject = format!("inject=write:retval=1:when={number}");
        let output = place.traced(&["-e", "trace=write", "-e", &inject]);
        assert_eq!(place.leftovers(), [""; 0], "write {number}");
        if output.status.success() {
            assert_eq!(place.state(true, &inject), State::Complete);
        } else {
            let message = text(&output.stderr);
            assert!(message.contains("read back"), "write {number}: {message}");
            assert_eq!(place.state(true, &inject), State::Before);
            found += 1;
        }
    }
    // One of them is the report on standard output.
    assert!(found > 10 && found + 2 >= writes, "{found} of {writes}");
}

/// Runs a shell script in a mount namespace of its own, with the directory, the binary and its
/// arguments as `$0`, `$1`, ...
fn in_namespace(script: &str, directory: &Path, arguments: &[OsString]) -> Output {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(directory).arg(BINARY).args(arguments);
    command.output().unwrap()
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let test = "a full disk leaves what was there";
    if !can_mount(test) {
        return;
    }
    let place = Place::new();
    assert!(place.complete.len() > 16384, "the file must not fit");
    for (old, script) in [
        (false, r#"mount -t tmpfs -o size=16k none "$0" && "$@"; code=$?; ls -A "$0"; exit $code"#),
        (
            true,
            r#"mount -t tmpfs -o size=16k none "$0" && printf old > "$0/model.cbl" && "$@"; code=$?; ls -A "$0"; cat "$0/model.cbl"; exit $code"#,
        ),
    ] {
        let output = in_namespace(script, &place.out(), &place.arguments(&place.target()));
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("No space left on device"), "{message}");
        assert_eq!(text(&output.stdout), if old { "model.cbl\nold" } else { "" });
    }
}

#[test]
fn a_read_only_file_system_is_told() {
    let test = "a read-only file system is told";
    if !can_mount(test) {
        return;
    }
    let place = Place::new();
    let script = r#"mount -t tmpfs none "$0" && mount -o remount,ro "$0" && "$@""#;
    let output = in_namespace(script, &place.out(), &place.arguments(&place.target()));
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("cannot write in") && message.contains("Read-only file system"),
        "{message}"
    );
}

/// Root may write anywhere, so for root it is `nobody` who tries.
#[test]
fn a_directory_without_permission_is_told() {
    let place = Place::new();
    place.reset(true);
    fs::set_permissions(place.out(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = place.quantize(&place.target());
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        for file in ["model.safetensors", "config.json"] {
            let readable = fs::Permissions::from_mode(0o644);
            fs::set_permissions(place.checkpoint.join(file), readable).unwrap();
        }
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", BINARY];
        if !works("setpriv", &[&nobody[..], &["--version"]].concat()) {
            let why =
                "root is not stopped by permissions, and `setpriv` cannot run the binary as nobody";
            return not_run("a directory without permission is told", why);
        }
        command = Command::new("setpriv");
        command.args(nobody).args(place.arguments(&place.target()));
    }
    let output = command.output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(
        message.contains("cannot write in") && message.contains("Permission denied"),
        "{message}"
    );
    assert_eq!(fs::read(place.target()).unwrap(), OLD);
    fs::set_permissions(place.out(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn devices_are_no_targets() {
    let place = Place::new();
    for device in ["/dev/full", "/dev/zero", "/dev/null"] {
        let before = fs::metadata(device).unwrap();
        let output = place.quantize(Path::new(device)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{device}");
        assert!(text(&output.stderr).contains("is not a regular file"), "{}", text(&output.stderr));
        assert_eq!(fs::metadata(device).unwrap().rdev(), before.rdev(), "{device} was replaced");
    }
}

#[test]
fn the_output_may_not_be_an_input() {
    let place = Place::new();
    let weights = place.checkpoint.join("model.safetensors");
    let before = fs::read(&weights).unwrap();
    fs::hard_link(&weights, place.out().join("hard")).unwrap();
    std::os::unix::fs::symlink(&weights, place.out().join("soft")).unwrap();
    let detour = place.checkpoint.join("../checkpoint/./model.safetensors");
    for target in [weights.clone(), detour, place.out().join("hard"), place.out().join("soft")] {
        let output = place.quantize(&target).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", target.display());
        assert!(text(&output.stderr).contains("is an input"), "{}", text(&output.stderr));
        assert_eq!(fs::read(&weights).unwrap(), before);
    }
}

/// Every file that `quantize` reads, and every path that leads to one.
#[test]
fn no_input_is_overwritten() {
    let place = Place::new();
    let checkpoint = place.directory.path().join("whole");
    copy_directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo"), &checkpoint);
    let inside = |name: &str| place.directory.path().join(name);
    fs::write(inside("calibration.txt"), "Once upon a time there was a king. ".repeat(400))
        .unwrap();
    fs::copy(inside("calibration.txt"), inside("text.txt")).unwrap();
    fs::write(inside("ask.txt"), "Q: {text}\nA:").unwrap();
    fs::create_dir_all(checkpoint.join("templates")).unwrap();
    fs::write(checkpoint.join("templates/own.txt"), "{text}\n").unwrap();
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"] {
        fs::write(checkpoint.join(name), "{}").unwrap();
    }
    fs::write(checkpoint.join("model.safetensors.index.json"), "{}").unwrap();
    fs::create_dir(inside("q")).unwrap();
    let mut inputs: Vec<PathBuf> = ["calibration.txt", "text.txt", "ask.txt"].map(&inside).into();
    for entry in fs::read_dir(&checkpoint)
        .unwrap()
        .chain(fs::read_dir(checkpoint.join("templates")).unwrap())
    {
        let path = entry.unwrap().path();
        let is_other =
            path.extension().is_none_or(|e| e == "md") || path.ends_with("calibration.txt");
        if path.is_file() && !is_other {
            inputs.push(path);
        }
    }
    assert!(inputs.len() >= 12, "{inputs:?}");
    let free = inside("new.cbl");
    let run = |output: &Path, report: &Path| {
        let mut command = Command::new(BINARY);
        command.arg("quantize").arg(&checkpoint).args(["--force", "-q", "-t", "1"]);
        command.arg("--calibration").arg(inside("calibration.txt"));
        command.args(["--calibration-windows", "1"]);
        command.arg("--template").arg(format!("ask={}", inside("ask.txt").display()));
        command.arg("--report-text").arg(inside("text.txt"));
        command.arg("-o").arg(output).arg("--report").arg(report).output().unwrap()
    };
    for (number, input) in inputs.iter().enumerate() {
        let before = fs::read(input).unwrap();
        let (soft, hard) = (inside(&format!("soft{number}")), inside(&format!("hard{number}")));
        std::os::unix::fs::symlink(input, &soft).unwrap();
        fs::hard_link(input, &hard).unwrap();
        let detour = inside("q/..").join(input.strip_prefix(place.directory.path()).unwrap());
        for target in [input, &soft, &hard, &detour] {
            for output in [run(target, &inside("report.html")), run(&free, target)] {
                let message = text(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{target:?}: {message}");
                assert!(message.contains("is an input of this command"), "{target:?}: {message}");
            }
        }
        assert!(fs::read(input).unwrap() == before, "{input:?} was overwritten");
        assert!(!free.exists() && !inside("report.html").exists());
    }
}

#[test]
fn two_outputs_need_two_paths() {
    let place = Place::new();
    fs::create_dir(place.out().join("q")).unwrap();
    for old in [false, true] {
        let _ = fs::remove_file(place.target());
        if old {
            fs::write(place.target(), OLD).unwrap();
        }
        for report in [place.target(), place.out().join("q/../model.cbl")] {
            let output =
                place.quantize(&place.target()).arg("--report").arg(&report).output().unwrap();
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{message}");
            assert!(message.contains("is to be written twice"), "{message}");
            assert_eq!(fs::read(place.target()).ok(), old.then(|| OLD.to_vec()));
        }
    }
}

#[test]
fn standard_output_is_refused() {
    let place = Place::new();
    for arguments in [&["-o", "-"][..], &["-o", "model.cbl", "--report", "-"]] {
        let mut command = Command::new(BINARY);
        command.arg("quantize").arg(&place.checkpoint).args(arguments).current_dir(place.out());
        let output = command.output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("cannot go to standard output"), "{message}");
        assert_eq!(place.entries(), [""; 0]);
    }
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn names_need_not_be_text() {
    let place = Place::new();
    let target = place.out().join(OsString::from_vec(b"m\xff\n.cbl".to_vec()));
    let output = place.quantize(&target).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read(&target).unwrap(), place.complete);
    let output =
        Command::new(BINARY).args([OsStr::new("verify"), target.as_os_str()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}
