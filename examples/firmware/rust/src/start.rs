//! From reset to `main`.

use core::arch::global_asm;

#[cfg(target_arch = "arm")]
global_asm!(include_str!("../../boards/start-arm.s"));
#[cfg(target_arch = "riscv32")]
global_asm!(include_str!("../../boards/start-riscv.s"));
