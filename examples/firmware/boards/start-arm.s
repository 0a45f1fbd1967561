/* From reset to `main` on Cortex-M: the floating-point unit, initial values of variables. Faults end in `fault`. */
    .syntax unified
    .section .vectors, "a"
    .word stack_end
    .word start
    .rept 14
    .word fault
    .endr

    .text
    .thumb
    .global start
    .type start, %function
    .thumb_func
start:
    /* CPACR: full access to the floating-point unit. */
    ldr r0, =0xE000ED88
    ldr r1, [r0]
    orr r1, r1, #0xF00000
    str r1, [r0]
    dsb
    isb
    ldr r0, =data_start
    ldr r1, =data_end
    ldr r2, =data_source
0:  cmp r0, r1
    bhs 1f
    ldr r3, [r2], #4
    str r3, [r0], #4
    b 0b
1:  ldr r0, =bss_start
    ldr r1, =bss_end
    movs r2, #0
2:  cmp r0, r1
    bhs 3f
    str r2, [r0], #4
    b 2b
3:  bl main
    .pool
