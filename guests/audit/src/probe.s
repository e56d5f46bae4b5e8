// The way into a probe and back. Offsets are those of `Context` in machine.rs.

.section .text.probe, "ax"
.global run_probe
run_probe:                          // x0 = context
    stp     x19, x20, [x0, #0x128]
    stp     x21, x22, [x0, #0x138]
    stp     x23, x24, [x0, #0x148]
    stp     x25, x26, [x0, #0x158]
    stp     x27, x28, [x0, #0x168]
    stp     x29, x30, [x0, #0x178]
    mov     x1, sp
    mrs     x2, VBAR_EL1
    stp     x1, x2, [x0, #0x188]
    adrp    x1, probe_vectors
    add     x1, x1, :lo12:probe_vectors
    msr     VBAR_EL1, x1            // from the ERET on
    ldr     x1, [x0, #0xf8]
    msr     SP_EL0, x1
    mov     sp, x1
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
    ldr     x30, [x0, #0xf0]
    ldp     x0, x1, [x0]
    eret

// Every exception of a probe ends here: registers into the context, and back to whoever called `run_probe`.
.balign 0x800
probe_vectors:
    .set    number, 0
    .rept   16
    .balign 0x80
    msr     TPIDR_EL1, x0
    adrp    x0, CONTEXT
    add     x0, x0, :lo12:CONTEXT
    str     x1, [x0, #0x8]
    mov     x1, #number
    b       leave
    .set    number, number + 1
    .endr

leave:                              // x0 = context, x1 = number of the vector, x0 of the probe in TPIDR_EL1
    stp     x2, x3, [x0, #0x10]
    stp     x4, x5, [x0, #0x20]
    stp     x6, x7, [x0, #0x30]
    stp     x8, x9, [x0, #0x40]
    stp     x10, x11, [x0, #0x50]
    stp     x12, x13, [x0, #0x60]
    stp     x14, x15, [x0, #0x70]
    stp     x16, x17, [x0, #0x80]
    stp     x18, x19, [x0, #0x90]
    stp     x20, x21, [x0, #0xa0]
    stp     x22, x23, [x0, #0xb0]
    stp     x24, x25, [x0, #0xc0]
    stp     x26, x27, [x0, #0xd0]
    stp     x28, x29, [x0, #0xe0]
    str     x30, [x0, #0xf0]
    mrs     x2, TPIDR_EL1
    str     x2, [x0]
    msr     TPIDR_EL1, xzr
    mrs     x2, ELR_EL1
    mrs     x3, SPSR_EL1
    stp     x2, x3, [x0, #0x100]
    mrs     x2, ESR_EL1
    mrs     x3, FAR_EL1
    stp     x2, x3, [x0, #0x110]
    str     x1, [x0, #0x120]
    ldp     x2, x3, [x0, #0x188]
    mov     sp, x2
    msr     VBAR_EL1, x3
    isb
    ldp     x19, x20, [x0, #0x128]
    ldp     x21, x22, [x0, #0x138]
    ldp     x23, x24, [x0, #0x148]
    ldp     x25, x26, [x0, #0x158]
    ldp     x27, x28, [x0, #0x168]
    ldp     x29, x30, [x0, #0x178]
    ret
