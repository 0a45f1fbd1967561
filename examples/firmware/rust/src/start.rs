//! From reset to `main`: the stack, initial values of variables, the floating-point unit.

use core::arch::global_asm;

#[cfg(target_arch = "arm")]
global_asm!(
    ".section .vectors, \"a\"",
    ".word stack_end",
    ".word start",
    // Whatever goes wrong ends in `fault`.
    ".rept 14",
    ".word fault",
    ".endr",
    ".text",
    ".global start",
    ".type start, %function",
    ".thumb_func",
    "start:",
    // CPACR: full access to the floating-point unit.
    "ldr r0, =0xE000ED88",
    "ldr r1, [r0]",
    "orr r1, r1, #0xF00000",
    "str r1, [r0]",
    "dsb",
    "isb",
    "ldr r0, =data_start",
    "ldr r1, =data_end",
    "ldr r2, =data_source",
    "0: cmp r0, r1",
    "bhs 1f",
    "ldr r3, [r2], #4",
    "str r3, [r0], #4",
    "b 0b",
    "1: ldr r0, =bss_start",
    "ldr r1, =bss_end",
    "movs r2, #0",
    "2: cmp r0, r1",
    "bhs 3f",
    "str r2, [r0], #4",
    "b 2b",
    "3: bl main",
    ".pool",
);

#[cfg(target_arch = "riscv32")]
global_asm!(
    ".section .vectors, \"ax\"",
    ".global start",
    "start:",
    "la sp, stack_end",
    "la t0, fault",
    "csrw mtvec, t0",
    "la t0, data_start",
    "la t1, data_end",
    "la t2, data_source",
    "0: bgeu t0, t1, 1f",
    "lw t3, 0(t2)",
    "sw t3, 0(t0)",
    "addi t0, t0, 4",
    "addi t2, t2, 4",
    "j 0b",
    "1: la t0, bss_start",
    "la t1, bss_end",
    "2: bgeu t0, t1, 3f",
    "sw zero, 0(t0)",
    "addi t0, t0, 4",
    "j 2b",
    "3: call main",
);
