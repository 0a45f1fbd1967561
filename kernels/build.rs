//! What processors of a target without an operating system have, which the compiler does not tell the source.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(dsp, fmadd, vfma)");
    let target = std::env::var("TARGET").unwrap_or_default();
    // Cortex-M with a floating-point unit: FPv4-SP at least.
    if target.starts_with("thumb") && target.ends_with("-none-eabihf") {
        println!("cargo:rustc-cfg=vfma");
        // Those of Armv8-M may lack it.
        if target.starts_with("thumbv7em-") {
            println!("cargo:rustc-cfg=dsp");
        }
    }
    // RISC-V with a floating-point unit: its name has the letter F, or G for all that is general.
    let letters =
        target.split('-').next().and_then(|name| name.strip_prefix("riscv")).unwrap_or_default();
    if letters.contains(['f', 'g']) && target.contains("-none-") {
        println!("cargo:rustc-cfg=fmadd");
    }
}
