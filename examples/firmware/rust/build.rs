//! Links for the board that `BOARD` names: a script in `examples/firmware/boards`.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=BOARD");
    println!("cargo:rerun-if-changed=../boards");
    let target = env::var("TARGET").expect("cargo says for which target");
    let board = env::var("BOARD").unwrap_or_else(|_| {
        let board = match target.as_str() {
            "thumbv7em-none-eabihf" => "mps2-an500",
            "thumbv8m.main-none-eabihf" => "mps3-an547",
            _ => "virt",
        };
        board.to_owned()
    });
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
    println!("cargo:rustc-link-search={}", boards.display());
    println!("cargo:rustc-link-arg-bins=-T{board}.ld");
}
