//! Nothing that the tools need may reach the device.

use std::collections::BTreeSet;
use std::process::Command;

/// Names of the packages that a build of the runtime pulls in, procedural macros included.
fn tree(options: &[&str]) -> BTreeSet<String> {
    tree_of("cerebellum", options)
}

fn tree_of(package: &str, options: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", package, "--edges", "normal"])
        .args(["--prefix", "none", "--format", "{lib}"])
        .args(options)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are text");
    names.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// Packages of the workstation side.
const TOOLS: [&str; 10] = [
    "blake3",
    "cerebellum_tools",
    "clap",
    "ctrlc",
    "gemm_common",
    "indicatif",
    "proptest",
    "ring",
    "rustls",
    "ureq",
];

#[test]
fn token_id_library_has_a_closed_list_of_dependencies() {
    let allowed = [
        // What the runtime names, and serde's derive.
        "cerebellum",
        "cerebellum_kernels",
        "half",
        "memmap2",
        "serde",
        "serde_derive",
        "serde_json",
        "thiserror",
        "thiserror_impl",
        // What those bring: numbers as text, casts.
        "cfg_if",
        "itoa",
        "libc",
        "memchr",
        "proc_macro2",
        "quote",
        "serde_core",
        "syn",
        "unicode_ident",
        "zerocopy",
        "zerocopy_derive",
        "zmij",
    ];
    let surplus: Vec<_> = tree(&["--no-default-features", "--features", "std"])
        .into_iter()
        .filter(|name| !allowed.contains(&name.as_str()))
        .collect();
    assert!(surplus.is_empty(), "new in the device's dependency tree: {surplus:?}");
}

/// `libm` has what the standard library has elsewhere: square roots, a fused multiply-add in binary64.
#[test]
fn without_an_operating_system_there_is_nothing_that_needs_one() {
    let bare = ["--no-default-features", "--features", "text", "--target", "thumbv7em-none-eabihf"];
    let (bare, hosted) = (tree(&bare), tree(&["--no-default-features", "--features", "std"]));
    let new: Vec<_> = bare.difference(&hosted).cloned().collect();
    assert_eq!(new, ["libm"]);
    for name in ["getrandom", "libc", "memmap2", "rustix", "tempfile"] {
        assert!(!bare.contains(name), "{name} reaches bare metal");
    }
}

#[test]
fn text_brings_nothing_of_the_tools() {
    let with_text = tree(&[]);
    assert!(with_text.contains("serde_json"), "{with_text:?}");
    for tool in TOOLS {
        assert!(!with_text.contains(tool), "{tool} reaches the runtime");
    }
    for name in
        ["rayon", "tokenizers", "regex", "unicode_normalization_alignments", "unicode_segmentation"]
    {
        assert!(!with_text.contains(name), "{name} reaches the runtime");
    }
}

#[test]
fn chat_brings_its_engine_alone() {
    let with_chat = tree(&["--features", "chat"]);
    let new: Vec<_> = with_chat.difference(&tree(&[])).cloned().collect();
    assert_eq!(new, ["minijinja", "minijinja_contrib"]);
}

/// `cargo demo` asks no network, and is not to compile TLS.
#[test]
fn only_the_hub_brings_a_network() {
    let network = ["ring", "rustls", "ureq"];
    let with_hub = tree_of("cerebellum-tools", &[]);
    let without = tree_of("cerebellum-tools", &["--no-default-features"]);
    for name in network {
        assert!(with_hub.contains(name), "{name}");
        assert!(!without.contains(name), "{name} is compiled for the demo");
    }
    let aliases = include_str!("../.cargo/config.toml");
    assert!(aliases.contains("--package cerebellum-tools --no-default-features"), "{aliases}");
}
