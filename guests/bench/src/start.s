// Reset and exception vectors of the bench guest, at EL1 with the MMU off.
//
// No handler saves a register. Exceptions come only inside the measured blocks of machine.rs, which give x9-x15 away:
// x9 CNTVCT_EL0 at the entry, x10 INTID, x11 interrupts taken, x12 GICC, x13 the handler, x14 deadline, x15 period.

.section .text.head, "ax"
.global _start
_start:                             // arm64 Linux Image header (Documentation/arch/arm64/booting.rst)
    b       reset
    .word   0
    .quad   0x80000                 // text_offset
    .quad   image_size
    .quad   0b0010                  // little-endian, 4 KiB pages
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .word   0

reset:
    adrp    x1, stack_top
    add     x1, x1, :lo12:stack_top
    mov     sp, x1
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     VBAR_EL1, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    b       measure_all

.balign 0x800
vectors:
    .rept 4
    b       .                       // SP_EL0 is never selected
    .balign 0x80
    .endr
    mrs     x0, ELR_EL1             // synchronous: something that this machine does not have
    add     x0, x0, #4
    msr     ELR_EL1, x0
    mov     x0, #-1                 // what PSCI says then: NOT_SUPPORTED
    eret
    .balign 0x80
    mrs     x9, CNTVCT_EL0          // IRQ
    br      x13
    .rept 10
    .balign 0x80
    b       .
    .endr

.macro acknowledge version          // x10
    .if \version == 3
    mrs     x10, ICC_IAR1_EL1
    .else
    ldr     w10, [x12, #0xc]        // GICC_IAR
    .endif
.endm

.macro finish version
    .if \version == 3
    msr     ICC_EOIR1_EL1, x10
    .else
    str     w10, [x12, #0x10]       // GICC_EOIR
    .endif
    add     x11, x11, #1
    eret
.endm

.macro handlers version
.global once_v\version
.global tick_v\version
once_v\version:                     // takes one interrupt; the timer's goes off
    acknowledge \version
    msr     CNTV_CTL_EL0, xzr
    finish  \version
tick_v\version:                     // takes a tick of the timer and arms the next
    acknowledge \version
    add     x14, x14, x15
    msr     CNTV_CVAL_EL0, x14
    finish  \version
.endm

    handlers 2
    handlers 3
