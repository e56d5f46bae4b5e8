// Exception vectors and the way to EL0 and back. Exceptions are taken on SP_EL1, whatever ran.

.macro vector number
    .balign 0x80
    sub     sp, sp, #{FRAME}
    stp     x0, x1, [sp]
    mov     x0, #\number
    b       save_and_call
.endm

.section .text.vectors, "ax"
.balign 0x800
.global kit_vectors
kit_vectors:
    vector 0
    vector 1
    vector 2
    vector 3
    vector 4
    vector 5
    vector 6
    vector 7
    vector 8
    vector 9
    vector 10
    vector 11
    vector 12
    vector 13
    vector 14
    vector 15

save_and_call:                      // a Frame at sp, which has x0 and x1; x0 = number of the vector
    stp     x2, x3, [sp, #0x10]
    stp     x4, x5, [sp, #0x20]
    stp     x6, x7, [sp, #0x30]
    stp     x8, x9, [sp, #0x40]
    stp     x10, x11, [sp, #0x50]
    stp     x12, x13, [sp, #0x60]
    stp     x14, x15, [sp, #0x70]
    stp     x16, x17, [sp, #0x80]
    stp     x18, x19, [sp, #0x90]
    stp     x20, x21, [sp, #0xa0]
    stp     x22, x23, [sp, #0xb0]
    stp     x24, x25, [sp, #0xc0]
    stp     x26, x27, [sp, #0xd0]
    stp     x28, x29, [sp, #0xe0]
    mrs     x1, SP_EL0
    stp     x30, x1, [sp, #0xf0]
    mrs     x1, ELR_EL1
    mrs     x2, SPSR_EL1
    stp     x1, x2, [sp, #0x100]
    mrs     x1, ESR_EL1
    mrs     x2, FAR_EL1
    stp     x1, x2, [sp, #0x110]
    str     x0, [sp, #0x120]
    mov     x0, sp
    bl      kit_exception
    mov     x0, sp
    add     sp, sp, #{FRAME}        // masked: nothing can be taken on the stack before the ERET

restore:                            // x0 = Frame
    ldp     x30, x1, [x0, #0xf0]
    msr     SP_EL0, x1
    ldp     x1, x2, [x0, #0x100]
    msr     ELR_EL1, x1
    msr     SPSR_EL1, x2
    ldp     x2, x3, [x0, #0x10]
    ldp     x4, x5, [x0, #0x20]
    ldp     x6, x7, [x0, #0x30]
    ldp     x8, x9, [x0, #0x40]
    ldp     x10, x11, [x0, #0x50]
    ldp     x12, x13, [x0, #0x60]
    ldp     x14, x15, [x0, #0x70]
    ldp     x16, x17, [x0, #0x80]
    ldp     x18, x19, [x0, #0x90]
    ldp     x20, x21, [x0, #0xa0]
    ldp     x22, x23, [x0, #0xb0]
    ldp     x24, x25, [x0, #0xc0]
    ldp     x26, x27, [x0, #0xd0]
    ldp     x28, x29, [x0, #0xe0]
    ldp     x0, x1, [x0]
    eret

.global kit_enter_el0
kit_enter_el0:                      // x0 = Frame to run, x1 = where to keep the stack pointer; returns by kit_leave_el0
    msr     DAIFSet, #0xf
    stp     x19, x20, [sp, #-0x60]!
    stp     x21, x22, [sp, #0x10]
    stp     x23, x24, [sp, #0x20]
    stp     x25, x26, [sp, #0x30]
    stp     x27, x28, [sp, #0x40]
    stp     x29, x30, [sp, #0x50]
    mov     x2, sp
    str     x2, [x1]
    b       restore

.global kit_leave_el0
kit_leave_el0:                      // x0 = the stack pointer kept
    mov     sp, x0
    ldp     x21, x22, [sp, #0x10]
    ldp     x23, x24, [sp, #0x20]
    ldp     x25, x26, [sp, #0x30]
    ldp     x27, x28, [sp, #0x40]
    ldp     x29, x30, [sp, #0x50]
    ldp     x19, x20, [sp], #0x60
    ret
