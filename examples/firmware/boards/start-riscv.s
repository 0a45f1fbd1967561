/* From reset to `main` on RISC-V: the stack, access to the floating-point unit where there is one, initial values of
 * variables. Traps end in `fault`. */
    .section .vectors, "ax"
    .global start
start:
    la sp, stack_end
    la t0, fault
    csrw mtvec, t0
    li t0, 0x2000
    csrs mstatus, t0
    la t0, data_start
    la t1, data_end
    la t2, data_source
0:  bgeu t0, t1, 1f
    lw t3, 0(t2)
    sw t3, 0(t0)
    addi t0, t0, 4
    addi t2, t2, 4
    j 0b
1:  la t0, bss_start
    la t1, bss_end
2:  bgeu t0, t1, 3f
    sw zero, 0(t0)
    addi t0, t0, 4
    j 2b
3:  call main
