//! What `--version` tells.

use cerebellum::kernels::Isa;

/// Version, commit, and what this processor can do.
pub fn long() -> String {
    let commit = option_env!("CEREBELLUM_COMMIT").map(|commit| format!(" ({commit})"));
    let isas: Vec<_> = Isa::available().map(Isa::name).collect();
    format!(
        "{}{}\ntarget: {}-{}\ninstruction sets: {}",
        env!("CARGO_PKG_VERSION"),
        commit.unwrap_or_default(),
        std::env::consts::ARCH,
        std::env::consts::OS,
        isas.join(", "),
    )
}
