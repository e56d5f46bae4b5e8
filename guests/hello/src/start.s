// Reset and exception vectors of hello, at EL1 with the MMU off.

.section .text.head, "ax"
.global _start
_start:                             // arm64 Linux Image header (Documentation/arch/arm64/booting.rst)
    b       reset
    .word   0
    .quad   0x80000                 // text_offset from the base of RAM
    .quad   image_size              // stacks included
    .quad   0b0010                  // little-endian, 4 KiB pages
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .word   0

reset:                              // x0 = device tree, not used
    adrp    x1, bss_start
    add     x1, x1, :lo12:bss_start
    adrp    x2, bss_end
    add     x2, x2, :lo12:bss_end
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16
    b       1b
2:  mov     x19, #0
    b       enter

.global secondary_start
secondary_start:                    // x0 = context ID of CPU_ON = CPU number, 1 to 7
    mov     x19, x0

enter:                              // x19 = CPU number; CPU n has the n-th 4 KiB from the top
    adrp    x1, stacks_end
    add     x1, x1, :lo12:stacks_end
    lsl     x2, x19, #12
    sub     sp, x1, x2
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     VBAR_EL1, x1
    isb
    mov     x29, #0
    mov     x30, #0
    mov     x0, x19
    cbz     x19, 1f
    b       secondary
1:  b       primary

.macro vector target
    .balign 0x80
    b       \target
.endm

.section .text.vectors, "ax"
.balign 0x800
vectors:
    .rept 5                         // current EL with SP_EL0: all four, then current EL with SP_ELx: synchronous
    vector  unexpected
    .endr
    vector  irq_entry
    .rept 10                        // FIQ, SError; lower EL: nothing runs there
    vector  unexpected
    .endr

irq_entry:                          // what a Rust function may change, and where to go back to
    sub     sp, sp, #0xb0
    stp     x0, x1, [sp, #0x00]
    stp     x2, x3, [sp, #0x10]
    stp     x4, x5, [sp, #0x20]
    stp     x6, x7, [sp, #0x30]
    stp     x8, x9, [sp, #0x40]
    stp     x10, x11, [sp, #0x50]
    stp     x12, x13, [sp, #0x60]
    stp     x14, x15, [sp, #0x70]
    stp     x16, x17, [sp, #0x80]
    stp     x18, x30, [sp, #0x90]
    bl      interrupt
    ldp     x18, x30, [sp, #0x90]
    ldp     x16, x17, [sp, #0x80]
    ldp     x14, x15, [sp, #0x70]
    ldp     x12, x13, [sp, #0x60]
    ldp     x10, x11, [sp, #0x50]
    ldp     x8, x9, [sp, #0x40]
    ldp     x6, x7, [sp, #0x30]
    ldp     x4, x5, [sp, #0x20]
    ldp     x2, x3, [sp, #0x10]
    ldp     x0, x1, [sp, #0x00]
    add     sp, sp, #0xb0
    eret

unexpected:
    mrs     x0, ESR_EL1
    mrs     x1, ELR_EL1
    mrs     x2, FAR_EL1
    b       exception
