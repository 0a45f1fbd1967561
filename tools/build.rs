//! Tells the binary which commit it was built from, if that is known.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Not there in a source archive, which has no commit to tell.
    let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) else { return };
    // Every commit and every change of branch is logged.
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo:rustc-env=CEREBELLUM_COMMIT={commit}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
