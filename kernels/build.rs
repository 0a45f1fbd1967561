//! Which multiply-add a target without an operating system has, which the compiler does not tell the source.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(vfma)");
    let target = std::env::var("TARGET").unwrap_or_default();
    // Cortex-M with a floating-point unit: FPv4-SP at least.
    if target.starts_with("thumb") && target.ends_with("-none-eabihf") {
        println!("cargo:rustc-cfg=vfma");
    }
}
